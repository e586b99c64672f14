"""What `accept` takes and refuses: each reason below, at and above its limit, and its sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.robot import Robot, parse_robot
from edge_wm.types import Acceptance, Observation, Trajectory
from guard.scenes import (
    ARM,
    ROVER,
    START_NS,
    arm_view,
    bump,
    drive,
    motion_of,
    names,
    observation,
    ready,
    rover_view,
    rover_with,
    sweep,
    trajectory,
)

MS = 1_000_000


def ask(
    case: Trajectory, robot: Robot = ROVER, view: Observation | None = None, now_ns: int = START_NS
) -> Acceptance:
    if view is None:
        view = arm_view(now_ns) if robot.base is None else rover_view(now_ns)
    return ready(robot).accept(case, view, now_ns)


def changed(case: Trajectory, column: str, index: int, axis: int, value: float) -> Trajectory:
    values = getattr(case, column).copy()
    values[index, axis] = value
    return replace(case, **{column: values})


def test_a_good_trajectory_is_accepted():
    answer = ask(drive())
    assert answer == Acceptance(True, 1, 1, START_NS, (), "")
    assert ask(sweep(), ARM).accepted


def test_one_knot_at_rest_is_a_trajectory():
    assert ask(trajectory(ROVER, START_NS + 10 * MS, {})).accepted


# ---- mode, epoch, order -----------------------------------------------------------------------
def test_not_active_before_activation_and_after_any_request():
    guard = ready()
    assert guard.request(Mode.hold, "supervisor", START_NS)
    answer = guard.accept(drive(), rover_view(START_NS), START_NS)
    assert answer.reasons == (Reason.not_active,)
    assert answer.detail == "mode hold is not activated"


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_epoch(epoch: int):
    answer = ask(drive(epoch=epoch))
    assert names(answer.reasons) == ([] if epoch == 1 else ["trajectory_wrong_epoch"])


@pytest.mark.parametrize("sequence", [6, 7, 8])
def test_sequence_must_rise_but_a_refused_one_does_not_count(sequence: int):
    guard, view = ready(), rover_view(START_NS)
    assert guard.accept(drive(sequence=7), view, START_NS).accepted
    assert not guard.accept(drive(sequence=9, epoch=5), view, START_NS).accepted
    answer = guard.accept(drive(sequence=sequence), view, START_NS)
    assert names(answer.reasons) == ([] if sequence == 8 else ["trajectory_out_of_order"])


# ---- form -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"axes": ("base.wz", "base.vx")}, "axes must be base.vx, base.wz, got base.wz, base.vx"),
        ({"period_ns": 5 * MS}, "period must be 10000000 ns, got 5000000 ns"),
        ({"period_ns": 0}, "period must be 10000000 ns, got 0 ns"),
        ({"brake_index": -1}, "brake_index must be in 0..104, got -1"),
        ({"brake_index": 105}, "brake_index must be in 0..104, got 105"),
        (
            {"start_ns": START_NS + 13 * MS},
            "start must be a setpoint knot, as `command_at` gives it, got 5013000000 ns",
        ),
        ({"start_ns": START_NS + 1010 * MS}, "start must be within 1 s, got 6010000000 ns"),
        (
            {"stamp_ns": START_NS + 5 * MS + 1},
            "stamp must not be in the future, got 5005000001 ns",
        ),
        ({"position": np.zeros((0, 2))}, "a trajectory has at least one knot, this one has none"),
        ({"position": np.zeros(())}, "a trajectory has at least one knot, this one has none"),
        ({"position": np.zeros(7)}, "position must have shape (7, 2), got (7,)"),
        ({"velocity": np.zeros((7, 2))}, "velocity must have shape (105, 2), got (7, 2)"),
        (
            {"acceleration": np.zeros((105, 2), np.float32)},
            "acceleration must be a float64 array of shape (105, 2), got float32",
        ),
        ({"effort": [1]}, "effort must be a float64 array of shape (105, 2), got list"),
    ],
)
def test_malformed(change: dict[str, object], detail: str):
    answer = ask(replace(drive(), **change))
    assert (answer.reasons, answer.detail) == ((Reason.trajectory_malformed,), detail)


def test_form_at_the_allowed_edge():
    assert ask(drive(start_ns=START_NS + 1000 * MS)).accepted
    assert ask(drive(stamp_ns=START_NS + 5 * MS)).accepted
    assert ask(drive(brake_index=104)).accepted


@pytest.mark.parametrize(("knots", "accepted"), [(2001, True), (2002, False)])
def test_a_trajectory_lasts_20_s_at_most(knots: int, accepted: bool):
    case = trajectory(ROVER, START_NS + 10 * MS, {0: np.zeros(knots)})
    assert ask(case).accepted is accepted


@pytest.mark.parametrize("column", ["position", "velocity", "acceleration", "effort"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(column: str, value: float):
    case = replace(drive(), effort=np.zeros((105, 2)))
    answer = ask(changed(case, column, 30, 1, value))
    assert answer.reasons == (Reason.trajectory_not_finite,)
    assert answer.detail == f"{column} of base.wz at 0.300 s is {value}"


@pytest.mark.parametrize("column", ["position", "velocity", "acceleration"])
@pytest.mark.parametrize("value", [1e300, -1e300])
def test_huge_numbers_overflow_into_a_refusal(column: str, value: float):
    assert not ask(changed(drive(), column, 30, 0, value)).accepted


@pytest.mark.parametrize("column", ["position", "velocity"])
def test_columns_must_be_one_motion(column: str):
    """A knot that is off by less than a thousandth of a period's jerk is rounding; more is not."""
    jerk_step = 20.0 * 0.01
    seam = 1e-3 * jerk_step * (0.01 if column == "velocity" else 0.01**2)
    case = drive()
    at = float(getattr(case, column)[50, 0])
    # the knot after it is judged from it too, so both errors show: stay below half
    assert ask(changed(case, column, 50, 0, at + 0.4 * seam)).accepted
    answer = ask(changed(case, column, 50, 0, at + 1.1 * seam))
    assert answer.reasons == (Reason.trajectory_malformed,)
    assert answer.detail == (
        f"{column} of base.vx at 0.500 s is not the integral of the knots before: "
        f"it is off by {1.1 * seam:.3g}"
    )


