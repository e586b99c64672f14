"""The manifest: what a bundle's model is, what it needs, and which tensor means what.

A world model is a handful of functions over a declared belief (named tensors). Each function
is one graph, and the manifest is the only place that knows what its inputs are fed from
(`source`) and what its outputs are (`target`); nothing else knows a model family.

    function      may be fed from                            must give
    encoder       observation.<stream>                       latent.<name>, or without a
                                                             posterior every belief.<name>
    posterior     belief.*, latent.*, last_action, dt, noise every belief.<name>
    dynamics      belief.*, action, dt, noise                every belief.<name>
    cost          belief.*, action, goal.*                   cost.<term> of every cost term
    constraint    belief.*, action                           constraint: infeasible where > 0
    value         belief.*, goal.*                           value: the cost beyond the horizon
    policy        belief.*, goal.*, noise                    action.mean (and action.std),
                                                             or action.chunk
    goal_encoder  goal.pose, goal.joints, goal.image         goal.latent
    decoder       belief.*                                   image, for people only

Only `encoder` and one of (`dynamics` + `cost`) or `policy` are required. Without `cost` there is
nothing to plan by: such a bundle acts by its policy, and `dynamics` beside it only imagines.

Shapes. Every source and target has an *item* shape, without a batch axis: a stream's or a
belief tensor's declared shape; (block * A,) for `action`, `last_action`, `action.mean` and
`action.std`; (steps, block * A) for `action.chunk`; () or (1,) for `dt` (seconds),
`cost.<term>` and `value`; (4,) for `goal.pose` (x, y, yaw, has_yaw); (C,) for `constraint`;
(height, width, 3) for images (uint8, or float32 from 0 to 1). A graph's tensor has the item
shape itself, or one axis before it: -1, the batch of K candidates, or 1. What is rolled out
(dynamics, cost, constraint, value) gives its outputs with -1.

Actions inside a model are normalized: model_action = (SI - offset) / scale, per axis.

Invariant: a `Manifest` that `parse_manifest` returned is consistent; nobody checks it again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np

from edge_wm.errors import BundleError
from edge_wm.types import STREAM_TYPES

FORMAT = "edge-wm/bundle/1"
SCALARS: tuple[tuple[int, ...], ...] = ((), (1,))

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$", max_length=64)]
TensorName = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+$", max_length=200)]
Text = Annotated[str, msgspec.Meta(max_length=2000)]
Dtype = Literal["float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool"]
Dims = Annotated[tuple[int, ...], msgspec.Meta(max_length=8)]
FunctionName = Literal[
    "encoder",
    "posterior",
    "dynamics",
    "cost",
    "constraint",
    "value",
    "policy",
    "goal_encoder",
    "decoder",
]
GoalKind = Literal["pose", "joints", "latent", "image"]
GraphKind = Literal["onnx", "tflite", "program"]
AxisKind = Literal["position", "velocity", "effort", "twist"]
PlannerKind = Literal["mppi", "cem"]

ROLLED_OUT: tuple[FunctionName, ...] = ("dynamics", "cost", "constraint", "value")

# What each function may be fed from and may give; "x." stands for every name below x.
SOURCES: Mapping[str, tuple[str, ...]] = {
    "encoder": ("observation.",),
    "posterior": ("belief.", "latent.", "last_action", "dt", "noise"),
    "dynamics": ("belief.", "action", "dt", "noise"),
    "cost": ("belief.", "action", "goal."),
    "constraint": ("belief.", "action"),
    "value": ("belief.", "goal."),
    "policy": ("belief.", "goal.", "noise"),
    "goal_encoder": ("goal.pose", "goal.joints", "goal.image"),
    "decoder": ("belief.",),
}
TARGETS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("latent.", "belief."),
    "posterior": ("belief.",),
    "dynamics": ("belief.",),
    "cost": ("cost.",),
    "constraint": ("constraint",),
    "value": ("value",),
    "policy": ("action.mean", "action.std", "action.chunk"),
    "goal_encoder": ("goal.latent",),
    "decoder": ("image",),
}


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the manifest: frozen, and a field that it does not know is an error."""


