"""The picture of an accuracy card: what int8 costs, beside the bound that was set.

Drawn from the card alone, so that the card in any bundle can be drawn again; with `returns` it
also shows the candidates' returns themselves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from edge_wm.errors import SystemTroubleError
from edge_wm.report.plots import BAD, FAINT, GOAL, HAPPENED, IMAGINED, INK, STYLE, WALL
from edge_wm.types import Float32

COLORS = (HAPPENED, IMAGINED, GOAL, "#8458a6", WALL, "#b08a3e", INK)
LAYERS_SHOWN = 24


def draw_precision(
    card: Mapping[str, Any], title: str, path: Path, returns: Float32 | None = None
) -> None:
    """Write the picture of an accuracy card's int8 part, in the format that `path` ends with.

    returns: (2, candidates), float32's and int8's, in standard deviations.

    Raises: SystemTroubleError.
    """
    with matplotlib.rc_context(STYLE):
        figure = _figure(card, title, returns)
        try:
            figure.savefig(os.fspath(path))
        except (OSError, ValueError) as error:
            raise SystemTroubleError(
                f"picture {path}: could not be written ({error}); name a .png, .svg or .pdf file "
                "in a folder that can be written to"
            ) from error


def _figure(card: Mapping[str, Any], title: str, returns: Float32 | None) -> Figure:
    layers = min(len(card["sensitivity"]), LAYERS_SHOWN)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(12.6, 2.6 + max(2.4, 0.2 * layers)), layout=layout)
    grid = figure.add_gridspec(2, 3, width_ratios=(5, 4.2, 5), height_ratios=(4, 1))
    _draw_steps(figure.add_subplot(grid[:, 0]), card)
    _draw_returns(figure.add_subplot(grid[0, 1]), card, returns)
    _write_figures(figure.add_subplot(grid[1, 1]), card)
    _draw_sensitivity(figure.add_subplot(grid[:, 2]), card)
    figure.suptitle(
        f"{title}: int8 against float32, from {card['moments']} moments of {_sources(card)}",
        x=0.012,
        ha="left",
        fontsize=12,
        weight="bold",
    )
    return figure


def _sources(card: Mapping[str, Any]) -> str:
    if card["weak"]:
        return "reference inputs with random actions, which says little"
    count = len(card["data"])
    return str(card["data"][0]["name"]) if count == 1 else f"{count} recordings or files"


def _draw_steps(axes: Axes, card: Mapping[str, Any]) -> None:
    """The error of each belief tensor by horizon step."""
    top = card["bound"]
    for (name, errors), color in zip(
        card["open_loop"].items(), COLORS * len(card["open_loop"]), strict=False
    ):
        values = np.array([np.nan if error is None else error for error in errors], float)
        ahead = np.arange(len(values)) * card["step_s"]
        axes.plot(ahead, values, "o-", color=color, lw=1.8, ms=3.2, label=name)
        top = max(top, float(np.nanmax(values)))
    _draw_bound(axes.axhline, card["bound"])
    axes.text(
        0.99, card["bound"], f"bound {card['bound']:g} ", transform=axes.get_yaxis_transform(),
        ha="right", va="bottom", color=BAD, fontsize=8,
    )  # fmt: skip
    axes.set(xlabel="s ahead of the observation", ylabel="error, share of the tensor's spread")
    axes.set(ylim=(0, 1.25 * top), xlim=(0, None))
    axes.legend(ncols=3, loc="upper left", borderaxespad=0.2, handlelength=1.2, columnspacing=1.0)
    axes.set_title("Open loop: imagined beliefs")


def _draw_returns(axes: Axes, card: Mapping[str, Any], returns: Float32 | None) -> None:
    """Candidates' returns in both precisions."""
    agreement = card["rank_agreement"]
    if returns is not None and returns.size:
        low, high = np.percentile(returns, [0.5, 99.5])
        margin = 0.05 * (high - low)
        limits = (low - margin, high + margin)
        axes.plot(limits, limits, color=FAINT, lw=1, zorder=1)
        every = -(-returns.shape[1] // 4000)
        axes.plot(*returns[:, ::every], ".", color=HAPPENED, ms=2.6, alpha=0.35, mew=0, zorder=2)
        axes.set(xlim=limits, ylim=limits, aspect="equal", adjustable="box", anchor="N")
    axes.set(xlabel="float32, standard deviations", ylabel="int8, standard deviations")
    axes.set_title(f"Costs of {agreement['moments']} x {agreement['candidates']} candidates")


def _write_figures(axes: Axes, card: Mapping[str, Any]) -> None:
    """Agreement of returns and plans, and of closed loops where there are any."""
    agreement, plans, loop = (
        card.get(name) for name in ("rank_agreement", "plan_agreement", "closed_loop")
    )
    rows = []
    if agreement:
        found = f"{agreement['mean']:.4f}, worst {agreement['worst']:.4f}"
        rows.append(("rank agreement", found))
    if plans:
        found = f"{plans['first_action_mean']:.3f}, p90 {plans['first_action_p90']:.3f}"
        rows.append(("first actions apart, in noise", found))
    for precision in ("float32", "int8") if loop else ():
        low, high = loop[f"{precision}_interval"]  # type: ignore[index]
        found = f"{loop[f'{precision}_success']:.0%} ({low:.0%} to {high:.0%})"  # type: ignore[index]
        rows.append((f"success in {loop['episodes']} worlds, {precision}", found))  # type: ignore[index]
    for row, (what, found) in enumerate(rows):
        height = 0.95 - 0.26 * row
        axes.text(-0.1, height, what, va="top", fontsize=8, color="#5d6873")
        axes.text(1.0, height, found, va="top", ha="right", fontsize=8, weight="bold")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()


def _draw_sensitivity(axes: Axes, card: Mapping[str, Any]) -> None:
    """What each layer makes of the error when it alone is int8."""
    shown = dict(card["sensitivity"])
    if len(shown) > LAYERS_SHOWN:
        largest = sorted(shown, key=lambda name: -(shown[name] or np.inf))[:LAYERS_SHOWN]
        shown = {name: value for name, value in shown.items() if name in largest}
    finite = [value for value in shown.values() if value is not None]
    top = max([card["bound"], *finite])
    kept = {*card["kept"], *card["kept_by_hand"]}
    for row, (name, value) in enumerate(shown.items()):
        color = IMAGINED if name in kept else HAPPENED
        width = 1.3 * top if value is None else value
        axes.barh(row, width, color=color, height=0.68)
        word = "not finite" if value is None else f"{value:.3f}"
        axes.text(width, row, f" {word}", va="center", fontsize=7)
    axes.set_yticks(range(len(shown)), [_shortened(name) for name in shown], fontsize=7.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.2 * top)
    axes.grid(axis="y", visible=False)
    _draw_bound(axes.axvline, card["bound"])
    handles = [Patch(color=HAPPENED, label="int8")]
    if kept:
        handles.append(Patch(color=IMAGINED, label="stays float32"))
    axes.legend(handles=handles, loc="lower right", frameon=True, facecolor="white", edgecolor="w")
    axes.set(xlabel="worst error, share of the spread")
    axes.set_title("One layer alone in int8")


def _draw_bound(draw: Any, bound: float) -> None:
    draw(bound, color=BAD, lw=1.2, ls="--", zorder=1)


def _shortened(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:12]}…{name[-21:]}"
