"""The wheel: built from this checkout, it carries the compiled module and what edge-wm ships."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here to compile with"),
    pytest.mark.skipif(
        importlib.util.find_spec("scikit_build_core") is None,
        reason="scikit-build-core is not installed; scripts/setup.sh test installs it",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder into which the wheel was unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    build += ["--no-index", "--disable-pip-version-check", "--wheel-dir", str(folder)]
    build += [f"--config-settings=build-dir={folder / 'build'}", str(REPOSITORY)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(build, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("edge_wm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_an_installed_edge_wm_finds_what_it_ships(site):
    program = f"""
import sys
sys.path += [{str(site)!r}, {sysconfig.get_path("platlib")!r}]
import json
from edge_wm import numbers, shipped
print(json.dumps([numbers.NATIVE, numbers.__file__, str(shipped.folder("robots")),
                  str(shipped.folder("zoo"))]))
"""
    # -I -S: neither this checkout nor the hook of an editable installation is in the way.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, cwd=site
    )
    assert done.returncode == 0, done.stderr
    native, module, robots, zoo = json.loads(done.stdout)
    assert native
    assert Path(module).is_relative_to(site)
    for folder, patterns in ((robots, ["*.yaml"]), (zoo, ["**/*.wmb", "**/row.yaml"])):
        assert Path(folder).is_relative_to(site)
        ours = REPOSITORY / Path(folder).name
        shipped = {path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()}
        expected = {path.relative_to(ours) for each in patterns for path in ours.glob(each)}
        assert shipped == expected != set()


def test_every_data_file_of_the_package_is_in_it(site):
    ours = {
        path.relative_to(REPOSITORY)
        for path in (REPOSITORY / "edge_wm").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so")
    }
    assert ours <= {path.relative_to(site) for path in site.rglob("*")}


def test_nothing_but_the_package_is_in_it(site):
    names = {path.name for path in site.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {
        "edge_wm",
        "firmware_bridge",
    }
    (module,) = (path.name for path in (site / "edge_wm").glob("*.so"))
    assert sys.implementation.cache_tag in module