class StreamNeed(_Part, frozen=True, kw_only=True):
    """A sensor stream as the model was trained on it."""

    type: str  # one of edge_wm.types.STREAM_TYPES
    shape: Dims
    dtype: Dtype
    unit: str


class AxisNeed(_Part, frozen=True, kw_only=True):
    """An axis that the model commands. model_action = (SI - offset) / scale."""

    name: Name
    kind: AxisKind
    unit: str
    scale: float
    offset: float = 0.0


class Needs(_Part, frozen=True, kw_only=True):
    """What a robot must have for this model."""

    streams: dict[Name, StreamNeed]
    axes: tuple[AxisNeed, ...]  # in the order of an action's numbers


class DtRange(_Part, frozen=True, kw_only=True):
    """The step durations that `dynamics` was trained on, s."""

    min_s: float
    max_s: float


class BeliefTensor(_Part, frozen=True, kw_only=True):
    """One tensor of the belief, without a batch axis."""

    name: Name
    shape: Dims
    dtype: Dtype = "float32"


class Input(_Part, frozen=True, kw_only=True):
    """A graph's input and what it is fed from."""

    tensor: TensorName
    source: str
    shape: Dims  # a leading -1 is the batch (K) axis
    dtype: Dtype = "float32"


class Output(_Part, frozen=True, kw_only=True):
    """A graph's output and what it is."""

    tensor: TensorName
    target: str
    shape: Dims  # a leading -1 is the batch (K) axis
    dtype: Dtype = "float32"


class Function(_Part, frozen=True, kw_only=True):
    """One function of the world model: the same computation, as one graph per format."""

    graphs: dict[GraphKind, Digest]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]


class PlannerDefaults(_Part, frozen=True, kw_only=True):
    """How to plan with this model unless a run says otherwise."""

    kind: PlannerKind
    candidates: int  # K
    iterations: int
    elites: int
    noise_std: tuple[float, ...]  # (A,), SI units
    temperature: float = 1.0  # of MPPI's weights, in units of cost
    noise_beta: float = 0.0  # spectral exponent of the noise: 0 white, 2 brown
    momentum: float = 0.0  # share of the old mean that an iteration keeps
    policy_candidates: int = 0  # of `candidates`, those that the policy proposes


class CostTerm(_Part, frozen=True, kw_only=True):
    """A weighted cost term. A run may change `weight` within [min, max]."""

    weight: float
    min: float
    max: float
    meaning: str


