"""stub"""

from __future__ import annotations

from edge_wm.bundle.manifest import Manifest


def check_graph(
    kind: str, blob: bytes | memoryview, manifest: Manifest, name: str, where: str
) -> None:
    """To come."""
