"""Messages to the nouns of edge-wm and back: pure functions, no node, no clock.

    sensor message ──► Sample or a Reason          Trajectory ◄──► trajectory_msgs/JointTrajectory
    PoseStamped, JointState, Image ──► Goal        Setpoint   ◄──► trajectory_msgs/JointTrajectory
        or a sentence                              GuardState ◄──► std_msgs/String, JSON

Standard messages only. Two of them carry more than they have fields for:

  trajectory   header.stamp is the time of the observation, frame_id is
               "epoch=3 sequence=118 brake=61"; point i is knot i, with its acceleration
  setpoint     header.stamp is `apply_at`, frame_id "epoch=3 sequence=40021"; the points are the
               knots, then one at `valid_until` with the decelerations that the device brakes with
               if nothing follows (as negative numbers in `accelerations`)

Invariant: whatever arrives, nothing here raises for it: what cannot be understood is a Reason or
a sentence that says what was expected and found. Values are passed on as they are, NaN included:
judging them is the guard's work and the intake's.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage, Image, Imu, JointState, LaserScan
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from edge_wm.guard import GuardState, How, Knot
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.robot import Robot, Stream
from edge_wm.types import (
    Array,
    Float32,
    Float64,
    ImageGoal,
    JointGoal,
    PoseGoal,
    Proposal,
    Sample,
    Setpoint,
    Trajectory,
)

SECOND_NS = 1_000_000_000
MOST_POINTS = 10_000  # of a trajectory: 100 s at 100 Hz
MOST_AXES = 64
FARTHEST_GOAL = 10_000.0  # m
BRAKE_POINT_S = 0.01  # between two points of a braking suffix for a stock controller
ROUNDING = 1e-6  # rad/s or m/s, above a limit
ANGLE_TOLERANCE = 1e-3  # rad, of a scan's first and last beam against the robot file
_TRAJECTORY_LABEL = re.compile(r"epoch=(\d{1,12}) sequence=(\d{1,18}) brake=(\d{1,9})")
_SETPOINT_LABEL = re.compile(r"epoch=(\d{1,12}) sequence=(\d{1,18})")

SENSOR_MESSAGES: Mapping[str, type] = {
    "image": Image,
    "joint_state": JointState,
    "imu": Imu,
    "range_scan": LaserScan,
    "odometry": Odometry,
}


# ---- time ---------------------------------------------------------------------------------
def stamp_of(time_ns: int) -> Time:
    """A time as ROS writes it; before 1970 there is none, so it is 0 then."""
    second, nanosecond = divmod(max(time_ns, 0), SECOND_NS)
    return Time(sec=second, nanosec=nanosecond)


def time_ns(stamp: Time | Duration) -> int:
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def duration_of(length_ns: int) -> Duration:
    second, nanosecond = divmod(length_ns, SECOND_NS)
    return Duration(sec=second, nanosec=nanosecond)


# ---- sensors in -----------------------------------------------------------------------------
def sample_of(message: Any, stream: Stream, received_ns: int, sequence: int) -> Sample | Reason:
    """What a sensor message says, in the layout of its stream; or why it says nothing.

    `message` is of the type that `SENSOR_MESSAGES` has for the stream, or a CompressedImage.
    """
    frame = message.header.frame_id
    named = stream.frame if stream.type != "joint_state" else frame  # those name joints, no frame
    if frame != named:
        return Reason.sample_wrong_frame
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite, and refused as that
        data = _READERS[stream.type](message, stream)
    if data is None:
        return Reason.sample_wrong_shape
    return Sample(stream.name, time_ns(message.header.stamp), received_ns, sequence, data)


def _image(message: Image | CompressedImage, stream: Stream | None) -> Array | None:
    """(height, width, 3) uint8 RGB, without a copy where the rows are packed."""
    if isinstance(message, CompressedImage):
        return _decoded(message)
    channels = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}.get(message.encoding)
    if channels is None or message.step < message.width * channels:
        return None
    flat = np.frombuffer(message.data, np.uint8)
    if len(flat) != message.height * message.step or not len(flat):
        return None
    rows = flat.reshape(message.height, message.step)[:, : message.width * channels]
    image = rows.reshape(message.height, message.width, channels)[..., :3]
    if message.encoding.startswith("bgr"):
        image = image[..., ::-1]
    return np.ascontiguousarray(image)


def _decoded(message: CompressedImage) -> Array | None:
    """JPEG or PNG; needs Pillow, which comes with edge-wm's extra `report`."""
    import io

    from PIL import Image as Picture

    try:
        with Picture.open(io.BytesIO(bytes(message.data)), formats=("JPEG", "PNG")) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Picture.DecompressionBombError):
        return None


