"""The graph that the compiler works on: ONNX nodes, with constants folded and the batch found.

A graph is checked and sized by the bundle's own reader first (onnx_file.py, sizes.py), at two
batches of candidates. What differs between the two is the batch:

    tensor      with 3     with 5      form
    z           [3, 64]    [5, 64]     [1, 64], batch axis 0
    tokens      [12, 64]   [20, 64]    [4, 64], batch axis 0: each candidate has 4 rows
    state       [1, 3, H]  [1, 5, H]   [1, 1, H], batch axis 1
    goal        [1, 4]     [1, 4]      [1, 4], no batch axis

A *form* is the shape that one candidate's numbers have, of the same rank as the tensor, so that
broadcasting between forms is broadcasting between tensors.

Invariant: every input of a node is a constant, an input of the graph or given by a node before;
small integer inputs that say how (axes, starts, shapes) have become attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from edge_wm.bundle.manifest import Function
from edge_wm.bundle.onnx_file import Port, read_onnx
from edge_wm.bundle.sizes import Tensor, infer
from edge_wm.bundle.structure import at_batch
from edge_wm.compiler.folding import fold
from edge_wm.errors import BackendError, ModelError, UnsupportedOperation
from edge_wm.types import Array

if TYPE_CHECKING:  # an extra: the robot runs programs and compiles none
    import onnx

Shape = tuple[int, ...]
BATCHES = (3, 5)  # any two would do

# Inputs that say how and not what: they become attributes of these names. None in the attribute
# means that it depends on the batch; "" before it, that the input was left out.
PARAMETERS: Mapping[str, Mapping[int, str]] = {
    "Clip": {1: "min", 2: "max"},
    "ConstantOfShape": {0: "shape"},
    "Dropout": {1: "ratio", 2: "training_mode"},
    "Expand": {1: "shape"},
    "OneHot": {1: "depth", 2: "values"},
    "Pad": {1: "pads", 2: "constant_value", 3: "axes"},
    "Reshape": {1: "shape"},
    "Resize": {1: "roi", 2: "scales", 3: "sizes"},
    "Slice": {1: "starts", 2: "ends", 3: "axes", 4: "steps"},
    "Split": {1: "split"},
    "Squeeze": {1: "axes"},
    "Tile": {1: "repeats"},
    "Unsqueeze": {1: "axes"},
    "ReduceL1": {1: "axes"},
    "ReduceL2": {1: "axes"},
    "ReduceLogSumExp": {1: "axes"},
    "ReduceMax": {1: "axes"},
    "ReduceMean": {1: "axes"},
    "ReduceMin": {1: "axes"},
    "ReduceSum": {1: "axes"},
    "ReduceSumSquare": {1: "axes"},
}


class Form(NamedTuple):
    """What one candidate has of a tensor."""

    dtype: str
    shape: Shape  # the tensor's rank; the batch axis counts one candidate's share
    batch: int | None  # which axis the batch is


@dataclass
class Node:
    """An operator. `attributes` hold numbers, strings, arrays."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Nodes in order; passes replace nodes and add constants."""

    where: str
    nodes: list[Node]
    constants: dict[str, Array]
    forms: dict[str, Form | str]  # or why a tensor has none
    inputs: list[str]
    outputs: list[str]

    def form(self, name: str, node: Node) -> Form:
        """Raises: UnsupportedOperation, blaming `node`."""
        found = self.forms[name]
        if isinstance(found, str):
            self.refuse(node, f"{name!r} {found}")
        return found

    def refuse(self, node: Node, why: str) -> NoReturn:
        raise UnsupportedOperation(self.where, node.name, node.op, why)

    def fresh(self, like: str, form: Form) -> str:
        """The name of a new tensor."""
        name = next(n for i in range(len(self.forms) + 1) if (n := f"{like}~{i}") not in self.forms)
        self.forms[name] = form
        return name

    def constant(self, like: str, value: Array) -> str:
        """The name of a new constant."""
        name = self.fresh(like, Form(value.dtype.name, value.shape, None))
        self.constants[name] = value
        return name

    def producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs if name}

    def reads(self) -> dict[str, int]:
        """How often every tensor is read, as an output of the graph too."""
        counts: dict[str, int] = dict.fromkeys(self.outputs, 1)
        for node in self.nodes:
            for name in node.inputs:
                counts[name] = counts.get(name, 0) + 1
        return counts

    def sweep(self) -> None:
        """Leave out the nodes that no output depends on."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]


def import_graph(blob: bytes | memoryview, function: Function, where: str) -> Graph:
    """The graph of `function` in an ONNX file.

    Raises: ModelError: what the bundle's reader refuses, or other inputs and outputs than the
    function's.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise BackendError(
            f"{where}: compiling a graph needs onnx, which is not installed; run: "
            'pip install "edge-wm[compile]"'
        ) from error
    read = read_onnx(blob, where)
    for what, declared, found in (
        ("inputs", {i.tensor for i in function.inputs}, set(read.inputs)),
        ("outputs", {o.tensor for o in function.outputs}, set(read.outputs)),
    ):
        if declared != found:
            raise ModelError(
                f"{where}: {what} must be {', '.join(sorted(declared))} as the manifest says, "
                f"got {', '.join(sorted(found)) or 'none'}"
            )
    small, large = (
        infer(
            read.nodes,
            read.constants,
            {i.tensor: Port(i.dtype, at_batch(i.shape, size)) for i in function.inputs},
            f"{where}: with a batch of {size}",
        )
        for size in BATCHES
    )
    for o in function.outputs:
        if o.tensor not in small:
            raise ModelError(f"{where}: output {o.tensor!r} is given by no node")
    model = onnx.load_from_string(bytes(blob))
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    constants |= _shape_values(small, large)
    fold(model, constants, where)
    graph = Graph(
        where,
        [_node(proto, constants) for proto in model.graph.node if _computed(proto, constants)],
        constants,
        {name: _form(tensor, large[name]) for name, tensor in small.items()},
        [i.tensor for i in function.inputs],
        [o.tensor for o in function.outputs],
    )
    graph.sweep()
    return graph


