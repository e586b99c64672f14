"""ament_python package of files only: what launches, shows and guards a robot's processes."""

from glob import glob

from setuptools import setup

SHARE = "share/edge_wm_bringup"
FOLDERS = ("launch", "config", "rviz", "foxglove", "systemd", "security")

setup(
    name="edge_wm_bringup",
    version="0.1.0",
    packages=["edge_wm_bringup"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/edge_wm_bringup"]),
        (SHARE, ["package.xml"]),
        *((f"{SHARE}/{folder}", sorted(glob(f"{folder}/*.*"))) for folder in FOLDERS),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="edge-wm",
    maintainer_email="maintainers@edge-wm.invalid",
    description="Launch files, parameters and layouts for robots that run edge-wm",
    license="Apache-2.0",
)
