"""The pictures of a report, drawn with matplotlib.

Each function takes a story and gives a figure, or None where the recording has nothing to draw.
The same colors mean the same thing in every picture: blue is what happened, orange what was
imagined or planned, green a goal, red a refusal, a contact or a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle
from matplotlib.transforms import Affine2D

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.recording import World
from edge_wm.report.story import ErrorCurve, Story, percentiles, to_world
from edge_wm.types import PoseGoal

HAPPENED, IMAGINED, GOAL, BAD = "#1f5fa8", "#e07b16", "#2a8f4d", "#c62f2f"
INK, FAINT, WALL, BOX = "#26303a", "#8b97a3", "#5d6873", "#c9a878"
MODE_COLORS: Mapping[Mode, str] = {
    Mode.idle: "#d9dee3",
    Mode.self_test: "#b9c4ce",
    Mode.hold: "#9db7d1",
    Mode.active: "#8fcba5",
    Mode.slow: "#f0cf78",
    Mode.stop: "#eea36b",
    Mode.fault: "#d05555",
    Mode.estop: "#8e2a4b",
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#b4bdc6",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaee",
    "xtick.color": "#5d6873",
    "ytick.color": "#5d6873",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "savefig.dpi": 130,
}


def figures(story: Story) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of every picture that the story has something for."""
    drawers: Mapping[str, Callable[[Story], Figure | None]] = {
        "path": path,
        "imagined": imagined,
        "prediction_error": prediction_error,
        "latency": latency,
        "timeline": timeline,
    }
    with matplotlib.rc_context(STYLE):
        for name, draw in drawers.items():
            figure = draw(story)
            if figure is not None:
                yield name, figure