# ---- time -------------------------------------------------------------------------------------
@pytest.mark.parametrize("age_ms", [299.9, 300.0, 300.1])
def test_old(age_ms: float):
    """250 ms (the camera's maximum age, the largest) and one plan period of 50 ms."""
    answer = ask(drive(stamp_ns=START_NS - round(age_ms * MS)))
    assert answer.accepted is (age_ms <= 300.0)
    if not answer.accepted:
        assert answer.reasons == (Reason.trajectory_old,)
        assert answer.detail == (
            "its observation is 300.1 ms old, at most 300 ms are allowed "
            "(maximum age of the robot's streams and one plan period)"
        )


@pytest.mark.parametrize("behind", [0, 7, 8, 9])
def test_late_is_joined_while_the_axis_can_still_get_there(behind: int):
    """At rest; the plan has 1.5 m/s^2 after 8 periods, the axis can change 1.0 in a plan period
    of 50 ms: after 5 periods (1.0 m/s^2) it is late, as it is by velocity soon after."""
    case = drive(start_ns=START_NS + (10 - 10 * behind) * MS, brake_index=60)
    answer = ask(case)
    late = case.acceleration[behind, 0] > 20.0 * 0.05 or case.velocity[behind, 0] > 1.5 * 0.05
    assert answer.accepted is not late
    assert names(answer.reasons) == (["trajectory_late"] if late else [])


def test_late_if_only_braking_is_left():
    case = trajectory(ROVER, START_NS - 20 * MS, {0: np.zeros(10)}, brake_index=2)
    answer = ask(case)
    assert answer.reasons == (Reason.trajectory_late,)
    assert answer.detail == (
        "it starts 30 ms before the next setpoint, and of it only braking is left"
    )
    assert ask(replace(case, brake_index=3)).accepted