class ReferenceCase(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """Inputs and outputs of one function, computed where the bundle was built.

    Blobs hold the raw C-order little-endian tensors; a batch axis follows from the size. A
    backend agrees where |got - stored| <= tolerance * max(1, |stored|), element by element.
    """

    function: FunctionName
    inputs: dict[TensorName, Digest]
    outputs: dict[TensorName, Digest]
    tolerance: float
    formats: tuple[GraphKind, ...] = ()  # of the graphs that it holds for; none: for all


class BlobEntry(_Part, frozen=True, kw_only=True):
    """A blob of the container, in file order (ascending digest)."""

    digest: Digest
    size: int  # bytes


class Manifest(_Part, frozen=True, kw_only=True):
    """What a bundle's model is."""

    format: str
    name: Name
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", max_length=32)]
    description: Text
    license: Text
    needs: Needs
    step_ns: int  # the duration of one model step
    horizon: int  # H, model steps
    belief: tuple[BeliefTensor, ...]
    functions: dict[FunctionName, Function]
    block: int = 1  # actions per model step
    # Grows with every release after which no older one may be activated (docs/deploy.md).
    counter: Annotated[int, msgspec.Meta(ge=0, le=2**31)] | msgspec.UnsetType = msgspec.UNSET
    dt: DtRange | None = None
    planner: PlannerDefaults | None = None
    cost_terms: dict[Name, CostTerm] = {}
    goal_kinds: tuple[GoalKind, ...] = ()
    reference: tuple[ReferenceCase, ...] = ()
    accuracy_card: dict[str, Any] = {}
    calibration_sha256: Digest | None = None
    model_card: Digest | None = None  # a blob: markdown
    blobs: tuple[BlobEntry, ...] = ()

    @property
    def action_size(self) -> int:
        """Numbers in one model action: block * A."""
        return self.block * len(self.needs.axes)

    def belief_tensor(self, name: str) -> BeliefTensor:
        """The belief tensor of that name."""
        return next(tensor for tensor in self.belief if tensor.name == name)


def digests(manifest: Manifest) -> set[str]:
    """Every blob that the manifest refers to."""
    found = {digest for f in manifest.functions.values() for digest in f.graphs.values()}
    for case in manifest.reference:
        found |= {*case.inputs.values(), *case.outputs.values()}
    return found | ({manifest.model_card} if manifest.model_card else set())


def batch_of(shape: tuple[int, ...], size: int, dtype: str) -> int | None:
    """The batch K for which a tensor of `shape` fills `size` bytes (1 without a batch axis).

    None if there is none.
    """
    batched = shape[:1] == (-1,)
    item = math.prod(shape[1:] if batched else shape) * np.dtype(dtype).itemsize
    if batched:
        return size // item if size and size % item == 0 else None
    return 1 if size == item else None


# ---- parsing ----------------------------------------------------------------------------
def parse_manifest(data: bytes | memoryview, where: str) -> Manifest:
    """The manifest in `data` (JSON), with every check that needs no blob.

    Raises: BundleError, naming `where` and the path inside the manifest.
    """
    try:
        head = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: the manifest is not JSON ({error}); build it anew") from None
    return manifest_from(head, where)


def manifest_from(value: object, where: str, *, strict: bool = True) -> Manifest:
    """The manifest in a decoded JSON or YAML value, with every check that needs no blob.

    strict: False takes numbers written as text, as YAML reads `1e-4`.

    Raises: BundleError, naming `where` and the path inside the manifest.
    """
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        raise BundleError(
            f"{where}: manifest.format must be {FORMAT!r}, got {found!r}; "
            "use an edge-wm that knows this format, or build the bundle anew"
        )
    for path, part, kind in _named_parts(value):
        _convert(part, kind, path, where, strict)
    manifest: Manifest = _convert(value, Manifest, "manifest", where, strict)
    for problem in _problems(manifest):
        raise BundleError(f"{where}: manifest.{problem}")
    return manifest


def _named_parts(document: Any) -> Iterator[tuple[str, Any, Any]]:
    """(path, value, type) of the parts that have names, so that an error can give them."""
    needs = document.get("needs")
    for path, parts, kind in (
        ("functions", document.get("functions"), Function),
        ("cost_terms", document.get("cost_terms"), CostTerm),
        ("needs.streams", needs.get("streams") if isinstance(needs, dict) else None, StreamNeed),
    ):
        for name, part in parts.items() if isinstance(parts, dict) else ():
            yield f"manifest.{path}.{name}", part, kind


def _convert(value: Any, kind: Any, path: str, where: str, strict: bool) -> Any:
    """`value`, which is at `path`, as a `kind`. Raises: BundleError."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except (msgspec.ValidationError, RecursionError) as error:
        what, _, steps = str(error).partition(" - at ")
        steps = steps.replace("`", "")
        place = steps.replace("key in ", "a name in ").replace("$", path, 1) or path
        field = re.sub(r"\[\d+\]", "", place)
        choices = next((c for end, c in _CHOICES.items() if field.endswith(end)), ())
        found = f", got {_found(value, steps)!r}" if "matching regex" in what else ""
        advice = f"; choose one of {', '.join(choices)}" if choices else ""
        message = f"{where}: {place}: {what[0].lower()}{what[1:]}{found}{advice}"
        raise BundleError(message) from None


def _found(value: Any, steps: str) -> Any:
    """What msgspec's path "$.a[0].b" leads to; names of mappings are left out of it."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", steps):
        if index == "...":
            return value
        value = value[name] if name else value[int(index)]
    return value


# Where a word must be one of a few, by how the path ends.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "a name in manifest.functions": get_args(FunctionName),
    "reference.function": get_args(FunctionName),
    "dtype": get_args(Dtype),
    "goal_kinds": get_args(GoalKind),
    ".graphs": get_args(GraphKind),
    "needs.axes.kind": get_args(AxisKind),
    "planner.kind": get_args(PlannerKind),
}