# ---- the path driven -----------------------------------------------------------------------
def path(story: Story) -> Figure | None:
    """The world from above, the path driven, and where plans were leading."""
    if len(story.driven) < 2 and not story.worlds:
        return None
    figure = Figure(figsize=(8.0, 6.6), layout="constrained")
    axes = figure.add_subplot()
    if story.worlds:
        _draw_world(axes, story.worlds[0], story.worlds[-1])
    for trajectory in story.trajectories:
        axes.plot(*trajectory[:, :2].T, color=IMAGINED, alpha=0.45, lw=0.9, zorder=3)
    xy = story.driven[:, 1:3]
    axes.plot(*xy.T, color=HAPPENED, lw=2.4, zorder=4, solid_capstyle="round")
    _draw_robot(axes, story)
    _draw_goals(axes, story)
    axes.plot(*story.contacts[:, 1:3].T, "x", color=BAD, ms=8, mew=2, zorder=7)
    frame = "world" if story.worlds else "odometry frame"
    axes.set(aspect="equal", xlabel=f"x, m ({frame})", ylabel="y, m")
    axes.set_title(f"The path driven (from {story.driven_by or 'nothing: no pose was recorded'})")
    handles = [
        Patch(color=HAPPENED, label="driven"),
        Patch(color=IMAGINED, alpha=0.6, label="accepted trajectories"),
        Patch(color=GOAL, label="goal"),
    ]
    if story.worlds:
        handles += [Patch(color=WALL, label="stands fast"), Patch(color=BOX, label="can be pushed")]
    if len(story.contacts):
        handles.append(Patch(color=BAD, label="contact"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _draw_world(axes: Axes, first: World, last: World) -> None:
    for x, y, radius in last.circles.tolist():
        axes.add_patch(Circle((x, y), radius, color=WALL, zorder=2))
    for world, alpha in ((first, 0.3), (last, 1.0)):
        for (x, y, yaw, half_x, half_y), movable in zip(
            world.rectangles.tolist(), world.movable.tolist(), strict=True
        ):
            place = Affine2D().rotate(yaw).translate(x, y) + axes.transData
            patch = Rectangle((-half_x, -half_y), 2 * half_x, 2 * half_y, transform=place, zorder=2)
            patch.set(color=BOX if movable else WALL, alpha=alpha if movable else 1.0, lw=0)
            axes.add_patch(patch)
    reach = np.hypot(last.rectangles[:, 3], last.rectangles[:, 4])
    if len(reach):  # patches with a transform of their own do not move the limits
        inner = np.minimum(last.rectangles[:, 3], last.rectangles[:, 4])
        low = (last.rectangles[:, :2] - inner[:, None]).min(axis=0) - 0.15
        high = (last.rectangles[:, :2] + inner[:, None]).max(axis=0) + 0.15
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.grid(False)


def _draw_robot(axes: Axes, story: Story) -> None:
    """The footprint where it started and ended, with its nose, and a mark every second."""
    if not len(story.driven):
        return
    radius = story.robot.base.footprint_radius if story.robot.base else 0.05
    for row, alpha in ((story.driven[0], 0.25), (story.driven[-1], 0.6)):
        _, x, y, yaw = row.tolist()
        axes.add_patch(Circle((x, y), radius, color=HAPPENED, alpha=alpha, lw=0, zorder=5))
        nose = (x + radius * np.cos(yaw), y + radius * np.sin(yaw))
        axes.plot([x, nose[0]], [y, nose[1]], color="white", lw=1.6, zorder=6)
    _, x, y, _ = story.driven[0].tolist()
    axes.annotate("start", (x, y), (0, -14), textcoords="offset points", ha="center", fontsize=8)
    seconds = np.arange(1.0, story.driven[-1, 0], 1.0)
    marks = [np.interp(seconds, story.driven[:, 0], story.driven[:, i]) for i in (1, 2)]
    axes.plot(*marks, ".", color="white", ms=2.5, zorder=5)


def _draw_goals(axes: Axes, story: Story) -> None:
    origin = story.worlds[-1].odometry_origin if story.worlds else (0.0, 0.0, 0.0)
    tolerance = story.recording.header.settings.get("goal_tolerance", 0.0)
    poses = {(g.x, g.y) for _, g in story.goals if isinstance(g, PoseGoal)}
    for place in sorted(poses):
        x, y, _ = to_world(np.array([[*place, 0.0]]), origin)[0].tolist()
        axes.plot([x], [y], "*", color=GOAL, ms=15, mec="white", zorder=6)
        axes.add_patch(Circle((x, y), tolerance, fill=False, ec=GOAL, ls="--", lw=1.2, zorder=6))


# ---- imagined and happened -----------------------------------------------------------------
def imagined(story: Story) -> Figure | None:
    """For some moments: the camera's frames, and the frames imagined for the same times."""
    if not story.moments:
        return None
    count = max(len(moment.imagined) for moment in story.moments)
    rows = len(story.moments)
    figure = Figure(figsize=(1.5 * count + 1.4, 3.2 * rows + 0.5), layout="constrained")
    figure.suptitle("What the model imagined, and what happened", x=0.01, ha="left", weight="bold")
    blocks = figure.subfigures(rows, 1, squeeze=False)
    for block, moment in zip(blocks[:, 0], story.moments, strict=True):
        grid = block.subplots(2, count, squeeze=False)
        lines = ((moment.happened, HAPPENED, "happened"), (moment.imagined, IMAGINED, "imagined"))
        for (images, color, label), axes_row in zip(lines, grid, strict=True):
            for axes in axes_row:
                axes.set(xticks=[], yticks=[])
                axes.grid(False)
                axes.spines[:].set(visible=True, color=color, linewidth=2)
            axes_row[0].set_ylabel(label, color=color, weight="bold")
            for axes, image in zip(axes_row, images, strict=False):
                axes.imshow(image, interpolation="nearest")
        for axes, ahead_s in zip(grid[0], moment.ahead_s, strict=False):
            at = f"at {moment.time_s:.1f} s" if ahead_s == 0 else f"+{ahead_s:.2f} s"
            axes.set_title(at, loc="center", fontsize=9, weight="normal")
    return figure


def prediction_error(story: Story) -> Figure | None:
    """Error by horizon step, against the prediction that nothing changes."""
    curves = [c for c in story.errors if np.isfinite(c.model).any()]
    if not curves:
        return None
    figure = Figure(figsize=(3.3 * len(curves) + 0.4, 3.4), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        _draw_errors(axes, curve)
    figure.legend(
        handles=[
            Patch(color=FAINT, label='"nothing changes"'),
            Patch(color=IMAGINED, label="the world model"),
            Patch(color=INK, alpha=0.15, label="middle half of the predictions"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _draw_errors(axes: Axes, curve: ErrorCurve) -> None:
    for errors, color in ((curve.unchanged, FAINT), (curve.model, IMAGINED)):
        known = np.isfinite(errors).any(axis=0)
        quarter, median, three = np.nanpercentile(errors[:, known], [25, 50, 75], axis=0)
        ahead = curve.ahead_s[known]
        axes.fill_between(ahead, quarter, three, color=color, alpha=0.18, lw=0)
        axes.plot(ahead, median, "o-", color=color, lw=1.8, ms=3.5)
    axes.set(xlabel="s after the observation", ylabel=f"error, {curve.unit}", ylim=(0, None))
    axes.set_xlim(0, None)
    axes.set_title(f"{curve.name} ({len(curve.model)} predictions)")


# ---- time ----------------------------------------------------------------------------------
def latency(story: Story) -> Figure | None:
    """How long plans took, all together and by stage, with the deadline."""
    total = np.array([plan.work_ns for plan in story.plans if plan.stages]) * 1e-6
    if not len(total):
        return None
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    deadline = story.plan_deadline_ns * 1e-6
    marks = percentiles(total.tolist())
    highest = max(deadline * 1.15, float(total.max()) * 1.02)
    left.hist(total, bins=np.linspace(0, highest, 70), color=HAPPENED, alpha=0.85)
    left.set_yscale("symlog", linthresh=1)
    left.set_ylim(0, None)
    for height, (name, value) in zip((0.97, 0.87, 0.77), marks.items(), strict=True):
        left.axvline(value, color=INK, lw=1, ls=":")
        label = f"{name}  {value:.1f} ms"
        left.annotate(
            *(label, (value, height)),
            xytext=(4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=8,
            bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
        )
    left.axvline(deadline, color=BAD, lw=1.6)
    left.annotate(
        *(f"deadline {deadline:.0f} ms", (deadline, 0.03)),
        xytext=(-4, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        color=BAD,
        fontsize=8,
    )
    left.set(xlabel="ms", ylabel="plans (logarithmic)", xlim=(0, highest))
    left.set_title(f"A plan, all stages together ({len(total)} plans)")
    _draw_stages(right, story)
    return figure


def _draw_stages(axes: Axes, story: Story) -> None:
    stages: dict[str, list[float]] = {}
    for plan in story.plans:
        for name, duration_ns in plan.stages.items():
            stages.setdefault(name, []).append(duration_ns * 1e-6)
    durations = [step.duration_ns * 1e-6 for step in story.steps if step.duration_ns]
    if durations:
        stages["setpoint tick"] = durations
    names = list(stages)
    for row, values in enumerate(stages.values()):
        p50, p99 = np.percentile(values, [50, 99])
        color = FAINT if names[row] == "setpoint tick" else HAPPENED
        axes.barh(row, p99, color=color, alpha=0.3, height=0.62)
        axes.barh(row, p50, color=color, height=0.62)
        axes.annotate(f" {p50:.2f} / {p99:.2f}", (p99, row), va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="ms")
    axes.set_title("Stages: p50 / p99")


def timeline(story: Story) -> Figure | None:
    """Mode, speed, the guard's reasons, plans and the ages of the sensors over time."""
    if not story.steps and not story.plans:
        return None
    reasons = _reason_rows(story)
    streams = sorted({name for plan in story.plans for name in plan.ages_ns})
    heights = [0.35, 1.6, 0.5 + 0.2 * len(reasons), 1.8]
    figure = Figure(figsize=(9.6, 1.1 + 1.25 * sum(heights)), layout="constrained")
    mode, speed, events, ages = figure.subplots(4, 1, sharex=True, height_ratios=heights)
    _draw_modes(mode, story)
    _draw_speed(speed, story)
    _draw_reasons(events, reasons)
    _draw_ages(ages, story, streams)
    ages.set(xlabel="s", xlim=(0, max((story.end_ns - story.start_ns) * 1e-9, 1e-3)))
    return figure


def _draw_modes(axes: Axes, story: Story) -> None:
    times = np.array([step.time_s for step in story.steps])
    modes = np.array([step.mode for step in story.steps])
    if len(times):
        changes = np.flatnonzero(np.diff(modes, prepend=-1))
        ends = np.append(times[changes[1:]], times[-1])
        for index, end in zip(changes, ends, strict=True):
            mode = Mode(int(modes[index]))
            axes.axvspan(times[index], end, color=MODE_COLORS[mode], lw=0)
    seen = [mode for mode in Mode if mode in modes]
    handles = [Patch(color=MODE_COLORS[mode], label=mode.name) for mode in seen]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=8, borderpad=0)
    axes.set(yticks=[])
    axes.grid(False)
    axes.set_title("Mode")


def _draw_speed(axes: Axes, story: Story) -> None:
    times = [step.time_s for step in story.steps]
    colors = (HAPPENED, FAINT, GOAL, IMAGINED, INK, BAD, WALL, BOX)
    for index, name in enumerate(story.axes):
        values = [step.velocity[index] for step in story.steps]
        axes.plot(times, values, color=colors[index % len(colors)], lw=1.1, label=name)
    for time_s in story.contacts[:, 0]:
        axes.axvline(time_s, color=BAD, lw=0.6, alpha=0.5)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=8, borderpad=0)
    axes.set_title("Commanded velocity (m/s, rad/s)")


def _reason_rows(story: Story) -> Mapping[str, tuple[str, list[float]]]:
    """Label -> (color, times): everything that somebody refused, dropped or held back."""
    rows: dict[str, tuple[str, list[float]]] = {}

    def add(label: str, color: str, time_s: float) -> None:
        rows.setdefault(label, (color, []))[1].append(time_s)

    late_ns = story.plan_deadline_ns
    for plan in story.plans:
        time_s = story.seconds(plan.end_ns)
        if plan.end_ns - plan.begin_ns > late_ns:
            add("plan late", BAD, time_s)
        if plan.reason is not None:
            add(f"no plan: {plan.reason.name}", _color(plan.reason), time_s)
        for reason in plan.refusals:
            add(f"refused: {reason.name}", BAD, time_s)
    for step in story.steps:
        for reason in step.reasons:
            add(f"guard: {reason.name}", _color(reason), step.time_s)
    for time_s, stream, reason in story.drops:
        add(f"dropped {stream}: {reason.name}", FAINT, time_s)
    return rows


def _color(reason: Reason) -> str:
    return GOAL if reason is Reason.goal_reached else IMAGINED


def _draw_reasons(axes: Axes, rows: Mapping[str, tuple[str, list[float]]]) -> None:
    for row, (color, times) in enumerate(rows.values()):
        lines = [((time_s, row - 0.36), (time_s, row + 0.36)) for time_s in times]
        axes.add_collection(LineCollection(lines, colors=color, linewidths=1.1))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_title("What was held back, and why" if rows else "Nothing was held back")


def _draw_ages(axes: Axes, story: Story, streams: list[str]) -> None:
    colors = (HAPPENED, IMAGINED, GOAL, "#8458a6", WALL, BOX)
    for index, name in enumerate(streams):
        color = colors[index % len(colors)]
        plans = [plan for plan in story.plans if name in plan.ages_ns]
        times = [story.seconds(plan.begin_ns) for plan in plans]
        limit = story.robot.streams[name].max_age_ns if name in story.robot.streams else 0
        values = np.minimum([plan.ages_ns[name] for plan in plans], 3 * limit) * 1e-6
        axes.plot(times, values, color=color, lw=1, label=name)
        if limit:
            axes.axhline(limit * 1e-6, color=color, lw=0.8, ls=":")
    axes.set_ylim(0, None)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=8, borderpad=0)
    axes.set_title("Age of the newest sample when planning, ms (dotted: too old)")
