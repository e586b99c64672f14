"""Where the parts of an arm are, from where its joints are.

A chain is a tree of frames. Each joint hangs a child frame below a parent: first a fixed
transform (`xyz`, `rpy`), then the motion, a turn about or a slide along `axis`. The body is
covered by spheres in those frames; the guard asks only where the spheres are.

    root ── joint ──► child ── joint ──► child
    pose(child) = pose(parent) · origin · motion(q)

Invariant: `Kinematics.joints` is in an order in which every parent comes before its children,
so that one pass over it gives all poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_wm.types import Float64

JointKind = Literal["revolute", "continuous", "prismatic", "fixed"]


def rotation(rpy: Sequence[float]) -> Float64:
    """(3, 3) from roll, pitch, yaw (rad): Rz(yaw) Ry(pitch) Rx(roll), as URDF and ROS define it."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(rpy), np.cos(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def transform(xyz: Sequence[float], rpy: Sequence[float]) -> Float64:
    """(4, 4) homogeneous: the pose of a frame at `xyz` (m) turned by `rpy` (rad)."""
    pose = np.eye(4)
    pose[:3, :3] = rotation(rpy)
    pose[:3, 3] = xyz
    return pose


@dataclass(frozen=True, slots=True)
class Joint:
    """One joint of the tree, with the frame that it carries."""

    name: str
    kind: JointKind
    parent: str
    child: str
    xyz: tuple[float, float, float]  # m, in the parent
    rpy: tuple[float, float, float]  # rad, in the parent
    axis: tuple[float, float, float]  # of length 1, in the child at rest; unused if fixed
    column: int | None  # in the positions given to `sphere_centers`; None: fixed, or held at 0


@dataclass(frozen=True, slots=True)
class BodySphere:
    """A ball that covers a part of the body."""

    frame: str
    center: tuple[float, float, float]  # m, in `frame`
    radius: float  # m


@dataclass(frozen=True, slots=True)
class Kinematics:
    root: str
    joints: tuple[Joint, ...]  # every parent before its children
    moving: tuple[str, ...]  # the joints that are axes, in the order of `Robot.axes`
    spheres: tuple[BodySphere, ...]


def frame_poses(kinematics: Kinematics, positions: Float64) -> dict[str, Float64]:
    """Forward kinematics of every frame.

    positions: (..., J), rad or m, columns in the order of `kinematics.moving`. Returns frame name
    -> (..., 4, 4) poses in the root frame (for frames that no moving joint carries: (4, 4)).

    Source: product of transforms with Rodrigues' rotation formula; Lynch and Park, Modern
    Robotics (2017), section 3.2.3, equation 3.51.
    """
    poses: dict[str, Float64] = {kinematics.root: np.eye(4)}
    for joint in kinematics.joints:
        pose = poses[joint.parent] @ transform(joint.xyz, joint.rpy)
        if joint.column is not None:
            pose = pose @ _motion(joint, positions[..., joint.column])
        poses[joint.child] = pose
    return poses


def sphere_centers(kinematics: Kinematics, positions: Float64) -> Float64:
    """Where the body's spheres are.

    positions: (..., J) as for `frame_poses`. Returns (..., S, 3), m in the root frame, S in the
    order of `kinematics.spheres`.
    """
    poses = frame_poses(kinematics, positions)
    centers = np.empty((*positions.shape[:-1], len(kinematics.spheres), 3))
    for index, sphere in enumerate(kinematics.spheres):
        pose = poses[sphere.frame]
        centers[..., index, :] = pose[..., :3, :3] @ np.array(sphere.center) + pose[..., :3, 3]
    return centers


def _motion(joint: Joint, q: Float64) -> Float64:
    """(..., 4, 4): the joint's own motion by q (...,)."""
    motion = np.zeros((*np.shape(q), 4, 4))
    motion[..., :, :] = np.eye(4)
    x, y, z = joint.axis
    if joint.kind == "prismatic":
        motion[..., :3, 3] = np.multiply.outer(q, np.array(joint.axis))
        return motion
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    motion[..., :3, :3] += np.multiply.outer(np.sin(q), skew)
    motion[..., :3, :3] += np.multiply.outer(1.0 - np.cos(q), skew @ skew)
    return motion
