"""The firmware's end of the wire, compiled for this machine from its own sources."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MCU = REPOSITORY / "firmware_bridge" / "mcu"
SCHEMA = MCU / "protocol" / "edge_wire"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wconversion"]


def nunavut(language: str, out: Path) -> Path:
    """What nunavut makes of the schema."""
    subprocess.run(
        [sys.executable, "-m", "nunavut", "--target-language", language, "--outdir", out, SCHEMA],
        check=True, capture_output=True,
    )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def ends(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """tests/link/ends.c."""
    folder = tmp_path_factory.mktemp("ends")
    made = nunavut("c", folder / "c")
    headers = sorted((made / "edge_wire").glob("*.h"))
    text = "".join(f'#include "edge_wire/{header.name}"\n' for header in headers)
    (folder / "all_messages.h").write_text(text)
    # The firmware's own sources with all warnings; nunavut's headers are its authors' concern.
    library = folder / "libends.so"
    common = ["gcc", "-std=c11", "-O1", "-fPIC", f"-I{MCU / 'core'}"]
    wire = folder / "wire.o"
    subprocess.run([*common, *WARNINGS, "-c", MCU / "core" / "wire.c", "-o", wire], check=True)
    subprocess.run(
        [*common, f"-I{folder}", f"-isystem{made}", "-shared",
         Path(__file__).with_name("ends.c"), wire, "-o", library],
        check=True,
    )  # fmt: skip
    loaded = ctypes.CDLL(str(library))
    loaded.wire_crc32c.restype = ctypes.c_uint32
    loaded.wire_frame.restype = ctypes.c_size_t
    loaded.parser_feed.restype = ctypes.c_size_t
    return loaded
