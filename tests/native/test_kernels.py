"""Every operation of step programs on every instruction set, against the plain interpreter.

Two bounds. Against the interpreter (float64, rounded): a few units in the last place, and exactly
for int8 dense layers and float32 dense layers. Between instruction sets: the same bits, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from edge_wm.backends.native import NativeGraph, kernels, packed
from edge_wm.bundle.program import (
    Attention,
    Binary,
    BinaryKind,
    Copy,
    Dense,
    Gru,
    Lookup,
    Lstm,
    Norm,
    OneHot,
    Operation,
    Patches,
    Port,
    Program,
    Reduce,
    Register,
    Rows,
    Segment,
    Select,
    Softmax,
    Unary,
    UnaryKind,
    View,
    read_program,
    write_program,
)
from tests.programs import run_program

_native = pytest.importorskip("edge_wm._native")
Array = np.ndarray
ROWS = (1, 2, 5, 6, 7, 8, 11, 48, 97)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    values = np.random.default_rng([seed, *shape]).standard_normal(shape) * scale
    return values.astype(np.float32)


def program_of(
    inputs: Sequence[int],
    outputs: Sequence[int],
    operations: Sequence[Operation],
    constants: Sequence[Array] = (),
    between: Sequence[int] = (),
    uniform: Sequence[int] = (),
) -> Program:
    """Registers in the order inputs, outputs, between; `uniform` inputs have no batch axis."""
    ports = [
        Port(tensor=f"in{i}", shape=(width,), batched=i not in uniform, register=i)
        for i, width in enumerate(inputs)
    ]
    results = [
        Port(tensor=f"out{i}", shape=(width,), batched=True, register=len(inputs) + i)
        for i, width in enumerate(outputs)
    ]
    registers = tuple(Register(width=width) for width in (*inputs, *outputs, *between))
    made = Program(tuple(ports), tuple(results), registers, tuple(operations), tuple(constants))
    return read_program(write_program(made), "program")


def feeds(program: Program, rows: int, scale: float = 1.0) -> dict[str, Array]:
    return {
        port.tensor: random(*((rows,) if port.batched else ()), *port.shape, seed=i, scale=scale)
        for i, port in enumerate(program.inputs)
    }


def run_native(program: Program, inputs: dict[str, Array], name: str) -> dict[str, Array]:
    graph = _native.Graph(packed(program, name), 48)
    arrays = [
        np.ascontiguousarray(inputs[port.tensor]).reshape(
            len(inputs[port.tensor]) if port.batched else 1, -1
        )
        for port in program.inputs
    ]
    results = graph.run(arrays)
    return {port.tensor: value for port, value in zip(program.outputs, results, strict=True)}


def check(
    program: Program, inputs: dict[str, Array], rows: int, ulps: float = 0.0, near: float = 0.0
) -> None:
    """Against the interpreter within `ulps` units in the last place and `near`; same bits on all
    instruction sets."""
    wanted = run_program(program, inputs, rows)
    first: dict[str, Array] | None = None
    for name in kernels():
        got = run_native(program, inputs, name)
        for tensor, value in wanted.items():
            unit = np.spacing(np.abs(np.where(np.isfinite(value), value, 1)))
            with np.errstate(invalid="ignore"):
                apart = np.abs(got[tensor].astype(np.float64) - value)
                good = (apart <= ulps * unit + near) | (got[tensor] == value)
            good |= np.isnan(got[tensor]) & np.isnan(value)
            assert good.all(), (name, tensor, got[tensor][~good][:4], value[~good][:4])
            if first is not None:
                same = (got[tensor].view(np.uint32) == first[tensor].view(np.uint32)) | np.isnan(
                    value
                )
                assert same.all(), (name, tensor, got[tensor][~same][:4], first[tensor][~same][:4])
        first = got if first is None else first


# ---- dense ----------------------------------------------------------------------------------
def dense_program(
    precision: str,
    parts: Sequence[int],
    size: int,
    tokens: int = 1,
    activation: Any = "none",
    uniform: Sequence[int] = (),
    spread: int = 0,
) -> Program:
    """One dense layer over `parts`; tokens lie `spread` numbers further apart than needed."""
    constants: list[Array] = []
    segments = []
    for i, k in enumerate(parts):
        weight = random(size, k, seed=10 + i, scale=k**-0.5)
        scale = None
        if precision == "int8":
            most = np.abs(weight).max(axis=1)
            constants.append((most / np.float32(127)).astype(np.float32))
            scale = len(constants) - 1
            weight = np.rint(weight / constants[-1][:, None]).astype(np.int8)
        constants.append(weight)
        at = Rows(register=i, stride=k + spread)
        segments.append(Segment(x=at, size=k, weight=len(constants) - 1, scale=scale))
    constants.append(random(size, seed=3))
    operation = Dense(
        tokens=tokens,
        size=size,
        out=Rows(register=len(parts), stride=size + spread),
        segments=tuple(segments),
        bias=len(constants) - 1,
        activation=activation,
    )
    width = (size + spread) * tokens
    fill = Copy(
        shape=(width,),
        out=View(register=len(parts), strides=(1,)),
        x=View(register=len(parts) + 1, strides=(0,)),
    )
    zero = np.zeros(1, np.float32)
    made = program_of(
        [(k + spread) * tokens for k in parts], [width], [operation], constants, (), uniform
    )
    registers = (*made.registers, Register(width=1, constant=len(constants)))
    return Program(made.inputs, made.outputs, registers, (fill, operation), (*made.constants, zero))


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("parts", "size"),
    [((1,), 1), ((3,), 17), ((16,), 16), ((64, 2, 3, 1), 128), ((129,), 65), ((512, 6), 512)],
)
def test_dense_is_exact(precision: str, rows: int, parts: tuple[int, ...], size: int) -> None:
    program = dense_program(precision, parts, size)
    check(program, feeds(program, rows), rows)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("spread", [0, 5])
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_dense_of_tokens(precision: str, spread: int, rows: int) -> None:
    program = dense_program(precision, (48,), 40, tokens=7, spread=spread)
    check(program, feeds(program, rows), rows)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("uniform", [(0,), (1,), (2,), (0, 2)])
@pytest.mark.parametrize("tokens", [1, 3])
def test_what_is_the_same_for_all_candidates_gives_the_same_bits(
    precision: str, uniform: tuple[int, ...], tokens: int
) -> None:
    program = dense_program(precision, (64, 6, 33), 96, tokens, "relu", uniform)
    check(program, feeds(program, 13), 13)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 0.0, 1e-38, 1e-31, 3e38])
def test_rows_with_special_numbers_do_not_disturb_others(special: float) -> None:
    program = dense_program("int8", (70,), 33)
    inputs = feeds(program, 9)
    inputs["in0"][4] = 0.0
    inputs["in0"][4, 13] = special
    with np.errstate(all="ignore"):
        check(program, inputs, 9)


@pytest.mark.parametrize("activation", ["relu", "elu", "silu", "mish", "tanh", "sigmoid", "gelu"])
def test_dense_with_an_activation(activation: str) -> None:
    program = dense_program("int8", (64,), 48, activation=activation)
    check(program, feeds(program, 11), 11, ulps=4, near=3e-7)


# ---- elementary functions --------------------------------------------------------------------
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-3, 20.0, 20.001, -20.0, 88.0, 88.3, 89.0, 1e4, -87.0,
     -88.0, -104.0, 1e-30, 1e-39, 3e38, -3e38, np.inf, -np.inf, np.nan, 0.625, -0.625],
    np.float32,
)  # fmt: skip
WAVES = ("sin", "cos")


@pytest.mark.parametrize("kind", get_args(UnaryKind))
def test_unary_functions(kind: Any) -> None:
    width = 300
    operation = Unary(kind=kind, tokens=1, size=width, out=Rows(register=1), x=Rows(register=0))
    program = program_of([width], [width], [operation])
    spread = np.concatenate(
        [random(150, scale=s) for s in (0.3, 3.0, 30.0)] + [SPECIAL, np.zeros(150 - len(SPECIAL))]
    ).astype(np.float32)
    inputs = {"in0": spread.reshape(2, width)}
    if kind in WAVES:
        inputs["in0"] = np.where(np.abs(spread) < 1e9, spread, 1.0).reshape(2, width)
    with np.errstate(all="ignore"):
        # erf and what is made of it are given to 3e-7 absolute; the others to units.
        near = {"erf": 3e-7, "gelu": 1.2e-6, "gelu_tanh": 1.2e-6, "tanh": 2e-7}.get(kind, 1.5e-7)
        check(program, inputs, 2, ulps=6 if kind not in ("exp", "elu") else 4, near=near)


def test_waves_of_numbers_too_large_are_not_numbers() -> None:
    program = program_of(
        [2], [2], [Unary(kind="sin", tokens=1, size=2, out=Rows(register=1), x=Rows(register=0))]
    )
    for name in kernels():
        got = run_native(program, {"in0": np.array([[2e9, np.inf]], np.float32)}, name)
        assert np.isnan(got["out0"][0, 1])


@pytest.mark.parametrize("kind", get_args(BinaryKind))
@pytest.mark.parametrize("uniform", [(), (0,), (1,)])
def test_binary_functions(kind: Any, uniform: tuple[int, ...]) -> None:
    program = program_of(
        [33, 33], [33],
        [Binary(kind=kind, shape=(33,), out=View(register=2, strides=(1,)),
                a=View(register=0, strides=(1,)), b=View(register=1, strides=(1,)))],
        uniform=uniform,
    )  # fmt: skip
    inputs = feeds(program, 4)
    for value in inputs.values():
        flat = value.reshape(-1)
        flat[: len(SPECIAL)] = np.random.default_rng(len(flat)).permutation(SPECIAL)[: len(flat)]
        flat[30] = 2.0
    with np.errstate(all="ignore"):
        check(program, inputs, 4, ulps=2 if kind == "pow" else 0)


# ---- index spaces ----------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [1, 4, 60])
def test_binary_broadcasts_over_strides(rows: int) -> None:
    """(3, 5, 7) + (5, 1) from the middle of a wider register, written transposed."""
    operation = Binary(
        kind="sub",
        shape=(3, 5, 7),
        out=View(register=2, offset=2, strides=(1, 3, 15)),
        a=View(register=0, offset=4, strides=(35, 7, 1)),
        b=View(register=1, offset=1, strides=(0, 2, 0)),
    )
    fill = Copy(shape=(110,), out=View(register=2, strides=(1,)), x=View(register=1, strides=(0,)))
    program = program_of([120, 11], [110], [fill, operation])
    check(program, feeds(program, rows), rows)


def test_narrow_columns_and_selection() -> None:
    column = View(register=0, offset=1, strides=(0,))
    operations = [
        Binary(kind="mul", shape=(1,), out=View(register=3, strides=(1,)), a=column,
               b=View(register=0, offset=2, strides=(0,))),
        Binary(kind="greater", shape=(3,), out=View(register=4, strides=(1,)),
               a=View(register=0, strides=(1,)), b=View(register=1, strides=(1,))),
        Select(shape=(3,), out=View(register=2, strides=(1,)),
               condition=View(register=4, strides=(1,)), a=View(register=0, strides=(1,)),
               b=View(register=3, strides=(0,))),
    ]  # fmt: skip
    program = program_of([3, 3], [3], operations, between=[1, 3])
    for rows in ROWS:
        check(program, feeds(program, rows), rows)


@pytest.mark.parametrize("kind", ["sum", "mean", "max", "min"])
def test_reduction_along_any_axis(kind: Any) -> None:
    along = Reduce(kind=kind, shape=(4, 37), out=View(register=1, strides=(1,)),
                   x=View(register=0, strides=(37, 1)))  # fmt: skip
    across = Reduce(kind=kind, shape=(37, 4), out=View(register=2, strides=(1,)),
                    x=View(register=0, strides=(1, 37)))  # fmt: skip
    program = program_of([148], [4, 37], [along, across])
    check(program, feeds(program, 5), 5, ulps=8, near=1e-6)


# ---- rows ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize(("tokens", "size"), [(1, 512), (1, 5), (3, 64), (7, 33)])
def test_norm(kind: Any, tokens: int, size: int) -> None:
    operation = Norm(kind=kind, tokens=tokens, size=size, out=Rows(register=1, stride=size),
                     x=Rows(register=0, stride=size), epsilon=1e-5, weight=0, bias=1,
                     activation="none")  # fmt: skip
    program = program_of(
        [tokens * size], [tokens * size], [operation], [random(size), random(size, seed=1)]
    )
    check(program, feeds(program, 6), 6, ulps=16, near=2e-6)


@pytest.mark.parametrize(("tokens", "size"), [(64, 8), (3, 8), (1, 101), (32, 32), (2, 3), (1, 1)])
def test_softmax(tokens: int, size: int) -> None:
    operation = Softmax(tokens=tokens, size=size, out=Rows(register=1, stride=size),
                        x=Rows(register=0, stride=size))  # fmt: skip
    program = program_of([tokens * size], [tokens * size], [operation])
    check(program, feeds(program, 5, scale=4.0), 5, ulps=16, near=1e-7)


@pytest.mark.parametrize("order", ["iofg", "ifgo", "igfo"])
def test_lstm(order: Any) -> None:
    operation = Lstm(size=21, order=order, gates=Rows(register=0), c=Rows(register=1),
                     out_h=Rows(register=2), out_c=Rows(register=3))  # fmt: skip
    program = program_of([84, 21], [21, 21], [operation])
    check(program, feeds(program, 5), 5, ulps=4, near=5e-7)


@pytest.mark.parametrize("order", ["zrn", "rzn"])
def test_gru(order: Any) -> None:
    operation = Gru(size=24, order=order, x_gates=Rows(register=0), h_gates=Rows(register=1),
                    h=Rows(register=2), out=Rows(register=3))  # fmt: skip
    program = program_of([72, 72, 24], [24], [operation])
    check(program, feeds(program, 5), 5, ulps=4, near=5e-7)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(3, 3), (1, 4), (17, 17), (2, 25), (33, 40)])
def test_attention(causal: bool, queries: int, keys: int) -> None:
    operation = Attention(queries=queries, keys=keys, heads=3, size=20, scale=0.2, causal=causal,
                          out=Rows(register=3, stride=60), q=Rows(register=0, stride=60),
                          k=Rows(register=1, stride=60), v=Rows(register=2, stride=60))  # fmt: skip
    program = program_of([queries * 60, keys * 60, keys * 60], [queries * 60], [operation])
    check(program, feeds(program, 4), 4, ulps=16, near=1e-6)


@pytest.mark.parametrize(
    ("kernel", "stride", "pads"),
    [
        ((3, 3), (1, 1), (1, 1, 1, 1)),
        ((5, 4), (2, 3), (2, 0, 1, 3)),
        ((1, 1), (1, 1), (0, 0, 0, 0)),
    ],
)
def test_patches(kernel: Any, stride: Any, pads: Any) -> None:
    down = (9 + pads[0] + pads[2] - kernel[0]) // stride[0] + 1
    across = (8 + pads[1] + pads[3] - kernel[1]) // stride[1] + 1
    size = kernel[0] * kernel[1] * 3
    operation = Patches(height=9, width=8, channels=3, kernel=kernel, stride=stride, pads=pads,
                        out=Rows(register=1, stride=size), x=Rows(register=0))  # fmt: skip
    program = program_of([9 * 8 * 3], [down * across * size], [operation])
    check(program, feeds(program, 3), 3)


def test_one_hot_and_lookup() -> None:
    operations = [
        OneHot(tokens=4, size=9, out=Rows(register=2, stride=9), x=Rows(register=0, stride=9)),
        Lookup(tokens=5, size=6, out=Rows(register=3, stride=6), x=Rows(register=1, stride=1),
               table=0),
    ]  # fmt: skip
    program = program_of([36, 5], [36, 30], operations, [random(7, 6)])
    inputs = feeds(program, 4)
    inputs["in0"][1, 3] = inputs["in0"][1, 5] = 9.0  # two that are largest
    inputs["in1"] = np.arange(20, dtype=np.float32).reshape(4, 5) % 8 - 0.4
    check(program, inputs, 4)


# ---- whole programs --------------------------------------------------------------------------
def test_registers_that_share_memory_do_not_meet() -> None:
    """A chain of twelve layers with a skip over all of it."""
    operations: list[Operation] = []
    constants: list[Array] = []
    for i in range(12):
        constants.append(random(40, 40, seed=i, scale=0.15))
        segment = Segment(x=Rows(register=0 if i == 0 else 1 + i), size=40, weight=i)
        operations.append(
            Dense(
                tokens=1, size=40, out=Rows(register=2 + i), segments=(segment,), activation="relu"
            )
        )
    one = View(register=0, strides=(1,))
    last = View(register=13, strides=(1,))
    operations.append(
        Binary(kind="add", shape=(40,), out=View(register=1, strides=(1,)), a=one, b=last)
    )
    program = program_of([40], [40], operations, constants, between=[40] * 12)
    check(program, feeds(program, 50), 50)


def test_the_best_kernels_of_the_processor_are_chosen() -> None:
    flags = set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            flags |= set(line.split(":", 1)[1].split())
    vnni = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"}
    if vnni | {"amx_tile", "amx_int8"} <= flags:
        expected = "amx"
    elif vnni <= flags:
        expected = "avx512vnni"
    elif {"avx2", "fma", "f16c"} <= flags:
        expected = "avx2"
    elif "i8mm" in flags:
        expected = "i8mm"
    elif "asimddp" in flags:
        expected = "dotprod"
    else:
        expected = "plain"
    assert kernels()[0] == expected
    assert kernels()[-1] == "plain"


def test_a_graph_says_on_which_kernels_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_WM_KERNELS", "plain")
    program = dense_program("float32", (3,), 2)

    class Declared:
        inputs = ()
        outputs = ()

    graph = NativeGraph(write_program(program), Declared(), name="dynamics")  # type: ignore[arg-type]
    assert graph.backend == "native plain"


def test_a_weight_that_a_lookup_or_a_register_also_reads() -> None:
    """Weights are dropped once they are packed; this one's other reader then read nothing."""
    table = random(8, 5)
    embed = Lookup(tokens=1, size=5, out=Rows(register=2, offset=0, stride=5),
                   x=Rows(register=0, offset=0, stride=1), table=0)  # fmt: skip
    part = Segment(x=Rows(register=2, offset=0, stride=5), size=5, weight=0)
    dense = Dense(tokens=1, size=8, out=Rows(register=1, offset=0, stride=8), segments=(part,))
    program = program_of([1], [8], [embed, dense], [table], between=[5])
    for rows in (1, 7):
        index = {"in0": (np.arange(rows, dtype=np.float32) % 8)[:, None]}
        check(program, index, rows)
    held = replace(
        program,
        outputs=(*program.outputs, Port(tensor="table", shape=(40,), batched=True, register=3)),
        registers=(*program.registers, Register(width=40, constant=0)),
    )
    held = read_program(write_program(held), "program")
    check(held, {"in0": np.full((7, 1), 3, np.float32)}, 7)
