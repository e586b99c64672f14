"""The page: what a robotics engineer wants to know of a run, in the order of asking.

One HTML file with everything in it: no script, no font, no address outside the file. Every text
that comes from the recording is escaped, and the page's policy forbids it to load or run
anything, so that a stranger's recording is safe to look at.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from edge_wm.errors import SystemTroubleError
from edge_wm.reasons import EXPLANATIONS, Reason
from edge_wm.report.story import Story, Summary, read_story

CAPTIONS: Mapping[str, str] = {
    "path": "Seen from above. Thin lines are accepted trajectories with their braking tails; a "
    "white mark is one second. Boxes are where they ended, pale where they began.",
    "imagined": "The camera's frames, and below them the frames that the model's decoder imagined "
    "for the same times under the plan made at the first of them. The decoder is for people: "
    "planning does not use it. Later plans may have changed the motion.",
    "prediction_error": "How far the imagined beliefs were from those that came true, beside the "
    "prediction that everything stays as observed. Replanning changes what comes true, so the "
    "model's own error is smaller than this.",
    "latency": "From the observation to the guard's answer. A plan that misses its deadline is "
    "late: the last accepted trajectory goes on, and at its end its braking tail.",
    "timeline": "Each mark is one tick or one sample. Every reason is explained below.",
}
MISSING: Mapping[str, str] = {
    "path": "no pose was recorded",
    "imagined": "no predictions with images were recorded, or no camera frames at their times",
    "prediction_error": "no predictions were recorded, or no beliefs at their times",
    "latency": "no plans were recorded",
    "timeline": "neither plans nor setpoints were recorded",
}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #26303a; background: #f4f6f8; margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.sub { color: #5d6873; margin: 0 0 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; }
.tile, figure, .card { background: white; border: 1px solid #e1e6ea; border-radius: 8px; }
.tile { padding: .6rem .8rem; } .tile b { display: block; font-size: 1.35rem; }
.tile span { color: #5d6873; font-size: .82rem; } .bad b { color: #c62f2f; }
.good b { color: #2a8f4d; }
figure { margin: 0; padding: .8rem; } img { width: 100%; }
figcaption { color: #5d6873; font-size: .85rem; }
.card { padding: .4rem .8rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
td, th { text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top; }
tr + tr { border-top: 1px solid #eef1f4; } td.n { text-align: right; white-space: nowrap; }
.warn { background: #fff3e4; border: 1px solid #f0c999; border-radius: 8px; padding: .6rem .8rem; }
"""


def write_report(
    recording: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None
) -> Path:
    """Write `report.html` and its pictures into `folder` (default: beside the recording).

    Returns the page's path. Raises what `open_recording` raises, and SystemTroubleError where
    matplotlib is missing or the folder cannot be written.
    """
    try:
        from edge_wm.report.plots import figures
    except ImportError as error:
        raise SystemTroubleError(
            f"the report needs matplotlib, which is not installed ({error}); "
            'pip install "edge-wm[report]"'
        ) from error
    story = read_story(recording)
    place = Path(recording).parent if folder is None else Path(folder)
    pictures: dict[str, bytes] = {}
    for name, figure in figures(story):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        pictures[name] = buffer.getvalue()
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (place / f"{name}.png").write_bytes(picture)
        page = place / "report.html"
        page.write_text(render(story, pictures), encoding="utf-8")
    except OSError as error:
        raise SystemTroubleError(
            f"{place}: the report cannot be written: {error.strerror or error}; free some space or "
            "choose another folder"
        ) from error
    return page


def render(story: Story, pictures: Mapping[str, bytes]) -> str:
    """The page's text, with pictures (name -> PNG) inside."""
    header, summary = story.recording.header, story.summary()
    title = f"{story.robot.name} with {header.bundle_name} {header.bundle_version}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{escape(_subtitle(story))}</p>',
        *(f'<p class="warn">{escape(trouble)}</p>' for trouble in story.recording.troubles),
        f'<div class="tiles">{"".join(_tiles(summary))}</div>',
        *_figures(pictures),
        *_reasons(summary),
        *_remarks(story.recording.remarks),
        *_conditions(story),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _subtitle(story: Story) -> str:
    started = story.recording.header.started
    name = Path(story.recording.path).name
    return " · ".join(
        text for text in (started, name, f"edge-wm {story.recording.software}") if text
    )


