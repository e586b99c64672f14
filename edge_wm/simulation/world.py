"""Worlds for the rover, each made from one seed: rooms, inner walls with gaps, pillars, boxes.

The picture, from above (x right, y up, meters; the origin is the middle of the floor):

    +---------------------------+
    |   o        |        [ ]   |      o    pillar (a cylinder)
    | S     o    |   o          |      [ ]  box (can be pushed)
    |                      G    |      |    inner wall, with a gap
    |  [ ]    o  |     o        |      S, G start pose and goal, >= 2.5 m apart
    +---------------------------+

The invariant: the goal can be reached by a robot that sees no farther than `LOOK_AHEAD`. That
is checked when the world is made, on a grid of the free space (obstacles grown by the robot's
radius and some room): from the start, a walker moves again and again to the cell that is
nearest to the goal among those it can reach inside a disk of radius LOOK_AHEAD around itself;
worlds in which it gets stuck (dead ends, long detours around walls) are drawn again. So a world
is difficult in that its straight line is blocked, never in that it needs a map.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from edge_wm.types import Bool, Float64

# Worlds with this seed or a higher one are never trained on.
HELD_BACK_SEED = 1_000_000

LOOK_AHEAD = 0.5  # m: what a horizon of 1.8 s leaves at 0.7 m/s after a turn by 90 degrees
ROOM = 0.15  # m between the robot and an obstacle that a path must leave on each side
CELL = 0.08  # m, the grid that reachability is checked on
WALL_HEIGHT = 0.6  # m
WALL_THICKNESS = 0.10  # m


@dataclass(frozen=True, slots=True)
class Pillar:
    """A cylinder that stands fast."""

    x: float
    y: float
    radius: float
    height: float


@dataclass(frozen=True, slots=True)
class Block:
    """A cuboid on the floor: a wall, or a box that can be pushed."""

    x: float
    y: float
    yaw: float
    half_x: float
    half_y: float
    height: float
    movable: bool


@dataclass(frozen=True, slots=True)
class Geometry:
    """The obstacles seen from above, at one moment."""

    circles: Float64  # (N, 3): x, y, radius
    rectangles: Float64  # (M, 5): x, y, yaw, half extent along its own x, along its own y
    movable: Bool  # (M,): which rectangles can be pushed

    def clearance(self, points: Float64) -> Float64:
        """Distance from each of `points` (P, 2) to the nearest obstacle; inside one it is < 0."""
        px, py = points[:, 0, None], points[:, 1, None]
        nearest = np.full(len(points), np.inf)
        if len(self.circles):
            cx, cy, radius = self.circles.T
            nearest = np.minimum(nearest, (np.hypot(px - cx, py - cy) - radius).min(axis=1))
        if len(self.rectangles):
            x, y, yaw, half_x, half_y = self.rectangles.T
            dx, dy = px - x, py - y
            qx = np.abs(np.cos(yaw) * dx + np.sin(yaw) * dy) - half_x
            qy = np.abs(np.cos(yaw) * dy - np.sin(yaw) * dx) - half_y
            outside = np.hypot(np.maximum(qx, 0.0), np.maximum(qy, 0.0))
            inside = np.minimum(np.maximum(qx, qy), 0.0)
            nearest = np.minimum(nearest, (outside + inside).min(axis=1))
        return np.asarray(nearest, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class World:
    """One generated world: what stands where, where the robot starts and where it shall go."""

    seed: int
    width: float  # m, inside the outer walls, along x
    depth: float  # m, along y
    pillars: tuple[Pillar, ...]
    blocks: tuple[Block, ...]  # outer walls, inner walls, then boxes
    start: tuple[float, float, float]  # x, y (m), yaw (rad)
    goal: tuple[float, float]  # x, y (m)

    def geometry(self) -> Geometry:
        """The obstacles as the world was made, before anything was pushed."""
        return _geometry(self.pillars, self.blocks)


def make_world(seed: int, radius: float) -> World:
    """The world of `seed` for a round robot of `radius` (m): the same one every time."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    while True:
        width, depth, pillars, blocks = _furnish(generator)
        geometry = _geometry(pillars, blocks)
        for _ in range(6):
            start_xy, goal = _two_places(generator, width, depth, geometry, radius)
            if _walker_arrives(geometry, width, depth, start_xy, goal, radius + ROOM):
                towards = math.atan2(goal[1] - start_xy[1], goal[0] - start_xy[0])
                yaw = towards + generator.uniform(-1.4, 1.4)
                yaw = math.atan2(math.sin(yaw), math.cos(yaw))
                return World(seed, width, depth, pillars, blocks, (*start_xy, yaw), goal)


