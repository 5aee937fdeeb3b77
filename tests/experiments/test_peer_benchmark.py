"""The benchmark against the peers: its arithmetic, its text, and its own worker."""

import functools
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments"
LITE = "efficientnet_lite0"


@pytest.fixture(scope="module")
def benchmark(experiment):
    return experiment("peer_benchmark")


@pytest.fixture(scope="module")
def peers():
    """Imports a module of the workers."""
    sys.path.insert(0, str(FOLDER))
    yield lambda name: importlib.import_module(f"peers.{name}")
    sys.path.remove(str(FOLDER))
    for name in [name for name in sys.modules if name.partition(".")[0] == "peers"]:
        del sys.modules[name]


# ---- figures -------------------------------------------------------------------------------


def test_ratios_are_of_one_round_each(benchmark):
    row = benchmark.Row("a", "ms", [2.0, 4.0, 5.0], [6.0, 4.0, 20.0])
    assert row.ratios == [3, 1, 4]
    rates = benchmark.Row("a", "units/s", [6.0], [2.0], more_is_better=True)
    assert rates.ratios == [3]
    # What the peer did not do is no ratio; what we did not do is lost.
    assert benchmark.Row("a", "ms", [2.0, None, 5.0], [None, 4.0, 20.0]).ratios == [0, 4]
    assert benchmark.Row("a", "ms", [2.0]).ratios == []


@pytest.mark.parametrize(
    ("ours", "peer", "verdict"),
    [
        ([1.0, 1.0, 1.0], [1.0, 6.0, 9.0], "PASS"),
        ([1.0, 1.0, 1.0], [5.9, 9.0, 1.0], "FAIL"),
        ([None, None, 1.0], [9.0, 9.0, 9.0], "FAIL"),
        ([1.0, 1.0, 1.0], [None, None, None], "not measured"),
        ([1.0], [], "not measured"),
    ],
)
def test_the_median_ratio_is_what_counts(benchmark, ours, peer, verdict):
    assert benchmark.Row("a", "ms", ours, peer, target=6).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [([20.0, 3.0], "PASS"), ([1.0, 20.1], "FAIL"), ([None], "FAIL"), ([], "not measured")],
)
def test_a_limit_is_for_all_rounds(benchmark, ours, verdict):
    assert benchmark.Row("a", "s", ours, [1.0], limit=20).verdict == verdict


def test_no_verdict_on_a_busy_machine(benchmark):
    rows = benchmark.measure(stand_in(benchmark), benchmark.QUICK, ["steps"], lambda: 0.6)
    assert {row.verdict for row in rows} == {"busy"}
    assert all(row.name.startswith("step") for row in rows)
    assert benchmark.Row("a", "ms", [1.0], [2.0], load=0.6).verdict == ""
    assert 0 <= benchmark.load(0.05) <= os.cpu_count() + 0.1


def test_the_table(benchmark):
    rows = [
        benchmark.Row("step", "ms", [2.0, 4.0, 5.0], [6.0, 4.0, 20.0], target=3.0),
        benchmark.Row("start", "s", [21.0], [], limit=20.0, note="cold"),
    ]
    table = benchmark.markdown(benchmark.HEADER, [benchmark.cells(row) for row in rows])
    assert table.splitlines() == [
        "| what        | unit | ours | peer       | ratio: min, median, max | to reach |      |",
        "| ----------- | ---- | ---- | ---------- | ----------------------- | -------- | ---- |",
        "| step        | ms   | 4    | 6 (lucent) | 1, 3, 4                 | ≥ 3      | PASS |",
        "| start; cold | s    | 21   |            |                         | ≤ 20 s   | FAIL |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0, "0"),
        (0.01234, "0.0123"),
        (3.456, "3.46"),
        (99.94, "99.9"),
        (1234.5, "1234"),
    ],
)
def test_three_significant_digits(benchmark, value, text):
    assert benchmark.shown(value) == text


