"""The safety core: every trajectory and every setpoint passes here, or does not pass.

    axis       the law by which one axis brakes, or joins a trajectory
    limits     is a trajectory well made and within every limit
    region     workspace and keep-out zones
    ranges     raw range scans against the way that the base is about to take
    playback   what is commanded, knot by knot
    guard      modes, acceptance, the setpoint tick

The guard knows the robot file and nothing of models, planners or how trajectories are made. Its
invariant is told at the top of `guard.py`; what it enforces, and what not, in docs/guard.md.
"""

from edge_wm.guard.guard import Guard

__all__ = ["Guard"]