def _tiles(s: Summary) -> Iterable[str]:
    yield _tile(f"{s.duration_s:.1f} s", "duration")
    if s.driven_m is not None:
        yield _tile(f"{s.driven_m:.1f} m", "driven")
    good = "good" if s.goals_reached else ""
    yield _tile(f"{s.goals_reached} of {s.goals}", "goals reached", good)
    if s.contacts is not None:
        yield _tile(str(s.contacts), "contacts", "bad" if s.contacts else "good")
    yield _tile(str(s.plans), f"plans, {s.plan_rate_hz:.1f} a second")
    for name in ("p50", "p99"):
        if name in s.work_ms:
            yield _tile(f"{s.work_ms[name]:.1f} ms", f"plan {name}")
    yield _tile(str(s.late), "late plans", "bad" if s.late else "")
    refused = sum(s.refusals.values())
    yield _tile(str(s.plans and refused), "refusals", "bad" if refused else "")
    yield _tile(str(s.setpoints), "setpoints")
    yield _tile(str(sum(s.drops.values())), "samples dropped")
    lost = sum(s.lost.values())
    yield _tile(str(s.events), "events recorded" + (f", {lost} lost" if lost else ""))


def _tile(value: str, label: str, kind: str = "") -> str:
    return f'<div class="tile {kind}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def _figures(pictures: Mapping[str, bytes]) -> Iterable[str]:
    titles = {
        "path": "Where it went",
        "imagined": "What it imagined",
        "prediction_error": "How well it predicts",
        "latency": "How long plans took",
        "timeline": "What happened when",
    }
    for name, title in titles.items():
        yield f"<h2>{title}</h2>"
        if name in pictures:
            data = base64.b64encode(pictures[name]).decode()
            yield (
                f'<figure><img alt="{title}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>"
            )
        else:
            yield f'<p class="sub">Not shown: {escape(MISSING[name])}.</p>'


def _reasons(s: Summary) -> Iterable[str]:
    """Every reason that came up, how often, what it means and what to look at."""
    rows: list[tuple[str, Reason, int]] = []
    rows += [("trajectories refused", reason, n) for reason, n in s.refusals.items()]
    rows += [("plan ticks without a plan", reason, n) for reason, n in s.without_plan.items()]
    rows += [("setpoint ticks", reason, n) for reason, n in s.guard.items()]
    rows += [(f"samples of {name} dropped", why, n) for (name, why), n in s.drops.items()]
    yield "<h2>Reasons</h2>"
    if not rows:
        yield '<p class="sub">Nothing was refused, dropped or held back.</p>'
        return
    cells = "".join(
        f'<tr><td class="n">{count}</td><td>{escape(what)}</td><td><b>{reason.name}</b><br>'
        f"{escape(EXPLANATIONS[reason].sentence)}</td>"
        f"<td>{escape(EXPLANATIONS[reason].check)}</td></tr>"
        for what, reason, count in rows
    )
    head = "<tr><th></th><th>of</th><th>reason</th><th>what to look at</th></tr>"
    yield f'<div class="card"><table>{head}{cells}</table></div>'


def _conditions(story: Story) -> Iterable[str]:
    """Under which conditions the run took place: those of a replay."""
    header = story.recording.header
    rows: list[tuple[str, object]] = [
        ("bundle", f"{header.bundle_name} {header.bundle_version}"),
        ("bundle sha256", header.bundle_sha256),
        ("robot file sha256", story.robot.sha256),
        ("backend", f"{header.backend} {header.backend_version} {header.kernel}".strip()),
        ("seed", header.seed),
        *sorted(header.settings.items()),
        *sorted(header.machine.items()),
    ]
    yield "<h2>Conditions</h2>"
    yield _table(rows)


def _remarks(remarks: Mapping[str, str]) -> Iterable[str]:
    """What was said at the end of the run: how the link to the motors did, for one."""
    if remarks:
        yield "<h2>Link</h2>"
        yield _table(remarks.items())


def _table(rows: Iterable[tuple[str, object]]) -> str:
    cells = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f'<div class="card"><table>{cells}</table></div>'