def _furnish(
    generator: np.random.Generator,
) -> tuple[float, float, tuple[Pillar, ...], tuple[Block, ...]]:
    width, depth = generator.uniform(4.5, 7.0), generator.uniform(4.0, 6.0)
    thick = WALL_THICKNESS / 2
    blocks = [
        Block(
            side * (width / 2 + thick), 0.0, 0.0, thick, depth / 2 + 2 * thick, WALL_HEIGHT, False
        )
        for side in (-1.0, 1.0)
    ] + [
        Block(0.0, side * (depth / 2 + thick), 0.0, width / 2, thick, WALL_HEIGHT, False)
        for side in (-1.0, 1.0)
    ]
    if generator.random() < 0.7:
        blocks += _inner_wall(generator, width, depth)
    boxes = [
        Block(
            generator.uniform(-0.45, 0.45) * width,
            generator.uniform(-0.45, 0.45) * depth,
            generator.uniform(-math.pi, math.pi),
            generator.uniform(0.08, 0.22),
            generator.uniform(0.08, 0.22),
            generator.uniform(0.22, 0.5),
            True,
        )
        for _ in range(generator.integers(3, 7))
    ]
    pillars = [
        Pillar(
            generator.uniform(-0.45, 0.45) * width,
            generator.uniform(-0.45, 0.45) * depth,
            generator.uniform(0.07, 0.25),
            generator.uniform(0.3, 0.9),
        )
        for _ in range(generator.integers(4, 9))
    ]
    fixed = _geometry((), tuple(blocks))
    boxes = [b for b in boxes if _stands_free(fixed, b.x, b.y, math.hypot(b.half_x, b.half_y))]
    kept: list[Block] = []
    for box in boxes:  # boxes do not overlap each other
        reach = math.hypot(box.half_x, box.half_y)
        if not kept or _stands_free(_geometry((), tuple(kept)), box.x, box.y, reach):
            kept.append(box)
    standing = _geometry((), tuple(kept))
    pillars = [p for p in pillars if not kept or _stands_free(standing, p.x, p.y, p.radius)]
    return width, depth, tuple(pillars), tuple(blocks + kept)


def _inner_wall(generator: np.random.Generator, width: float, depth: float) -> list[Block]:
    """A wall across the room at some place, cut by one or two gaps."""
    across_x = generator.random() < 0.5  # the wall runs along y, at a fixed x
    length = depth if across_x else width
    at = generator.uniform(-0.2, 0.2) * (width if across_x else depth)
    gaps = sorted(generator.uniform(-0.4, 0.4, size=generator.integers(1, 3)) * length)
    half_gaps = generator.uniform(0.45, 0.75, size=len(gaps))
    edges = [-length / 2]
    for center, half in zip(gaps, half_gaps, strict=True):
        edges += [center - half, center + half]
    edges.append(length / 2)
    pieces = []
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        if high - low > 0.1:
            middle, half, thick = (low + high) / 2, (high - low) / 2, WALL_THICKNESS / 2
            x, y = (at, middle) if across_x else (middle, at)
            half_x, half_y = (thick, half) if across_x else (half, thick)
            pieces.append(Block(x, y, 0.0, half_x, half_y, WALL_HEIGHT, False))
    return pieces


def _geometry(pillars: tuple[Pillar, ...], blocks: tuple[Block, ...]) -> Geometry:
    return Geometry(
        circles=np.array([[p.x, p.y, p.radius] for p in pillars]).reshape(-1, 3),
        rectangles=np.array([[b.x, b.y, b.yaw, b.half_x, b.half_y] for b in blocks]).reshape(-1, 5),
        movable=np.array([b.movable for b in blocks], dtype=np.bool_),
    )


def _stands_free(geometry: Geometry, x: float, y: float, reach: float) -> bool:
    return bool(geometry.clearance(np.array([[x, y]]))[0] > reach + 0.02)


def _two_places(
    generator: np.random.Generator, width: float, depth: float, geometry: Geometry, radius: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """A start and a goal: free, >= 2.5 m apart, mostly with something on the line between."""
    want_blocked = generator.random() < 0.85
    while True:
        size = np.array([width, depth])
        points = generator.uniform(-0.5, 0.5, size=(2, 2)) * size
        clear = geometry.clearance(points)
        if np.hypot(*(points[1] - points[0])) < 2.5 or clear.min() < radius + 0.15:
            continue
        line = points[0] + np.linspace(0.0, 1.0, 64)[:, None] * (points[1] - points[0])
        blocked = geometry.clearance(line).min() < radius
        if blocked == want_blocked or generator.random() < 0.05:
            (x0, y0), (x1, y1) = points.tolist()
            return (x0, y0), (x1, y1)


def _walker_arrives(
    geometry: Geometry,
    width: float,
    depth: float,
    start: tuple[float, float],
    goal: tuple[float, float],
    grown: float,
) -> bool:
    """Whether the short-sighted walker of the module's docstring gets to the goal."""
    columns, rows = int(width / CELL) + 1, int(depth / CELL) + 1
    xs = (np.arange(columns) - (columns - 1) / 2) * CELL
    ys = (np.arange(rows) - (rows - 1) / 2) * CELL
    points = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)
    free = (geometry.clearance(points) > grown).reshape(columns, rows)
    distance = np.hypot(points[:, 0] - goal[0], points[:, 1] - goal[1]).reshape(columns, rows)
    here = (_cell(start[0], columns), _cell(start[1], rows))
    end = (_cell(goal[0], columns), _cell(goal[1], rows))
    for place in (here, end):
        free[place] = True
    reach = LOOK_AHEAD / CELL
    while here != end:
        nearest = here
        seen = {here}
        queue = deque([here])
        while queue:
            i, j = queue.popleft()
            if distance[i, j] < distance[nearest]:
                nearest = (i, j)
            for step in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                inside = 0 <= step[0] < columns and 0 <= step[1] < rows
                near = math.hypot(step[0] - here[0], step[1] - here[1]) <= reach
                if inside and near and step not in seen and free[step]:
                    seen.add(step)
                    queue.append(step)
        if nearest == here:
            return False
        here = nearest
    return True


def _cell(value: float, count: int) -> int:
    return min(max(round(value / CELL + (count - 1) / 2), 0), count - 1)
