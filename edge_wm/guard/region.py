"""Where the robot may be: inside its workspace, outside every keep-out zone.

A body is a set of balls (a base: its footprint circle; an arm: the balls that cover its links).
Each region gives each ball a clearance in m: how far it is from breaking the rule, negative once
it has. The whole body is inside the workspace if one workspace region holds all of its balls.

The one invariant: a way is refused if its clearance falls below zero, or, where the robot stands
outside already (it was carried there, or the file changed), below where it began. So it can
always be led back, and never further out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_wm.reasons import Reason
from edge_wm.robot import Box, Region
from edge_wm.types import Float64

# Rounding of 64 bits in poses of some meters, far below anything physical.
ROUNDING = 1e-9


def first_breach(
    workspace: Sequence[Region], keep_out: Sequence[Region], centers: Float64, radii: Float64
) -> tuple[Reason, int, float] | None:
    """The first point of a way that breaks a rule: its reason, its index, its clearance in m.

    centers: (N, S, D) m, the way of S balls in D dimensions; radii: (S,) m. None if none does.
    """
    for reason, clearance in clearances(workspace, keep_out, centers, radii):
        broken = ~(clearance >= min(0.0, clearance[0]) - ROUNDING)  # NaN is broken
        if broken.any():
            index = int(broken.argmax())
            return reason, index, float(clearance[index])
    return None


def clearances(
    workspace: Sequence[Region], keep_out: Sequence[Region], centers: Float64, radii: Float64
) -> tuple[tuple[Reason, Float64], ...]:
    """Each rule with the clearance (N,), m, that every point of a way leaves to it."""
    return (
        (Reason.outside_workspace, _workspace_clearance(workspace, centers, radii)),
        (Reason.inside_keep_out, _keep_out_clearance(keep_out, centers, radii)),
    )


def _workspace_clearance(regions: Sequence[Region], centers: Float64, radii: Float64) -> Float64:
    """(N,): how far the body is inside the region that holds it best; +inf without regions."""
    if not regions:
        return np.full(len(centers), np.inf)
    each = []
    for region in regions:
        if isinstance(region, Box):
            inside = np.minimum(centers - region.lower, np.array(region.upper) - centers)
            margin = inside.min(axis=-1) - radii
        else:
            away = np.sqrt(np.square(centers - region.center).sum(axis=-1))
            margin = region.radius - away - radii
        each.append(margin.min(axis=-1))
    best: Float64 = np.max(each, axis=0)
    return best


def _keep_out_clearance(regions: Sequence[Region], centers: Float64, radii: Float64) -> Float64:
    """(N,): how far the body is from the nearest zone; +inf without zones.

    A ball whose center is inside a box is in it by the depth below the nearest face, and by its
    own radius.
    """
    nearest = np.full(len(centers), np.inf)
    for region in regions:
        if isinstance(region, Box):
            beyond = np.maximum(region.lower - centers, centers - region.upper)
            outside = np.sqrt(np.square(np.maximum(beyond, 0.0)).sum(axis=-1))
            away = outside + np.minimum(beyond.max(axis=-1), 0.0)
        else:
            away = np.sqrt(np.square(centers - region.center).sum(axis=-1)) - region.radius
        nearest = np.minimum(nearest, (away - radii).min(axis=-1))
    return nearest
