"""Whether the security that was asked for by environment variables is one that fails closed.

    ROS_SECURITY_ENABLE     "true", and nothing else, turns it on
    ROS_SECURITY_STRATEGY   "Enforce": no node without keys; anything else: in the clear then
    ROS_SECURITY_KEYSTORE   the folder of keys that `ros2 security` made

ROS takes a misspelled value for "off" and says nothing. A robot must not be in the clear because
of a capital letter, so what is not exactly right is refused here, before a node exists. Whether
the DDS was built with security is found out by starting a node: it fails, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_wm.errors import UsageError

ENABLE, STRATEGY, KEYSTORE = (
    "ROS_SECURITY_ENABLE",
    "ROS_SECURITY_STRATEGY",
    "ROS_SECURITY_KEYSTORE",
)


def check_security(environment: Mapping[str, str]) -> bool:
    """True if security is on and enforced, False if it is off.

    Raises UsageError for anything between the two.
    """
    enable, strategy, keystore = (
        environment.get(name, "") for name in (ENABLE, STRATEGY, KEYSTORE)
    )
    if enable not in ("", "true", "false"):
        raise UsageError(
            f"{ENABLE}: must be true or false, found {enable!r}, which ROS takes for false; "
            "correct or unset it"
        )
    if enable != "true":
        if strategy:
            raise UsageError(
                f"{STRATEGY} is {strategy!r} while {ENABLE} is not true: nothing would be "
                f"protected; set {ENABLE}=true, or unset both"
            )
        return False
    if strategy != "Enforce":
        raise UsageError(
            f"{STRATEGY}: must be Enforce where {ENABLE} is true, found {strategy!r}: a node "
            "without keys would talk in the clear; set it to Enforce"
        )
    if not (Path(keystore) / "enclaves").is_dir() or not keystore:
        raise UsageError(
            f"{KEYSTORE}: must be a keystore (a folder with enclaves/ in it), found {keystore!r}; "
            "make one with: ros2 security create_keystore"
        )
    return True