def _joints(message: JointState, stream: Stream) -> Array | None:
    """(2, J) float32 in the robot file's order of joints; more joints than that are ignored."""
    names = list(message.name)
    if len(message.position) != len(names) or len(message.velocity) != len(names):
        return None
    try:
        columns = [names.index(joint) for joint in stream.joints]
    except ValueError:
        return None
    rows = np.array([message.position, message.velocity], np.float64)
    return np.ascontiguousarray(rows[:, columns], np.float32)


def _imu(message: Imu, stream: Stream) -> Array | None:
    w, a = message.angular_velocity, message.linear_acceleration
    return np.array([w.x, w.y, w.z, a.x, a.y, a.z], np.float32)


def _scan(message: LaserScan, stream: Stream) -> Array | None:
    """(R,) float32. Up to where a reading counts is the robot file's word, not the message's."""
    apart = (message.angle_min - stream.angle_min, message.angle_max - stream.angle_max)
    same = all(abs(angle) <= ANGLE_TOLERANCE for angle in apart)  # NaN is not
    if not same or len(message.ranges) != stream.shape[0]:
        return None
    return np.array(message.ranges, np.float32)


def _odometry(message: Odometry, stream: Stream) -> Array | None:
    pose, twist = message.pose.pose, message.twist.twist
    q = pose.orientation
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
    return np.array(
        [pose.position.x, pose.position.y, yaw, twist.linear.x, twist.linear.y, twist.angular.z]
    )


_READERS = {
    "image": _image,
    "joint_state": _joints,
    "imu": _imu,
    "range_scan": _scan,
    "odometry": _odometry,
}


# ---- sensors out: for a simulated robot, and for a bridge ------------------------------------
def message_of(sample: Sample, stream: Stream) -> Any:
    """The sensor message that says what `sample` does; the inverse of `sample_of`."""
    message = SENSOR_MESSAGES[stream.type]()
    message.header.stamp = stamp_of(sample.stamp_ns)
    message.header.frame_id = stream.frame
    data = sample.data
    if stream.type == "image":
        message.height, message.width = data.shape[:2]
        message.encoding, message.step = "rgb8", 3 * data.shape[1]
        message.data = array("B", np.ascontiguousarray(data).tobytes())
    elif stream.type == "joint_state":
        message.name = list(stream.joints)
        message.position, message.velocity = data.astype(np.float64).tolist()
    elif stream.type == "imu":
        w, a = message.angular_velocity, message.linear_acceleration
        w.x, w.y, w.z, a.x, a.y, a.z = data.astype(np.float64).tolist()
        message.orientation_covariance[0] = -1.0  # no orientation, as sensor_msgs/Imu says it
    elif stream.type == "range_scan":
        count = stream.shape[0]
        message.angle_min, message.angle_max = stream.angle_min, stream.angle_max
        message.angle_increment = (stream.angle_max - stream.angle_min) / max(count - 1, 1)
        message.range_min, message.range_max = stream.range_min, stream.range_max
        message.scan_time = stream.period_ns * 1e-9
        message.ranges = array("f", np.ascontiguousarray(data, np.float32).tobytes())
    else:
        x, y, yaw, vx, vy, wz = data.tolist()
        message.pose.pose.position.x, message.pose.pose.position.y = x, y
        message.pose.pose.orientation.z = math.sin(yaw / 2)
        message.pose.pose.orientation.w = math.cos(yaw / 2)
        twist = message.twist.twist
        twist.linear.x, twist.linear.y, twist.angular.z = vx, vy, wz
    return message


