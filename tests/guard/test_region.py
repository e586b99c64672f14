"""Workspace and keep-out zones, ball by ball, against distances computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_wm.guard.region import first_breach
from edge_wm.reasons import Reason
from edge_wm.robot import Box, Sphere

BOX = Box("odom", (0.0, 0.0), (2.0, 1.0))
DISC = Sphere("odom", (3.0, 0.5), 0.8)
R = 0.1


def way(*places: tuple[float, float]) -> np.ndarray:
    return np.array(places)[:, None, :]


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [
        (0.5, 0.5, True),
        (0.1, 0.1, True),  # touches two faces from within
        (0.099, 0.5, False),
        (0.5, 0.901, False),
        (1.9, 0.5, True),
        (1.901, 0.5, False),  # between the regions: in neither of them wholly
        (2.35, 0.5, True),
        (3.69, 0.5, True),
        (3.71, 0.5, False),
        (9.0, 9.0, False),
    ],
)
def test_wholly_inside_one_workspace_region(x: float, y: float, inside: bool):
    start = (0.5, 0.5)
    breach = first_breach([BOX, DISC], [], way(start, (x, y)), np.array([R]))
    assert (breach is None) is inside
    if breach is not None:
        assert breach[:2] == (Reason.outside_workspace, 1)


@pytest.mark.parametrize(
    ("x", "y", "clear"),
    [
        (-0.101, 0.5, True),
        (-0.099, 0.5, False),
        (-0.08, -0.08, True),  # beside the corner, 0.113 m from it
        (-0.07, -0.07, False),
        (1.0, 0.5, False),  # in the middle of the box
        (3.0, 1.41, True),
        (3.0, 1.39, False),
    ],
)
def test_touches_no_keep_out_zone(x: float, y: float, clear: bool):
    breach = first_breach([], [BOX, DISC], way((-2.0, -2.0), (x, y)), np.array([R]))
    assert (breach is None) is clear
    if breach is not None:
        assert breach[:2] == (Reason.inside_keep_out, 1)


def test_clearance_of_the_breach_is_how_far_it_is_too_far():
    reason, index, clearance = first_breach([BOX], [], way((1, 0.5), (1, 0.97)), np.array([R]))
    assert (reason, index) == (Reason.outside_workspace, 1)
    assert clearance == pytest.approx(-0.07)
    _, _, deep = first_breach([], [BOX], way((-1, 0.5), (0.3, 0.5)), np.array([R]))
    assert deep == pytest.approx(-0.4)  # 0.3 m below the face, and its own radius


def test_outside_it_may_come_back_but_not_go_further():
    outside = (-0.5, 0.5)
    assert first_breach([BOX], [], way(outside, (-0.4, 0.5), (0.5, 0.5)), np.array([R])) is None
    assert first_breach([BOX], [], way(outside, (-0.51, 0.5)), np.array([R])) is not None
    inside = (1.0, 0.5)
    assert first_breach([], [BOX], way(inside, (1.0, 0.8), (1.0, 1.2)), np.array([R])) is None
    assert first_breach([], [DISC], way((2.2, 0.5), (2.3, 0.5)), np.array([R])) is not None


def test_all_balls_in_the_same_region():
    two = np.array([[[1.0, 0.5], [3.0, 0.5]]])  # one in the box, one in the disc
    breach = first_breach([BOX, DISC], [], np.concatenate((two[:, [0, 0]], two)), np.array([R, R]))
    assert breach is not None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_place_that_is_no_number_is_a_breach(value: float):
    assert first_breach([BOX], [], way((1.0, 0.5), (value, 0.5)), np.array([R])) is not None
    assert (first_breach([], [BOX], way((-1, 0.5), (value, 0.5)), np.array([R])) is None) is (
        value == np.inf
    )


def test_without_regions_everything_is_allowed():
    assert first_breach([], [], way((0, 0), (1e6, 0)), np.array([R])) is None
