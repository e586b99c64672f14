"""The compiled kernels against numpy: ten million random bit patterns, and the ratio of times."""

from __future__ import annotations

import timeit
from typing import Any

import numpy as np

from edge_wm import numbers


def nonfinite_agrees() -> dict[str, Any]:
    """Random rows, half of all values with an exponent of all ones or one below."""
    generator = np.random.Generator(np.random.Philox(1))
    rows = different = marked = 0
    for _ in range(200):
        columns = int(generator.integers(1, 130))
        bits = generator.integers(0, 2**32, (50_000 // columns, columns), dtype=np.uint32)
        near = generator.random(bits.shape) < 0.5 / columns
        bits[near] |= np.uint32(0x7F000000)
        values = bits.view(np.float32)
        mask, plain = numbers.nonfinite_rows(values), numbers.nonfinite_rows_plain(values)
        rows += len(mask)
        marked += int(mask.sum())
        different += int((mask != plain).sum())
    passed = numbers.NATIVE and different == 0 and 0 < marked < rows
    return {"passed": passed, "rows": rows, "marked": marked, "different": different}


def nonfinite_ratio() -> dict[str, Any]:
    """Median time of numpy over that of the kernel, for the rover's candidates."""
    values = np.zeros((128, 64), np.float32)

    def median_us(function: Any) -> float:
        times = timeit.repeat(lambda: function(values), number=200, repeat=51)
        return sorted(times)[25] / 200 * 1e6

    kernel, plain = median_us(numbers.nonfinite_rows), median_us(numbers.nonfinite_rows_plain)
    figures = {"kernel_us": round(kernel, 2), "numpy_us": round(plain, 2)}
    return {"passed": numbers.NATIVE, **figures, "ratio": round(plain / kernel, 2)}


PARTS = {"nonfinite_agrees": nonfinite_agrees, "nonfinite_ratio": nonfinite_ratio}