# Each check below yields "path: what is expected, what was found", worst first; only the first
# is raised.
def _problems(m: Manifest) -> Iterator[str]:
    yield from _need_problems(m)
    yield from _number_problems(m)
    yield from _belief_problems(m)
    for name, function in m.functions.items():
        yield from _function_problems(m, name, function)
    yield from _model_problems(m)
    yield from _planner_problems(m)
    yield from _reference_problems(m)


def _range(path: str, value: float, low: float, high: float) -> Iterator[str]:
    if not (math.isfinite(value) and low <= value <= high):
        yield f"{path} must be from {low:g} to {high:g}, got {value:g}"


def _need_problems(m: Manifest) -> Iterator[str]:
    if not m.needs.streams:
        yield "needs.streams must name at least one sensor stream, got none"
    for name, stream in m.needs.streams.items():
        if stream.type not in STREAM_TYPES:
            yield (
                f"needs.streams.{name}.type must be one of {', '.join(STREAM_TYPES)}, "
                f"got {stream.type!r}"
            )
        yield from _shape_problems(f"needs.streams.{name}.shape", stream.shape)
    if not m.needs.axes:
        yield "needs.axes must name at least one axis, got none"
    names = [axis.name for axis in m.needs.axes]
    yield from _repeats("needs.axes", names)
    for axis in m.needs.axes:
        if not (math.isfinite(axis.scale) and axis.scale > 0):
            yield f"needs.axes.{axis.name}.scale must be finite and above 0, got {axis.scale:g}"
        if not math.isfinite(axis.offset):
            yield f"needs.axes.{axis.name}.offset must be finite, got {axis.offset:g}"


def _number_problems(m: Manifest) -> Iterator[str]:
    yield from _range("step_ns", m.step_ns, 1_000_000, 10_000_000_000)
    yield from _range("horizon", m.horizon, 1, 1000)
    yield from _range("block", m.block, 1, 100)
    if m.dt:
        yield from _range("dt.min_s", m.dt.min_s, 1e-3, 10)
        yield from _range("dt.max_s", m.dt.max_s, m.dt.min_s, 10)
        if not m.dt.min_s <= m.step_ns / 1e9 <= m.dt.max_s:
            yield (
                f"step_ns ({m.step_ns / 1e9:g} s) must lie in dt, "
                f"got {m.dt.min_s:g} to {m.dt.max_s:g} s"
            )
    yield from _card_problems("accuracy_card", m.accuracy_card, 4)


def _card_problems(path: str, value: object, depth: int) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{path} must hold finite numbers, got {value:g}"
    elif isinstance(value, dict | list):
        if depth == 0:
            yield f"{path} is nested too deep; 4 levels are allowed"
            return
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _card_problems(f"{path}.{key}", inner, depth - 1)


def _belief_problems(m: Manifest) -> Iterator[str]:
    if not m.belief:
        yield "belief must hold at least one tensor, got none"
    yield from _repeats("belief", [tensor.name for tensor in m.belief])
    for tensor in m.belief:
        yield from _shape_problems(f"belief.{tensor.name}.shape", tensor.shape)


def _shape_problems(path: str, shape: tuple[int, ...]) -> Iterator[str]:
    if any(size < 1 for size in shape) or math.prod(shape) > 2**24:
        yield f"{path} must be sizes of at least 1, 2^24 numbers in all, got {list(shape)}"


