"""The message definitions that recordings use: standard ROS 2 ones, and edge-wm's own.

The standard ones are those of common_interfaces (Humble to Kilted), without their comments. Our
own carry what has no standard message; their definitions travel in every recording, so that any
tool that reads ROS 2 messages from MCAP can show them.
"""

from __future__ import annotations

from functools import cache

from edge_wm.recording.cdr import MessageType

_STANDARD = {
    "builtin_interfaces/msg/Time": "int32 sec\nuint32 nanosec",
    "builtin_interfaces/msg/Duration": "int32 sec\nuint32 nanosec",
    "std_msgs/msg/Header": "builtin_interfaces/Time stamp\nstring frame_id",
    "std_msgs/msg/String": "string data",
    "std_msgs/msg/Bool": "bool data",
    "diagnostic_msgs/msg/KeyValue": "string key\nstring value",
    "diagnostic_msgs/msg/DiagnosticStatus": (
        "byte level\nstring name\nstring message\nstring hardware_id\nKeyValue[] values"
    ),
    "diagnostic_msgs/msg/DiagnosticArray": "std_msgs/Header header\nDiagnosticStatus[] status",
    "std_msgs/msg/MultiArrayDimension": "string label\nuint32 size\nuint32 stride",
    "std_msgs/msg/MultiArrayLayout": "MultiArrayDimension[] dim\nuint32 data_offset",
    "std_msgs/msg/Float32MultiArray": "MultiArrayLayout layout\nfloat32[] data",
    "geometry_msgs/msg/Point": "float64 x\nfloat64 y\nfloat64 z",
    "geometry_msgs/msg/Vector3": "float64 x\nfloat64 y\nfloat64 z",
    "geometry_msgs/msg/Quaternion": "float64 x\nfloat64 y\nfloat64 z\nfloat64 w",
    "geometry_msgs/msg/Pose": "Point position\nQuaternion orientation",
    "geometry_msgs/msg/PoseStamped": "std_msgs/Header header\nPose pose",
    "geometry_msgs/msg/PoseWithCovariance": "Pose pose\nfloat64[36] covariance",
    "geometry_msgs/msg/Twist": "Vector3 linear\nVector3 angular",
    "geometry_msgs/msg/TwistStamped": "std_msgs/Header header\nTwist twist",
    "geometry_msgs/msg/TwistWithCovariance": "Twist twist\nfloat64[36] covariance",
    "geometry_msgs/msg/Transform": "Vector3 translation\nQuaternion rotation",
    "geometry_msgs/msg/TransformStamped": (
        "std_msgs/Header header\nstring child_frame_id\nTransform transform"
    ),
    "tf2_msgs/msg/TFMessage": "geometry_msgs/TransformStamped[] transforms",
    "sensor_msgs/msg/Image": (
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
        "uint8 is_bigendian\nuint32 step\nuint8[] data"
    ),
    "sensor_msgs/msg/Imu": (
        "std_msgs/Header header\n"
        "geometry_msgs/Quaternion orientation\nfloat64[9] orientation_covariance\n"
        "geometry_msgs/Vector3 angular_velocity\nfloat64[9] angular_velocity_covariance\n"
        "geometry_msgs/Vector3 linear_acceleration\nfloat64[9] linear_acceleration_covariance"
    ),
    "sensor_msgs/msg/JointState": (
        "std_msgs/Header header\nstring[] name\n"
        "float64[] position\nfloat64[] velocity\nfloat64[] effort"
    ),
    "sensor_msgs/msg/LaserScan": (
        "std_msgs/Header header\nfloat32 angle_min\nfloat32 angle_max\nfloat32 angle_increment\n"
        "float32 time_increment\nfloat32 scan_time\nfloat32 range_min\nfloat32 range_max\n"
        "float32[] ranges\nfloat32[] intensities"
    ),
    "nav_msgs/msg/Odometry": (
        "std_msgs/Header header\nstring child_frame_id\n"
        "geometry_msgs/PoseWithCovariance pose\ngeometry_msgs/TwistWithCovariance twist"
    ),
    "nav_msgs/msg/MapMetaData": (
        "builtin_interfaces/Time map_load_time\nfloat32 resolution\n"
        "uint32 width\nuint32 height\ngeometry_msgs/Pose origin"
    ),
    "nav_msgs/msg/OccupancyGrid": "std_msgs/Header header\nMapMetaData info\nint8[] data",
    "nav_msgs/msg/Path": "std_msgs/Header header\ngeometry_msgs/PoseStamped[] poses",
    "trajectory_msgs/msg/JointTrajectoryPoint": (
        "float64[] positions\nfloat64[] velocities\nfloat64[] accelerations\nfloat64[] effort\n"
        "builtin_interfaces/Duration time_from_start"
    ),
    "trajectory_msgs/msg/JointTrajectory": (
        "std_msgs/Header header\nstring[] joint_names\nJointTrajectoryPoint[] points"
    ),
}

