"""Tests `edge-wm zoo`: real rows, nothing left out, and what a row without a score must say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edge_wm import shipped
from edge_wm.cli import app
from edge_wm.cli.zoo import facts_beside
from edge_wm.errors import UsageError

ZOO = Path(__file__).resolve().parent.parent / "zoo"


def test_every_shipped_bundle_has_a_row_with_measured_times():
    done = CliRunner().invoke(app, ["zoo", "--seconds", "0.1", "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    files = {path.stem: path for path in ZOO.glob("*/*.wmb")}
    assert len(rows) == len(files)
    rover = rows["rover"]
    assert rover["bytes"] == files["rover"].stat().st_size
    for row in rows.values():
        assert 0 < row["encoder_ms"] < 1000
        assert 0 < row["plan_ms"] < 1000
        assert row["plan_rate_hz"] == pytest.approx(1000 / (row["encoder_ms"] + row["plan_ms"]))
        assert row["source"]
    assert rover["plan_ms"] > rover["encoder_ms"]  # 256 rollouts against one encoding


def test_the_rovers_score_is_the_proofs():
    """row.yaml against docs/proofs.json, which it names."""
    said = yaml.safe_load((ZOO / "rover" / "row.yaml").read_text())
    commit = said["source"].split()[-1]
    proofs = json.loads((ZOO.parent / "docs" / "proofs.json").read_text())
    (proof,) = [p for p in proofs if p["commit"] == commit and p["part"] == "table: planner"]
    assert said["int8"] == pytest.approx(100 * proof["figures"]["success_rate"])


def test_the_table_shows_each_bundle_and_where_its_score_is_from():
    done = CliRunner().invoke(app, ["zoo", "--seconds", "0.1"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for word in ("rover", "arm_analytic", "97", "docs/proofs.json", "plans/s"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "must have its scores in"),
        ({"int8": "good"}, "Expected `float | null`, got `str`"),
        ({"fp32": None, "note": ""}, "a score that is null must have a note that says why"),
        ({"rank": 1}, "unknown field `rank`"),
    ],
)
def test_a_row_that_is_not_whole_is_refused(tmp_path, change, message):
    if change is not None:
        said = yaml.safe_load((shipped.folder("zoo") / "rover" / "row.yaml").read_text())
        (tmp_path / "row.yaml").write_text(yaml.safe_dump(said | change))
    with pytest.raises(UsageError, match=r"row\.yaml") as caught:
        facts_beside(tmp_path / "x.wmb")
    assert message in str(caught.value)