def _repeats(path: str, names: list[str]) -> Iterator[str]:
    for name in names:
        if names.count(name) > 1:
            yield f"{path}: {name!r} must appear once, got {names.count(name)} times"
            return


def _allowed(word: str, allowed: tuple[str, ...]) -> bool:
    return any(
        word.startswith(entry) and len(word) > len(entry) if entry.endswith(".") else word == entry
        for entry in allowed
    )


def _function_problems(m: Manifest, name: str, function: Function) -> Iterator[str]:
    at = f"functions.{name}"
    if not function.graphs:
        yield f"{at}.graphs must give an onnx or a tflite graph, got none"
    if not function.inputs or not function.outputs:
        yield f"{at} must have at least one input and one output"
    tensors = [i.tensor for i in function.inputs] + [o.tensor for o in function.outputs]
    yield from _repeats(at, tensors)
    yield from _repeats(f"{at}.inputs", [i.source for i in function.inputs])
    yield from _repeats(f"{at}.outputs", [o.target for o in function.outputs])
    for i in function.inputs:
        yield from _meaning_problems(m, name, f"{at}.inputs.{i.tensor}", i, "source", i.source)
    for o in function.outputs:
        yield from _meaning_problems(m, name, f"{at}.outputs.{o.tensor}", o, "target", o.target)
    yield from _completeness_problems(m, name, function)


def _meaning_problems(
    m: Manifest, name: str, at: str, tensor: Input | Output, role: str, word: str
) -> Iterator[str]:
    """One tensor of a graph against the source or target that it stands for."""
    allowed = (SOURCES if role == "source" else TARGETS)[name]
    if not _allowed(word, allowed):
        choices = ", ".join(entry + "<name>" if entry.endswith(".") else entry for entry in allowed)
        yield f"{at}.{role} must be one of {choices}, got {word!r}"
        return
    if any(size < 1 for size in tensor.shape[1:]) or any(s < 1 and s != -1 for s in tensor.shape):
        yield f"{at}.shape must be sizes of at least 1, -1 only first, got {list(tensor.shape)}"
        return
    meaning = _meaning(m, word)
    if isinstance(meaning, str):
        yield f"{at}.{role} {word!r}: {meaning}"
        return
    items, dtypes = meaning
    shape = tensor.shape
    fits = any(shape in (item, (-1, *item), (1, *item)) for item in items)
    if items and not fits:
        expected = " or ".join(str([*item]) for item in items)
        yield (
            f"{at}.shape must be {expected} (or with a batch axis of -1 or 1 before it) "
            f"as {word} says, got {list(shape)}"
        )
    if role == "target" and name in ROLLED_OUT and shape[:1] != (-1,):
        yield f"{at}.shape must begin with -1, the batch of candidates, got {list(shape)}"
    if dtypes and tensor.dtype not in dtypes:
        yield f"{at}.dtype must be {' or '.join(dtypes)} as {word} says, got {tensor.dtype}"


def _meaning(m: Manifest, word: str) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]] | str:
    """What `word` stands for: its possible item shapes and dtypes (empty: free), or why not."""
    kind, _, rest = word.partition(".")
    if kind == "observation":
        if rest not in m.needs.streams:
            return f"needs.streams has no {rest!r}, only {', '.join(m.needs.streams)}"
        stream = m.needs.streams[rest]
        return (stream.shape,), tuple(dict.fromkeys((stream.dtype, "float32")))
    if kind == "belief":
        if all(tensor.name != rest for tensor in m.belief):
            return f"belief has no {rest!r}, only {', '.join(t.name for t in m.belief)}"
        tensor = m.belief_tensor(rest)
        return (tensor.shape,), (tensor.dtype,)
    if kind == "cost":
        if rest not in m.cost_terms:
            return f"cost_terms has no {rest!r}, only {', '.join(m.cost_terms) or 'nothing'}"
        return SCALARS, ("float32",)
    if word == "dt":
        if m.dt is None:
            return "the manifest must give `dt: {min_s, max_s}`, the range it was trained on"
        return SCALARS, ("float32",)
    if word == "value":
        return SCALARS, ("float32",)
    if word in ("action", "last_action", "action.mean", "action.std"):
        return ((m.action_size,),), ("float32",)
    if word == "goal.pose":
        return ((4,),), ("float32",)
    if word in ("goal.image", "image"):
        return (), ("uint8", "float32")
    if word in ("goal.joints", "goal.latent", "action.chunk", "constraint", "noise"):
        return (), ("float32",)
    if kind == "goal":
        return "a goal is goal.pose, goal.joints, goal.latent or goal.image"
    return (), ()  # latent.<name>: the encoder's and the posterior's own business


