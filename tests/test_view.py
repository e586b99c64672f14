"""Tests the live view: the events of a run go into a Rerun file (no window opens here)."""

from __future__ import annotations

import pytest
from driving import Events, cockpit, job, rover

from edge_wm.cli.view import Viewer
from edge_wm.errors import BackendError


def test_a_run_becomes_a_rerun_file(tmp_path, monkeypatch):
    pytest.importorskip("rerun", reason='needs the extra "view"')
    monkeypatch.setattr("edge_wm.evaluation.TIME_LIMIT_S", 2.0)
    path = tmp_path / "run.rrd"
    events = Events()
    cockpit().drive(job(), events)
    viewer = Viewer(rover(), path)
    for event in events:
        viewer.record(event)
    viewer._stream.flush()
    assert path.stat().st_size > 20 * 64 * 64 * 3  # 2 s hold at least 20 images


def test_without_rerun_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rerun", None)
    with pytest.raises(BackendError, match=r'pip install "edge-wm\[view\]"'):
        Viewer(rover())
