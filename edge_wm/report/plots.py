"""The pictures of a report, drawn with matplotlib.

Each function takes a story and gives a figure, or None where the recording has nothing to draw.
The same colors mean the same thing in every picture: blue is what happened, orange what was
imagined or planned, green a goal, red a refusal, a contact or a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle
from matplotlib.transforms import Affine2D

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.recording import World
from edge_wm.report.story import ErrorCurve, Moment, Story, percentiles, to_world
from edge_wm.robot import tool_position
from edge_wm.types import JointGoal, PoseGoal

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
POSE_FROM: Mapping[str, str] = {
    "truth": "the simulation's truth",
    "odometry": "odometry",
    "belief": "the model's belief",
    "": "no pose was recorded",
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
    """The world from above with the path driven: where plans led, and what was imagined."""
    if len(story.driven) < 2 and not story.worlds:
        return None
    panels = [("The path driven, and where the accepted trajectories led", story.trajectories)]
    if story.imagined:
        panels.append(("The path driven, and the poses imagined", story.imagined))
    (left, right), (low, high) = _limits(story)
    height = float(np.clip(5.0 * (high - low) / max(right - left, 1e-6), 3.0, 7.5))
    figure = Figure(figsize=(5.4 * len(panels) + 0.4, height + 1.1), layout="compressed")
    for axes, (title, paths) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        if story.worlds:
            _draw_world(axes, story.worlds[0], story.worlds[-1])
        for poses in paths:
            axes.plot(*poses[:, :2].T, color=IMAGINED, alpha=0.6, lw=0.9, zorder=5)
        axes.plot(*story.driven[:, 1:3].T, color=HAPPENED, lw=2.4, zorder=4)
        _draw_robot(axes, story)
        _draw_goals(axes, story)
        axes.plot(*story.contacts[:, 1:3].T, "x", color=BAD, ms=8, mew=2, zorder=8)
        frame = "world" if story.worlds else "odometry frame"
        axes.set(xlim=(left, right), ylim=(low, high), aspect="equal")
        axes.set(xlabel=f"x, m ({frame})", ylabel="y, m", title=title)
    handles = [
        Patch(color=HAPPENED, label=f"driven ({POSE_FROM[story.driven_by]})"),
        Patch(color=IMAGINED, label="planned, imagined"),
        Patch(color=GOAL, label="goal"),
    ]
    if story.worlds:
        handles += [Patch(color=WALL, label="stands fast"), Patch(color=BOX, label="can be pushed")]
    if len(story.contacts):
        handles.append(Patch(color=BAD, label="contact"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _limits(story: Story) -> tuple[tuple[float, float], tuple[float, float]]:
    """x and y limits that hold the world and all paths."""
    points = [story.driven[:, 1:3], *(p[:, :2] for p in (*story.trajectories, *story.imagined))]
    for world in story.worlds:
        turned = np.abs(np.stack([np.cos(world.rectangles[:, 2]), np.sin(world.rectangles[:, 2])]))
        half_x, half_y = world.rectangles[:, 3], world.rectangles[:, 4]
        reach = np.stack([turned[0] * half_x + turned[1] * half_y] * 2, axis=1)
        reach[:, 1] = turned[1] * half_x + turned[0] * half_y
        points += [world.rectangles[:, :2] - reach, world.rectangles[:, :2] + reach]
        points += [world.circles[:, :2] + s * world.circles[:, 2:] for s in (-1, 1)]
    every = np.concatenate(points)
    (left, low), (right, high) = every.min(axis=0) - 0.2, every.max(axis=0) + 0.2
    return (float(left), float(right)), (float(low), float(high))


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
    _, x, y, yaw = story.driven[0].tolist()
    behind = (x - 1.5 * radius * np.cos(yaw), y - 1.5 * radius * np.sin(yaw))
    axes.text(*behind, "start", ha="center", va="center", fontsize=8, zorder=7)
    seconds = np.arange(1.0, story.driven[-1, 0], 1.0)
    marks = [np.interp(seconds, story.driven[:, 0], story.driven[:, i]) for i in (1, 2)]
    axes.plot(*marks, ".", color="white", ms=2.5, zorder=5)


def _draw_goals(axes: Axes, story: Story) -> None:
    """A base's goals with their tolerance, an arm's where they put the tool."""
    origin = story.worlds[-1].odometry_origin if story.worlds else (0.0, 0.0, 0.0)
    tolerance = story.recording.header.settings.get("goal_tolerance", 0.0)
    poses = {(g.x, g.y) for _, g in story.goals if isinstance(g, PoseGoal)}
    for place in sorted(poses):
        x, y, _ = to_world(np.array([[*place, 0.0]]), origin)[0].tolist()
        axes.plot([x], [y], "*", color=GOAL, ms=15, mec="white", zorder=6)
        axes.add_patch(Circle((x, y), tolerance, fill=False, ec=GOAL, ls="--", lw=1.2, zorder=6))
    kinematics = story.robot.kinematics
    for _, goal in story.goals:
        moving = 0 if kinematics is None else len(kinematics.moving)
        if moving and isinstance(goal, JointGoal) and goal.position.shape == (moving,):
            x, y, _ = tool_position(story.robot, goal.position).tolist()
            axes.plot([x], [y], "*", color=GOAL, ms=15, mec="white", zorder=6)


# ---- imagined and happened -----------------------------------------------------------------
def imagined(story: Story) -> Figure | None:
    """For some moments: the camera's frames, and the frames imagined for the same times."""
    if not story.moments:
        return None
    columns = min(len(story.moments), 2)
    rows = -(-len(story.moments) // columns)
    count = max(len(moment.imagined) for moment in story.moments)
    figure = Figure(figsize=(1.36 * count * columns + 0.6, 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, moment in zip(grid, story.moments, strict=False):
        _draw_moment(axes, moment)
    for axes in grid[len(story.moments) :]:
        axes.set_axis_off()
    return figure


def _draw_moment(axes: Axes, moment: Moment) -> None:
    """Two strips of pictures, one below the other, as one image."""
    count, height, width, _ = moment.imagined.shape
    gap = max(width // 16, 1)
    canvas = np.full((2 * height + gap, count * (width + gap) - gap, 3), 255, np.uint8)
    for index, pair in enumerate(zip(moment.happened, moment.imagined, strict=True)):
        for row, picture in enumerate(pair):
            if picture.shape == (height, width, 3):
                top, left = row * (height + gap), index * (width + gap)
                canvas[top : top + height, left : left + width] = picture
    axes.imshow(canvas, interpolation="nearest")
    centers = [index * (width + gap) + width / 2 for index in range(count)]
    axes.set_xticks(centers, [f"+{ahead_s:.2f} s" for ahead_s in moment.ahead_s])
    axes.set_yticks([height / 2, 1.5 * height + gap], ["happened", "imagined"])
    for label, color in zip(axes.get_yticklabels(), (HAPPENED, IMAGINED), strict=True):
        label.set(color=color, weight="bold", rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_title(f"At {moment.time_s:.1f} s")


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
    total = np.array([plan.work_ns for plan in story.planned]) * 1e-6
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
    for (name, value), line in zip(marks.items(), (":", "--", "-."), strict=True):
        left.axvline(value, color=INK, lw=1.1, ls=line, label=f"{name} {value:.1f} ms")
    left.axvline(deadline, color=BAD, lw=1.6, label=f"deadline {deadline:.0f} ms")
    left.legend(loc="upper right", facecolor="white", framealpha=0.9, frameon=True, edgecolor="w")
    left.set(xlabel="ms", ylabel="plans (logarithmic)", xlim=(0, highest))
    left.set_title(f"A plan, all stages together ({len(total)} plans)")
    _draw_stages(right, story)
    return figure


def _draw_stages(axes: Axes, story: Story) -> None:
    stages: dict[str, list[float]] = {}
    for plan in story.planned:
        for name, duration_ns in plan.stages.items():
            stages.setdefault(name, []).append(duration_ns * 1e-6)
    durations = [step.duration_ns * 1e-6 for step in story.steps if step.duration_ns]
    if durations:
        stages["setpoint tick"] = durations
    for row, (name, values) in enumerate(stages.items()):
        p50, p99 = np.maximum(np.percentile(values, [50, 99]), 1e-3)
        color = FAINT if name == "setpoint tick" else HAPPENED
        axes.plot([p50, p99], [row, row], color=color, lw=3, alpha=0.4, solid_capstyle="butt")
        axes.plot([p50], [row], "o", color=color, ms=7)
        axes.plot([p99], [row], "|", color=color, ms=12, mew=2.5)
        axes.text(p50, row - 0.2, f"{p50:.2f} / {p99:.2f}", va="bottom", fontsize=8)
    axes.set_yticks(range(len(stages)), list(stages))
    axes.set_ylim(len(stages) - 0.5, -0.8)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="ms (logarithmic)")
    axes.set_title("Stages: p50 (dot) and p99 (bar), ms")


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
    _legend_above(axes, [Patch(color=MODE_COLORS[mode], label=mode.name) for mode in seen])
    axes.set(yticks=[])
    axes.grid(False)
    axes.set_title("Mode")


def _legend_above(axes: Axes, artists: Sequence[Artist]) -> None:
    handles = [artist for artist in artists if not str(artist.get_label()).startswith("_")]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=8, borderpad=0)


def _draw_speed(axes: Axes, story: Story) -> None:
    times = [step.time_s for step in story.steps]
    colors = (HAPPENED, FAINT, GOAL, IMAGINED, INK, BAD, WALL, BOX)
    for index, name in enumerate(story.axes):
        values = [step.velocity[index] for step in story.steps]
        axes.plot(times, values, color=colors[index % len(colors)], lw=1.1, label=name)
    for time_s in story.contacts[:, 0]:
        axes.axvline(time_s, color=BAD, lw=0.6, alpha=0.5)
    _legend_above(axes, axes.get_lines())
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
    _legend_above(axes, axes.get_lines())
    axes.set_title("Age of the newest sample when planning, ms (dotted: too old)")