def _completeness_problems(m: Manifest, name: str, function: Function) -> Iterator[str]:
    """Whether a function gives all that it must, and is fed only what there is."""
    at = f"functions.{name}"
    targets = {o.target for o in function.outputs}
    beliefs = {f"belief.{tensor.name}" for tensor in m.belief}
    if name in ("dynamics", "posterior") or (name == "encoder" and "posterior" not in m.functions):
        if targets != beliefs:
            yield (
                f"{at}.outputs must give the whole belief ({', '.join(sorted(beliefs))}), "
                f"got {', '.join(sorted(targets))}"
            )
    elif name == "encoder" and targets & beliefs:
        yield (
            f"{at}.outputs must be latent.<name> where there is a posterior, "
            f"got {', '.join(sorted(targets & beliefs))}"
        )
    if name == "cost":
        terms = {f"cost.{term}" for term in m.cost_terms if term != "value"}
        if targets != terms:
            yield (
                f"{at}.outputs must give every cost term ({', '.join(sorted(terms))}), "
                f"got {', '.join(sorted(targets))}"
            )
    if name == "policy" and ("action.mean" in targets) == ("action.chunk" in targets):
        yield f"{at}.outputs must give action.mean or action.chunk, got {sorted(targets)}"
    if name == "policy":
        chunk = next((o for o in function.outputs if o.target == "action.chunk"), None)
        if chunk and (len(chunk.shape) < 2 or chunk.shape[-1] != m.action_size):
            yield (
                f"{at}.outputs.{chunk.tensor}.shape must end with (steps, {m.action_size}), "
                f"got {list(chunk.shape)}"
            )
    if name in ("dynamics", "cost") and not any(
        i.source.startswith("belief.") for i in function.inputs
    ):
        yield f"{at}.inputs must read the belief, got {[i.source for i in function.inputs]}"
    if name == "dynamics" and all(i.source != "action" for i in function.inputs):
        yield f"{at}.inputs must read the action, got {[i.source for i in function.inputs]}"
    if name == "posterior" and "encoder" in m.functions:
        given = {o.target: o for o in m.functions["encoder"].outputs}
        for i in function.inputs:
            if i.source.startswith("latent."):
                yield from _latent_problems(f"{at}.inputs.{i.tensor}", i, given.get(i.source))


def _latent_problems(at: str, i: Input, given: Output | None) -> Iterator[str]:
    if given is None:
        yield f"{at}.source {i.source!r}: the encoder has no such output"
    elif (given.shape, given.dtype) != (i.shape, i.dtype):
        yield (
            f"{at} must be {given.dtype} {list(given.shape)} as the encoder gives it, "
            f"got {i.dtype} {list(i.shape)}"
        )