# ---- the seam to the current command ----------------------------------------------------------
@pytest.mark.parametrize("share", [-1.01, -0.99, 0.99, 1.01])
@pytest.mark.parametrize("column", ["velocity", "acceleration"])
def test_discontinuous_twist(column: str, share: float):
    """A twist axis may be off by what it can change in a plan period of 50 ms."""
    bound = {"velocity": 1.5 * 0.05, "acceleration": 20.0 * 0.05}[column]
    answer = ask(changed(drive(), column, 0, 0, share * bound))
    found = "trajectory_discontinuous" in names(answer.reasons)
    assert found is (abs(share) > 1.0)


@pytest.mark.parametrize("share", [-1.1, -0.9, 0.9, 1.1])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_discontinuous_position_axis(order: int, share: float):
    """A position axis must meet the command to a thousandth of what a period's jerk changes."""
    column = ("position", "velocity", "acceleration")[order]
    bound = 1e-3 * 100.0 * 0.005 ** (3 - order)
    answer = ask(changed(sweep(), column, 0, 0, share * bound), ARM)
    found = "trajectory_discontinuous" in names(answer.reasons)
    assert found is (abs(share) > 1.0)


def test_the_sentence_of_a_discontinuity_names_both_sides():
    answer = ask(changed(sweep(), "position", 0, 1, 0.2), ARM)
    assert answer.reasons == (Reason.trajectory_discontinuous,)
    assert answer.detail == (
        "position of elbow is 0.2 at its knot 0, commanded is 0, at most 1.88e-08 apart is allowed"
    )


# ---- limits -----------------------------------------------------------------------------------
SHARES = [0.99, 1.0, 1.01]


def around(share: float, reason: str) -> list[str]:
    return [reason] if share > 1.0 else []


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(("sign", "limit"), [(1.0, 0.7), (-1.0, 0.25)])
def test_velocity(share: float, sign: float, limit: float):
    peak = share * limit / (0.01 * 40)
    case = trajectory(ROVER, START_NS + 10 * MS, {0: sign * bump(peak, 10, 30, 5, 0.01)})
    assert peak < 1.5 * 1.2
    answer = ask(case)
    if limit == 0.25:
        assert names(answer.reasons) == around(share, "velocity_limit")
    else:
        assert ("velocity_limit" in names(answer.reasons)) is (share > 1.0)


@pytest.mark.parametrize("share", SHARES)
def test_acceleration(share: float):
    answer = ask(trajectory(ROVER, START_NS + 10 * MS, {0: bump(1.5 * share, 8, 12, 5, 0.01)}))
    assert names(answer.reasons) == around(share, "acceleration_limit")


@pytest.mark.parametrize("share", SHARES)
def test_braking_may_be_harder_than_acceleration(share: float):
    """0.3 m/s, reached gently, is braked with up to 2.0 m/s^2 (acceleration allows 1.5)."""
    hard = 2.0 * share
    ramp = np.linspace(0.0, hard, 12)
    brake = np.concatenate((ramp, ramp[-2::-1]))
    speed = float(np.sum(0.01 * (brake[:-1] + brake[1:]) / 2))
    gentle = bump(speed / 0.4, 10, 30, 5, 0.01)[:56]
    answer = ask(trajectory(ROVER, START_NS + 10 * MS, {0: np.concatenate((gentle, -brake))}))
    assert names(answer.reasons) == around(share, "acceleration_limit")
    if share > 1.0:
        assert answer.detail == ("acceleration of base.vx at 0.670 s is -2.02, braking allows 2")


@pytest.mark.parametrize("share", SHARES)
def test_jerk(share: float):
    answer = ask(
        trajectory(ROVER, START_NS + 10 * MS, {1: bump(80.0 * share * 0.05, 5, 4, 5, 0.01)})
    )
    assert names(answer.reasons) == around(share, "jerk_limit")
    if share > 1.0:
        assert answer.detail == "jerk of base.wz from 0.000 s on is 80.8, allowed are 80"


