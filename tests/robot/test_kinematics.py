"""Forward kinematics, against angles added up by hand and against scipy's rotations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from edge_wm.robot import (
    BodySphere,
    Joint,
    Kinematics,
    find_robot,
    frame_poses,
    load_robot,
    rotation,
    sphere_centers,
)


@pytest.mark.parametrize("seed", range(5))
def test_rotation_is_that_of_ros(seed: int) -> None:
    rpy = np.random.default_rng(seed).uniform(-3.0, 3.0, 3)
    expected = Rotation.from_euler("xyz", rpy).as_matrix()  # lower case: about fixed axes
    np.testing.assert_allclose(rotation(tuple(rpy)), expected, atol=1e-12)


def test_arm_against_the_plane_formula() -> None:
    kinematics = load_robot(find_robot("arm")).kinematics
    assert kinematics is not None
    positions = np.random.default_rng(0).uniform(-2.5, 2.5, (50, 2))
    centers = sphere_centers(kinematics, positions)
    assert centers.shape == (50, 7, 3)
    for (shoulder, elbow), row in zip(positions, centers, strict=True):
        for index, along in ((0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)):
            expected = (along * math.cos(shoulder), along * math.sin(shoulder), 0.15)
            assert row[index] == pytest.approx(expected, abs=1e-12)
        for index, along in ((4, 0.08), (5, 0.16), (6, 0.25)):
            expected = (
                0.3 * math.cos(shoulder) + along * math.cos(shoulder + elbow),
                0.3 * math.sin(shoulder) + along * math.sin(shoulder + elbow),
                0.15,
            )
            assert row[index] == pytest.approx(expected, abs=1e-12)


def test_one_configuration_and_many_agree() -> None:
    kinematics = load_robot(find_robot("arm")).kinematics
    assert kinematics is not None
    positions = np.random.default_rng(1).uniform(-2.5, 2.5, (3, 4, 2))
    many = sphere_centers(kinematics, positions)
    assert many.shape == (3, 4, 7, 3)
    np.testing.assert_array_equal(many[1, 2], sphere_centers(kinematics, positions[1, 2]))


@pytest.mark.parametrize("seed", range(10))
def test_any_chain_against_scipy(seed: int) -> None:
    """Random turning and sliding joints, the product written with vectors and Rotation."""
    generator = np.random.default_rng(seed)
    joints = []
    for index in range(5):
        axis = generator.normal(size=3)
        axis /= np.linalg.norm(axis)
        joints.append(
            Joint(
                name=f"j{index}",
                kind=("revolute", "prismatic", "fixed", "continuous", "revolute")[index],
                parent=f"f{index}",
                child=f"f{index + 1}",
                xyz=tuple(generator.normal(size=3)),
                rpy=tuple(generator.uniform(-3, 3, 3)),
                axis=tuple(axis),
                column=(0, 1, None, 2, 3)[index],
            )
        )
    sphere = BodySphere("f5", (0.1, -0.2, 0.3), 0.05)
    kinematics = Kinematics("f0", tuple(joints), ("j0", "j1", "j3", "j4"), (sphere,))
    q = generator.uniform(-3, 3, 4)

    point = np.array(sphere.center)
    for joint in reversed(joints):
        if joint.column is not None:
            along = np.array(joint.axis) * q[joint.column]
            turning = joint.kind != "prismatic"
            point = Rotation.from_rotvec(along).apply(point) if turning else point + along
        point = Rotation.from_euler("xyz", joint.rpy).apply(point) + joint.xyz
    np.testing.assert_allclose(sphere_centers(kinematics, q)[0], point, atol=1e-12)


def test_a_held_joint_stays_at_zero() -> None:
    joint = Joint("lid", "revolute", "root", "lid", (1.0, 0.0, 0.0), (0, 0, 0), (0, 0, 1.0), None)
    poses = frame_poses(Kinematics("root", (joint,), (), ()), np.zeros((5, 0)))
    np.testing.assert_array_equal(poses["lid"][:3, 3], [1.0, 0.0, 0.0])
