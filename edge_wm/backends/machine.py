"""What this machine is to a measurement, and where its findings are kept.

A time, a passed trial or a compiled engine holds for one processor, driver and library version.
All of them lie in the user's cache folder under names that say so: on another machine, or after
an update, the name is another one and nothing old is found.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path


def cache_folder() -> Path | None:
    """`$EDGE_WM_CACHE`, or edge-wm's folder in the user's cache; None where that is no place."""
    folder = os.environ.get("EDGE_WM_CACHE")
    if not folder:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(cache, "edge-wm")
    return Path(folder) if os.path.isabs(folder) else None


def processor() -> str:
    """The first processor as Linux describes it: model and features, not its momentary speed."""
    text = _text(Path("/proc/cpuinfo"))
    if not text:
        return platform.processor()
    first = text.split("\n\n")[0].splitlines()
    return "\n".join(line for line in first if "MHz" not in line and "mips" not in line.lower())


def driver(root: Path = Path("/")) -> str:
    """The GPU's driver and the board it sits on; "" where there is none."""
    files = ("proc/driver/nvidia/version", "etc/nv_tegra_release", "proc/device-tree/model")
    return "\n".join(text for text in (_text(root / file) for file in files) if text)


def engine_folder(version: str) -> Path | None:
    """Where TensorRT keeps its engines for this device, driver and onnxruntime; made if absent."""
    folder = cache_folder()
    if folder is None:
        return None
    key = hashlib.sha256("\n".join([processor(), driver(), version]).encode()).hexdigest()
    engines = folder / "engines" / key[:32]
    try:
        engines.mkdir(parents=True, exist_ok=True)
    except OSError:  # then they are built at every start
        return None
    return engines


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""
