"""bundle/program.py: the file, and that no program addresses what is not there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from programs import RUN, run_program

from edge_wm.bundle.program import (
    HEAD,
    MAGIC,
    OPERATIONS,
    Attention,
    Binary,
    Copy,
    Dense,
    Gru,
    Lookup,
    Lstm,
    Norm,
    OneHot,
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
    View,
    accesses,
    read_program,
    write_program,
)
from edge_wm.errors import ModelError


def rows(register: int, offset: int = 0, stride: int = 0) -> Rows:
    return Rows(register=register, offset=offset, stride=stride)


def view(register: int, *strides: int) -> View:
    return View(register=register, strides=strides)


OPERATIONS_OF_EACH_KIND = (
    Dense(
        tokens=2,
        size=12,
        out=rows(3, stride=12),
        segments=(
            Segment(x=rows(0, stride=12), size=12, weight=0, scale=1),
            Segment(x=rows(1), size=4, weight=2),
        ),
        bias=3,
        activation="relu",
    ),
    Norm(kind="layer", tokens=2, size=12, out=rows(4, 0, 12), x=rows(3, 0, 12), epsilon=1e-5,
         weight=3, bias=3),
    Softmax(tokens=4, size=6, out=rows(5, 0, 6), x=rows(4, 0, 6)),
    Unary(kind="exp", tokens=1, size=24, out=rows(6), x=rows(5)),
    Binary(kind="add", shape=(2, 12), out=view(7, 12, 1), a=view(6, 12, 1), b=view(2, 0, 1)),
    Select(shape=(24,), out=view(8, 1), condition=view(7, 1), a=view(6, 1), b=view(2, 0)),
    Copy(shape=(2, 3, 4), out=view(9, 12, 1, 3), x=view(8, 12, 4, 1)),
    Reduce(kind="sum", shape=(2, 12), out=view(10, 1), x=view(9, 12, 1)),
    Lstm(size=3, order="iofg", gates=rows(2), c=rows(1), out_h=rows(11), out_c=rows(12)),
    Gru(size=4, order="zrn", x_gates=rows(2), h_gates=rows(2), h=rows(1), out=rows(13)),
    Attention(queries=2, keys=3, heads=2, size=2, scale=0.5, causal=False, out=rows(14, 0, 4),
              q=rows(9, 0, 4), k=rows(9, 8, 4), v=rows(9, 0, 4)),
    Patches(height=3, width=2, channels=4, kernel=(2, 2), stride=(1, 1), pads=(0, 0, 0, 1),
            out=rows(15, 0, 16), x=rows(9)),
    OneHot(tokens=2, size=4, out=rows(16, 0, 4), x=rows(14, 0, 4)),
    Lookup(tokens=2, size=4, out=rows(17, 0, 4), x=rows(16, 0, 4), table=2),
)  # fmt: skip
WIDTHS = (24, 4, 12, 24, 24, 24, 24, 24, 24, 24, 2, 3, 3, 4, 8, 64, 8, 8)


def program() -> Program:
    """Every kind of operation, each on what the one before has given."""
    random = np.random.default_rng(0)
    return Program(
        inputs=(
            Port(tensor="x", shape=(2, 12), batched=True, register=0),
            Port(tensor="goal", shape=(4,), batched=False, register=1),
        ),
        outputs=(
            Port(tensor="y", shape=(2, 4), batched=True, register=17),
            Port(tensor="h", shape=(3,), batched=True, register=11),
        ),
        registers=tuple(
            Register(width=width, constant=3 if i == 2 else None) for i, width in enumerate(WIDTHS)
        ),
        operations=OPERATIONS_OF_EACH_KIND,
        constants=(
            random.integers(-127, 128, (12, 12)).astype(np.int8),
            random.uniform(0.01, 0.02, 12).astype(np.float32),
            random.standard_normal((12, 4)).astype(np.float32),
            random.standard_normal(12).astype(np.float32),
        ),
    )


def test_a_program_comes_back_as_it_was_written():
    blob = write_program(program())
    found = read_program(blob, "program")
    assert found.operations == program().operations
    assert found.registers == program().registers
    assert (found.inputs, found.outputs) == (program().inputs, program().outputs)
    for one, other in zip(found.constants, program().constants, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert write_program(found) == blob


def test_there_is_one_of_each_kind_and_the_interpreter_runs_them():
    assert {type(o) for o in OPERATIONS_OF_EACH_KIND} == set(OPERATIONS) == set(RUN)
    random = np.random.default_rng(1)
    given = {"x": random.standard_normal((3, 2, 12)), "goal": random.standard_normal(4)}
    found = run_program(program(), given, 3)
    assert found["y"].shape == (3, 2, 4)
    assert np.isfinite(found["y"]).all()


def test_constants_are_aligned():
    blob = write_program(program())
    _, length = HEAD.unpack_from(blob)
    header = json.loads(blob[HEAD.size : HEAD.size + length])
    assert [entry["offset"] % 64 for entry in header["constants"]] == [0] * 4
    assert len(blob) % 64 == 0


def test_the_work_of_a_program():
    assert program().work == 2 * 12 * (12 + 4) + 2 * 2 * 3 * 2 * 2
    assert program().constant_bytes == 144 + 48 + 192 + 48


# ---- what is refused ------------------------------------------------------------------------
def changed(path: str, value: object) -> bytes:
    """The file with one value of its header changed; "..." as the value removes it."""
    blob = write_program(program())
    _, length = HEAD.unpack_from(blob)
    header = json.loads(blob[HEAD.size : HEAD.size + length])
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    part = header
    for step in steps:
        part = part[step]
    if value == "...":
        del part[last]
    else:
        part[last] = value
    text = json.dumps(header).encode()
    start = -(-(HEAD.size + length) // 64) * 64
    head = HEAD.pack(MAGIC, len(text)) + text
    return head.ljust(-(-len(head) // 64) * 64, b"\0") + blob[start:]


OP = "operations"
OUTSIDE = [
    # dense
    (f"{OP}.0.tokens", 3, f"{OP}[0] (dense).segments[0].x must lie within its register of 24"),
    (f"{OP}.0.size", 13, f"{OP}[0] (dense): bias must be float32 [13], got float32 [12]"),
    (f"{OP}.0.out.offset", 1, f"{OP}[0] (dense).out must lie within its register of 24"),
    (f"{OP}.0.out.stride", 13, f"{OP}[0] (dense).out must lie within its register of 24"),
    (f"{OP}.0.out.register", 99, f"{OP}[0] (dense).out is in register 99 of 18"),
    (f"{OP}.0.out.register", 0, f"{OP}[0] (dense).out must not write a constant or an input"),
    (f"{OP}.0.out.register", 2, f"{OP}[0] (dense).out must lie within its register of 12"),
    (f"{OP}.0.segments.0.x.offset", 1,
     f"{OP}[0] (dense).segments[0].x must lie within its register of 24"),
    (f"{OP}.0.segments.1.x.stride", 1,
     f"{OP}[0] (dense).segments[1].x must lie within its register of 4"),
    (f"{OP}.0.segments.1.x.register", 5,
     f"{OP}[0] (dense).segments[1].x reads register 5 before it is written"),
    (f"{OP}.0.segments.0.size", 11,
     f"{OP}[0] (dense): segments[0].weight must be float32 or int8 [12, 11], got int8 [12, 12]"),
    (f"{OP}.0.segments.0.weight", 9,
     f"{OP}[0] (dense): segments[0].weight names constant 9 of 4"),
    (f"{OP}.0.segments.0.scale", None,
     f"{OP}[0] (dense): segments[0] must have a scale exactly where its weight is int8"),
    (f"{OP}.0.segments.1.scale", 1,
     f"{OP}[0] (dense): segments[1] must have a scale exactly where its weight is int8"),
    (f"{OP}.0.segments.0.scale", 2,
     f"{OP}[0] (dense): segments[0].scale must be float32 [12], got float32 [12, 4]"),
    (f"{OP}.0.bias", 0, f"{OP}[0] (dense): bias must be float32 [12], got int8 [12, 12]"),
    (f"{OP}.1.x.register", 4, f"{OP}[1] (norm).x reads register 4 before it is written"),
    (f"{OP}.3.out.register", 5, f"{OP}[3] (unary).out must not lie where the operation reads"),
    (f"{OP}.6.x.register", 9, f"{OP}[6] (copy).x reads register 9 before it is written"),
    (f"{OP}.10.k.register", 14, f"{OP}[10] (attention).k must lie within its register of 8"),
    # what is computed over tokens
    (f"{OP}.1.weight", 2, f"{OP}[1] (norm): weight must be float32 [12], got float32 [12, 4]"),
    (f"{OP}.1.x.stride", 13, f"{OP}[1] (norm).x must lie within its register of 24"),
    (f"{OP}.2.tokens", 5, f"{OP}[2] (softmax).x must lie within its register of 24"),
    (f"{OP}.3.size", 25, f"{OP}[3] (unary).x must lie within its register of 24"),
    # views
    (f"{OP}.4.shape", [3, 12], f"{OP}[4] (binary).a must lie within its register of 24"),
    (f"{OP}.4.a.strides", [12], f"{OP}[4] (binary): a must have 2 strides, got 1"),
    (f"{OP}.4.b.strides", [1, 1], f"{OP}[4] (binary).b must lie within its register of 12"),
    (f"{OP}.4.out.strides", [0, 1], f"{OP}[4] (binary): out must not have a stride of 0"),
    (f"{OP}.5.condition.offset", 1,
     f"{OP}[5] (select).condition must lie within its register of 24"),
    (f"{OP}.6.x.strides", [12, 4, 2], f"{OP}[6] (copy).x must lie within its register of 24"),
    (f"{OP}.6.out.strides", [12, 1, 4], f"{OP}[6] (copy).out must lie within its register of 24"),
    (f"{OP}.7.out.strides", [1, 1], f"{OP}[7] (reduce): out must have 1 strides, got 2"),
    (f"{OP}.7.out.strides", [2], f"{OP}[7] (reduce).out must lie within its register of 2"),
    (f"{OP}.7.x.strides", [12, 2], f"{OP}[7] (reduce).x must lie within its register of 24"),
    # cells, attention, patches, tables
    (f"{OP}.8.size", 4, f"{OP}[8] (lstm).gates must lie within its register of 12"),
    (f"{OP}.8.out_c.offset", 1, f"{OP}[8] (lstm).out_c must lie within its register of 3"),
    (f"{OP}.9.size", 5, f"{OP}[9] (gru).x_gates must lie within its register of 12"),
    (f"{OP}.9.h.offset", 1, f"{OP}[9] (gru).h must lie within its register of 4"),
    (f"{OP}.10.keys", 5, f"{OP}[10] (attention).k must lie within its register of 24"),
    (f"{OP}.10.heads", 3, f"{OP}[10] (attention).out must lie within its register of 8"),
    (f"{OP}.10.q.offset", 20, f"{OP}[10] (attention).q must lie within its register of 24"),
    (f"{OP}.10", {"op": "attention", "queries": 3, "keys": 2, "heads": 2, "size": 2, "scale": 0.5,
                  "causal": True, "out": {"register": 14}, "q": {"register": 9},
                  "k": {"register": 9}, "v": {"register": 9}},
     f"{OP}[10] (attention): causal attention must have as many keys as queries (3), got 2"),
    (f"{OP}.11.height", 4, f"{OP}[11] (patches).x must lie within its register of 24"),
    (f"{OP}.11.pads", [1, 0, 0, 1], f"{OP}[11] (patches).out must lie within its register of 64"),
    (f"{OP}.11.kernel", [4, 2],
     f"{OP}[11] (patches): the kernel must fit into the image and its pads"),
    (f"{OP}.12.out.stride", 5, f"{OP}[12] (one_hot).out must lie within its register of 8"),
    (f"{OP}.13.x.offset", 4, f"{OP}[13] (lookup).x must lie within its register of 8"),
    (f"{OP}.13.table", 0, f"{OP}[13] (lookup): table must be float32 [12, 4], got int8 [12, 12]"),
    (f"{OP}.13.table", 4, f"{OP}[13] (lookup): table names constant 4 of 4"),
    # ports and registers
    ("inputs.0.register", 30, "inputs.x is in register 30 of 18"),
    ("inputs.0.shape", [2, 11], "inputs.x [2, 11] must fill its register of 24"),
    ("inputs.1.register", 2, "inputs.goal [4] must fill its register of 12"),
    ("inputs.1.tensor", "x", "inputs and outputs must have names of their own"),
    ("outputs.0.shape", [9], "outputs.y [9] must fill its register of 8"),
    ("outputs.0.register", 18, "outputs.y is in register 18 of 18"),
    ("registers.2.constant", 4, "registers[2] names constant 4 of 4"),
    ("registers.2.constant", 0, "registers[2] must hold 12 float32 numbers"),
    ("registers.2.constant", None,
     f"{OP}[4] (binary).b reads register 2 before it is written"),
    ("registers.2.width", 11, "registers[2] must hold 11 float32 numbers"),
    ("registers.17.width", 7, "outputs.y [2, 4] must fill its register of 7"),
    (f"{OP}.13", "...", "outputs.y is given by no operation"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "problem"), OUTSIDE)
def test_a_program_that_addresses_what_is_not_there_is_refused(path, value, problem):
    with pytest.raises(ModelError) as refused:
        read_program(changed(path, value), "dynamics.program")
    assert str(refused.value) == f"dynamics.program: {problem}; build the bundle anew"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (f"{OP}.0.op", "transmogrify", "Invalid value 'transmogrify' - at `$.operations[0].op`"),
        (f"{OP}.0.activation", "magic",
         "Invalid enum value 'magic' - at `$.operations[0].activation`"),
        (f"{OP}.0.out.offset", -1, "Expected `int` >= 0 - at `$.operations[0].out.offset`"),
        (f"{OP}.0.tokens", 0, "Expected `int` >= 1 - at `$.operations[0].tokens`"),
        (f"{OP}.0.tokens", 2**22 + 1, "Expected `int` <= 4194304 - at `$.operations[0].tokens`"),
        (f"{OP}.4.shape", [1, 1, 1, 1, 1],
         "Expected `array` of length <= 4 - at `$.operations[4].shape`"),
        (f"{OP}.4.a.strides", [1, 1, 1, 1, 1],
         "Expected `array` of length <= 4 - at `$.operations[4].a.strides`"),
        (f"{OP}.0.segments", [],
         "Expected `array` of length >= 1 - at `$.operations[0].segments`"),
        (f"{OP}.3.weight", 0,
         "Object contains unknown field `weight` - at `$.operations[3]`"),
        (f"{OP}.3.x", "...", "Object missing required field `x` - at `$.operations[3]`"),
        ("constants.0.dtype", "float64",
         "Invalid enum value 'float64' - at `$.constants[0].dtype`"),
        ("registers.0.width", 0, "Expected `int` >= 1 - at `$.registers[0].width`"),
    ],
)  # fmt: skip
def test_a_header_of_another_shape_is_refused(path, value, problem):
    with pytest.raises(ModelError) as refused:
        read_program(changed(path, value), "program")
    assert str(refused.value) == f"program: {problem}; build the bundle anew"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("format", "edge-wm/program/2", "format must be 'edge-wm/program/1', got "
         "'edge-wm/program/2'"),
        ("constants.3.offset", 2**20, "a constant ends after the file"),
        ("constants.3.offset", 32, "a constant is not aligned or has over 268435456 numbers"),
        ("constants.3.shape", [2**15, 2**15],
         "a constant is not aligned or has over 268435456 numbers"),
    ],
)  # fmt: skip
def test_constants_outside_the_file_are_refused(path, value, problem):
    with pytest.raises(ModelError) as refused:
        read_program(changed(path, value), "program")
    assert str(refused.value) == f"program: {problem}"


def test_a_file_that_is_cut_off_anywhere_is_refused():
    blob = write_program(program())
    for size in [*range(0, 200), *range(200, len(blob) - 64, 97)]:
        with pytest.raises(ModelError, match=r"^program: "):
            read_program(blob[:size], "program")


def test_a_foreign_file_is_refused():
    with pytest.raises(ModelError) as refused:
        read_program(b"\x08\x07" + bytes(100), "program")
    assert str(refused.value) == (
        "program: must begin with b'EWMPROG1', got b'\\x08\\x07\\x00\\x00\\x00\\x00\\x00\\x00'; "
        "this version runs no other step programs: build the bundle anew"
    )


def test_minus_128_is_refused():
    made = program()
    weight = made.constants[0].copy()
    weight[3, 3] = -128
    made = Program(made.inputs, made.outputs, made.registers, made.operations,
                   (weight, *made.constants[1:]))  # fmt: skip
    with pytest.raises(ModelError) as refused:
        write_program(made)
    assert str(refused.value) == (
        "program: operations[0] (dense): segments[0].weight must be from -127 to 127; "
        "build the bundle anew"
    )


@pytest.mark.parametrize("operation", OPERATIONS_OF_EACH_KIND, ids=lambda o: type(o).__name__)
def test_every_operation_says_what_it_writes(operation):
    assert any(access.writes for access in accesses(operation))
    assert any(not access.writes for access in accesses(operation))
