"""Goals in frames other than the robot's own: by tf2, where it is installed.

edge-wm itself needs two frames only, the odometry's and the base's, and keeps the one in the other
by itself. A goal on a map needs whoever localizes the robot, and that answer comes over tf2: it is
taken if it is fresh, and the goal is refused, by name, in every other case.
"""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Pose, PoseStamped, Transform

from edge_wm_ros.conversions import stamp_of, time_ns

FRESH_NS = 500_000_000  # a moving frame's transform may be this old; a static one has no age


class Frames:
    """What tf2 knows, if there is a tf2."""

    def __init__(self, node: Any) -> None:
        self._buffer: Any = None
        try:
            from rclpy.time import Time
            from tf2_ros import Buffer, TransformListener
        except ImportError:
            return
        self._newest = Time()
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, node)

    def within(self, target: str, message: PoseStamped, now_ns: int) -> PoseStamped | str:
        """`message` in the frame `target`, or a sentence that says why it is refused."""
        source = message.header.frame_id
        named = repr(source[:60])
        if self._buffer is None:
            return (
                f"goal: its frame is {named}, and tf2, which would turn it into {target}, is not "
                f"installed here; send it in {target} or in the base's frame"
            )
        try:
            found = self._buffer.lookup_transform(target, source, self._newest)
        except Exception as error:  # tf2's own tree: LookupException, ConnectivityException, ...
            return (
                f"goal: there is no transform from {named} to {target} ({error}); start what "
                "localizes the robot, or send the goal in another frame"
            )
        stamp_ns = time_ns(found.header.stamp)
        if stamp_ns and abs(now_ns - stamp_ns) > FRESH_NS:
            return (
                f"goal: the newest transform from {named} to {target} is "
                f"{abs(now_ns - stamp_ns) / 1e9:.1f} s away from now, at most {FRESH_NS / 1e9:g} s "
                "are allowed; is what localizes the robot still running?"
            )
        moved = PoseStamped()
        moved.header.frame_id = target
        moved.header.stamp = stamp_of(time_ns(message.header.stamp))
        moved.pose = transformed(message.pose, found.transform)
        return moved


def transformed(pose: Pose, by: Transform) -> Pose:
    """`pose` seen from the other side of a transform; an orientation of zeros stays one."""
    q, p = by.rotation, pose.position
    turned = _product(_product((q.x, q.y, q.z, q.w), (p.x, p.y, p.z, 0.0)), (-q.x, -q.y, -q.z, q.w))
    out = Pose()
    out.position.x = turned[0] + by.translation.x
    out.position.y = turned[1] + by.translation.y
    out.position.z = turned[2] + by.translation.z
    o = pose.orientation
    x, y, z, w = _product((q.x, q.y, q.z, q.w), (o.x, o.y, o.z, o.w))
    out.orientation.x, out.orientation.y, out.orientation.z, out.orientation.w = x, y, z, w
    return out


Quaternion = tuple[float, float, float, float]


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    """Hamilton's product, (x, y, z, w)."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )
