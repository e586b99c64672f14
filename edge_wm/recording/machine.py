"""The machine class: what must be equal on two machines for the same bits to come out.

Floating-point results may differ between processors (which instruction set a library picks),
systems (libm) and library versions; they do not differ between two runs on equal ones.
"""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LIBRARIES = ("numpy", "onnxruntime", "ai-edge-litert", "tflite-runtime", "mujoco")


def machine_class(root: Path = Path("/")) -> dict[str, str]:
    """Processor, system and versions of this machine; what is unknown or absent is left out."""
    try:
        cpuinfo = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        cpuinfo = ""
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    parts = sorted(set(re.findall(r"^CPU part\s*:\s*(\S+)$", cpuinfo, re.MULTILINE)))
    facts = {
        "cpu": model.group(1) if model else "",
        "cpu_parts": " ".join(parts),
        "architecture": platform.machine(),
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        **{library: _version(library) for library in _LIBRARIES},
    }
    return {name: value for name, value in facts.items() if value}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
