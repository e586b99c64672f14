"""The safety core: every trajectory and every setpoint passes here, or does not pass.

    axis          the law by which one axis brakes, or joins a trajectory
    limits        is a trajectory well made and within every limit
    region        workspace and keep-out zones
    ranges        raw range scans against the way that the base is about to take
    playback      what is commanded, knot by knot
    commanded     what was commanded, and will be if nothing new is accepted
    surroundings  the newest scan, where a base is that obeys the commands
    guard         modes, acceptance, the setpoint tick
    mirror        what another process knows of the guard

The guard knows the robot file and nothing of models, planners or how trajectories are made. Its
invariant is told at the top of `guard.py`; what it enforces, and what not, in docs/guard.md.
"""

from edge_wm.guard.guard import Guard
from edge_wm.guard.mirror import GuardState, Mirror
from edge_wm.guard.playback import How, Knot

__all__ = ["Guard", "GuardState", "How", "Knot", "Mirror"]