# ---- goals ----------------------------------------------------------------------------------
def goal_of(
    message: PoseStamped, robot: Robot, pose: tuple[float, float, float] | None
) -> PoseGoal | str:
    """The goal in the odometry frame, or a sentence that says why it is refused.

    pose: x, y (m), yaw (rad) of the base in the odometry frame, for goals in the base frame. An
    orientation of all zeros means that any heading will do.
    """
    odometry = robot.pose_stream.frame if robot.pose_stream else "odom"
    base = robot.base.frame if robot.base else "base_link"
    frame = message.header.frame_id
    p, q = message.pose.position, message.pose.orientation
    numbers = (p.x, p.y, q.x, q.y, q.z, q.w)
    if not all(map(math.isfinite, numbers)) or max(abs(p.x), abs(p.y)) > FARTHEST_GOAL:
        return (
            "goal: x, y and the orientation must be finite, and the goal within "
            f"{FARTHEST_GOAL:g} m; send it again"
        )
    any_heading = not any((q.x, q.y, q.z, q.w))
    yaw = (
        None if any_heading else math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y**2 + q.z**2))
    )
    if frame == odometry:
        return PoseGoal(p.x, p.y, yaw, odometry)
    if frame != base:
        return (
            f"goal: frame_id must be {odometry} or {base}, found {frame[:60]!r}; transform it "
            "before sending it"
        )
    if pose is None:
        return f"goal: it is given in {base}, whose place is not known yet; send it in {odometry}"
    x, y, heading = pose
    c, s = math.cos(heading), math.sin(heading)
    turned = None if yaw is None else math.remainder(yaw + heading, math.tau)
    return PoseGoal(x + c * p.x - s * p.y, y + s * p.x + c * p.y, turned, odometry)


def joint_goal_of(message: JointState, robot: Robot) -> JointGoal | str:
    """The goal in the robot file's order of joints, or a sentence that says why it is refused."""
    joints = [axis.name for axis in robot.axes if axis.kind == "position"]
    names, positions = list(message.name), list(message.position)
    if len(positions) != len(names) or sorted(names) != sorted(joints) or not joints:
        found = ", ".join(names)[:100] or "none"
        return (
            f"goal: it must have one position for each of {', '.join(joints) or 'no joint'}, found "
            f"{len(positions)} positions of {found}; send all of them"
        )
    wanted = dict(zip(names, positions, strict=True))
    for axis in robot.axes:
        value = wanted.get(axis.name, 0.0)
        inside = axis.kind != "position" or axis.position_min <= value <= axis.position_max
        if not inside or not math.isfinite(value):
            return (
                f"goal: {axis.name} must be {axis.position_min:g} to {axis.position_max:g}, found "
                f"{value:g}; send one within the robot file's limits"
            )
    return JointGoal(np.array([wanted[joint] for joint in joints], np.float64))


def image_goal_of(message: Image) -> ImageGoal | str:
    """The goal that looks like this, or a sentence that says why it is refused."""
    image = _image(message, None)
    if image is None:
        return (
            "goal: the image must be rgb8, bgr8, rgba8 or bgra8 with whole rows, found "
            f"{message.width} x {message.height} {message.encoding[:20]!r} of {len(message.data)} "
            "bytes"
        )
    return ImageGoal(image)


# ---- trajectories ---------------------------------------------------------------------------
def trajectory_message(trajectory: Trajectory) -> JointTrajectory:
    """See the head of this file."""
    message = JointTrajectory()
    message.header.stamp = stamp_of(trajectory.stamp_ns)
    message.header.frame_id = (
        f"epoch={trajectory.epoch} sequence={trajectory.sequence} brake={trajectory.brake_index}"
    )
    message.joint_names = list(trajectory.axes)
    since_ns = trajectory.start_ns - trajectory.stamp_ns
    efforts = trajectory.effort
    # Standing still may be a single knot; the period is told by two.
    rows = [0, 0] if len(trajectory.position) == 1 else range(len(trajectory.position))
    message.points = [
        JointTrajectoryPoint(
            positions=trajectory.position[row].tolist(),
            velocities=trajectory.velocity[row].tolist(),
            accelerations=trajectory.acceleration[row].tolist(),
            effort=[] if efforts is None else efforts[row].tolist(),
            time_from_start=duration_of(since_ns + knot * trajectory.period_ns),
        )
        for knot, row in enumerate(rows)
    ]
    return message


