"""Bars of a run's steps: on a terminal, in a notebook, or whoever is told in their place."""

import io
import sys

import pytest
import tqdm.auto
import tqdm.std
from networks import TOY_SIZE

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")
OPTIONS = {"steps": 3, "transform": "none", "optimizer": "sgd(1.0)"}
PIXELS = fv.Pixels(TOY_SIZE)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def bars(monkeypatch):
    """What a notebook would show: all bars, closed or not."""
    made = []

    class Bar(tqdm.std.tqdm):
        __module__ = "tqdm.notebook"  # By which a notebook's bars are known.

        def __init__(self, *args, **options):
            # As those do: nothing is written to a stream, so that it may be no terminal.
            super().__init__(*args, **{**options, "file": io.StringIO()})
            self.shown = not self.disable  # A closed one is disabled.
            made.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return made


def test_a_notebook_shows_one_bar_of_all_steps(toy, bars):
    fv.synthesize(toy, "relu:1", PIXELS, **OPTIONS, progress=True)
    (bar,) = bars
    assert (bar.total, bar.n, bar.shown, bar.unit) == (3, 3, True, "step")


def test_one_bar_over_all_results_of_many(toy, bars):
    options = {**OPTIONS, "batch_limit": 1, "progress": True}
    assert len(list(fv.synthesize_many(toy, ["relu:1", "relu:2"], PIXELS, **options))) == 2
    shown = [bar for bar in bars if bar.shown]
    assert [(bar.total, bar.n) for bar in shown] == [(6, 6)]


def test_no_bar_where_none_is_wanted_or_somebody_is_told(toy, bars):
    told = []
    fv.synthesize(toy, "relu:1", PIXELS, **OPTIONS, progress=False)
    fv.synthesize(toy, "relu:1", PIXELS, **OPTIONS, progress=told.append)
    assert not any(bar.shown for bar in bars)
    assert told[-1].step == 3


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_bar_is_for_terminals(stream, toy, monkeypatch):
    errors = stream()
    monkeypatch.setattr(sys, "stderr", errors)
    fv.synthesize(toy, "relu:1", PIXELS, **OPTIONS, progress=True)
    assert ("0/3" in errors.getvalue()) == errors.isatty()
