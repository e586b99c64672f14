"""Writes the TFLite files of this folder: python tests/golden/backends/make.py"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))

from models import A, B, tflite_dense  # noqa: E402


def main() -> None:
    weights = np.hstack([A, B])
    good = tflite_dense({"z": 3, "action": 2}, "next", weights, batch=8)
    (FOLDER / "dense.tflite").write_bytes(good)
    for name, offset, old, new in (("crash", 10, 14, 8), ("greedy", 583, 0, 8)):
        mutated = bytearray(good)
        if mutated[offset] != old:
            raise SystemExit(f"byte {offset} is {good[offset]}, not {old}: another flatbuffers?")
        mutated[offset] = new
        (FOLDER / f"{name}.tflite").write_bytes(mutated)


if __name__ == "__main__":
    main()