@pytest.mark.parametrize("share", SHARES)
def test_effort(share: float):
    effort = np.zeros((len(sweep().position), 2))
    effort[40, 1] = -6.0 * share
    answer = ask(replace(sweep(), effort=effort), ARM)
    assert names(answer.reasons) == around(share, "effort_limit")
    if share > 1.0:
        assert answer.detail == "effort of elbow at 0.200 s is -6.06, allowed are -6 to 6"


def test_every_broken_limit_is_named():
    case = trajectory(ROVER, START_NS + 10 * MS, {0: bump(3.0, 2, 30, 5, 0.01)})
    assert names(ask(case).reasons) == ["velocity_limit", "acceleration_limit", "jerk_limit"]


def open_arm(**lines: str) -> Robot:
    """The arm without regions."""
    kept = ARM.text.split("workspace:")[0] + "plan_rate_hz:" + ARM.text.split("plan_rate_hz:")[1]
    return parse_robot(kept, "arm.yaml")


@pytest.mark.parametrize("over", [-0.004, 0.004])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_position(over: float, sign: float):
    """The shoulder goes to 2.6 rad, from 2.3; beyond is refused."""
    robot = open_arm()
    go = bump(2.0, 8, 30, 8, 0.005)
    way = float(np.sum(trajectory(robot, 0, {0: go}).velocity[:, 0]) * 0.005)
    start = sign * (2.6 + over - way)
    case = trajectory(robot, START_NS + 5 * MS, {0: sign * go}, start=(start, 0.0))
    guard = ready(robot, q=(start, 0.0))
    command = guard.command_at(START_NS)
    case = replace(case, position=case.position + (command.position - case.position[0]))
    answer = guard.accept(case, arm_view(START_NS, q=(start, 0.0)), START_NS)
    assert names(answer.reasons) == ([] if over < 0 else ["position_limit"])


@pytest.mark.parametrize(("inside", "accepted"), [(0.001, False), (0.004, True)])
def test_turning_back_at_a_limit_so_hard_that_it_could_not_stop_there(
    inside: float, accepted: bool
):
    """The shoulder turns back with 8 rad/s^2. To stop instead, J = 100 must end that at v = 0,
    a^3 / 6 J^2 = 8.5 mrad after v = a^2 / 2 J; the turn takes v^2 / 2 a = 6.4 mrad from there."""
    robot = open_arm()
    ramp, back = np.linspace(0.0, 8.0, 17), np.linspace(8.0, -8.0, 33)
    there = np.concatenate((ramp, np.full(10, 8.0), back[1:], np.full(18, -8.0)))
    go = np.concatenate((there, there[-2::-1]))  # it turns back in the middle of the hold
    ps, vs = motion_of(go, 0.005)
    assert vs[-1] == pytest.approx(0.0, abs=1e-9)
    start = 2.6 - inside - ps.max()
    guard = ready(robot, q=(start, 0.0))
    at = guard.command_at(START_NS).position
    case = trajectory(robot, START_NS + 5 * MS, {0: go}, start=tuple(at))
    answer = guard.accept(case, arm_view(START_NS, q=(start, 0.0)), START_NS)
    assert names(answer.reasons) == ([] if accepted else ["position_limit"])
    if not accepted:
        assert answer.detail.startswith("braking from 0.")
        assert answer.detail.endswith("beyond its position limits")


def test_an_axis_outside_its_positions_may_come_back_but_not_go_further():
    robot = open_arm()
    for sign, accepted in ((-1.0, True), (1.0, False)):
        guard = ready(robot, q=(2.75, 0.0))
        start = tuple(guard.command_at(START_NS).position)
        go = sign * bump(2.0, 8, 30, 8, 0.005)
        case = trajectory(robot, START_NS + 5 * MS, {0: go}, start=start)
        answer = guard.accept(case, arm_view(START_NS, q=(2.75, 0.0)), START_NS)
        assert answer.accepted is accepted
        assert accepted or answer.reasons == (Reason.position_limit,)


