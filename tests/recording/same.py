"""Exact equality of values of edge_wm: types, dtypes, shapes, order of mappings, every bit."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def assert_same(a: Any, b: Any, at: str = "") -> None:
    assert type(a) is type(b), f"{at}: {type(a)} and {type(b)}"
    if is_dataclass(a):
        for field in fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name), f"{at}.{field.name}")
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), at
        assert a.flags.c_contiguous, at
        assert b.flags.c_contiguous, at
        assert a.tobytes() == b.tobytes(), at
    elif isinstance(a, Mapping):
        assert list(a) == list(b), at
        for key in a:
            assert_same(a[key], b[key], f"{at}[{key}]")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), at
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{at}[{index}]")
    elif isinstance(a, float):
        assert struct.pack("<d", a) == struct.pack("<d", b), f"{at}: {a} and {b}"
    else:
        assert a == b, f"{at}: {a} and {b}"
