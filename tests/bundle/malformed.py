"""Bundles that are wrong in one way each, all but those about signatures signed correctly.

Written by a container writer of its own that checks nothing, so a mistake in edge-wm's writer
cannot hide one in its reader. Each case is a function from the tiny bundle to the bytes of a
file; the exact error is in test_malformed.py beside the case's name.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from bundle import tiny
from bundle.conftest import signing_key
from edge_wm.bundle import SigningKey

KEY = signing_key(1)
OTHER = signing_key(2)

CASES: dict[str, Callable[[], bytes]] = {}
Case = Callable[[], bytes]


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


# ---- a writer that checks nothing -------------------------------------------------------
def sealed(payload: bytes, key: SigningKey = KEY, kind: str | None = None) -> dict[str, Any]:
    kind = kind or "application/vnd.edge-wm.manifest.v1+json"
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = key.signer._private_key.sign(message)
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"keyid": key.key_id, "sig": base64.b64encode(signature).decode()}],
    }


def spelled(envelope: Mapping[str, Any]) -> bytes:
    return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()


def container(
    envelope: bytes, blobs: list[bytes], *, version: int = 1, padding: bytes = b"\0"
) -> bytes:
    data = bytearray(24) + envelope
    for blob in blobs:
        data += padding * (-len(data) % 64) + blob
    struct.pack_into("<8sIIQ", data, 0, b"\x89WMB\r\n\x1a\n", version, len(envelope), len(data))
    return bytes(data)


def bundle(document: dict[str, Any], blobs: list[bytes], **changes: Any) -> bytes:
    ordered = sorted(blobs, key=tiny.digest)
    entries = [{"digest": tiny.digest(blob), "size": len(blob)} for blob in ordered]
    document = {**document, "blobs": document.get("blobs", entries)}
    return container(spelled(sealed(json.dumps(document).encode())), ordered, **changes)


def good() -> bytes:
    return bundle(*tiny.document())


def with_manifest(change: Callable[[dict[str, Any]], object]) -> bytes:
    document, blobs = tiny.document()
    change(document)
    return bundle(document, blobs)


def edited(path: str, value: object) -> bytes:
    """The tiny bundle with one value of its manifest set; "/" steps down."""

    def change(document: dict[str, Any]) -> None:
        *steps, last = path.split("/")
        at: Any = document
        for step in steps:
            at = at[int(step) if isinstance(at, list) else step]
        at[int(last) if isinstance(at, list) else last] = value

    return with_manifest(change)


def with_graph(name: str, blob: bytes, kind: str = "onnx") -> bytes:
    """The tiny bundle with another file as the graph of one function."""
    document, blobs = tiny.document()
    old = document["functions"][name]["graphs"].pop("onnx")
    document["functions"][name]["graphs"][kind] = tiny.digest(blob)
    document["reference"] = [c for c in document["reference"] if c["function"] != name]
    used = json.dumps(document)
    blobs = [b for b in blobs if tiny.digest(b) != old and tiny.digest(b) in used]
    return bundle(document, [*blobs, blob])


# ---- container --------------------------------------------------------------------------
@case
def empty_file() -> bytes:
    return b""


@case
def half_a_header() -> bytes:
    return good()[:20]


@case
def another_kind_of_file() -> bytes:
    return b"PK\x03\x04" + bytes(100)


@case
def copied_in_text_mode() -> bytes:
    return good().replace(b"\r\n", b"\n")


@case
def container_from_the_future() -> bytes:
    return bundle(*tiny.document(), version=2)


@case
def cut_off() -> bytes:
    return good()[:-1]


@case
def something_appended() -> bytes:
    return good() + b"\0"


@case
def no_envelope() -> bytes:
    return container(b"", [])


@case
def envelope_longer_than_the_file() -> bytes:
    data = bytearray(good())
    struct.pack_into("<I", data, 12, 2**31)
    return bytes(data)


@case
def padding_with_content() -> bytes:
    return bundle(*tiny.document(), padding=b"x")


# ---- envelope and signature -------------------------------------------------------------
def payload() -> bytes:
    data = good()
    (size,) = struct.unpack_from("<I", data, 12)
    return base64.b64decode(json.loads(data[24 : 24 + size])["payload"])


def with_envelope(envelope: bytes) -> bytes:
    return container(envelope, sorted(tiny.document()[1], key=tiny.digest))


@case
def envelope_is_not_json() -> bytes:
    return with_envelope(b"manifest: tiny")


@case
def no_signature() -> bytes:
    return with_envelope(spelled(sealed(payload()) | {"signatures": []}))


@case
def two_signatures() -> bytes:
    signatures = sealed(payload())["signatures"] + sealed(payload(), OTHER)["signatures"]
    return with_envelope(spelled(sealed(payload()) | {"signatures": signatures}))


@case
def envelope_with_more_in_it() -> bytes:
    return with_envelope(spelled(sealed(payload()) | {"note": "trust me"}))


@case
def envelope_spelled_otherwise() -> bytes:
    return with_envelope(json.dumps(sealed(payload())).encode())


@case
def payload_of_another_type() -> bytes:
    return with_envelope(spelled(sealed(payload(), kind="application/vnd.in-toto+json")))


@case
def payload_is_not_base64() -> bytes:
    return with_envelope(spelled(sealed(payload()) | {"payload": "?"}))


@case
def signed_by_an_unknown_key() -> bytes:
    return with_envelope(spelled(sealed(payload(), OTHER)))


@case
def signed_by_another_than_it_says() -> bytes:
    envelope = sealed(payload(), OTHER)
    envelope["signatures"][0]["keyid"] = KEY.key_id
    return with_envelope(spelled(envelope))


@case
def manifest_changed_after_signing() -> bytes:
    envelope = sealed(payload())
    changed = payload().replace(b'"horizon": 5', b'"horizon": 6')
    envelope["payload"] = base64.b64encode(changed).decode()
    return with_envelope(spelled(envelope))


# ---- manifest: form ---------------------------------------------------------------------
@case
def manifest_is_not_json() -> bytes:
    return with_envelope(spelled(sealed(b"format: edge-wm/bundle/1")))


@case
def manifest_is_a_list() -> bytes:
    return with_envelope(spelled(sealed(b"[]")))


@case
def manifest_is_nested_without_end() -> bytes:
    return with_envelope(spelled(sealed(b"[" * 100_000)))


@case
def format_from_the_future() -> bytes:
    return edited("format", "edge-wm/bundle/2")


@case
def field_missing() -> bytes:
    return with_manifest(lambda d: d.pop("step_ns"))


@case
def field_unknown() -> bytes:
    return edited("planer", {})


@case
def field_unknown_deep_inside() -> bytes:
    return edited("functions/dynamics/inputs/0/scale", 2)


@case
def field_of_the_wrong_type() -> bytes:
    return edited("horizon", "5")


@case
def name_with_a_path() -> bytes:
    return edited("name", "../../etc/passwd")


@case
def planner_of_no_known_kind() -> bytes:
    return edited("planner/kind", "a-star")


@case
def dtype_of_no_known_kind() -> bytes:
    return edited("functions/dynamics/inputs/0/dtype", "float8")


@case
def graph_of_no_known_format() -> bytes:
    return edited("functions/dynamics/graphs", {"pickle": "0" * 64})


@case
def version_in_words() -> bytes:
    return edited("version", "latest")


@case
def digest_that_is_none() -> bytes:
    return edited("functions/cost/graphs/onnx", "cost.onnx")


@case
def number_that_is_infinite() -> bytes:
    data = json.dumps(tiny.document()[0]).replace('"scale": 0.5', '"scale": 1e999').encode()
    return with_envelope(spelled(sealed(data)))


# ---- manifest: meaning ------------------------------------------------------------------
@case
def stream_of_no_known_type() -> bytes:
    return edited("needs/streams/odometry/type", "smell")


@case
def no_axes() -> bytes:
    return edited("needs/axes", [])


@case
def axis_scaled_by_zero() -> bytes:
    return edited("needs/axes/0/scale", 0)


@case
def axis_twice() -> bytes:
    return with_manifest(lambda d: d["needs"]["axes"].append(d["needs"]["axes"][0]))


@case
def step_of_no_duration() -> bytes:
    return edited("step_ns", 0)


@case
def horizon_of_nothing() -> bytes:
    return edited("horizon", 0)


@case
def step_outside_dt() -> bytes:
    return edited("dt", {"min_s": 0.2, "max_s": 0.3})


@case
def belief_of_nothing() -> bytes:
    return edited("belief", [])


@case
def belief_twice() -> bytes:
    return edited("belief", [{"name": "z", "shape": [1]}, {"name": "z", "shape": [1]}])


@case
def belief_without_numbers() -> bytes:
    return edited("belief/0/shape", [0])


@case
def function_unknown() -> bytes:
    return with_manifest(lambda d: d["functions"].update(reward=d["functions"]["cost"]))


@case
def no_encoder() -> bytes:
    return with_manifest(lambda d: d["functions"].pop("encoder"))


@case
def dynamics_without_cost() -> bytes:
    def change(document: dict[str, Any]) -> None:
        del document["functions"]["cost"]
        document["cost_terms"] = {}

    return with_manifest(change)


@case
def function_without_graph() -> bytes:
    return edited("functions/dynamics/graphs", {})


@case
def input_from_nowhere() -> bytes:
    return edited("functions/dynamics/inputs/0/source", "weather")


@case
def cost_that_looks_at_the_camera() -> bytes:
    return edited("functions/cost/inputs/0/source", "observation.odometry")


@case
def stream_that_is_not_needed() -> bytes:
    return edited("functions/encoder/inputs/0/source", "observation.camera")


@case
def belief_that_is_not_declared() -> bytes:
    return edited("functions/dynamics/inputs/0/source", "belief.pose")


@case
def shape_unlike_the_belief() -> bytes:
    return edited("functions/dynamics/inputs/0/shape", [-1, 2])


@case
def dtype_unlike_the_belief() -> bytes:
    return edited("functions/dynamics/inputs/0/dtype", "int8")


@case
def batch_in_the_middle() -> bytes:
    return edited("functions/dynamics/inputs/0/shape", [1, -1])


@case
def rollout_without_batch() -> bytes:
    return edited("functions/dynamics/outputs/0/shape", [1, 1])


@case
def action_of_another_size() -> bytes:
    return edited("functions/dynamics/inputs/1/shape", [-1, 3])


@case
def source_read_twice() -> bytes:
    def change(document: dict[str, Any]) -> None:
        inputs = document["functions"]["dynamics"]["inputs"]
        inputs.append(dict(inputs[0], tensor="again"))

    return with_manifest(change)


@case
def belief_not_given_back() -> bytes:
    return edited("belief", [{"name": "z", "shape": [1]}, {"name": "h", "shape": [8]}])


@case
def dt_without_a_range() -> bytes:
    return edited("functions/dynamics/inputs/1/source", "dt")


@case
def cost_term_without_weight() -> bytes:
    return edited("functions/cost/outputs/0/target", "cost.comfort")


@case
def cost_term_that_nothing_gives() -> bytes:
    terms = {"goal": {"weight": 1, "min": 0, "max": 10, "meaning": ""}}
    return edited("cost_terms", terms | {"risk": terms["goal"]})


@case
def weight_outside_its_range() -> bytes:
    return edited("cost_terms/goal/weight", 11)


@case
def goal_that_nobody_gives() -> bytes:
    def change(document: dict[str, Any]) -> None:
        goal = {"tensor": "pose", "source": "goal.pose", "shape": [-1, 4], "dtype": "float32"}
        document["functions"]["cost"]["inputs"].append(goal)

    return with_manifest(change)


@case
def goal_that_nobody_reads() -> bytes:
    return edited("goal_kinds", ["image"])


@case
def no_planner() -> bytes:
    return edited("planner", None)


@case
def more_elites_than_candidates() -> bytes:
    return edited("planner/elites", 17)


@case
def noise_for_another_robot() -> bytes:
    return edited("planner/noise_std", [0.2, 0.2])


@case
def policy_candidates_without_policy() -> bytes:
    return edited("planner/policy_candidates", 4)


@case
def reference_of_no_function() -> bytes:
    return edited("reference/0/function", "decoder")


@case
def reference_without_outputs() -> bytes:
    return edited("reference/0/outputs", {})


@case
def reference_that_tolerates_all() -> bytes:
    return edited("reference/0/tolerance", 100)


# ---- blobs ------------------------------------------------------------------------------
@case
def blob_missing() -> bytes:
    document, blobs = tiny.document()
    return bundle(document, blobs[1:])


@case
def blob_unused() -> bytes:
    document, blobs = tiny.document()
    return bundle(document, [*blobs, b"a stowaway"])


@case
def blob_changed() -> bytes:
    return good()[:-1] + b"!"


@case
def blobs_out_of_order() -> bytes:
    document, blobs = tiny.document()
    ordered = sorted(blobs, key=tiny.digest, reverse=True)
    entries = [{"digest": tiny.digest(blob), "size": len(blob)} for blob in ordered]
    document["blobs"] = entries
    return container(spelled(sealed(json.dumps(document).encode())), ordered)


@case
def blob_larger_than_the_file() -> bytes:
    document, blobs = tiny.document()
    entries = [{"digest": d, "size": 2**40} for d in sorted(map(tiny.digest, blobs))]
    return bundle(document | {"blobs": entries}, blobs)


@case
def model_card_is_not_text() -> bytes:
    document, blobs = tiny.document()
    document["model_card"] = tiny.digest(b"\xff\xfe")
    return bundle(document, [*blobs[:-1], b"\xff\xfe"])


@case
def reference_of_another_size() -> bytes:
    document, blobs = tiny.document()
    blob = bytes(7)
    old = document["reference"][0]["inputs"]["z"]
    document["reference"][0]["inputs"]["z"] = tiny.digest(blob)
    return bundle(document, [b for b in blobs if tiny.digest(b) != old] + [blob])


@case
def reference_of_two_batches() -> bytes:
    document, blobs = tiny.document()
    blob = tiny.tensor([[1], [2], [3]])
    old = document["reference"][0]["inputs"]["z"]
    document["reference"][0]["inputs"]["z"] = tiny.digest(blob)
    return bundle(document, [b for b in blobs if tiny.digest(b) != old] + [blob])


# ---- ONNX -------------------------------------------------------------------------------
node, F32 = helper.make_node, TensorProto.FLOAT


def cost(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, **changes: Any
) -> bytes:
    """The tiny bundle with these nodes as its cost: from z (K, 1) to goal (K, 1)."""
    ports = {"z": (F32, ["K", 1])}, {"goal": (F32, ["K", 1])}
    return with_graph("cost", tiny.graph(ports[0], nodes, ports[1], constants, **changes))


def changed_cost(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = onnx.load_model_from_string(tiny.graphs()["cost"])
    change(model)
    return with_graph("cost", model.SerializeToString())


@case
def graph_of_noise() -> bytes:
    return with_graph("cost", bytes(range(256)) * 4)


@case
def graph_cut_off() -> bytes:
    return with_graph("cost", tiny.graphs()["cost"][:-3])


@case
def graph_is_empty_message() -> bytes:
    return with_graph("cost", b"\x08\x08\x42\x02\x10\x11")


@case
def graph_of_an_old_opset() -> bytes:
    return cost([node("Mul", ["z", "z"], ["goal"])], opset=9)


@case
def graph_with_custom_domain() -> bytes:
    return cost([node("FusedMatMul", ["z", "z"], ["goal"], domain="com.microsoft")])


@case
def graph_importing_a_custom_domain() -> bytes:
    return changed_cost(lambda m: m.opset_import.add(domain="evil", version=1))


@case
def graph_with_unknown_operator() -> bytes:
    return cost([node("Warp", ["z"], ["goal"])])


@case
def graph_that_rolls_dice() -> bytes:
    return cost([node("RandomUniformLike", ["z"], ["goal"])])


def _branch(name: str) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(name, F32, ["K", 1])
    return helper.make_graph([node("Identity", ["z"], [name])], name, [], [output])


@case
def graph_with_if() -> bytes:
    branches = {"then_branch": _branch("a"), "else_branch": _branch("b")}
    return cost([node("If", ["c"], ["goal"], **branches)], {"c": np.array(True)})


@case
def graph_with_loop() -> bytes:
    body = _branch("a")
    return cost(
        [node("Loop", ["n", "", "z"], ["goal"], body=body)], {"n": np.array(2**40, np.int64)}
    )


@case
def graph_with_local_function() -> bytes:
    def change(model: onnx.ModelProto) -> None:
        opset = [helper.make_opsetid("", 17)]
        body = [node("Identity", ["a"], ["b"])]
        model.functions.append(helper.make_function("local", "f", ["a"], ["b"], body, opset))

    return changed_cost(change)


@case
def graph_with_training_information() -> bytes:
    return changed_cost(lambda m: m.training_info.add())


@case
def graph_with_external_data() -> bytes:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer.add(name="w", data_type=F32, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")

    return changed_cost(change)


@case
def graph_with_sparse_weights() -> bytes:
    return changed_cost(lambda m: m.graph.sparse_initializer.add())


@case
def graph_with_strings() -> bytes:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.add(name="w", data_type=TensorProto.STRING, dims=[1])

    return changed_cost(change)


@case
def graph_with_too_short_weights() -> bytes:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.add(name="w", data_type=F32, dims=[2**20], raw_data=bytes(4))

    return changed_cost(change)


@case
def graph_with_weights_of_negative_size() -> bytes:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.add(name="w", data_type=F32, dims=[-4])

    return changed_cost(change)


@case
def graph_with_two_graphs() -> bytes:
    blob = tiny.graphs()["cost"]
    return with_graph("cost", blob + blob)


@case
def graph_with_too_many_nodes() -> bytes:
    nodes = [node("Mul", ["z", "z"], ["goal"])] * 20_001
    return cost(nodes)


@case
def constant_of_huge_shape() -> bytes:
    nodes = [
        node("ConstantOfShape", ["n"], ["huge"]),
        node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        node("Add", ["z", "sum"], ["goal"]),
    ]
    return cost(nodes, {"n": np.array([2**32], np.int64)})


@case
def constants_that_fold_for_hours() -> bytes:
    # what hung onnxruntime in 647 bytes: each below the limit of a tensor, together too much
    nodes = [node("ConstantOfShape", ["n"], ["c0"])]
    nodes += [node("MatMul", [f"c{i}", f"c{i}"], [f"c{i + 1}"]) for i in range(20)]
    nodes += [node("ReduceSum", ["c20"], ["s"], keepdims=0), node("Add", ["z", "s"], ["goal"])]
    return cost(nodes, {"n": np.array([2000, 2000], np.int64)})


@case
def constants_that_fill_the_memory() -> bytes:
    nodes = [node("ConstantOfShape", ["n"], ["c0"])]
    nodes += [node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(27)]
    nodes += [node("ReduceSum", ["c27"], ["s"], keepdims=0), node("Add", ["z", "s"], ["goal"])]
    return cost(nodes, {"n": np.array([1], np.int64)})


@case
def expanded_without_end() -> bytes:
    nodes = [
        node("Expand", ["z", "n"], ["huge"]),
        node("ReduceMean", ["huge"], ["goal"], axes=[0, 1]),
    ]
    return cost(nodes, {"n": np.array([2**20, 2**20, 1, 1], np.int64)})


@case
def tiled_without_end() -> bytes:
    nodes = [node("Tile", ["w", "n"], ["huge"]), node("Mul", ["z", "huge"], ["goal"])]
    return cost(nodes, {"w": np.ones(1, np.float32), "n": np.array([2**40], np.int64)})


@case
def range_without_end() -> bytes:
    numbers = {"a": np.array(0.0), "b": np.array(1.0), "c": np.array(1e-12)}
    return cost([node("Range", ["a", "b", "c"], ["goal"])], numbers)


@case
def broadcast_without_end() -> bytes:
    nodes = [node("Add", ["a", "b"], ["huge"]), node("Mul", ["z", "huge"], ["goal"])]
    wide = np.ones((2**16, 1), np.float32)
    return cost(nodes, {"a": wide, "b": wide.reshape(1, -1)})


@case
def convolution_padded_without_end() -> bytes:
    nodes = [
        node("Reshape", ["z", "n"], ["image"]),
        node("Conv", ["image", "w"], ["huge"], pads=[2**40, 0, 0, 0]),
        node("ReduceMean", ["huge"], ["goal"], axes=[2, 3], keepdims=0),
    ]
    constants = {"n": np.array([-1, 1, 1, 1]), "w": np.ones((1, 1, 1, 1), np.float32)}
    return cost(nodes, constants)


@case
def size_that_depends_on_data() -> bytes:
    nodes = [
        node("Cast", ["z"], ["n"], to=TensorProto.INT64),
        node("Reshape", ["z", "n"], ["goal"]),
    ]
    return cost(nodes)


@case
def nodes_out_of_order() -> bytes:
    return cost([node("Mul", ["a", "z"], ["goal"]), node("Add", ["z", "z"], ["a"])])


@case
def output_that_nothing_gives() -> bytes:
    return cost([node("Mul", ["z", "z"], ["other"])])


@case
def output_given_twice() -> bytes:
    return cost([node("Mul", ["z", "z"], ["goal"]), node("Add", ["z", "z"], ["goal"])])


@case
def batch_baked_in() -> bytes:
    nodes = [node("Reshape", ["z", "n"], ["goal"])]
    return cost(nodes, {"n": np.array([16, 1], np.int64)})


@case
def other_inputs_than_declared() -> bytes:
    ports = {"state": (F32, ["K", 1])}, {"goal": (F32, ["K", 1])}
    return with_graph("cost", tiny.graph(ports[0], [node("Neg", ["state"], ["goal"])], ports[1]))


@case
def input_of_another_shape() -> bytes:
    blob = tiny.graph(
        {"z": (F32, ["K", 2])},
        [node("ReduceSum", ["z", "axes"], ["goal"])],
        {"goal": (F32, ["K", 1])},
        {"axes": np.array([1])},
    )
    return with_graph("cost", blob)


@case
def output_of_another_type() -> bytes:
    blob = tiny.graph(
        {"z": (F32, ["K", 1])},
        [node("Cast", ["z"], ["goal"], to=TensorProto.DOUBLE)],
        {"goal": (TensorProto.DOUBLE, ["K", 1])},
    )
    return with_graph("cost", blob)


@case
def input_that_is_also_a_weight() -> bytes:
    return cost([node("Mul", ["z", "z"], ["goal"])], {"z": np.ones((1, 1), np.float32)})


# ---- TFLite -----------------------------------------------------------------------------
def tflite_cost(change: Callable[[Any], object] = lambda model: None) -> bytes:
    return with_graph("cost", tiny.tflite_cost(change), "tflite")


def tflite_graph(tensors: list[Any], operators: list[Any], **changes: Any) -> bytes:
    """The tiny bundle with a TFLite cost from tensor 0 (z) to tensor 1 (goal)."""
    tensors = [("z", [4, 1], None), ("goal", [4, 1], None), *tensors]
    return with_graph("cost", tiny.tflite(tensors, operators, [0], [1], **changes), "tflite")


@case
def tflite_that_is_onnx() -> bytes:
    return with_graph("cost", tiny.graphs()["cost"], "tflite")


@case
def tflite_with_an_offset_outside() -> bytes:
    blob = bytearray(tiny.tflite_cost())
    struct.pack_into("<I", blob, 0, 2**31)
    return with_graph("cost", bytes(blob), "tflite")


@case
def tflite_of_another_schema() -> bytes:
    return tflite_cost(lambda m: setattr(m, "version", 4))


@case
def tflite_with_two_subgraphs() -> bytes:
    return tflite_cost(lambda m: m.subgraphs.append(m.subgraphs[0]))


@case
def tflite_with_custom_operator() -> bytes:
    def change(model: Any) -> None:
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = 32
        code.customCode = b"Evil"

    return tflite_cost(change)


@case
def tflite_with_while() -> bytes:
    def change(model: Any) -> None:
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = 119

    return tflite_cost(change)


@case
def tflite_with_operator_outside_the_list() -> bytes:
    def change(model: Any) -> None:
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = 120  # NON_MAX_SUPPRESSION_V4

    return tflite_cost(change)


@case
def tflite_with_variable() -> bytes:
    return tflite_cost(lambda m: setattr(m.subgraphs[0].tensors[1], "isVariable", True))


@case
def tflite_with_open_batch() -> bytes:
    return tflite_cost(lambda m: setattr(m.subgraphs[0].tensors[0], "shapeSignature", [-1, 1]))


@case
def tflite_with_wrong_tensor_index() -> bytes:
    return tflite_cost(lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [0, 99]))


@case
def tflite_with_external_buffer() -> bytes:
    def change(model: Any) -> None:
        model.buffers[0].offset, model.buffers[0].size = 4096, 16

    return tflite_cost(change)


@case
def tflite_with_other_names() -> bytes:
    return tflite_cost(lambda m: setattr(m.subgraphs[0].tensors[1], "name", b"cost"))


@case
def tflite_that_lies_about_a_shape() -> bytes:
    return tflite_graph(
        [("wide", [4, 1], None), ("w", [1, 9], np.ones((1, 9), np.float32))],
        [("MUL", [0, 3], [2], ("MulOptions", {})), ("MUL", [2, 0], [1], ("MulOptions", {}))],
    )


@case
def tflite_filled_without_end() -> bytes:
    return tflite_graph(
        [
            ("n", [2], np.array([2**30, 2**30], np.int32)),
            ("one", [], np.ones((), np.float32)),
            ("huge", [4, 1], None),
        ],
        [("FILL", [2, 3], [4], ("FillOptions", {})), ("MUL", [0, 4], [1], ("MulOptions", {}))],
    )


@case
def tflite_with_too_short_weights() -> bytes:
    def change(model: Any) -> None:
        model.subgraphs[0].tensors[2].shape = [1000]

    return tflite_graph(
        [("w", [1], np.ones(1, np.float32))],
        [("MUL", [0, 2], [1], ("MulOptions", {}))],
        change=change,
    )


@case
def tflite_of_two_batches() -> bytes:
    tensors = [("z", [4, 1], None), ("goal", [8, 1], None)]
    blob = tiny.tflite(tensors, [("MUL", [0, 0], [1], ("MulOptions", {}))], [0], [1])
    return with_graph("cost", blob, "tflite")