@pytest.mark.parametrize("share", [0.9, 1.1])
@pytest.mark.parametrize("column", ["velocity", "acceleration"])
def test_must_end_at_rest(column: str, share: float):
    """To a thousandth of what jerk changes in a period: the setpoint after it is rest."""
    bound = 1e-3 * 20.0 * 0.01 * (0.01 if column == "velocity" else 1.0)
    case = drive()
    if column == "velocity":
        answer = ask(changed(case, column, -1, 0, share * bound))
        # the same number is off the integral by as much, which is refused first
        wanted = [] if share < 1.0 else ["trajectory_malformed", "trajectory_not_at_rest"]
    else:
        answer = ask(changed(case, column, -1, 0, -share * bound))
        wanted = [] if share < 1.0 else ["trajectory_not_at_rest"]
    assert names(answer.reasons) == wanted


def test_cut_off_braking_is_refused():
    case = drive()
    cut = replace(
        case,
        position=case.position[:80],
        velocity=case.velocity[:80],
        acceleration=case.acceleration[:80],
    )
    answer = ask(cut)
    assert answer.reasons == (Reason.trajectory_not_at_rest,)
    assert answer.detail.startswith("base.vx must end at rest, its last knot has velocity 0.315")


# ---- regions ----------------------------------------------------------------------------------
WAY = float(drive().position[-1, 0])  # m


@pytest.mark.parametrize("gap", [-0.002, 0.002])
def test_base_workspace_and_keep_out(gap: float):
    """Footprint 0.18 m. Facing y from (1, 2): the way ends at y = 2 + WAY."""
    end = 2.0 + WAY + 0.18 + gap
    box = f"[{{frame: odom, box: {{lower: [0, 0], upper: [2, {end}]}}}}]"
    disc = f"[{{frame: odom, sphere: {{center: [1, {end + 0.1}], radius: 0.1}}}}]"
    for key, region, reason in (
        ("workspace", box, Reason.outside_workspace),
        ("keep_out", disc, Reason.inside_keep_out),
    ):
        robot = rover_with(**{key: region})
        view = rover_view(START_NS, pose=(1.0, 2.0, np.pi / 2))
        answer = ask(drive(), robot, view)
        assert answer.reasons == (() if gap > 0 else (reason,))
        if gap < 0:
            assert answer.detail.startswith("after 0.960 s, at x 1.000 m, y 2.31")
            assert "the footprint is 0.000" in answer.detail


def test_a_base_that_stands_outside_may_come_back_but_not_go_further():
    robot = rover_with(workspace="[{frame: odom, box: {lower: [-1, -1], upper: [1, 1]}}]")
    outwards = rover_view(START_NS, pose=(1.5, 0.0, 0.0))
    inwards = rover_view(START_NS, pose=(1.5, 0.0, np.pi))
    assert ask(drive(), robot, outwards).reasons == (Reason.outside_workspace,)
    assert ask(drive(), robot, inwards).accepted


@pytest.mark.parametrize("age_ms", [79, 80, 81])
def test_pose_stale(age_ms: int):
    robot = rover_with(keep_out="[{frame: odom, sphere: {center: [9, 9], radius: 0.1}}]")
    answer = ask(drive(), robot, rover_view(START_NS, pose_age_ns=age_ms * MS))
    assert names(answer.reasons) == ([] if age_ms <= 80 else ["pose_stale"])
    if age_ms > 80:
        assert answer.detail == "odometry is 81.0 ms old or not finite, at most 80 ms are allowed"
    assert ask(drive(), ROVER, rover_view(START_NS, pose_age_ns=age_ms * MS)).accepted


