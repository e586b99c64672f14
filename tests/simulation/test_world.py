"""edge_wm.simulation.world: generated worlds are repeatable, varied, and can be driven."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_wm.simulation.world import Geometry, World, _walker_arrives, make_world

RADIUS = 0.18
WORLDS = [make_world(seed, RADIUS) for seed in range(40)]


def test_a_seed_always_makes_the_same_world_and_another_seed_another() -> None:
    assert make_world(7, RADIUS) == WORLDS[7]
    assert len({world.start for world in WORLDS}) == len(WORLDS)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: str(world.seed))
def test_start_and_goal_are_free_apart_and_inside(world: World) -> None:
    places = np.array([world.start[:2], world.goal])
    assert world.geometry().clearance(places).min() >= RADIUS + 0.15
    assert math.dist(world.start[:2], world.goal) >= 2.5
    assert (np.abs(places) < [world.width / 2, world.depth / 2]).all()


def test_most_straight_lines_are_blocked() -> None:
    blocked = 0
    for world in WORLDS:
        start = np.array(world.start[:2])
        line = start + np.linspace(0, 1, 200)[:, None] * (np.array(world.goal) - start)
        blocked += bool(world.geometry().clearance(line).min() < RADIUS)
    assert 0.5 < blocked / len(WORLDS) < 0.95


@pytest.mark.parametrize("world", WORLDS[:12], ids=lambda world: str(world.seed))
def test_the_goal_can_be_reached_on_a_finer_grid(world: World) -> None:
    """Flood the free space from the start: an independent way to see that there is a way."""
    step = 0.05
    xs = np.arange(-world.width / 2, world.width / 2, step)
    ys = np.arange(-world.depth / 2, world.depth / 2, step)
    grid = np.stack(np.meshgrid(xs, ys, indexing="ij"), -1).reshape(-1, 2)
    free = (world.geometry().clearance(grid) > RADIUS).reshape(len(xs), len(ys))
    reached = np.zeros_like(free)
    at = [round((v - low) / step) for v, low in zip(world.start[:2], (xs[0], ys[0]), strict=True)]
    reached[at[0], at[1]] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= free
        if (grown == reached).all():
            break
        reached = grown
    goal = [round((v - low) / step) for v, low in zip(world.goal, (xs[0], ys[0]), strict=True)]
    assert reached[goal[0], goal[1]]


def wall(x: float, y: float, half_x: float, half_y: float) -> list[float]:
    return [x, y, 0.0, half_x, half_y]


@pytest.mark.parametrize(
    ("walls", "arrives"),
    [
        ([], True),
        ([wall(0.0, 0.0, 0.05, 0.15)], True),  # a short wall: see around it
        ([wall(0.0, 0.0, 0.05, 0.6)], False),  # a long one: the way leads back too far
        ([wall(0.0, 0.0, 0.05, 2.5)], False),  # from side to side: there is no way
        (  # a bay that opens towards the start
            [wall(0.3, 0.0, 0.05, 1.2), wall(-0.7, 1.2, 1.0, 0.05), wall(-0.7, -1.2, 1.0, 0.05)],
            False,
        ),
    ],
)
def test_the_short_sighted_walker(walls: list[list[float]], arrives: bool) -> None:
    rectangles = np.array(walls).reshape(-1, 5)
    geometry = Geometry(np.zeros((0, 3)), rectangles, np.zeros(len(rectangles), np.bool_))
    assert _walker_arrives(geometry, 6.0, 4.0, (-2.0, 0.0), (2.0, 0.0), 0.28) is arrives


@given(
    st.floats(-2, 2), st.floats(-2, 2), st.floats(-4, 4), st.floats(0.1, 1), st.floats(0.1, 1),
    st.floats(-3, 3), st.floats(-3, 3),
)  # fmt: skip
def test_clearance_of_a_rectangle_against_its_outline(
    x: float, y: float, yaw: float, half_x: float, half_y: float, px: float, py: float
) -> None:
    side = np.linspace(-1.0, 1.0, 401)
    ones = np.ones_like(side)
    outline = np.concatenate(
        [np.stack([side, s * ones], 1) for s in (-1, 1)]
        + [np.stack([s * ones, side], 1) for s in (-1, 1)]
    ) * [half_x, half_y]
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    nearest = np.hypot(*((outline @ turn.T + [x, y]) - [px, py]).T).min()
    own = turn.T @ [px - x, py - y]
    inside = abs(own[0]) < half_x and abs(own[1]) < half_y
    geometry = Geometry(
        np.zeros((0, 3)), np.array([[x, y, yaw, half_x, half_y]]), np.array([False])
    )
    found = geometry.clearance(np.array([[px, py]]))[0]
    assert found == pytest.approx(-nearest if inside else nearest, abs=6e-3)


def test_clearance_takes_the_nearest_of_all_and_is_infinite_in_the_open() -> None:
    circles = np.array([[1.0, 0.0, 0.25]])
    rectangles = np.array([wall(-1.0, 0.0, 0.5, 0.5)])
    both = Geometry(circles, rectangles, np.array([True]))
    points = np.array([[0.0, 0.0], [0.9, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(both.clearance(points), [0.5, -0.15, -0.25, -0.5])
    nothing = replace(both, circles=np.zeros((0, 3)), rectangles=np.zeros((0, 5)))
    assert np.isinf(nothing.clearance(points)).all()