def test_figures_are_read_as_they_were_written(benchmark, tmp_path):
    rows = [
        benchmark.Row("a", "ms", [1.0, None], [2.5, 3.0], who="horama", target=4.0, note="b"),
        benchmark.Row("c", "", [1], limit=1, more_is_better=True),
    ]
    facts = {"cores": 2, "troubles": ["x"]}
    benchmark.write_figures(tmp_path / "figures.json", rows, facts)
    assert benchmark.read_figures(tmp_path / "figures.json") == (rows, facts)
    more = {"cores": 2, "troubles": ["y"]}
    benchmark.write_figures(tmp_path / "more.json", rows[:1], more)
    together = {"cores": 2, "troubles": ["x", "y"]}
    both = benchmark.read_figures(tmp_path / "figures.json", tmp_path / "more.json")
    assert both == (rows + rows[:1], together)


def race(benchmark, scores, **ours):
    mine = {"first": 3.0, "whole": 4.0, "scores": {"8": 1.0, "512": 6.0}, "peer": scores, **ours}
    peer = {"first": 0.5, "seconds": {"256": 20.0, "512": 40.0, "1024": 80.0}}
    return benchmark.Race(mine, peer, (2.0, 1.0), 512)


def test_time_to_quality(benchmark):
    one = race(benchmark, {"256": 2.0, "512": 5.0, "1024": 6.5}, seconds=1.0)
    assert one.to_the_peers_score(start=False) == (1, 40)
    assert one.to_the_peers_score(start=True) == (1 + 2 + 3, 40 + 1 + 0.5)
    assert one.to_our_score() == (4, 80, True)
    never = race(benchmark, {"256": 2.0, "512": 5.0, "1024": 5.9})
    assert never.to_the_peers_score(start=True) == (None, 41.5)
    assert never.to_our_score() == (4, 80, False)
    assert race(benchmark, {"256": 6.0, "512": 5.0}).to_our_score() == (4, 20, True)


def test_time_to_quality_without_the_peer(benchmark):
    alone = benchmark.Race({"first": 3.0, "whole": 4.0, "scores": {}}, None, (2.0, 0.0), 512)
    assert alone.to_the_peers_score(start=True) == (None, None)
    assert alone.to_our_score() == (4, None, False)


def test_the_limit_is_the_longer_of_operations_and_bytes(benchmark):
    machine = {"flops": 1e9, "bytes": 1e8}
    assert benchmark.limit({"flops": 5e6, "bytes": 1e5}, machine) == pytest.approx(5)
    assert benchmark.limit({"flops": 5e6, "bytes": 1e6}, machine) == pytest.approx(10)


def test_time_of_a_step_leaves_out_the_start_and_the_end(peers):
    now, delays = [0.0], iter([0.0] * 100)
    lengths = []

    def run(steps):
        lengths.append(steps)
        now[0] += 5 + 0.02 * steps + next(delays)

    milliseconds = peers("timing").milliseconds
    assert milliseconds(run, 3, 0.6, lambda: now[0]) == pytest.approx(20)
    assert max(lengths) == 1 + 0.6 / 0.02
    # One disturbed difference of three is not seen.
    delays = iter([0, 0, 0, 7, 0, 0, 0, 0, 0])
    assert milliseconds(run, 3, 0.6, lambda: now[0]) == pytest.approx(20)


# ---- the rounds ----------------------------------------------------------------------------

FOUND = {
    "step": {"ms": 1.0},
    "maco": {"ms": 1.0},
    "take": {},
    "picture": {},
    "template": {},
    "layer": {"seconds": 8.0, "loops": 1, "later": 0},
    "atlas": {"seconds": 8.0, "loops": 1},
    "integrated_gradients": {"seconds": 2.0},
    "grad_cam": {"seconds": 0.1},
    "rise": {"seconds": 30.0},
    "machine": {"flops": 1e9, "bytes": 1e9},
    "parts": {
        "decode": 1.0,
        "transform": 2.0,
        "network": 3.0,
        "gradient": 4.0,
        "optimizer": 5.0,
        "step": 25.0,
        "flops": 2e6,
        "bytes": 1e6,
    },
    "convolutions": {
        "rows": [
            {"name": "stem", "shape": "2 x 2", "ms": 8.0, "flops": 2e6, "bytes": 4e6},
            {"name": "head", "shape": "1 x 1", "ms": 5.0, "flops": 5e6, "bytes": 1e6},
        ]
    },
}
TIMES_SLOWER = 7


