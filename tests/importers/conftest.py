"""Every test here signs with a developer key of its own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_WM_CONFIG", str(tmp_path / "config"))