def _shape_values(small: Mapping[str, Tensor], large: Mapping[str, Tensor]) -> dict[str, Array]:
    """What sizing the graph has computed along, where it does not depend on the batch."""
    return {
        name: np.asarray(tensor.value, tensor.dtype).reshape(tensor.shape)
        for name, tensor in small.items()
        if tensor.value is not None
        and large[name].value is not None
        and np.array_equal(tensor.value, large[name].value)  # type: ignore[arg-type]
    }


def _form(small: Tensor, large: Tensor) -> Form | str:
    """One candidate's share of a tensor, or why there is none."""
    a, b = small.shape, large.shape
    differing = [axis for axis in range(len(a)) if a[axis] != b[axis]]
    if not differing:
        return Form(small.dtype, a, None)
    axis = differing[0]
    share = a[axis] // BATCHES[0]
    if len(differing) > 1 or (a[axis], b[axis]) != (share * BATCHES[0], share * BATCHES[1]):
        return f"mixes candidates: {list(a)} with {BATCHES[0]}, {list(b)} with {BATCHES[1]} of them"
    return Form(small.dtype, (*a[:axis], share, *a[axis + 1 :]), axis)


def _computed(proto: onnx.NodeProto, constants: Mapping[str, Array]) -> bool:
    return not all(name in constants for name in proto.output if name)


def _node(proto: onnx.NodeProto, constants: Mapping[str, Array]) -> Node:
    attributes = dict(_attributes(proto))
    parameters = PARAMETERS.get(proto.op_type, {})
    inputs = []
    for index, name in enumerate(proto.input):
        if index not in parameters:
            inputs.append(name)
        elif name:
            attributes[parameters[index]] = constants.get(name)
    return Node(proto.op_type, proto.name or proto.output[0], inputs, [*proto.output], attributes)


def _attributes(proto: onnx.NodeProto) -> Iterator[tuple[str, Any]]:
    import onnx
    from onnx import helper, numpy_helper

    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, Iterable) and not isinstance(value, str):
            value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        yield attribute.name, value
