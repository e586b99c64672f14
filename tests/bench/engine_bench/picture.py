"""Draws a run: each case's competitors as bars, as times of the best peer.

A bar ends at the minimum and a thin line goes on to the median. Times are divided by the least time
of onnxruntime and LiteRT, so that 1 is the line to beat and a case of 200 ms stands beside one of
0.3 ms.
"""

from __future__ import annotations

from pathlib import Path

from engine_bench.results import OURS, Report, Row, peer_times

COLORS = {
    OURS: "#1b7f4d",
    "onnxruntime": "#3b6fb6",
    "OpenVINO": "#8a5fb0",
    "LiteRT": "#d98a2b",
    "torch": "#c0504d",
}


def draw(report: Report, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = [case for case in report.titles if report.of(case)]
    if not cases:
        return
    heights = [len(report.of(case)) + 1.6 for case in cases]
    figure, axes = plt.subplots(
        len(cases), 1, figsize=(10, 0.24 * sum(heights) + 1.0), squeeze=False,
        gridspec_kw={"height_ratios": heights}, layout="constrained",
    )  # fmt: skip
    for axis, case in zip(axes[:, 0], cases, strict=True):
        _one_case(axis, report.titles[case], sorted(report.of(case), key=lambda row: -row.least))
    axes[-1, 0].set_xlabel(
        "time as a multiple of the best of onnxruntime and LiteRT (less is better)"
    )
    void = ": VOID, the peak moved" if report.void else ""
    figure.suptitle(f"{report.processor}, {report.threads} thread(s){void}", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _one_case(axis, title: str, rows: list[Row]) -> None:
    """`rows` from the slowest, which is drawn at the bottom, to the fastest."""
    peer = peer_times(rows, "best")
    unit = peer[0] if peer else min(row.least for row in rows)
    widest = max(row.median for row in rows) / unit
    for place, row in enumerate(rows):
        color = COLORS.get(row.library, "#777777")
        faded = 1.0 if row.library == OURS or row.form != "as exported" else 0.55
        axis.barh(place, row.least / unit, color=color, alpha=faded, height=0.72)
        axis.plot([row.least / unit, row.median / unit], [place, place], color="black", lw=0.8)
        end = max(row.least, row.median) / unit
        text = f" {row.least * 1e3:.3g} ms, {row.gmacs:.0f} GMAC/s"
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axis.text(end + 0.01 * widest, place, text, va="center", fontsize=7, bbox=paper)
    axis.axvline(1.0, color="black", lw=0.8, ls=":", zorder=0.5)
    axis.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=7)
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.library == OURS else "normal")
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xlim(0, widest * 1.3)
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
