"""The layout of a robot file, and how its text becomes typed values.

Two doors, both here: text → plain values (`read`) and plain values → the structs below
(`convert`). YAML is read in its plain core: no anchors, no aliases, no tags, no merging, no key
twice, no `yes` for true, no 1:30 for 90, so that a file says one thing only. Whatever is wrong
is a RobotFileError that names the file, the path inside it, what was expected and what was
found.

Invariant: this file knows shapes and words, not meanings; whether limits are possible and names
exist is decided in `checks`.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

import msgspec
import yaml
from msgspec import Meta, Struct

from edge_wm.errors import RobotFileError

FORMAT = "edge-wm/robot/1"
FILL_IN = "FILL_IN"  # stands in a file that is not finished, where a person has to write a value
MAX_BYTES = 256 * 1024  # a robot file is a few kB; this bounds what a hostile one can cost
MAX_DEPTH = 16

LARGEST = 1e6  # of any number here, in any unit: larger ones are mistakes, and could overflow
SMALLEST = 1e-6  # of those that must be above 0, for the same reasons

Positive = Annotated[float, Meta(ge=SMALLEST)]
NotNegative = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0.01, le=10_000)]
NAME = r"^[A-Za-z_][A-Za-z0-9_.\-]{0,63}\Z"
Name = Annotated[str, Meta(pattern=NAME)]
Vector3 = tuple[float, float, float]


class _Part(Struct, forbid_unknown_fields=True, kw_only=True):
    """A mapping in the file: no key besides those that are declared."""


class ExtrinsicsPart(_Part):
    parent: Name
    xyz: Vector3
    rpy: Vector3


class StreamPart(_Part):
    type: Literal["image", "joint_state", "imu", "range_scan", "odometry", "vector"]
    topic: Annotated[str, Meta(min_length=1)]
    rate_hz: Rate
    unit: Annotated[str, Meta(min_length=1)]
    max_age_ms: Positive
    max_skew_ms: NotNegative
    stamp: Literal["sensor", "arrival"]
    frame: Name | None = None
    extrinsics: ExtrinsicsPart | None = None
    shape: list[Annotated[int, Meta(ge=1, le=1_000_000)]] | None = None
    joints: list[Name] | None = None
    angle_min: float | None = None
    angle_max: float | None = None
    range_min: NotNegative | None = None
    range_max: Positive | None = None
    derived_from: list[Name] | None = None
    noisy: bool | None = None


class AxisPart(_Part):
    kind: Literal["position", "velocity", "effort", "twist"]
    unit: Literal["rad", "m", "rad/s", "m/s", "N m", "N"]
    velocity: tuple[float, float]
    acceleration: Positive
    braking: Positive
    jerk: Positive
    rest_speed: Positive
    position: tuple[float, float] | None = None
    effort: Positive | None = None


class BasePart(_Part):
    kind: Literal["differential"]
    frame: Name
    wheel_radius: Positive
    track_width: Positive
    left_wheel: Name
    right_wheel: Name
    footprint_radius: Positive


class JointPart(_Part):
    kind: Literal["revolute", "continuous", "prismatic", "fixed"]
    parent: Name
    child: Name
    xyz: Vector3
    rpy: Vector3
    axis: Vector3 | None = None


class BodySpherePart(_Part):
    frame: Name
    center: Vector3
    radius: Positive


class KinematicsPart(_Part):
    root: Name
    joints: dict[Name, JointPart]
    spheres: list[BodySpherePart]


class BoxPart(_Part):
    lower: list[float]
    upper: list[float]


class SpherePart(_Part):
    center: list[float]
    radius: Positive


class RegionPart(_Part):
    frame: Name
    box: BoxPart | None = None
    sphere: SpherePart | None = None


class StoppingPart(_Part):
    stream: Name
    margin: Positive
    slow_distance: NotNegative


class LinkPart(_Part):
    kind: Literal["simulated", "serial"]
    port: Annotated[str, Meta(min_length=1)] | None = None
    baud: Annotated[int, Meta(ge=9600, le=20_000_000)] | None = None
    axes: list[Name] | None = None
    current_max: Positive | None = None
    temperature_max: float | None = None
    bus_voltage: tuple[float, float] | None = None


class RobotPart(_Part):
    """The whole file, in the order in which it is best written."""

    format: Literal["edge-wm/robot/1"]
    name: Name
    streams: dict[Name, StreamPart]
    axes: dict[Name, AxisPart]
    plan_rate_hz: Rate
    setpoint_rate_hz: Rate
    actuation_delay_ms: NotNegative
    dead_man_ms: Positive
    base: BasePart | None = None
    kinematics: KinematicsPart | None = None
    workspace: list[RegionPart] = []
    keep_out: list[RegionPart] = []
    stopping: StoppingPart | None = None
    links: list[LinkPart] = []


# ---- text -> plain values ---------------------------------------------------------------
class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader, less everything by which a file could say two things."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _NotPlain("anchors and aliases are not used here: write the value out", event)
        if getattr(event, "tag", None) is not None:
            raise _NotPlain("tags are not used here: write the plain value", event)
        if self.depth >= MAX_DEPTH:
            raise _NotPlain(f"nested deeper than {MAX_DEPTH} levels", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise _NotPlain("a key must be plain text; put it in quotes", key)
            if key.value in seen:
                raise _NotPlain(f"the key {key.value!r} stands here twice; keep one", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _NotPlain(yaml.YAMLError):
    def __init__(self, what: str, at: Any) -> None:
        super().__init__(f"line {at.start_mark.line + 1}: {what}")


for _tag, _pattern, _first in (
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("bool", r"^(?:true|false)$", list("tf")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$",
        list("-+.0123456789"),
    ),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read(text: str, name: str) -> dict[str, Any]:
    """The file's plain values.

    Raises:
        RobotFileError: too large, not YAML, not plain, or not a mapping.
    """
    if len(text) > MAX_BYTES:
        raise RobotFileError(
            f"robot file {name}: must be at most {MAX_BYTES} bytes, got {len(text)} characters; "
            "is this the right file?"
        )
    try:
        # A SafeLoader with less in it: it makes plain values only.
        value = yaml.load(text, Loader=_PlainLoader)
    except _NotPlain as error:
        raise RobotFileError(f"robot file {name}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise RobotFileError(
            f"robot file {name}: {line}must be YAML, but {problem}; mend the line"
        ) from None
    if not isinstance(value, dict):
        raise RobotFileError(
            f"robot file {name}: must be a mapping that begins with 'format: {FORMAT}', "
            f"got {shown(value)}; see docs/robot-file.md"
        )
    return value


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _numbers(entry, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _numbers(entry, f"{path}[{index}]")
    elif isinstance(value, int | float):
        yield path, value


# ---- plain values -> structs ------------------------------------------------------------
def convert(value: dict[str, Any], name: str) -> RobotPart:
    """The file's values as typed structs.

    Raises:
        RobotFileError: a field is missing, unknown, of another type than declared above, or a
            number out of all proportion.
    """
    found = value.get("format")
    if found != FORMAT:
        fail(
            name,
            "format",
            f"'{FORMAT}'",
            found,
            "this version of edge-wm reads no other; see docs/robot-file.md",
        )
    for path, number in _numbers(value, ""):
        if not abs(number) <= LARGEST and not path.endswith(".baud"):  # which has its own bounds
            fail(
                name,
                path,
                f"a number between -{LARGEST:g} and {LARGEST:g}",
                number,
                "write it in the unit that is asked for; leave a limit out where there is none",
            )
    try:
        return msgspec.convert(value, RobotPart)
    except msgspec.ValidationError as error:
        _explain(error, value, RobotPart, name, "")


def fail(name: str, path: str, expected: str, found: object, advice: str) -> NoReturn:
    """Refuse the file `name` for what stands at `path`."""
    if found == FILL_IN:
        advice = "write the value there, as the comment beside it says"
    raise RobotFileError(
        f"robot file {name}: {path} must be {expected}, got {shown(found)}; {advice}"
    )


def shown(value: object) -> str:
    """A value as a person would point at it, cut to a readable length."""
    if value is None:
        return "nothing"
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "..."


_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|(\[\.\.\.\])")


def _explain(
    error: msgspec.ValidationError, value: Any, kind: Any, name: str, path: str
) -> NoReturn:
    """Turn msgspec's error on `value` (of type `kind`, at `path`) into one of ours."""
    what, _, where = str(error).partition(" - at `")
    of_key = where.startswith("key` in `")
    for key, index, inside in _STEP.findall(where.removeprefix("key` in `")):
        kind = _plain_type(kind)
        if inside:  # msgspec does not say which entry: find it
            kind = get_args(kind)[1]
            for entry_key, entry in value.items():
                try:
                    msgspec.convert(entry, kind)
                except msgspec.ValidationError as inner:
                    _explain(inner, entry, kind, name, f"{path}.{entry_key}")
        elif index:
            arguments = get_args(kind)
            kind = arguments[int(index)] if get_origin(kind) is tuple else arguments[0]
            value, path = value[int(index)], f"{path}[{index}]"
        else:
            kind = next(f.type for f in msgspec.structs.fields(kind) if f.encode_name == key)
            value, path = value[key], f"{path}.{key}" if path else key
    if of_key:
        wrong = next(key for key in value if not re.search(NAME, key))
        fail(name, f"a key of {path}", _described(Name), wrong, "rename it")
    field = re.fullmatch(r"Object (missing required|contains unknown) field `(.*)`", what)
    if field is None:
        fail(name, path, _described(kind), value, "see docs/robot-file.md")
    known = [f.encode_name for f in msgspec.structs.fields(_plain_type(kind))]
    full = f"{path}.{field[2]}" if path else field[2]
    if field[1].startswith("missing"):
        kinds = {f.encode_name: f.type for f in msgspec.structs.fields(_plain_type(kind))}
        raise RobotFileError(
            f"robot file {name}: {full} is missing; add it: {_described(kinds[field[2]])} "
            "(see docs/robot-file.md)"
        )
    close = difflib.get_close_matches(field[2], known, n=1)
    raise RobotFileError(
        f"robot file {name}: {full} is not a field that edge-wm knows; "
        + (f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}")
    )


