"""How the compiled `nonfinite` compares with numpy: `make bench` shows the ratio in brackets."""

from __future__ import annotations

import numpy as np
import pytest

from edge_wm import numbers


@pytest.mark.parametrize("shape", [(128, 2), (128, 64), (128, 69), (1536, 64)], ids=str)
@pytest.mark.parametrize("how", ["compiled", "numpy"])
def bench_nonfinite(benchmark, how, shape):
    if how == "compiled" and not numbers.NATIVE:
        pytest.skip("edge_wm._native is not compiled")
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    benchmark.group = f"nonfinite rows of {shape}"
    benchmark(numbers.nonfinite_rows if how == "compiled" else numbers.nonfinite_rows_plain, values)
