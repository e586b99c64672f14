"""edge-wm: the runtime that puts a learned world model on a real robot."""

from __future__ import annotations

__version__ = "0.1.0"
