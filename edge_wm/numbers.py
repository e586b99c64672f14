"""The Python door to the compiled kernels.

Each function here checks its arguments and says in words what is wrong with them; the compiled
module, which assumes that all is right, does the work. Where edge-wm was not compiled, numpy
does it.

The invariant: both give the same bits, so that a recording does not depend on which one ran.
`NATIVE` says which it is; recordings and `edge-wm doctor` name it.
"""

from __future__ import annotations

import numpy as np

from edge_wm.errors import UsageError
from edge_wm.types import Bool, Float32

try:
    from edge_wm._native import nonfinite_rows as _nonfinite_rows

    NATIVE = True
except ImportError:  # not compiled, or for another Python: `edge-wm doctor` says so
    NATIVE = False

    def _nonfinite_rows(values: Float32) -> Bool:
        return nonfinite_rows_plain(values)


def nonfinite_rows(values: Float32) -> Bool:
    """Which rows hold a NaN or an infinity.

    values: (K, N) float32, C-contiguous. Returns (K,) bool; a row without columns is finite.

    Raises UsageError if `values` is anything else: converting here would hide a copy of a large
    array in every step of a rollout.
    """
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.ndim != 2:
        found = (
            f"{values.dtype} of shape {values.shape}"
            if isinstance(values, np.ndarray)
            else type(values).__name__
        )
        raise UsageError(
            f"nonfinite_rows: values must be a (K, N) float32 array, got {found}; "
            "reshape or convert it once, where it is made"
        )
    if not values.flags.c_contiguous:
        raise UsageError(
            f"nonfinite_rows: values must be C-contiguous, got shape {values.shape} with strides "
            f"{values.strides} bytes; pass np.ascontiguousarray(values)"
        )
    return _nonfinite_rows(values)


def nonfinite_rows_plain(values: Float32) -> Bool:
    """The same in numpy: what runs where edge-wm is not compiled, and what tests compare with."""
    return np.logical_not(np.isfinite(values).all(axis=1))