def _plain_type(kind: Any) -> Any:
    """`kind` without Annotated and without None."""
    if get_origin(kind) is Annotated:
        return _plain_type(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return _plain_type(next(a for a in get_args(kind) if a is not type(None)))
    return kind


def _described(kind: Any) -> str:
    """What a value of this type is, in words."""
    if get_origin(kind) in (Union, types.UnionType):
        return _described(next(a for a in get_args(kind) if a is not type(None)))
    if get_origin(kind) is Annotated:
        plain, meta = get_args(kind)
        bounds = {"at least": meta.ge, "at most": meta.le}
        text = _described(plain)
        if meta.pattern:
            return "a name of letters, digits, '_', '.', '-' that begins with a letter"
        if meta.min_length:
            return text + " that is not empty"
        limits = [f"{word} {bound}" for word, bound in bounds.items() if bound is not None]
        return f"{text} {' and '.join(limits)}"
    if get_origin(kind) is Literal:
        choices = [f"'{choice}'" for choice in get_args(kind)]
        return choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)
    if get_origin(kind) is tuple:
        return f"a list of {len(get_args(kind))} numbers"
    if get_origin(kind) is list:
        return "a list"
    return {str: "text", float: "a number", int: "a whole number", bool: "true or false"}.get(
        kind, "a mapping"
    )
