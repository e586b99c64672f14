"""Tests edge_wm.report: the numbers of a run, its pictures and its page, whatever is missing."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from recording.runs import AXES, MS, START_NS, make_header, make_run

from edge_wm.errors import SystemTroubleError
from edge_wm.modes import Mode
from edge_wm.reasons import EXPLANATIONS, Reason
from edge_wm.recording import (
    Event,
    PlanBegin,
    PlanEnd,
    Prediction,
    Recorder,
    Step,
    Truth,
    World,
)
from edge_wm.report import plots, read_story, write_report
from edge_wm.report.story import percentiles, to_world
from edge_wm.robot import Robot, load_robot
from edge_wm.types import Belief, PoseGoal, Sample

REPOSITORY = Path(__file__).resolve().parents[1]
ROVER = load_robot(REPOSITORY / "robots" / "rover.yaml")
EVENTS = list(make_run(3.0))
PICTURES = ["path", "imagined", "prediction_error", "latency", "timeline"]


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plots.STYLE, "savefig.dpi", 25)


def record(
    folder: Path, events: list[Event], robot: Robot = ROVER, name: str = "run", **header: Any
) -> Path:
    path = folder / f"{name}.mcap"
    conditions = replace(make_header(robot.text), **header)
    with Recorder(path, robot, conditions) as recorder:
        for event in events:
            recorder.record(event)
    return path


class Page(HTMLParser):
    """What a browser would see: text, addresses, and whether the tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href", "action")]
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


# ---- the page ----------------------------------------------------------------------------------
def test_what_was_said_of_the_link_stands_on_the_page(tmp_path: Path) -> None:
    path = tmp_path / "linked.mcap"
    with Recorder(path, ROVER, make_header(ROVER.text)) as recorder:
        for event in EVENTS:
            recorder.record(event)
        recorder.close({"dead_man_ms": "250.0", "why": "<b>"})
    words = Page(write_report(path).read_text(encoding="utf-8")).words()
    assert "Link dead_man_ms 250.0 why <b>" in words
    without = write_report(record(tmp_path, EVENTS)).read_text(encoding="utf-8")
    assert "dead_man_ms" not in Page(without).words()


def test_a_run_gives_a_page_and_its_pictures(tmp_path: Path) -> None:
    page = write_report(record(tmp_path, EVENTS), tmp_path / "made" / "here")
    assert page == tmp_path / "made" / "here" / "report.html"
    for name in PICTURES:
        with Image.open(page.parent / f"{name}.png") as picture:
            assert min(picture.size) > 50
            assert len(np.unique(np.asarray(picture))) > 5  # not blank
    seen = Page(page.read_text())
    assert len(seen.addresses) == len(PICTURES)
    assert all(address.startswith("data:image/png;base64,") for address in seen.addresses)
    assert not seen.tags & {"script", "link", "iframe", "object"}
    assert "http://" not in page.read_text()
    assert "https://" not in page.read_text()
    for reason in (Reason.obstacle_near, Reason.trajectory_late, Reason.sample_out_of_order):
        assert EXPLANATIONS[reason].sentence in seen.words()
    assert "rover with rover-test 1.0" in seen.words()
    assert "3.0 s duration" in seen.words()


def test_the_report_lies_beside_the_recording_by_default(tmp_path: Path) -> None:
    assert write_report(record(tmp_path, EVENTS[:200])) == tmp_path / "report.html"


def without(*kinds: type[Any]) -> list[Event]:
    return [event for event in EVENTS if not isinstance(event, kinds)]


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([], PICTURES),
        (without(Truth, World), []),
        (without(Truth, World, Sample), ["imagined"]),
        (without(Prediction), ["imagined", "prediction_error"]),
        (without(PlanEnd, PlanBegin), ["prediction_error", "latency"]),
        (without(PlanEnd, PlanBegin, Step), ["prediction_error", "latency", "timeline"]),
        (without(PlanBegin), []),
        (without(Sample, Truth, World, PlanEnd), ["path", *PICTURES[1:4]]),
        ([e for e in EVENTS if isinstance(e, World)], PICTURES[1:]),
        ([e for e in EVENTS if isinstance(e, PlanEnd)][:1], PICTURES[:3]),
        ([e for e in EVENTS if isinstance(e, Step)][:1], PICTURES[:4]),
        ([e for e in EVENTS if isinstance(e, Truth)][:1], PICTURES),
        ([e for e in EVENTS if isinstance(e, Prediction)][:1], PICTURES),
    ],
)
def test_what_is_missing_is_left_out_and_named(
    events: list[Event], missing: list[str], tmp_path: Path
) -> None:
    page = write_report(record(tmp_path, events))
    made = {path.stem for path in tmp_path.glob("*.png")}
    assert made == set(PICTURES) - set(missing)
    assert Page(page.read_text()).words().count("Not shown:") == len(missing)


