"""A config folder of nobody, a cache of nobody, and two good bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import bundles


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = tmp_path / "config" / "trust"
    trust.mkdir(parents=True)
    bundles.trust_key(trust)
    monkeypatch.setenv("EDGE_WM_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EDGE_WM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "first.wmb", counter=3)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "second.wmb", version="2.0.0", counter=5)