def stand_in(benchmark, missing=()):
    """A bench that has all workers find what is known, the peers slower by a factor."""

    class StandIn(benchmark.Bench):
        def __init__(self):
            super().__init__(Path())
            self.asked = []
            self.missing = dict.fromkeys(missing, "not installed")

        def process(self, command, cache="cache"):
            self.asked.append(("render", cache))
            # A program is compiled where the cache of its round has none.
            cold = self.asked.count(("render", cache)) == 1
            return benchmark.Ended(12.0 if cold else 2.0, 100, 0, "", "")

        def work(self, who, tasks, cache="cache"):
            self.asked.append((who, tasks[0]["kind"]))
            factor = 1 if who in ("ours", "explaining") else TIMES_SLOWER
            ended = benchmark.Ended(2.0 * factor, 100 * factor, 0, "", "")
            if who in self.missing:
                return benchmark.Work(ended, [None] * len(tasks))
            return benchmark.Work(ended, [self.found(who, task, factor) for task in tasks], 0.5)

        def found(self, who, task, factor):
            if task["kind"] != "quality":
                scaled = ("ms", "seconds")
                known = FOUND[task["kind"]].items()
                return {key: value * factor if key in scaled else value for key, value in known}
            if who == "ours":
                scores = {"256": 1.0, "512": 2.0}
                alone = {"first": 1.0, "whole": 3.0, "scores": scores}
                return alone if missing else alone | {"peer": scores, "reached": 512, "seconds": 3}
            return {"first": 1.0, "seconds": {"512": 3.0 * factor, "1024": 6.0 * factor}}

    return StandIn()


@pytest.mark.parametrize("plan", ["QUICK", "FULL"])
def test_every_claim_has_its_row(benchmark, plan):
    plan = getattr(benchmark, plan)
    rows = benchmark.measure(stand_in(benchmark), plan, ask=lambda: 0.0)
    assert len({row.name for row in rows}) == len(rows)
    judged = {row.name: row for row in rows if row.verdict}
    for name, row in judged.items():
        if name.startswith(("step", "80 units", "peak", "first")) or "compilations" in name:
            assert row.verdict == "PASS", name
        if "to lucent's score" in name:
            assert row.ratios == [TIMES_SLOWER] * len(plan.quality) * plan.rounds
            assert row.target == 8
            assert row.verdict == "FAIL"
    for words in (
        "1 image of",
        "early, 4",
        "middle, 4",
        "logits, 4",
        "to lucent's",
        "cold",
        "warm",
    ):
        assert any(words in name for name in judged), words
    if plan is benchmark.FULL:
        assert any("compilations of the loop" in name for name in judged)
        assert any("MaCo" in name for name in judged)
        (rate,) = (row for row in rows if row.name.startswith("80 units") and row.unit == "units/s")
        assert rate.ours == [10] * plan.rounds
        assert rate.ratios == pytest.approx([TIMES_SLOWER] * plan.rounds)


def test_an_atlas_is_compared_in_units_a_second(benchmark):
    rows = benchmark.measure(stand_in(benchmark), benchmark.QUICK, ["atlas"])
    rate, loops = rows
    # 16 units in 8 s, against 4 in as many times a factor.
    assert rate.ours == [2]
    assert rate.ratios == pytest.approx([4 * TIMES_SLOWER])
    assert (rate.target, loops.limit) == (4, 1)


@pytest.mark.parametrize("busy", [0.0, 1.0])
def test_attributions_are_compared_in_seconds(benchmark, experiment, monkeypatch, tmp_path, busy):
    study = experiment("attribution_benchmark")
    monkeypatch.setattr(study, "Bench", lambda folder: stand_in(benchmark))
    ask = functools.partial(benchmark.measure, ask=lambda: busy)
    monkeypatch.setattr(study, "measure", ask)
    monkeypatch.setattr(sys, "argv", ["attribution_benchmark.py", "-o", str(tmp_path)])
    study.main()
    rows = json.loads((tmp_path / "all.json").read_text())["rows"]
    rows = [benchmark.Row(**row) for row in rows]
    # Three of ours beside the peer's; steps and masks, the fewest of which are no verdict.
    assert [row.ratios for row in rows[:3]] == [[TIMES_SLOWER] * 3] * 2 + [[TIMES_SLOWER]]
    judged = "busy" if busy else "PASS"
    assert [row.verdict for row in rows] == [judged] * 3 + ["", judged, judged] * 2


