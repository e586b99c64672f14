"""The compiled kernels and their Python door, edge_wm/numbers.py: held against numpy and math."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_wm import numbers
from edge_wm.errors import UsageError

# Bit patterns on both sides of "the exponent is all ones", with either sign.
FINITE = [0x00000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF]
NONFINITE = [0x7F800000, 0x7F800001, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF]
SIGN = 0x80000000


def floats(*bits: int) -> np.ndarray:
    return np.array(bits, dtype=np.uint32).view(np.float32)


def by_hand(values: np.ndarray) -> list[bool]:
    return [any(not math.isfinite(float(v)) for v in row) for row in values]


IMPLEMENTATIONS = [
    pytest.param(numbers.nonfinite_rows_plain, id="numpy"),
    pytest.param(
        numbers.nonfinite_rows,
        id="compiled",
        marks=pytest.mark.skipif(not numbers.NATIVE, reason="edge_wm._native is not compiled"),
    ),
]
both = pytest.mark.parametrize("nonfinite_rows", IMPLEMENTATIONS)


@both
@pytest.mark.parametrize("bits", FINITE + [b | SIGN for b in FINITE], ids=hex)
def test_finite_bit_patterns_pass(nonfinite_rows, bits):
    assert nonfinite_rows(floats(bits).reshape(1, 1)).tolist() == [False]


@both
@pytest.mark.parametrize("bits", NONFINITE + [b | SIGN for b in NONFINITE], ids=hex)
def test_nonfinite_bit_patterns_are_found(nonfinite_rows, bits):
    assert nonfinite_rows(floats(bits).reshape(1, 1)).tolist() == [True]


@both
@pytest.mark.parametrize("columns", [*range(1, 36), 64, 69])
def test_one_nan_is_found_at_every_position_and_only_in_its_row(nonfinite_rows, columns):
    for position in range(columns):
        values = np.ones((3, columns), np.float32)
        values[1, position] = np.nan
        assert nonfinite_rows(values).tolist() == [False, True, False]


@both
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0)])
def test_empty(nonfinite_rows, shape):
    found = nonfinite_rows(np.zeros(shape, np.float32))
    assert found.dtype == np.bool_
    assert found.tolist() == [False] * shape[0]


@both
@given(
    arrays.arrays(
        np.uint32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.sampled_from(FINITE + NONFINITE) | st.integers(0, 2**32 - 1),
    )
)
def test_any_bits(nonfinite_rows, bits):
    values = bits.view(np.float32)
    assert nonfinite_rows(values).tolist() == by_hand(values)


MATRIX = np.zeros((4, 6), np.float32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            MATRIX[:, ::2],
            "nonfinite_rows: values must be C-contiguous, got shape (4, 3) with strides (24, 8) "
            "bytes; pass np.ascontiguousarray(values)",
        ),
        (
            MATRIX.T,
            "nonfinite_rows: values must be C-contiguous, got shape (6, 4) with strides (4, 24) "
            "bytes; pass np.ascontiguousarray(values)",
        ),
        (
            MATRIX.astype(np.float64),
            "nonfinite_rows: values must be a (K, N) float32 array, got float64 of shape (4, 6); "
            "reshape or convert it once, where it is made",
        ),
        (
            MATRIX[0],
            "nonfinite_rows: values must be a (K, N) float32 array, got float32 of shape (6,); "
            "reshape or convert it once, where it is made",
        ),
        (
            MATRIX.astype(">f4"),
            "nonfinite_rows: values must be a (K, N) float32 array, got >f4 of shape (4, 6); "
            "reshape or convert it once, where it is made",
        ),
        (
            [[1.0]],
            "nonfinite_rows: values must be a (K, N) float32 array, got list; "
            "reshape or convert it once, where it is made",
        ),
    ],
    ids=["strided", "transposed", "float64", "one axis", "big-endian", "list"],
)
def test_refused(values, message):
    with pytest.raises(UsageError) as error:
        numbers.nonfinite_rows(values)
    assert str(error.value) == message


@pytest.mark.skipif(not numbers.NATIVE, reason="edge_wm._native is not compiled")
@pytest.mark.parametrize("values", [MATRIX[:, ::2], MATRIX.T, MATRIX.astype(np.float64)])
def test_the_binding_refuses_by_itself_what_it_would_have_to_copy(values):
    from edge_wm import _native

    with pytest.raises(TypeError):
        _native.nonfinite_rows(values)


@pytest.mark.skipif(not numbers.NATIVE, reason="edge_wm._native is not compiled")
def test_the_binding_refuses_another_number_of_axes():
    from edge_wm import _native

    with pytest.raises(ValueError, match=r"^nonfinite_rows: values must have 2 axes$"):
        _native.nonfinite_rows(np.zeros(3, np.float32))


def test_without_the_compiled_module_numpy_does_it():
    program = (
        "import sys; sys.modules['edge_wm._native'] = None\n"
        "import numpy as np\n"
        "from edge_wm import numbers\n"
        "assert not numbers.NATIVE\n"
        "assert numbers.nonfinite_rows(np.float32([[1, np.nan], [1, 2]])).tolist() == [True, False]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
