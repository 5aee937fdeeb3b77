"""What kills leave of an atlas; and the queue of a cluster, against what can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_without_failures_a_queue_is_rounds(experiment) -> None:
    study = experiment("neuron_atlas")
    spent = study.queue(25, 60.0, 10, failure_hours=1e9, start=0.0, spread=0.0)
    assert spent.hours == pytest.approx(3 * 60 / 3600)  # 25 batches are three rounds of ten
    assert spent.efficiency == pytest.approx(25 / 30)
    assert spent.lost == 0


def test_failures_lose_batches_at_their_rate_and_all_are_made(experiment) -> None:
    study = experiment("neuron_atlas")
    spent = study.queue(20000, 360.0, 50, failure_hours=10.0, back=0.0, start=0.0, spread=0.0)
    # A batch of a tenth of an hour is survived with exp(-0.01).
    assert spent.lost == pytest.approx(20000 * 0.01005, rel=0.25)
    assert spent.hours == pytest.approx(20000 * 0.1 / 50, rel=0.02)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_kills_at_random_moments_cost_nothing_that_was_written(experiment, tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    left = experiment("neuron_atlas").kills(tmp_path, 3, 4)
    assert left.kills == 3
    assert left.pictures == 80 * (4 + 1 + 2)
    assert (left.damaged, left.lost, left.twice, left.differ, left.arrays) == (0, 0, 0, 0, 0)