def test_both_take_turns_in_coming_first(benchmark):
    bench = stand_in(benchmark)
    benchmark.steps(bench, benchmark.FULL)
    assert [who for who, _ in bench.asked] == ["ours", "lucent", "lucent", "ours", "ours", "lucent"]


def test_without_the_peers_our_own_figures_are_there(benchmark):
    rows = benchmark.measure(stand_in(benchmark, benchmark.PEERS), benchmark.QUICK, ask=lambda: 0.0)
    assert not any(row.peer or row.ratios for row in rows)
    assert all(row.ours == [1] for row in rows if row.name.startswith("step"))
    for row in rows:
        alone = "cold" in row.name or "compilations" in row.name
        assert row.verdict in ("", "not measured") or alone


def test_the_parts_of_a_step(benchmark, capsys):
    header, rows = benchmark.profile(stand_in(benchmark), quick=True)
    # 2e6 operations at 1e9 a second, 7 ms of forward and gradient, 10 ms in no part.
    row = rows[1]
    shown = dict(zip(header[1:], row[1:], strict=True))
    assert [one[0] for one in rows] == [f"{place}, 128 x 128" for place in benchmark.PLACES]
    assert (shown["rest"], shown["step"], shown["limit"]) == ("10", "25", "2")
    assert shown["network/limit"] == "3.5"
    assert "1 GFLOP/s" in capsys.readouterr().out


def test_each_kind_of_convolution_against_what_bounds_it(benchmark):
    header, rows = benchmark.rooflines(stand_in(benchmark), quick=True)
    # 1e9 operations and 1e9 bytes a second: the stem is bounded by bytes, the head by operations.
    assert header[0].startswith("1 of 128 x 128")
    assert rows[0] == ("stem", "2 x 2", "8", "0.25", "0.25", "0.5", "0.5", "4", "2")
    assert rows[1] == ("head", "1 x 1", "5", "1", "1", "0.2", "0.2", "5", "1")


@pytest.mark.thorough
def test_convolutions_of_the_network_with_their_operations_and_least_bytes(peers):
    found = peers("breakdown").convolutions(LITE, 32, 2)["rows"]
    rows = {row["name"]: row for row in found}
    # 2 images of 16 x 16: 27 numbers into each of 32, twice over for the gradient, each x and +.
    assert rows["stem"]["shape"] == "32 x 32, 3 x 3 by 2, 3 to 32"
    assert rows["stem"]["flops"] == 2 * 2 * 2 * 16 * 16 * 27 * 32
    numbers = 2 * (2 * 32 * 32 * 3 + 2 * 16 * 16 * 32 + 27 * 32)
    assert rows["stem"]["bytes"] == 4 * numbers
    assert rows["block3/depthwise"]["shape"] == "8 x 8, 5 x 5 by 2, 144 to 144"
    assert rows["block3/depthwise"]["flops"] == 2 * 2 * 2 * 4 * 4 * 25 * 144
    assert all(row["ms"] > 0 for row in found)


def test_the_plot_has_a_line_for_each_ratio(benchmark):
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    rows = benchmark.measure(stand_in(benchmark), benchmark.QUICK, ask=lambda: 0.0)
    figure = benchmark.plot(rows)
    (axes,) = figure.axes
    assert len(axes.get_yticks()) == sum(bool(row.ratios) for row in rows)
    plt.close(figure)


# ---- the workers ---------------------------------------------------------------------------