_OWN = {
    "Tensor": """\
string name
string dtype            # as numpy writes it: "<f4" is little-endian float32
uint32[] shape
uint8[] data            # C order""",
    "Sample": """\
# A sample that no standard message carries exactly.
string stream
int64 stamp_ns          # when it was measured
int64 received_ns       # when it reached this process
int64 sequence
Tensor data""",
    "Activate": """\
int64 now_ns
int64 epoch""",
    "Request": """\
int64 now_ns
uint8 mode              # edge_wm/mode.toml
string who
uint16 reason           # edge_wm/reasons.toml; 0: none""",
    "PlanBegin": """\
# A plan tick looked at the world, wanting a goal.
uint64 tick
int64 now_ns
string goal             # "", pose, joints, image, latent
string frame            # of a pose
float64 x               # m
float64 y               # m
float64 yaw             # rad
bool has_yaw
Tensor[] tensor         # a goal of another kind""",
    "Age": """\
string stream
int64 age_ns""",
    "Drop": """\
string stream
int64 stamp_ns
int64 received_ns
uint16 reason""",
    "Belief": """\
int64 stamp_ns
Tensor[] tensors""",
    "Term": """\
string name
float64 value""",
    "Proposal": """\
int64 stamp_ns          # the observation it was planned from
int64 apply_at_ns
int64 step_ns
string[] axes
uint32 steps
float32[] actions       # steps x axes, SI
float64 cost
int64 iterations
int64 candidates
int64 infeasible
uint8[] answers         # of the budget, each time it was asked
uint16 reason
Term[] terms""",
    "Trajectory": """\
int64 epoch
int64 sequence
int64 stamp_ns
int64 start_ns          # knot i is at start_ns + i * period_ns
int64 period_ns
string[] axes
uint32 knots
float64[] position      # knots x axes, rad or m
float64[] velocity
float64[] acceleration
int64 brake_index
bool has_effort
float64[] effort""",
    "Acceptance": """\
bool accepted
int64 epoch
int64 sequence
int64 now_ns
uint16[] reasons
string detail""",
    "Stage": """\
string name
int64 duration_ns""",
    "PlanEnd": """\
# What came out of a plan tick; of what may be missing there are none or one.
uint64 tick
int64 now_ns
uint16 reason           # why nothing was proposed; 0: none
Age[] ages
Drop[] drops
Belief[] belief
Proposal[] proposal
Trajectory[] trajectory
Acceptance[] acceptance
Stage[] stages""",
    "Step": """\
# One setpoint tick: the guard's verdict, with the setpoint that was sent.
int64 now_ns
int64 duration_ns
int64 verdict_ns
uint8 mode
float64 speed_scale
uint16[] reasons
int64 epoch
int64 sequence
string[] axes
int64[] times_ns        # of the knots
float64[] position      # knots x axes, rad or m
float64[] velocity
bool has_effort
float64[] effort
float64[] brake_deceleration
int64[] brake_end_ns
int64 apply_at_ns
int64 valid_until_ns""",
    "Prediction": """\
# What the world model imagined for the proposal of a plan tick.
uint64 tick
int64[] times_ns
Tensor[] beliefs        # N moments of each
int64[] image_times_ns
Tensor images""",
    "Truth": """\
# Where a simulated robot really was.
int64 now_ns
float64 x
float64 y
float64 yaw
bool contact""",
    "World": """\
# A simulated world from above.
int64 now_ns
float64[] circles       # x, y, radius
float64[] rectangles    # x, y, yaw, half extents
uint8[] movable         # for each rectangle
float64[3] odometry_origin""",
    "Gap": """\
# Events that are missing here, because the recorder could not keep up.
uint64 first
uint64 count""",
}

DEFINITIONS: dict[str, str] = {
    **_STANDARD,
    **{f"edge_wm_msgs/msg/{name}": text for name, text in _OWN.items()},
}


@cache
def message_type(name: str) -> MessageType:
    """The type of a name like "sensor_msgs/msg/Imu", or "PlanEnd" for one of our own."""
    return MessageType(name if "/" in name else f"edge_wm_msgs/msg/{name}", DEFINITIONS)