def _model_problems(m: Manifest) -> Iterator[str]:
    """The functions together: is this a world model that can plan?"""
    have = ", ".join(m.functions) or "nothing"
    if "encoder" not in m.functions:
        yield f"functions must have an encoder, got {have}"
    plans = {"dynamics", "cost"} <= set(m.functions)
    if not plans and "policy" not in m.functions:
        yield f"functions must have dynamics and cost, or a policy, got {have}"
    if "cost" in m.functions and "dynamics" not in m.functions:
        yield f"functions.cost needs dynamics beside it, got {have}"
    for name in ("constraint", "value"):
        if name in m.functions and not plans:
            yield f"functions.{name} needs dynamics and cost beside it, got {have}"
    if "value" in m.cost_terms and "value" not in m.functions:
        yield "cost_terms.value weighs the function value, which the bundle does not have"
    if m.cost_terms and "cost" not in m.functions:
        yield "cost_terms must be empty without the function cost"
    for name, term in m.cost_terms.items():
        if not all(map(math.isfinite, (term.weight, term.min, term.max))):
            yield f"cost_terms.{name} must hold finite numbers"
        elif not 0 <= term.min <= term.weight <= term.max:
            yield (
                f"cost_terms.{name}.weight must satisfy 0 <= min <= weight <= max, "
                f"got min {term.min:g}, weight {term.weight:g}, max {term.max:g}"
            )
    yield from _goal_problems(m)


def _goal_problems(m: Manifest) -> Iterator[str]:
    """Every goal kind must give every goal tensor that planning reads, and be read."""
    goals = {
        name: {i.source for i in function.inputs if i.source.startswith("goal.")}
        for name, function in m.functions.items()
    }
    encoder = goals.pop("goal_encoder", set())
    read = set().union(*goals.values())
    if read and not m.goal_kinds:
        yield f"goal_kinds must name the goals that {', '.join(sorted(read))} comes from"
    for kind in m.goal_kinds:
        given = {f"goal.{kind}"} | ({"goal.latent"} if encoder == {f"goal.{kind}"} else set())
        if read - given:
            yield (
                f"goal_kinds: {kind!r} does not give {', '.join(sorted(read - given))}, "
                "which the functions read"
            )
        if not read & given:
            yield f"goal_kinds: {kind!r} is read by no function"


def _planner_problems(m: Manifest) -> Iterator[str]:
    if (m.planner is None) != ("cost" not in m.functions):
        yield "planner must be given with dynamics and cost, and only then"
    if m.planner is None:
        return
    p = m.planner
    yield from _range("planner.candidates", p.candidates, 1, 65536)
    yield from _range("planner.iterations", p.iterations, 1, 100)
    yield from _range("planner.elites", p.elites, 1, p.candidates)
    yield from _range("planner.temperature", p.temperature, 1e-6, 1e6)
    yield from _range("planner.noise_beta", p.noise_beta, 0, 4)
    yield from _range("planner.momentum", p.momentum, 0, 1)
    most = p.candidates if "policy" in m.functions else 0
    yield from _range("planner.policy_candidates", p.policy_candidates, 0, most)
    if len(p.noise_std) != len(m.needs.axes):
        yield (
            f"planner.noise_std must have one number per axis ({len(m.needs.axes)}), "
            f"got {len(p.noise_std)}"
        )
    for axis, std in zip(m.needs.axes, p.noise_std, strict=False):
        if not (math.isfinite(std) and std > 0):
            yield f"planner.noise_std of {axis.name} must be finite and above 0, got {std:g}"


def _reference_problems(m: Manifest) -> Iterator[str]:
    for number, case in enumerate(m.reference):
        at = f"reference[{number}]"
        function = m.functions.get(case.function)
        if function is None:
            yield f"{at}.function {case.function!r} is not among functions"
            continue
        for role, tensors, given in (
            ("inputs", [i.tensor for i in function.inputs], case.inputs),
            ("outputs", [o.tensor for o in function.outputs], case.outputs),
        ):
            if set(tensors) != set(given):
                yield (
                    f"{at}.{role} must give {', '.join(sorted(tensors))} "
                    f"of {case.function}, got {', '.join(sorted(given)) or 'nothing'}"
                )
        if not (math.isfinite(case.tolerance) and 0 <= case.tolerance <= 1):
            yield f"{at}.tolerance must be from 0 to 1, got {case.tolerance:g}"
