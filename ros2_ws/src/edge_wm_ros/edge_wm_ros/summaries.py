"""What edge_wm_msgs can say, from what edge-wm already tells through standard messages.

edge_wm_msgs is optional: whoever wants typed verdicts instead of the guard's JSON builds it.
Nothing imports it but the two functions that find it here, and nothing needs them.

    GuardReport (/wm_guard/state) ──► edge_wm_msgs/Verdict         Belief ──► BeliefSummary
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge_wm.reasons import Reason
from edge_wm.types import Belief
from edge_wm_ros.conversions import GuardReport, duration_of, stamp_of


def message_types() -> tuple[type, type] | None:
    """(Verdict, BeliefSummary), or None where edge_wm_msgs is not installed."""
    try:
        from edge_wm_msgs.msg import BeliefSummary, Verdict
    except ImportError:
        return None
    return Verdict, BeliefSummary


def verdict_message(
    kind: Any, report: GuardReport, before: GuardReport | None, period_ns: int
) -> Any:
    """kind: edge_wm_msgs.msg.Verdict. before: the report heard last, for the speed scale."""
    known = [Reason[name] for name in report.reasons if name in Reason.__members__]
    return kind(
        stamp=stamp_of(report.now_ns),
        mode=report.mode,
        reasons=[int(reason) for reason in known],
        reason_names=[reason.name for reason in known],
        speed_scale=played_share(report, before, period_ns),
        epoch=report.epoch,
        sequence=report.accepted,
    )


def played_share(report: GuardReport, before: GuardReport | None, period_ns: int) -> float:
    """How fast the accepted trajectory was played since `before`: 1 as planned, 0 at rest.

    NaN where two reports do not say: another trajectory began between them, or time stood still.
    """
    if report.playing is None:
        return 0.0
    if before is None or before.playing != report.playing or before.epoch != report.epoch:
        return math.nan
    periods = (report.now_ns - before.now_ns) / period_ns
    return (report.at - before.at) / periods if periods > 0 else math.nan


def belief_message(kind: Any, belief: Belief, now_ns: int) -> Any:
    """kind: edge_wm_msgs.msg.BeliefSummary. The norms are Euclidean, over all of a tensor."""
    return kind(
        stamp=stamp_of(belief.stamp_ns),
        names=list(belief.tensors),
        norms=[float(np.linalg.norm(tensor.ravel())) for tensor in belief.tensors.values()],
        age=duration_of(max(now_ns - belief.stamp_ns, 0)),
    )