def future_message(proposal: Proposal, actions: Float32, robot: Robot) -> JointTrajectory:
    """Actions (H, A) of a plan's steps: where the axis is of kind position, positions, else
    velocities or efforts; 0 in the other fields. stamp = when the first one acts.
    """
    kinds = {axis.name: axis.kind for axis in robot.axes}
    fields = {
        "positions": [kinds[name] == "position" for name in proposal.axes],
        "effort": [kinds[name] == "effort" for name in proposal.axes],
    }
    fields["velocities"] = [not p and not e for p, e in zip(*fields.values(), strict=True)]
    message = JointTrajectory()
    message.header.stamp = stamp_of(proposal.apply_at_ns)
    message.joint_names = list(proposal.axes)
    message.points = [
        JointTrajectoryPoint(
            **{
                name: np.where(mine, actions[step], 0.0).tolist()
                for name, mine in fields.items()
                if any(mine)
            },
            time_from_start=duration_of(step * proposal.step_ns),
        )
        for step in range(len(actions))
    ]
    return message


def trajectory_of(message: JointTrajectory) -> Trajectory | str:
    """The inverse of `trajectory_message`, or a sentence that says what is wrong."""
    label = _TRAJECTORY_LABEL.fullmatch(message.header.frame_id)
    if label is None:
        return (
            "trajectory: frame_id must be 'epoch=… sequence=… brake=…', found "
            f"{message.header.frame_id[:60]!r}"
        )
    points, axes = message.points, len(message.joint_names)
    if not 2 <= len(points) <= MOST_POINTS or not 1 <= axes <= MOST_AXES:
        return (
            f"trajectory: must have 2 to {MOST_POINTS} points of 1 to {MOST_AXES} joints, found "
            f"{len(points)} of {axes}"
        )
    rows = []
    for name in ("positions", "velocities", "accelerations"):
        row = _rows(points, name, axes)
        if row is None:
            return f"trajectory: every point must have {axes} {name}, and one of them has not"
        rows.append(row)
    effort = _rows(points, "effort", axes) if len(points[0].effort) else None
    times = [time_ns(point.time_from_start) for point in points]
    period_ns = times[1] - times[0]
    if any(after - before != period_ns for before, after in pairwise(times)):
        return "trajectory: its points must be evenly spaced in time"
    stamp_ns = time_ns(message.header.stamp)
    epoch, sequence, brake = (int(text) for text in label.groups())
    return Trajectory(
        epoch=epoch,
        sequence=sequence,
        stamp_ns=stamp_ns,
        start_ns=stamp_ns + times[0],
        period_ns=period_ns,
        axes=tuple(message.joint_names),
        position=rows[0],
        velocity=rows[1],
        acceleration=rows[2],
        brake_index=brake,
        effort=effort,
    )


def _rows(points: Sequence[JointTrajectoryPoint], name: str, axes: int) -> Float64 | None:
    """(N, A) float64 of one field of the points; None where one has another number of values."""
    values = [getattr(point, name) for point in points]
    if any(len(value) != axes for value in values):
        return None
    return np.array(values, np.float64)


# ---- setpoints ------------------------------------------------------------------------------
def setpoint_message(setpoint: Setpoint) -> JointTrajectory:
    """See the head of this file."""
    message = JointTrajectory()
    message.header.stamp = stamp_of(setpoint.apply_at_ns)
    message.header.frame_id = f"epoch={setpoint.epoch} sequence={setpoint.sequence}"
    message.joint_names = list(setpoint.axes)
    efforts = setpoint.effort
    message.points = [
        JointTrajectoryPoint(
            positions=setpoint.position[i].tolist(),
            velocities=setpoint.velocity[i].tolist(),
            effort=[] if efforts is None else efforts[i].tolist(),
            time_from_start=duration_of(int(setpoint.times_ns[i]) - setpoint.apply_at_ns),
        )
        for i in range(len(setpoint.times_ns))
    ]
    message.points.append(
        JointTrajectoryPoint(
            accelerations=(-setpoint.brake_deceleration).tolist(),
            time_from_start=duration_of(setpoint.valid_until_ns - setpoint.apply_at_ns),
        )
    )
    return message


