"""Tests the evaluation: repeatable episodes, honest baselines, Wilson's interval."""

from __future__ import annotations

import json

import pytest
from driving import BUNDLE_FILE, ROBOT_FILE, WORLD, cockpit, job
from scipy.stats import binomtest

from edge_wm.evaluation import Conditions, Job, as_json_table, drive_all, held_back, row, wilson
from edge_wm.simulation.world import HELD_BACK_SEED


@pytest.mark.parametrize(
    ("hits", "count"), [(0, 10), (1, 10), (5, 10), (10, 10), (97, 100), (500, 500)]
)
def test_wilson_against_scipy(hits, count):
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_worlds_of_an_evaluation_are_held_back_and_do_not_overlap():
    assert min(held_back(100, 0)) >= HELD_BACK_SEED
    assert not set(held_back(1000, 0)) & set(held_back(1000, 1))


def test_the_same_job_gives_the_same_episode_also_after_others():
    first = cockpit().drive(job(world=WORLD))
    cockpit().drive(job(world=WORLD + 1, seed=4))
    assert cockpit().drive(job(world=WORLD)) == first


def test_processes_and_one_process_agree():
    jobs = [
        Job(driver, world, 0, Conditions())
        for driver in ("planner", "geometry")
        for world in held_back(2, 3)
    ]
    files = (str(ROBOT_FILE), str(BUNDLE_FILE))
    assert list(drive_all(jobs, *files, processes=2)) == [cockpit().drive(each) for each in jobs]


def test_knowing_the_world_succeeds_and_knowing_nothing_does_not():
    worlds = held_back(3, 1)
    knowing = [cockpit().drive(job("geometry", world)) for world in worlds]
    assert all(episode.success for episode in knowing)
    wandering = [cockpit().drive(job("random", world)) for world in worlds]
    assert not any(episode.success for episode in wandering)
    assert all(
        episode.seconds == pytest.approx(30.0) for episode in wandering if not episode.reached
    )


def test_the_shipped_model_drives_to_its_goals():
    """The smallest version that can fail; the full figures are `make prove-rover`."""
    episodes = [cockpit().drive(job("planner", world)) for world in held_back(10, 2)]
    assert sum(episode.success for episode in episodes) >= 8
    assert sum(episode.collision for episode in episodes) <= 1


def test_blind_is_worse_than_seeing_on_worlds_where_something_is_in_the_way():
    """Of these ten, five and nine (November 2026); of six others, five and five."""
    worlds, files = held_back(10, 8), (str(ROBOT_FILE), str(BUNDLE_FILE))
    blind = list(drive_all([job("neither", world) for world in worlds], *files))
    seeing = list(drive_all([job("no_ranges", world) for world in worlds], *files))
    assert sum(e.success for e in blind) + 2 <= sum(e.success for e in seeing)


def test_the_json_table_has_the_rates_on_top():
    episodes = [cockpit().drive(job("straight", world)) for world in held_back(2, 2)]
    table = json.loads(json.dumps(as_json_table([row("straight", episodes)])))
    assert table["episodes"] == 2
    assert table["success_rate"] == sum(e.success for e in episodes) / 2
    assert table["collision_rate"] == sum(e.collision for e in episodes) / 2
    assert table["rows"][0]["driver"] == "straight"