def test_a_stranger_s_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src="http://example.com/x">'
    path = record(
        tmp_path,
        EVENTS[:200],
        bundle_name=evil,
        bundle_version=evil,
        started=evil,
        machine={evil: evil},
        settings={evil: evil, "goal_tolerance": 0.3},
    )
    page = Page(write_report(path).read_text())
    assert "script" not in page.tags
    assert all(address.startswith("data:") for address in page.addresses)
    assert page.words().count("alert(1)") >= 5


def test_a_recording_that_was_cut_off_gives_a_report_that_says_so(tmp_path: Path) -> None:
    path = record(tmp_path, EVENTS)
    path.write_bytes(path.read_bytes()[:-2000])
    words = Page(write_report(path).read_text()).words()
    assert "cut off" in words
    assert "it is read up to there" in words


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = record(tmp_path, EVENTS[:200])
    with pytest.raises(SystemTroubleError) as caught:
        write_report(path, path)
    assert str(caught.value) == (
        f"{path}: the report cannot be written: File exists; free some space or choose another "
        "folder"
    )


def test_without_matplotlib_the_way_to_get_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "edge_wm.report.plots")
    with pytest.raises(SystemTroubleError, match=re.escape('pip install "edge-wm[report]"')):
        write_report(record(tmp_path, EVENTS[:200]))


def test_odd_values_are_drawn_without_a_warning(tmp_path: Path) -> None:
    events: list[Event] = []
    for event in EVENTS:
        if isinstance(event, PlanEnd) and event.belief is not None:
            nans = {n: np.full_like(t, np.nan) for n, t in event.belief.tensors.items()}
            belief = replace(event.belief, tensors=nans) if event.tick % 3 == 0 else event.belief
            event = replace(event, belief=belief, ages_ns={"camera": 2**62, "unknown": 5})
        if isinstance(event, Prediction):
            event = replace(event, images=event.images[:, ::2, ::2].copy())
        events.append(event)
    write_report(record(tmp_path, events, settings={"goal_tolerance": 0.2}))
    assert (tmp_path / "timeline.png").exists()


def test_an_arm_without_a_base_has_a_report(tmp_path: Path) -> None:
    arm = load_robot(REPOSITORY / "robots" / "arm.yaml")
    joints = tuple(axis.name for axis in arm.axes)
    steps: list[Event] = []
    for event in EVENTS:
        if isinstance(event, Step):
            setpoint = replace(event.verdict.setpoint, axes=joints)
            steps.append(replace(event, verdict=replace(event.verdict, setpoint=setpoint)))
    write_report(record(tmp_path, steps, arm))
    assert {path.stem for path in tmp_path.glob("*.png")} == {"timeline"}


# ---- the numbers -------------------------------------------------------------------------------
def test_the_summary_counts_what_was_recorded(tmp_path: Path) -> None:
    summary = read_story(record(tmp_path, EVENTS)).summary()
    ends = [e for e in EVENTS if isinstance(e, PlanEnd)]
    steps = [e for e in EVENTS if isinstance(e, Step)]
    answers = [e.acceptance for e in ends if e.acceptance]
    assert summary.events == len(EVENTS)
    assert summary.plans == len(ends) == 60
    assert summary.plan_rate_hz == pytest.approx(20.0)
    assert summary.accepted == sum(a.accepted for a in answers)
    assert summary.refusals == {Reason.trajectory_late: sum(not a.accepted for a in answers)}
    assert summary.without_plan == {Reason.stream_stale: 6}
    assert summary.drops == {("imu", Reason.sample_out_of_order): 6}
    near = sum(Reason.obstacle_near in e.verdict.reasons for e in steps)
    assert summary.guard == {Reason.obstacle_near: near}
    assert summary.setpoints == len(steps) == 300
    assert summary.goals == 2
    assert summary.goals_reached == 0
    assert summary.contacts == 0
    assert summary.duration_s == pytest.approx(3.0, abs=0.03)
    assert summary.driven_m == pytest.approx(0.4 * 2.95, rel=1e-4)  # the run is a circle, r = 1
    assert summary.late == 0
    work = sorted(sum(e.stages.values()) * 1e-6 for e in ends if e.reason is None)
    assert summary.work_ms["p50"] == pytest.approx((work[26] + work[27]) / 2)
    assert work[-2] < summary.work_ms["p99"] < summary.work_ms["p99.9"] < work[-1]