def setpoint_of(message: JointTrajectory) -> Setpoint | str:
    """The inverse of `setpoint_message`, or a sentence that says what is wrong.

    When each axis is at rest after braking follows from its last velocity and its deceleration.
    """
    label = _SETPOINT_LABEL.fullmatch(message.header.frame_id)
    if label is None:
        return (
            "setpoint: frame_id must be 'epoch=… sequence=…', found "
            f"{message.header.frame_id[:60]!r}"
        )
    points, axes = message.points, len(message.joint_names)
    if not 3 <= len(points) <= MOST_POINTS or not 1 <= axes <= MOST_AXES:
        return (
            f"setpoint: must have two knots or more and a brake, of 1 to {MOST_AXES} axes, found "
            f"{len(points)} points of {axes}"
        )
    *knots, brake = points
    position, velocity = _rows(knots, "positions", axes), _rows(knots, "velocities", axes)
    deceleration = _rows([brake], "accelerations", axes)
    if position is None or velocity is None or deceleration is None:
        return (
            f"setpoint: every knot must have {axes} positions and velocities, and the brake "
            f"{axes} accelerations"
        )
    if not (np.isfinite(velocity).all() and (deceleration < 0.0).all()):
        return "setpoint: its velocities must be finite and its brake's accelerations negative"
    apply_at_ns = time_ns(message.header.stamp)
    valid_until_ns = apply_at_ns + time_ns(brake.time_from_start)
    braking_s = np.abs(velocity[-1]) / -deceleration[0]
    if not (braking_s < 1e6).all():
        return "setpoint: its brake must bring every axis to rest"
    epoch, sequence = (int(text) for text in label.groups())
    effort = _rows(knots, "effort", axes) if len(knots[0].effort) else None
    return Setpoint(
        epoch=epoch,
        sequence=sequence,
        axes=tuple(message.joint_names),
        times_ns=np.array([apply_at_ns + time_ns(knot.time_from_start) for knot in knots]),
        position=position,
        velocity=velocity,
        brake_deceleration=-deceleration[0],
        brake_end_ns=valid_until_ns + np.rint(braking_s * 1e9).astype(np.int64),
        apply_at_ns=apply_at_ns,
        valid_until_ns=valid_until_ns,
        effort=effort,
    )


def within_limits(setpoint: Setpoint, robot: Robot) -> bool:
    """Is every velocity within the robot file's limits? For whoever hands setpoints on."""
    slowest = np.array([axis.velocity_min for axis in robot.axes])
    fastest = np.array([axis.velocity_max for axis in robot.axes])
    velocity = setpoint.velocity
    return bool(((velocity >= slowest - ROUNDING) & (velocity <= fastest + ROUNDING)).all())


def twist_of(setpoint: Setpoint, robot: Robot) -> TwistStamped:
    """What a base is told, for a base controller that takes velocities; m/s and rad/s."""
    message = TwistStamped()
    message.header.stamp = stamp_of(setpoint.apply_at_ns)
    message.header.frame_id = robot.base.frame if robot.base else ""
    newest = dict(zip(setpoint.axes, setpoint.velocity[-1].tolist(), strict=True))
    message.twist.linear.x = newest.get("base.vx", 0.0)
    message.twist.angular.z = newest.get("base.wz", 0.0)
    return message


