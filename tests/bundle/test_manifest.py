"""The manifest: model families that must be accepted, and whether a model fits a robot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bundle import tiny
from edge_wm.bundle import check_fit
from edge_wm.bundle.manifest import batch_of, digests, manifest_from
from edge_wm.errors import BundleError, MismatchError

NO_GRAPH = {"onnx": "0" * 64}


def part(inputs: str, outputs: str) -> dict[str, Any]:
    """A function from "tensor=meaning:shape[:dtype]" words."""

    def tensors(text: str, role: str) -> list[dict[str, Any]]:
        made = []
        for word in text.split():
            name, _, rest = word.partition("=")
            meaning, shape, dtype = [*rest.split(":"), "float32"][:3]
            dims = [int(n) for n in shape.split(",") if n]
            made.append({"tensor": name, role: meaning, "shape": dims, "dtype": dtype})
        return made

    return {
        "graphs": NO_GRAPH,
        "inputs": tensors(inputs, "source"),
        "outputs": tensors(outputs, "target"),
    }


def family(functions: dict[str, Any], belief: str, **changes: Any) -> dict[str, Any]:
    """A manifest with a camera and two axes. belief: "name:shape" words."""
    document, _ = tiny.document()
    document["needs"] = {
        "streams": {
            "camera": {"type": "image", "shape": [64, 64, 3], "dtype": "uint8", "unit": "rgb8"},
            "odometry": {"type": "odometry", "shape": [6], "dtype": "float64", "unit": "SI"},
        },
        "axes": [
            {"name": "base.vx", "kind": "twist", "unit": "m/s", "scale": 0.5},
            {"name": "base.wz", "kind": "twist", "unit": "rad/s", "scale": 1.8},
        ],
    }
    words = [word.split(":") for word in belief.split()]
    document["belief"] = [
        {"name": name, "shape": [int(n) for n in shape.split(",")]} for name, shape in words
    ]
    document["functions"] = functions
    document["planner"]["noise_std"] = [0.2, 0.5]
    document["reference"] = []
    return {**document, **changes}


AHEAD = "z=belief.z:-1,32 a=action:-1,2"
GOAL_COST = part(AHEAD + " g=goal.pose:-1,4", "c=cost.goal:-1")

# The table of architecture.md: each family's contract as a manifest.
FAMILIES: dict[str, dict[str, Any]] = {
    "the rover": family(
        {
            "encoder": part(
                "i=observation.camera:1,64,64,3:uint8 o=observation.odometry:1,6",
                "z=belief.z:1,64 m=belief.motion:1,2 p=belief.pose:1,3",
            ),
            "dynamics": part(
                "z=belief.z:-1,64 m=belief.motion:-1,2 p=belief.pose:-1,3 a=action:-1,2 dt=dt:-1,1",
                "z2=belief.z:-1,64 m2=belief.motion:-1,2 p2=belief.pose:-1,3",
            ),
            "cost": part("p=belief.pose:-1,3 g=goal.pose:-1,4", "c=cost.goal:-1"),
            "value": part("p=belief.pose:-1,3 g=goal.pose:4", "v=value:-1,1"),
            "constraint": part("z=belief.z:-1,64", "r=constraint:-1,1"),
            "decoder": part("z=belief.z:1,64", "i=image:1,64,64,3:uint8"),
        },
        "z:64 motion:2 pose:3",
        dt={"min_s": 0.05, "max_s": 0.15},
        goal_kinds=["pose"],
    ),
    "V-M-C: sampled z, an LSTM's state, a linear policy": family(
        {
            "encoder": part("i=observation.camera:64,64,3:uint8", "z=latent.z:32"),
            "posterior": part(
                "z=latent.z:32 h=belief.h:256 c=belief.c:256 a=last_action:2",
                "z2=belief.z:32 h2=belief.h:256 c2=belief.c:256",
            ),
            "policy": part("z=belief.z:32 h=belief.h:256", "m=action.mean:2"),
        },
        "z:32 h:256 c:256",
        planner=None,
        cost_terms={},
    ),
    "RSSM: posterior, prior with noise, actor and critic": family(
        {
            "encoder": part("i=observation.camera:1,64,64,3:uint8", "e=latent.e:1,128"),
            "posterior": part(
                "e=latent.e:1,128 z=belief.z:1,32 a=last_action:1,2 n=noise:1,32", "y=belief.z:1,32"
            ),
            "dynamics": part(AHEAD + " n=noise:-1,32", "y=belief.z:-1,32"),
            "cost": GOAL_COST,
            "value": part("z=belief.z:-1,32", "v=value:-1"),
            "policy": part("z=belief.z:-1,32", "m=action.mean:-1,2 s=action.std:-1,2"),
        },
        "z:32",
        goal_kinds=["pose"],
    ),
    "JEPA: an image goal through a goal encoder": family(
        {
            "encoder": part("i=observation.camera:1,64,64,3:uint8", "z=belief.z:1,32"),
            "goal_encoder": part("i=goal.image:1,64,64,3:uint8", "g=goal.latent:1,32"),
            "dynamics": part(AHEAD, "y=belief.z:-1,32"),
            "cost": part("z=belief.z:-1,32 g=goal.latent:-1,32", "c=cost.goal:-1"),
        },
        "z:32",
        goal_kinds=["image", "latent"],
    ),
    "an action chunk": family(
        {
            "encoder": part("i=observation.camera:1,64,64,3:uint8", "z=belief.z:1,32"),
            "policy": part("z=belief.z:1,32", "c=action.chunk:1,20,2"),
        },
        "z:32",
        planner=None,
        cost_terms={},
    ),
    "blocks of five actions": family(
        {
            "encoder": part("i=observation.camera:1,64,64,3:uint8", "z=belief.z:1,32"),
            "dynamics": part("z=belief.z:-1,32 a=action:-1,10", "y=belief.z:-1,32"),
            "cost": GOAL_COST | part("z=belief.z:-1,32 g=goal.pose:-1,4", "c=cost.goal:-1"),
        },
        "z:32",
        block=5,
        goal_kinds=["pose"],
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_families_of_the_contract_are_accepted(name: str) -> None:
    manifest = manifest_from(FAMILIES[name], "family")
    assert digests(manifest) >= {"0" * 64}
    assert manifest.action_size == manifest.block * 2


def rover(**changes: Any) -> dict[str, Any]:
    return {**FAMILIES["the rover"], **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("constraint"), None),
        (lambda f: f.pop("decoder"), None),
        (lambda f: f.pop("value"), None),
        (
            lambda f: f.update(policy=part("z=belief.z:1,64", "s=action.std:1,2")),
            "manifest.functions.policy.outputs must give action.mean or action.chunk, "
            "got ['action.std']",
        ),
        (
            lambda f: f.update(policy=part("z=belief.z:1,64", "c=action.chunk:1,20,3")),
            "manifest.functions.policy.outputs.c.shape must end with (steps, 2), got [1, 20, 3]",
        ),
        (
            lambda f: f.update(decoder=part("z=belief.z:1,64", "i=image:1,64,64,3:int8")),
            "manifest.functions.decoder.outputs.i.dtype must be uint8 or float32 as image says, "
            "got int8",
        ),
        (
            lambda f: f.update(
                posterior=part(
                    "z=latent.e:1,64",
                    "z2=belief.z:1,64 m2=belief.motion:1,2 p2=belief.pose:1,3",
                )
            ),
            "manifest.functions.encoder.outputs must be latent.<name> where there is a posterior, "
            "got belief.motion, belief.pose, belief.z",
        ),
        (
            lambda f: f.update(
                encoder=part("o=observation.odometry:1,6", "e=latent.e:1,32"),
                posterior=part(
                    "e=latent.e:1,64",
                    "z2=belief.z:1,64 m2=belief.motion:1,2 p2=belief.pose:1,3",
                ),
            ),
            "manifest.functions.posterior.inputs.e must be float32 [1, 32] as the encoder gives "
            "it, got float32 [1, 64]",
        ),
        (
            lambda f: f.update(cost=part("a=action:-1,2 g=goal.pose:-1,4", "c=cost.goal:-1")),
            "manifest.functions.cost.inputs must read the belief, got ['action', 'goal.pose']",
        ),
        (
            lambda f: f.update(value=part("p=belief.pose:-1,3 g=goal.joints:-1,7", "v=value:-1")),
            "manifest.goal_kinds: 'pose' does not give goal.joints, which the functions read",
        ),
    ],
)
def test_what_belongs_together(
    change: Callable[[dict[str, Any]], object], message: str | None
) -> None:
    functions = dict(FAMILIES["the rover"]["functions"])
    change(functions)
    if message is None:
        manifest_from(rover(functions=functions), "m")
        return
    with pytest.raises(BundleError) as caught:
        manifest_from(rover(functions=functions), "m")
    assert str(caught.value) == f"m: {message}"


@pytest.mark.parametrize(
    ("path", "below", "lowest", "highest", "above"),
    [
        ("step_ns", 49_999_999, 50_000_000, 150_000_000, 150_000_001),  # dt's range
        ("horizon", 0, 1, 1000, 1001),
        ("planner.candidates", 3, 4, 65536, 65537),  # at least the elites
        ("planner.iterations", 0, 1, 100, 101),
        ("planner.momentum", -0.01, 0.0, 1.0, 1.01),
        ("planner.noise_beta", -0.01, 0.0, 4.0, 4.01),
        ("planner.policy_candidates", -1, 0, 0, 1),
        ("cost_terms.goal.weight", -0.1, 0.0, 10.0, 10.1),
    ],
)
def test_numbers_at_their_limits(
    path: str, below: float, lowest: float, highest: float, above: float
) -> None:
    def with_value(value: float) -> dict[str, Any]:
        document = rover()
        *steps, last = path.split(".")
        at = document
        for step in steps:
            at[step] = dict(at[step])
            at = at[step]
        at[last] = value
        return document

    for value in (lowest, highest):
        manifest_from(with_value(value), "m")
    for value in (below, above, float("nan"), float("inf")):
        with pytest.raises(BundleError):
            manifest_from(with_value(value), "m")


def test_the_batch_follows_from_the_size() -> None:
    assert batch_of((-1, 3), 24, "float32") == 2
    assert batch_of((-1, 3), 25, "float32") is None
    assert batch_of((-1, 3), 0, "float32") is None
    assert batch_of((-1,), 4, "float32") == 1
    assert batch_of((2, 3), 24, "float32") == 1
    assert batch_of((2, 3), 48, "float32") is None
    assert batch_of((), 8, "float64") == 1


# ---- fit --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stream:
    type: str
    shape: tuple[int, ...]
    dtype: str
    unit: str


@dataclass(frozen=True)
class Axis:
    name: str
    kind: str
    unit: str


@dataclass(frozen=True)
class Robot:
    name: str
    streams: dict[str, Stream]
    axes: tuple[Axis, ...]


ROVER = Robot(
    "rover",
    {
        "camera": Stream("image", (64, 64, 3), "uint8", "rgb8"),
        "odometry": Stream("odometry", (6,), "float64", "SI"),
        "scan": Stream("range_scan", (120,), "float32", "m"),
    },
    (Axis("base.vx", "twist", "m/s"), Axis("base.wz", "twist", "rad/s")),
)


def robot(**camera: Any) -> Robot:
    return replace(
        ROVER, streams=ROVER.streams | {"camera": replace(ROVER.streams["camera"], **camera)}
    )


ADVICE = "use the bundle made for this robot, or train one on its streams and axes"


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (
            replace(ROVER, streams={"odometry": ROVER.streams["odometry"]}),
            "needs stream 'camera'; robot file rover has only odometry",
        ),
        (
            robot(shape=(96, 96, 3)),
            "needs stream 'camera' with shape [64, 64, 3]; robot file rover says shape [96, 96, 3]",
        ),
        (
            robot(type="vector"),
            "needs stream 'camera' with type image; robot file rover says type vector",
        ),
        (
            robot(dtype="float32"),
            "needs stream 'camera' with dtype uint8; robot file rover says dtype float32",
        ),
        (
            robot(unit="bgr8"),
            "needs stream 'camera' with unit rgb8; robot file rover says unit bgr8",
        ),
        (
            replace(ROVER, axes=ROVER.axes[::-1]),
            "commands the axes base.vx, base.wz; robot file rover has base.wz, base.vx "
            "(the order counts)",
        ),
        (
            replace(ROVER, axes=(Axis("base.vx", "velocity", "m/s"), ROVER.axes[1])),
            "commands axis base.vx with kind 'twist'; robot file rover says kind 'velocity'",
        ),
        (
            replace(ROVER, axes=(ROVER.axes[0], Axis("base.wz", "twist", "deg/s"))),
            "commands axis base.wz with unit 'rad/s'; robot file rover says unit 'deg/s'",
        ),
    ],
)
def test_a_bundle_that_does_not_fit_names_both_sides(machine: Robot, message: str) -> None:
    manifest = manifest_from(rover(), "m")
    with pytest.raises(MismatchError) as caught:
        check_fit(manifest, machine)
    assert str(caught.value) == f"bundle tiny 1.0.0 {message}; {ADVICE}"


def test_a_bundle_fits_a_robot_that_has_more() -> None:
    check_fit(manifest_from(rover(), "m"), ROVER)


def test_it_fits_the_shipped_rover() -> None:
    from edge_wm.robot import find_robot, load_robot

    check_fit(manifest_from(rover(), "m"), load_robot(find_robot("rover")))
