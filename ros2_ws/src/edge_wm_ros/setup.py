"""ament_python package: `colcon build` installs it, or `pip install` beside the PyPI wheels."""

from setuptools import setup

NODES = ("runtime", "guard", "bridge", "supervisor", "sim", "viz", "recorder")

setup(
    name="edge_wm_ros",
    version="0.1.0",
    packages=["edge_wm_ros"],
    package_data={"edge_wm_ros": ["fastdds_loopback.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/edge_wm_ros"]),
        ("share/edge_wm_ros", ["package.xml", "edge_wm_ros/fastdds_loopback.xml"]),
    ],
    install_requires=["setuptools", "edge-wm"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="edge-wm",
    maintainer_email="maintainers@edge-wm.invalid",
    description="edge-wm's runtime, guard and bridge as ROS 2 lifecycle nodes",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [f"wm_{n} = edge_wm_ros.{n}_node:run" for n in NODES],
    },
)
