"""Reads the shipped SROS2 policy, for the tests that hold it against the nodes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

SECURITY = Path(__file__).resolve().parents[2] / "ros2_ws/src/edge_wm_bringup/security"


def policy() -> dict[str, ElementTree.Element]:
    """Node -> its profile."""
    root = ElementTree.parse(SECURITY / "policy.xml").getroot()
    found = {}
    for enclave in root.iter("enclave"):
        (profile,) = enclave.iter("profile")
        assert enclave.get("path") == f"/edge_wm/{profile.get('node')}"
        found[str(profile.get("node"))] = profile
    return found


def allowed(profile: ElementTree.Element, tag: str, what: str) -> set[str]:
    """The topics or services that a profile allows to publish, subscribe, reply or request."""
    groups = [g for g in profile.iter(tag) if g.get(what) == "ALLOW"]
    return {str(item.text) for group in groups for item in group}
