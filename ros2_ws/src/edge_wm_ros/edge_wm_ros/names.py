"""Every topic and service that edge-wm's own nodes speak over; sensors' topics are in the robot
file. `~` is the node's own name."""

from __future__ import annotations

MODE = "/edge_wm/mode"  # std_msgs/String, latched: the guard's mode
ESTOP = "/edge_wm/estop"  # std_msgs/Bool: true is an emergency stop; false changes nothing
HEARTBEAT = "/edge_wm/supervisor/heartbeat"  # std_msgs/Header
GOAL = "/goal_pose"  # geometry_msgs/PoseStamped, as RViz sends it
GOAL_JOINTS = "/goal_joints"  # sensor_msgs/JointState
GOAL_IMAGE = "/goal_image"  # sensor_msgs/Image
CMD_VEL = "/cmd_vel"
CONTROLLER = "/joint_trajectory_controller/joint_trajectory"  # trajectory_msgs/JointTrajectory

TRAJECTORY = "/wm_runtime/trajectory"  # trajectory_msgs/JointTrajectory
RUNTIME_STATUS = "/wm_runtime/status"  # std_msgs/String, JSON, every plan tick: its heartbeat
TIMING = "/wm_runtime/timing"  # diagnostic_msgs/DiagnosticArray: each plan's stages, ms
BASE_PATH = "/wm_runtime/base_path"  # nav_msgs/Path, predicted
FUTURE_MEAN = "/wm_runtime/future_mean"  # trajectory_msgs/JointTrajectory, predicted
FUTURE_STD = "/wm_runtime/future_std"  # the same, its standard deviations
BELIEF = "/wm_runtime/belief"  # edge_wm_msgs/BeliefSummary, where that package is installed
IMAGINED = "/wm_runtime/imagined"  # sensor_msgs/Image: decoded futures side by side

SETPOINT = "/wm_guard/setpoint"  # trajectory_msgs/JointTrajectory, commanded
GUARD_STATE = "/wm_guard/state"  # std_msgs/String, JSON, every setpoint tick: its heartbeat
ACCEPTANCE = "/wm_guard/acceptance"  # std_msgs/String, JSON: the answer to a trajectory

BRIDGE_STATE = "/wm_bridge/state"  # std_msgs/String, JSON: its heartbeat

DEVICE_SETPOINT = "/edge_wm/device/setpoint"  # trajectory_msgs/JointTrajectory
DEVICE_JOINTS = "/edge_wm/device/joint_states"  # sensor_msgs/JointState, measured

SIM_TRUTH = "/wm_sim/truth"  # std_msgs/String, JSON
SIM_GOAL = "/wm_sim/goal"  # geometry_msgs/PoseStamped, latched

MARKERS = "/wm_viz/markers"  # visualization_msgs/MarkerArray, for people
VERDICT = "/wm_viz/verdict"  # edge_wm_msgs/Verdict, where that package is installed
TF = "/tf"  # tf2_msgs/TFMessage, where that package is installed
TF_STATIC = "/tf_static"