@pytest.mark.thorough
def test_our_own_worker(benchmark, tmp_path):
    bench = benchmark.Bench(tmp_path)
    about = {"network": LITE, "layer": "early", "size": 32}
    grey = np.full((1, 32, 32, 3), 0.5, np.float32)
    np.savez(tmp_path / "peer.npz", **{"4": grey, "8": grey})
    quality = {"kind": "quality", **about, "steps": 8, "seed": 0, "transform": "standard"}
    tasks = [
        {"kind": "step", **about, "batch": 1, "repeats": 1},
        {"kind": "nothing"},
        {**quality, "images": "peer.npz"},
        {**quality, "images": "none.npz"},
        {"kind": "layer", **about, "units": 4, "batch": 2, "steps": 2},
        {"kind": "atlas", **about, "units": 3, "batch": 3, "steps": 2},
    ]
    work = bench.work("ours", [{**task, "network": LITE} for task in tasks])
    step, nothing, raced, alone, layer, atlas = work.found
    # The difference of two times, which other work on the machine may turn round.
    assert np.isfinite(step["ms"])
    # What fails is said, and the rest is done.
    assert nothing is None
    (trouble,) = bench.troubles
    assert "'kind': 'nothing'" in trouble
    assert "AttributeError" in trouble
    assert raced["scores"].keys() == {"8"}
    assert raced["peer"]["4"] == raced["peer"]["8"] < raced["scores"]["8"]
    assert raced["reached"] == 8
    assert raced["seconds"] > 0
    assert alone["scores"] == raced["scores"]
    assert "peer" not in alone
    # Two batches, one compilation.
    assert (layer["loops"], layer["later"]) == (1, 0)
    assert atlas["loops"] == 1
    assert atlas["seconds"] > 0
    assert 0 < work.ready < work.ended.seconds
    assert 50 < work.ended.peak < 10_000
    assert not bench.missing


def test_a_peer_that_cannot_be_imported_is_missing(benchmark, tmp_path):
    bench = benchmark.Bench(tmp_path)
    task = {"kind": "step", "network": LITE}
    assert bench.work("nobody", [task, task]).found == [None, None]
    assert bench.missing == {"nobody": "No module named 'peers.nobody'"}
    assert not bench.troubles


def test_a_peer_that_dies_is_told_by_its_last_line(benchmark, tmp_path):
    bench = benchmark.Bench(tmp_path)
    # Its network is not asked for in a way that it knows: it ends with a traceback.
    assert bench.work("ours", [{"kind": "step"}]).found == [None]
    (trouble,) = bench.troubles
    assert trouble == "ours stopped with status 1: KeyError: 'network'"


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("googlenet", 6_624_904),
        pytest.param("vgg16", 138_357_544, marks=pytest.mark.thorough),
    ],
)
def test_random_weights_are_those_of_the_network(peers, network, parameters):
    weights = peers("networks").random_weights(network)
    learnt = [a.size for name, a in weights.items() if "running" not in name]
    assert sum(learnt) == parameters


# ---- PyTorch -------------------------------------------------------------------------------


def aligned(image, box, size):
    """The definition of torchvision's roi_align, not aligned, of one sample a bin."""
    channels, height, width = image.shape
    left, top, right, bottom = box
    found = np.zeros((channels, *size))
    for i, j in np.ndindex(size):
        y = top + (i + 0.5) * max(bottom - top, 1) / size[0]
        x = left + (j + 0.5) * max(right - left, 1) / size[1]
        if -1 <= y <= height and -1 <= x <= width:
            y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
            i0, j0 = int(y), int(x)
            i1, j1 = min(i0 + 1, height - 1), min(j0 + 1, width - 1)
            above = (1 - x + j0) * image[:, i0, j0] + (x - j0) * image[:, i0, j1]
            below = (1 - x + j0) * image[:, i1, j0] + (x - j0) * image[:, i1, j1]
            found[:, i, j] = (1 - y + i0) * above + (y - i0) * below
    return found


def test_the_stand_in_crops_as_torchvision_does(peers):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).uniform(size=(3, 20, 24)).astype(np.float32)
    boxes = [(3.2, -2.1, 9.9, 5.5), (20, 14, 27.5, 23), (5, 5, 5.2, 5.1)]
    rows = torch.tensor([[0, *box] for box in boxes])
    crop = peers("torch_networks").roi_align
    found = crop(torch.from_numpy(image)[None], rows, (12, 16)).numpy()
    for one, box in zip(found, boxes, strict=True):
        np.testing.assert_allclose(one, aligned(image, box, (12, 16)), atol=1e-5)


@pytest.mark.thorough
def test_both_have_the_same_dense_network(peers, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).uniform(size=(1, 64, 64, 3)).astype(np.float32)
    module, preprocess = peers("torch_networks").load("resnet18")
    with torch.no_grad():
        logits = module(preprocess(torch.from_numpy(image).movedim(-1, 1))).numpy()
    found = peers("ours").load("resnet18")(image)["logits"]
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4 * logits.std())