def plan(tick: int, now_ns: int, goal: PoseGoal, took_ms: int, reached: bool) -> list[Event]:
    reason = Reason.goal_reached if reached else None
    end = PlanEnd(tick, now_ns + took_ms * MS, reason, stages={"plan": took_ms * MS})
    return [PlanBegin(tick, now_ns, goal), end]


def test_a_goal_counts_once_until_another_is_given(tmp_path: Path) -> None:
    there, back = PoseGoal(1.0, 0.0), PoseGoal(0.0, 0.0)
    ticks = [(there, False), (there, True), (there, True), (there, False), (there, True)]
    ticks += [(back, True), (there, False), (there, True), (back, False)]
    events: list[Event] = []
    for tick, (goal, reached) in enumerate(ticks):
        events += plan(tick, tick * 50 * MS, goal, 1, reached)
    summary = read_story(record(tmp_path, events)).summary()
    assert (summary.goals, summary.goals_reached) == (4, 3)


@pytest.mark.parametrize(
    ("took_ms", "settings", "late"),
    [
        (40, {"plan_latency_ns": 40 * MS}, 0),
        (41, {"plan_latency_ns": 40 * MS}, 3),
        (50, {}, 0),  # the robot file's plan period
        (51, {}, 3),
        (51, {"plan_latency_ns": "soon"}, 3),
    ],
)
def test_a_plan_is_late_after_its_deadline(
    took_ms: int, settings: dict[str, Any], late: int, tmp_path: Path
) -> None:
    events: list[Event] = []
    for tick in range(3):
        events += plan(tick, tick * 100 * MS, PoseGoal(0.0, 0.0), took_ms, False)
    assert read_story(record(tmp_path, events, settings=settings)).summary().late == late


@pytest.mark.parametrize(
    ("touching", "contacts"),
    [([], 0), ([0], 1), ([3, 4, 5], 1), ([3, 4, 8, 9], 2), ([3, 5], 1), ([3, 6], 2)],
)
def test_contacts_that_are_near_in_time_are_one(
    touching: list[int], contacts: int, tmp_path: Path
) -> None:
    truths = [Truth(n * 100 * MS, 0.0, 0.0, 0.0, n in touching) for n in range(12)]
    summary = read_story(record(tmp_path, list(truths))).summary()
    assert summary.contacts == contacts
    nothing = read_story(record(tmp_path, EVENTS[:1], name="other")).summary()
    assert nothing.contacts is None
    assert nothing.driven_m is None


def test_the_path_is_taken_from_the_best_that_there_is(tmp_path: Path) -> None:
    origin = (0.1, -0.2, 0.3)  # of the odometry frame, in the made-up run's world
    for index, (events, by) in enumerate(
        [
            (EVENTS, "truth"),
            (without(Truth), "odometry"),
            (without(Truth, Sample), "belief"),
            (without(Truth, Sample, PlanEnd), ""),
        ]
    ):
        story = read_story(record(tmp_path, events, name=str(index)))
        assert story.driven_by == by
        if by in ("odometry", "belief"):
            np.testing.assert_allclose(story.driven[0, 1:], origin, atol=2e-3)


def test_to_world_turns_and_shifts() -> None:
    random = np.random.Generator(np.random.Philox(key=5))
    poses, (x, y, yaw) = random.normal(size=(20, 3)), (2.0, -1.0, 0.8)
    moved = to_world(poses, (x, y, yaw))
    places = (poses[:, 0] + 1j * poses[:, 1]) * np.exp(1j * yaw) + (x + 1j * y)
    np.testing.assert_allclose(moved[:, 0] + 1j * moved[:, 1], places)
    np.testing.assert_allclose(moved[:, 2], poses[:, 2] + yaw)


def test_percentiles_of_nothing_are_nothing() -> None:
    assert percentiles([]) == {}
    assert percentiles([4.0]) == {"p50": 4.0, "p99": 4.0, "p99.9": 4.0}


