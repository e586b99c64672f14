"""Trials of graphs must not be remembered from one run of the suite to the next."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_WM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
