"""Compute ahead what depends on no input.

The work is bounded: `sizes.infer` has counted the bytes and the multiply-adds of everything that
can be folded before a graph gets here. ONNX's own reference evaluator gives the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_wm.errors import UnsupportedOperation
from edge_wm.types import Array

if TYPE_CHECKING:
    import onnx


def fold(model: onnx.ModelProto, constants: dict[str, Array], where: str) -> None:
    """Add to `constants` the outputs of every node whose inputs are all among them.

    Raises: UnsupportedOperation, where the evaluator cannot.
    """
    for node in model.graph.node:
        given = [name for name in node.input if name]
        outputs = [name for name in node.output if name]
        if all(name in constants for name in outputs):
            continue
        if all(name in constants for name in given):
            try:
                values = _evaluate(node, {name: constants[name] for name in given}, model)
            except Exception as error:  # whatever numpy or the evaluator makes of a bad constant
                why = f"it cannot be computed ahead: {type(error).__name__}"
                name = node.name or node.output[0]
                raise UnsupportedOperation(where, name, node.op_type, why) from error
            constants.update(zip(outputs, values, strict=True))


def _evaluate(node: onnx.NodeProto, given: dict[str, Array], model: onnx.ModelProto) -> list[Array]:
    """The outputs of one node."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for name, v in given.items()
    ]
    outputs = [helper.make_tensor_value_info(name, 0, None) for name in node.output if name]
    graph = helper.make_graph([node], "constants", inputs, outputs)
    alone = helper.make_model(graph, opset_imports=model.opset_import)
    with np.errstate(all="ignore"):
        return [np.asarray(value) for value in ReferenceEvaluator(alone).run(None, given)]
