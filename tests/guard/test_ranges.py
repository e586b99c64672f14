"""Raw ranges: points from scans, circles along ways and arcs, against brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_wm.guard.ranges import (
    ORIGIN,
    Scanner,
    between,
    compose,
    free_way,
    is_clear,
    moved_back,
)
from edge_wm.robot import Extrinsics
from guard.scenes import ROVER, free_scan

RADIUS = 0.22
poses = st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-4, 4))
points = st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=8)


def placed(point: tuple[float, float], at: tuple[float, float, float]) -> tuple[float, float]:
    """A point of the frame `at`, outside: complex numbers instead of matrices."""
    z = complex(at[0], at[1]) + complex(*point) * complex(math.cos(at[2]), math.sin(at[2]))
    return z.real, z.imag


@given(poses, poses, points)
def test_frames(first, then, cloud):
    inside = compose(first, then)
    for point in cloud:
        assert placed(point, inside) == pytest.approx(placed(placed(point, then), first))
    assert compose(first, between(first, then)) == pytest.approx(then)
    array = np.array(cloud).T
    back = moved_back(array, first)
    for point, moved in zip(cloud, back.T, strict=True):
        assert placed(tuple(moved), first) == pytest.approx(point, abs=1e-9)


# ---- scans ------------------------------------------------------------------------------------
def test_points_lie_where_the_beams_end():
    stream = ROVER.streams["scan"]
    ranges = free_scan()
    ranges[[0, 60, 90]] = [1.0, 2.0, 0.01]
    found = Scanner(ROVER).points(ranges)
    assert found is not None
    step = (stream.angle_max - stream.angle_min) / (stream.shape[0] - 1)
    wanted = []
    for beam, r in ((0, 1.0), (60, 2.0), (90, 0.01)):
        angle = stream.angle_min + beam * step
        wanted.append((r * math.cos(angle), r * math.sin(angle)))
    np.testing.assert_allclose(found.T, wanted, atol=1e-6)


def test_a_mounted_scanner_sees_from_where_it_is():
    """10 cm ahead, looking left, and the same one upside down."""
    for rpy, y in (((0.0, 0.0, math.pi / 2), 1.0), ((math.pi, 0.0, math.pi / 2), 1.0)):
        stream = replace(
            ROVER.streams["scan"], extrinsics=Extrinsics("base_link", (0.1, 0.0, 0.2), rpy)
        )
        robot = replace(ROVER, streams={**ROVER.streams, "scan": stream})
        ranges = free_scan()
        ranges[60] = 1.0  # the beam ahead of the scanner
        found = Scanner(robot).points(ranges)
        assert found is not None
        np.testing.assert_allclose(found[:, 0], [0.1, y], atol=1e-6)


@pytest.mark.parametrize("reading", [np.nan, -np.inf, -0.1])
def test_an_impossible_reading_spoils_the_scan(reading: float):
    ranges = free_scan()
    ranges[7] = reading
    assert Scanner(ROVER).points(ranges) is None


def test_a_scan_of_another_shape_is_not_used():
    assert Scanner(ROVER).points(free_scan()[:-1]) is None


@pytest.mark.parametrize(("reading", "hits"), [(0.0, 1), (0.049, 1), (4.99, 1), (5.0, 0)])
def test_readings_out_of_the_scanner_s_range(reading: float, hits: int):
    """Nearer than range_min: something is there; at range_max: nothing is."""
    ranges = free_scan()
    ranges[7] = reading
    found = Scanner(ROVER).points(ranges)
    assert found is not None
    assert found.shape == (2, hits)


# ---- ways -------------------------------------------------------------------------------------
@given(points, st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=9))
def test_a_way_is_clear_unless_it_comes_nearer_than_margin_and_start_allow(cloud, way):
    wanted = True
    for x, y in cloud:
        start = math.dist((x, y), way[0])
        for place in way:
            if math.dist((x, y), place) < min(RADIUS, start) - 1e-6:
                wanted = False
    assert is_clear(np.array(cloud).T, np.array(way), RADIUS) is wanted


def test_inside_the_margin_turning_and_leaving_are_clear_and_creeping_is_not():
    near = np.array([[0.2], [0.0]])
    assert is_clear(near, np.zeros((5, 2)), RADIUS)
    assert is_clear(near, np.linspace([0.0, 0.0], [-0.3, 0.0], 9), RADIUS)
    assert not is_clear(near, np.linspace([0.0, 0.0], [0.001, 0.0], 9), RADIUS)


def brute_free_way(cloud, vx: float, wz: float, most: float) -> float:
    """Follow the arc in steps of half a millimeter."""
    step = 0.0005
    place, heading, way = complex(0, 0), 0.0, 0.0
    before = [abs(complex(*p)) for p in cloud]
    while way < most:
        turn = step * wz / abs(vx)
        place += math.copysign(step, vx) * complex(
            math.cos(heading + turn / 2), math.sin(heading + turn / 2)
        )
        heading += turn
        now = [abs(complex(*p) - place) for p in cloud]
        if any(n < RADIUS and n < b for n, b in zip(now, before, strict=True)):
            return way
        before, way = now, way + step
    return math.inf


@pytest.mark.parametrize("vx", [0.5, -0.2])
@pytest.mark.parametrize("wz", [0.0, 1e-9, 0.3, -0.3, 1.8, -1.8])
def test_free_way_on_arcs(vx: float, wz: float):
    rng = np.random.Generator(np.random.Philox(3))
    for _ in range(12):
        cloud = rng.uniform(-1.2, 1.2, (3, 2))
        cloud = cloud[np.hypot(*cloud.T) > RADIUS + 0.01]
        if not len(cloud):
            continue
        found = free_way(cloud.T, vx, wz, RADIUS)
        brute = brute_free_way(cloud, vx, wz, 0.8)
        if brute < 0.79:
            assert found == pytest.approx(brute, abs=0.003)
        else:
            assert found > 0.78


def test_free_way_of_what_is_within_the_circle():
    ahead, behind = np.array([[0.1], [0.05]]), np.array([[-0.1], [0.05]])
    for wz in (0.0, 0.4, -0.4):
        assert free_way(ahead, 0.3, wz, RADIUS) == 0.0
        assert free_way(behind, -0.3, wz, RADIUS) == 0.0
        assert free_way(behind, 0.3, wz, RADIUS) > 1.0
        assert free_way(ahead, -0.3, wz, RADIUS) > 1.0
    assert free_way(ahead, 0.0, 1.0, RADIUS) == math.inf
    assert free_way(np.zeros((2, 0)), 0.3, 0.0, RADIUS) == math.inf
    assert ORIGIN == (0.0, 0.0, 0.0)