def controller_message(setpoint: Setpoint) -> JointTrajectory:
    """A setpoint for a stock joint_trajectory_controller: its knots, then the braking suffix.

    Such a controller has no dead-man: it plays what it was given to the end. So every message ends
    at rest, and the next one replaces it before the braking begins. Positions continue at the last
    knot's velocity until `valid_until`, then each axis slows down by its braking deceleration.
    """
    message = JointTrajectory()
    message.header.stamp = stamp_of(setpoint.apply_at_ns)
    message.joint_names = list(setpoint.axes)
    message.points = [
        JointTrajectoryPoint(
            positions=setpoint.position[i].tolist(),
            velocities=setpoint.velocity[i].tolist(),
            time_from_start=duration_of(int(setpoint.times_ns[i]) - setpoint.apply_at_ns),
        )
        for i in range(1, len(setpoint.times_ns))
    ]
    velocity, deceleration = setpoint.velocity[-1], setpoint.brake_deceleration
    last_ns, begin_ns = int(setpoint.times_ns[-1]), setpoint.valid_until_ns
    begin = setpoint.position[-1] + velocity * ((begin_ns - last_ns) * 1e-9)
    to_rest_s = np.abs(velocity) / deceleration
    steps = max(1, math.ceil(float(to_rest_s.max()) / BRAKE_POINT_S))
    for step in range(0 if begin_ns > last_ns else 1, steps + 1):
        since = step * BRAKE_POINT_S
        gone = np.minimum(since, to_rest_s)
        speed = np.where(since < to_rest_s, np.abs(velocity) - deceleration * since, 0.0)
        way = np.abs(velocity) * gone - 0.5 * deceleration * gone**2
        message.points.append(
            JointTrajectoryPoint(
                positions=(begin + np.sign(velocity) * way).tolist(),
                velocities=(np.sign(velocity) * speed).tolist(),
                time_from_start=duration_of(
                    begin_ns - setpoint.apply_at_ns + round(since * SECOND_NS)
                ),
            )
        )
    return message


# ---- the guard's state ----------------------------------------------------------------------
class GuardReport(msgspec.Struct, frozen=True):
    """What the guard tells after a setpoint tick, as JSON on a std_msgs/String.

    Python writes a float64 so that it reads back as the same bits.
    """

    now_ns: int
    mode: str
    epoch: int  # 0: not activated
    accepted: int  # sequence of the newest accepted trajectory
    knots: list[tuple[int, list[float], list[float], list[float], list[float], list[float]]]
    playing: int | None
    at: float
    waiting: list[int]
    how: str
    top_speed: float | None  # None: nothing near
    reasons: list[str]  # why the tick did what it did
    fault: str | None  # that is latched
    unusable: dict[str, str]  # input -> reason


def report_text(
    state: GuardState,
    reasons: Sequence[Reason],
    fault: Reason | None,
    unusable: Mapping[str, Reason],
) -> str:
    """A `GuardReport` as JSON."""
    report = GuardReport(
        now_ns=state.now_ns,
        mode=state.mode.name,
        epoch=state.epoch,
        accepted=state.accepted_sequence,
        knots=[
            (
                knot.time_ns,
                list(knot.position),
                list(knot.velocity),
                list(knot.acceleration),
                list(knot.effort),
                list(knot.pose),
            )
            for knot in state.knots
        ],
        playing=state.playing,
        at=state.at,
        waiting=list(state.waiting),
        how=state.how.value,
        top_speed=None if math.isinf(state.top_speed) else state.top_speed,
        reasons=[reason.name for reason in reasons],
        fault=fault.name if fault else None,
        unusable={name: reason.name for name, reason in unusable.items()},
    )
    return msgspec.json.encode(report).decode()


def report_of(text: str) -> GuardReport | str:
    """The inverse of `report_text`, or a sentence that says what is wrong."""
    try:
        return _REPORTS.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return f"guard's state: {error}"


_REPORTS = msgspec.json.Decoder(GuardReport)


def state_of(report: GuardReport, axes: int) -> GuardState | str:
    """The state that a report tells of a robot with so many axes, or what is wrong with it."""
    sizes = (axes, axes, axes, axes, 3)
    for _, *rows in report.knots:
        if tuple(map(len, rows)) != sizes:
            return f"guard's state: a knot must have {axes} values an axis and a pose of 3"
    try:
        mode, how = Mode[report.mode], How(report.how)
    except (KeyError, ValueError) as error:
        return f"guard's state: unknown mode or way of playing: {error}"
    return GuardState(
        now_ns=report.now_ns,
        mode=mode,
        epoch=report.epoch,
        accepted_sequence=report.accepted,
        knots=tuple(
            Knot(at_ns, tuple(p), tuple(v), tuple(a), tuple(e), (pose[0], pose[1], pose[2]))
            for at_ns, p, v, a, e, pose in report.knots
        ),
        playing=report.playing,
        at=report.at,
        waiting=tuple(report.waiting),
        how=how,
        top_speed=math.inf if report.top_speed is None else report.top_speed,
    )