@pytest.mark.parametrize("pose", [(np.nan, 0.0, 0.0), (0.0, 0.0, np.inf)])
def test_pose_that_is_not_finite_is_stale(pose: tuple[float, float, float]):
    robot = rover_with(keep_out="[{frame: odom, sphere: {center: [9, 9], radius: 0.1}}]")
    assert ask(drive(), robot, rover_view(START_NS, pose=pose)).reasons == (Reason.pose_stale,)
    assert ask(drive(), robot, observation(START_NS)).reasons == (Reason.pose_stale,)


def test_arm_regions():
    """The shoulder turns towards the post at (0.3, 0.4), or the elbow through the wall."""
    far = bump(6.0, 12, 30, 60, 0.005)
    answer = ask(trajectory(ARM, START_NS + 5 * MS, {0: far}), ARM)
    assert answer.reasons == (Reason.inside_keep_out,)
    assert "a part of the body is" in answer.detail
    further = bump(6.0, 12, 30, 300, 0.005)
    answer = ask(trajectory(ARM, START_NS + 5 * MS, {0: -further}), ARM)
    assert answer.reasons == (Reason.outside_workspace,)


def test_an_arm_that_would_leave_a_clear_path_by_braking_is_refused():
    """Shoulder in, elbow out around the post: stopped halfway, the shoulder still goes on."""
    q = (0.86, -1.19)
    shoulder = np.concatenate((np.zeros(9), bump(7.5, 20, 19, 41, 0.005)))
    elbow = np.concatenate((np.zeros(38), -bump(9.0, 20, 7, 23, 0.005)))
    case = trajectory(ARM, START_NS + 5 * MS, {0: shoulder, 1: elbow})
    guard = ready(ARM, q=q)
    command = guard.command_at(START_NS)
    case = replace(case, position=case.position + command.position)
    answer = guard.accept(case, arm_view(START_NS, q=q), START_NS)
    assert answer.reasons == (Reason.inside_keep_out,)
    assert answer.detail == "braking from 0.240 s a part of the body is 0.00296 m too far"


@pytest.mark.parametrize("gap", [-0.004, 0.004])
def test_the_pose_of_a_moving_base_is_moved_on_by_what_was_commanded(gap: float):
    """The pose is of now, but the base still obeys the commands of 40 ms ago."""
    plan = drive()
    h, k, lead = 10 * MS, 40, 5
    gone = float(plan.position[k + lead, 0] - plan.position[k - 4 - 1, 0])
    rest_way = float(plan.position[-1, 0] - plan.position[k + lead, 0])
    end = gone + rest_way + 0.18 + gap
    robot = rover_with(workspace=f"[{{frame: odom, box: {{lower: [-1, -1], upper: [{end}, 1]}}}}]")
    guard = ready(robot)
    far_back = (-0.9 + 0.18, 0.0, 0.0)
    assert guard.accept(plan, rover_view(START_NS, pose=far_back), START_NS).accepted
    for tick in range(1, k + 1):
        now_ns = START_NS + tick * h
        guard.step(now_ns, rover_view(now_ns, pose=far_back))
    at = k + lead
    follow = replace(
        plan,
        sequence=2,
        start_ns=now_ns + h + lead * h,
        stamp_ns=now_ns,
        position=plan.position[at:] - plan.position[at],
        velocity=plan.velocity[at:],
        acceleration=plan.acceleration[at:],
    )
    answer = guard.accept(follow, rover_view(now_ns), now_ns)
    assert names(answer.reasons) == ([] if gap > 0 else ["outside_workspace"])


def test_an_arm_whose_joints_were_never_seen_is_refused():
    guard = ready(ARM)
    blind = type(guard)(ARM)
    blind.step(START_NS, observation(START_NS))
    for mode in (Mode.self_test, Mode.hold):
        assert blind.request(mode, "supervisor", START_NS)
    blind.activate(START_NS)
    answer = blind.accept(sweep(), arm_view(START_NS), START_NS)
    assert answer.reasons == (Reason.stream_missing,)
    assert answer.detail == "no joint positions were ever seen"