# ---- imagined and happened ---------------------------------------------------------------------
def straight_run(bias: float, yaw_rate: float = 0.0) -> list[Event]:
    """0.5 m/s along x for 4 s; predictions are right but for `bias` m/s along x."""
    events: list[Event] = []
    for tick in range(80):
        now_ns = START_NS + tick * 50 * MS
        seconds = tick * 0.05

        def pose(s: float) -> tuple[float, float, float]:
            return 0.5 * s, 0.0, math.remainder(3.0 + yaw_rate * s, math.tau)

        latent = np.array([seconds, 2.0, -seconds, 0.0])
        tensors = {"pose": np.array(pose(seconds)), "z": latent, "huge": np.zeros(10_000)}
        events.append(PlanBegin(tick, now_ns, None))
        events.append(PlanEnd(tick, now_ns + MS, belief=Belief(now_ns, tensors)))
        if tick % 10 == 5:
            ahead = 0.05 + 0.15 * np.arange(13)
            poses = np.array([pose(seconds + a) for a in ahead.tolist()])
            poses[:, 0] += bias * ahead
            times_ns = now_ns + np.rint(ahead * 1e9).astype(np.int64)
            imagined = {"pose": poses, "z": np.tile(latent, (13, 1))}
            events.append(Prediction(tick, times_ns, imagined))
    return events


def test_errors_are_those_that_were_made(tmp_path: Path) -> None:
    story = read_story(record(tmp_path, straight_run(bias=0.1, yaw_rate=0.6)))
    curves = {curve.name: curve for curve in story.errors}
    assert set(curves) == {"position", "heading", "z"}
    ahead = 0.05 + 0.15 * np.arange(13)
    np.testing.assert_allclose(curves["position"].ahead_s, ahead)
    known = np.isfinite(curves["position"].model)
    assert known[:4].all()  # later ones reach beyond the run
    assert not known[-1].all()
    for row in range(4):
        np.testing.assert_allclose(curves["position"].model[row], 0.1 * ahead, atol=1e-9)
        np.testing.assert_allclose(curves["position"].unchanged[row], 0.5 * ahead, atol=1e-9)
        np.testing.assert_allclose(curves["heading"].model[row], 0.0, atol=1e-9)  # across pi
        np.testing.assert_allclose(curves["heading"].unchanged[row], 0.6 * ahead, atol=1e-9)
        moved = ahead * math.sqrt(2 / 4)  # two of four numbers move with time
        np.testing.assert_allclose(curves["z"].model[row], moved, atol=1e-9)
        np.testing.assert_allclose(curves["z"].unchanged[row], moved, atol=1e-9)


def test_an_imagined_path_is_laid_on_the_driven_one(tmp_path: Path) -> None:
    """The odometry frame may drift; the picture shows what the model got wrong, not the drift."""
    events = straight_run(bias=0.0)
    yaw = 3.0 + math.pi / 2  # the run moves along x while it looks along 3.0 rad
    shifted = [Truth(START_NS + t * 50 * MS, 7.0, 0.5 * t * 0.05, yaw, False) for t in range(80)]
    story = read_story(record(tmp_path, [*events, *shifted]))
    assert story.driven_by == "truth"
    for path in story.imagined:
        inside = path[path[:, 1] < 1.9]
        np.testing.assert_allclose(inside[:, 0], 7.0, atol=1e-3)
        np.testing.assert_allclose(np.diff(path[:, 1]), 0.075, atol=1e-3)


def test_imagined_images_lie_beside_the_frames_of_their_times(tmp_path: Path) -> None:
    story = read_story(record(tmp_path, EVENTS))
    frames = {e.stamp_ns: e.data for e in EVENTS if isinstance(e, Sample) and e.stream == "camera"}
    stamps = np.array(sorted(frames))
    assert 1 <= len(story.moments) <= 4
    times = [moment.time_s for moment in story.moments]
    assert times == sorted(times)
    for moment in story.moments:
        for ahead_s, frame in zip(moment.ahead_s, moment.happened, strict=True):
            time_ns = story.start_ns + (moment.time_s + ahead_s) * 1e9
            nearest = stamps[np.abs(stamps - time_ns).argmin()]
            assert frame is not None
            assert np.array_equal(frame, frames[int(nearest)])


def test_every_mode_has_a_color_and_every_picture_a_caption() -> None:
    from edge_wm.report.page import CAPTIONS, MISSING

    assert set(plots.MODE_COLORS) == set(Mode)
    assert set(CAPTIONS) == set(MISSING) == set(PICTURES)
    assert tuple(axis.name for axis in ROVER.axes) == AXES
