"""How long do a step, a good picture and a first picture take, ours and the peers', side by side?

Peers: lucent 0.1.8 (PyPI `torch-lucent`), at its best: the network's own preprocessing, frozen
    weights, its resizing to 224 off, the hooks that its runs leave behind taken off. Horama 0.3.0,
    its MaCo. Same machine, weights, sizes, steps and transforms (lucid's standard; for MaCo, 6
    crops and noise), each in processes of its own, in alternation; every ratio is of one round, so
    that above 1 is ours faster, and min, median, max are over the rounds.
    Networks: EfficientNet-Lite0; and ResNet-18, VGG-16 and GoogLeNet (dense convolutions) with
    random weights.
Command: pip install -e ".[benchmark]" && python experiments/peer_benchmark.py --quick
    (without --quick: all of it, or with --part steps, and so on, a part; --show FILE…: the table
    and the plot of figures measured before, of several parts too; --profile: where a step of ours
    spends its time; without the peers: our own figures). Where others keep more than half a
    processor busy when a part begins, its rows say "busy" and not PASS or FAIL.
Runtime: on two CPU cores with nothing else running, --quick 1 min 40 s; the whole 20 min;
    --profile some 3 min; --part dense_sizes 13 min.
What it showed: two cores with AVX-512, torch 2.13, jax 0.10.2; ratio of a step, median of three
    rounds, at 128 and 224 pixels: early 14.6 and 8.6 (1 image), 9.1 and 7.9 (4), 18 and 22 (16);
    middle 11.1 and 6.4, 6.7 and 4.1, 4.5 and 3.1; logits 5.2 and 3.5, 2.4 and 2.2, 2.5 and 7.4.
    Four images of 128 pixels: ResNet-18 4.8, 2.4, 1.8, VGG-16 6.7, 3.5, 2.1, GoogLeNet 7.0, 3.2,
    2.2 (early, middle, logits; all above what they were to reach). At other batches and sizes 40
    of 45 are, in the first round; the five others are ResNet-18's early and in the middle, where
    medians of three more rounds are 2.8, 2.9, 2.3, 1.6 and 2.1 (guide/speed.md has all of them).
    lucent's clean score after 512 steps: at our step 40, 61 times sooner, and 2.2 times with the
    start; lucent reaches ours in 0 of 9 runs. First picture 2.8 s warm, 6.0 s cold, lucent 3.6 s.
    80 units compile once; 26 units a second, lucent 7.2. An atlas of 48 units at 128 steps compiles
    once; 4.6 units a second, a loop over lucent 0.42. Memory 467 MB warm, 748 MB cold (the
    compiler), lucent 442; 16 images of 224 pixels to the logits 878 MB, lucent 2544. MaCo 6.3 and
    2.8 times Horama's. On an earlier machine, the parts of a step of one image of 224 pixels to the
    logits, in ms: decode 0.8, transform 1.5, network forward 4.6, its gradient 6.8, optimizer 0.5
    (12.9 together; parts alone in a loop sum to somewhat more); to block8 0.8, 1.0, 2.1, 4.1, 0.5
    of 8.6; to block2 0.8, 1.2, 1.6, 0.6, 0.5 of 4.1. Each kind of convolution against the machine's
    limits: guide/speed.md. On a busy machine PyTorch's threads wait for each other: measure on a
    quiet one. Ratios of one case vary by a factor of two between rounds even so.
What is not the same: lucent pads, crops and turns in several resamplings and resizes the result to
    the picture's size; ours shows as much of the frame by one resampling to that size. lucent's
    forward goes through the whole network, whatever the layer. Horama draws boxes of 0.25 to 0.30
    where its arguments say 0.20 to 0.25, and so do we here; it brings them to twice the network's
    size first; where torchvision does not import, `peers/torch_networks.py` stands in for its
    crops. Step times are of warm, compiled programs and leave out the start and the end of a run.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

LITE = "efficientnet_lite0"
#: Networks of dense convolutions, with random weights.
DENSE = ("resnet18", "vgg16", "googlenet")
PLACES = ("early", "middle", "logits")
PEERS = ("lucent", "horama")
INSTALL = 'pip install -e ".[benchmark]"'

#: Ratios to reach in a step, by place, for batches; and for single images.
BATCH_TARGETS = {"early": 6.0, "middle": 5.0, "logits": 3.0}
SINGLE_TARGET = 6.0
DENSE_TARGETS = {
    "resnet18": {"early": 3.0, "middle": 2.0, "logits": 1.3},
    "vgg16": dict.fromkeys(PLACES, 1.3),
    "googlenet": dict.fromkeys(PLACES, 1.3),
}
#: Processors that others may keep busy where there are verdicts: PyTorch's threads wait for each
#: other, so that ratios on a busy machine are too high.
MOST_LOAD = 0.5
QUALITY_TARGET = 8.0
MACO_TARGET = 4.0
COLD_SECONDS = 20.0

#: Of the first picture, and of a unit of a whole layer.
SIZE = 128
START_STEPS = 64
LAYER_STEPS = 16
LAYER_BATCH = 8
#: Of a unit of an atlas.
ATLAS_STEPS = 128
ATLAS_TARGET = 4.0
#: Lucent's default, after which its picture is what ours is to match.
QUALITY_STEPS = 512
EVERY = 16
#: Horama's crops a step, and the size of the picture.
CROPS = 6
MACO_SIZE = 512
#: What Horama calls the magnitudes that it would download.
TEMPLATE = "spectrum_decorrelated.npy"


# ---- figures -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One figure, ours and a peer's, in each round; None where there is none.

    Attributes:
        name: What was measured.
        unit: Of the values.
        ours: By round.
        peer: By round.
        who: The peer.
        target: The least median ratio.
        limit: The most that all our values may be.
        more_is_better: Whether the ratio is ours over the peer's, not the other way round.
        note: What else is to be known.
        load: The machine's when it was measured (`load`).
    """

    name: str
    unit: str
    ours: list[float | None]
    peer: list[float | None] = field(default_factory=list)
    who: str = "lucent"
    target: float | None = None
    limit: float | None = None
    more_is_better: bool = False
    note: str = ""
    load: float = 0.0

    @property
    def ratios(self) -> list[float]:
        """How many times better ours is, by round; 0 where ours is missing and the peer's not."""
        found = []
        for a, b in zip(self.ours, self.peer, strict=False):
            if b is not None:
                found.append(0.0 if a is None else a / b if self.more_is_better else b / a)
        return found

    @property
    def verdict(self) -> str:
        """PASS, FAIL, "busy", "not measured", or nothing where nothing is to be reached."""
        judged = self.target is not None or self.limit is not None
        if judged and self.load > MOST_LOAD:
            return "busy"
        if self.target is not None:
            if not self.ratios:
                return "not measured"
            return "PASS" if statistics.median(self.ratios) >= self.target else "FAIL"
        if self.limit is not None:
            if not self.ours:
                return "not measured"
            whole = all(value is not None and value <= self.limit for value in self.ours)
            return "PASS" if whole else "FAIL"
        return ""


def middle(values: Sequence[float | None]) -> float | None:
    """The median of the values that there are."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def shown(value: float | None) -> str:
    """A number with three significant digits, or nothing."""
    if value is None:
        return ""
    return f"{value:.0f}" if value == 0 or abs(value) >= 100 else f"{value:.3g}"


HEADER = ("what", "unit", "ours", "peer", "ratio: min, median, max", "to reach", "")


def cells(row: Row) -> tuple[str, ...]:
    """A row as the table has it: medians over the rounds, and the spread of the ratios."""
    ratios = row.ratios
    spread = (min(ratios), statistics.median(ratios), max(ratios)) if ratios else ()
    to_reach = f"≥ {shown(row.target)}" if row.target is not None else ""
    if row.limit is not None:
        to_reach = f"≤ {shown(row.limit)} {row.unit}"
    peer = f"{shown(middle(row.peer))} ({row.who})" if row.peer else ""
    name = f"{row.name}; {row.note}" if row.note else row.name
    shares = ", ".join(shown(ratio) for ratio in spread)
    return name, row.unit, shown(middle(row.ours)), peer, shares, to_reach, row.verdict


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the README, its columns aligned as text too."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    table.insert(1, ["-" * width for width in widths])
    lines = [" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in table]
    return "\n".join(f"| {line} |" for line in lines)


def first_to_reach(scores: dict[int, float], wanted: float) -> int | None:
    """The first step whose score is as high as wanted."""
    return min((after for after, score in scores.items() if score >= wanted), default=None)


def load(seconds: float = 1.0) -> float:
    """How many processors others keep busy while this process waits for so long.

    Not the load average, where there is another way: our own last minute is in that.
    """

    def busy() -> tuple[float, float]:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [float(word) for word in file.readline().split()[1:9]]
        waiting = ticks[3] + ticks[4]
        return sum(ticks) - waiting, sum(ticks)

    try:
        before = busy()
        time.sleep(seconds)
        after = busy()
    except OSError:
        return os.getloadavg()[0]
    return (os.cpu_count() or 1) * (after[0] - before[0]) / max(after[1] - before[1], 1)


# ---- processes -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """A process that ended."""

    seconds: float
    peak: float  # megabytes of memory
    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """What it said last, which of a traceback is the error."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit status {self.code}"


@dataclass(frozen=True)
class Work:
    """What a worker did: one dictionary a task, None where it failed."""

    ended: Ended
    found: list[dict[str, Any] | None]
    ready: float | None = None  # seconds from its start until its network was loaded


class Bench:
    """Runs processes one at a time and keeps account of what failed and who is missing."""

    def __init__(self, folder: Path, only_ours: bool = False):
        """Works in a folder, which holds the compiled programs and what processes exchange."""
        self.folder = folder
        self.missing: dict[str, str] = {}
        self.troubles: list[str] = []
        if only_ours:
            self.missing = dict.fromkeys(PEERS, "not asked for")

    def process(self, command: Sequence[str], cache: str = "cache") -> Ended:
        """Runs a command to its end, in the folder, with a cache folder of a name."""
        here = {"XDG_CACHE_HOME": str(self.folder / cache)}
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=os.environ | here,
            )
            # Not `wait`: the memory of this child alone is told here only.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
        unit = 1 if platform.system() == "Darwin" else 1024
        return Ended(seconds, usage.ru_maxrss * unit / 1e6, process.returncode, *texts)

    def work(self, who: str, tasks: Sequence[dict[str, Any]], cache: str = "cache") -> Work:
        """Has the tasks done in a new process of `who`; what fails is noted, and no more."""
        nothing = Work(Ended(0, 0, 0, "", ""), [None] * len(tasks))
        if who in self.missing or not tasks:
            return nothing
        launched = repr(time.time())
        script = str(Path(__file__).resolve())
        ended = self.process([script, "--worker", who, launched, json.dumps(tasks)], cache)
        found, ready = [None] * len(tasks), None
        for line in map(json.loads, ended.out.splitlines()):
            if "missing" in line:
                self.missing[who] = line["missing"]
                print(f"{who} is missing: {line['missing']}", file=sys.stderr)
                return nothing
            if "error" in line:
                self.trouble(f"{who}, {tasks[line['task']]}: {line['error']}")
            elif "ready" in line:
                ready = line["ready"]
            else:
                found[line.pop("task")] = line
        if ended.code:
            self.trouble(f"{who} stopped with status {ended.code}: {ended.last_line}")
        return Work(ended, found, ready)

    def trouble(self, what: str) -> None:
        """Notes what went wrong."""
        self.troubles.append(what)
        print(what, file=sys.stderr)


def worker(who: str, launched: float, tasks: Sequence[dict[str, Any]]) -> None:
    """Does the tasks and writes one line of JSON for each."""
    # What libraries print must not come between the lines.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(**line: Any) -> None:
        print(json.dumps(line), file=channel, flush=True)

    try:
        peer = importlib.import_module(f"peers.{who}")
        peer.load(tasks[0]["network"])
    except ImportError as error:
        tell(missing=str(error))
        return
    tell(ready=time.time() - launched)
    for number, task in enumerate(tasks):
        arguments = dict(task)
        try:
            found = getattr(peer, arguments.pop("kind"))(**arguments)
        # Whatever a peer raises, the others go on.
        except Exception as error:
            lines = str(error).splitlines() or [""]
            tell(task=number, error=f"{type(error).__name__}: {lines[-1]}")
        else:
            tell(task=number, **found)


# ---- what is measured ----------------------------------------------------------------------


Case = tuple[str, str, int, int]
"""Network, place, images and their size."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        rounds: Of ours and the peers' in alternation.
        repeats: Differences of run lengths in a round, of which the median counts.
        steps: (network, place, batch, size) of which a step is timed.
        dense: The same of the networks of dense convolutions.
        sizes: The same of other batches and sizes, of which one round is measured.
        quality: Places whose unit is followed to the peer's score.
        transforms: Of ours there: lucid's, and others in the first round.
        peer_steps: How long the peer may take to reach ours, in the first round.
        units: Of a whole layer; 0 for no such measurement.
        atlas: Units of an atlas, and how many of them the peer makes one by one; or nothing.
        heavy: (network, place, batch, size) of which the memory is measured too, once, or None.
        maco: Places of which a step of MaCo is timed.
    """

    rounds: int
    repeats: int
    steps: tuple[Case, ...]
    dense: tuple[Case, ...] = ()
    sizes: tuple[Case, ...] = ()
    quality: tuple[str, ...] = ()
    transforms: tuple[str, ...] = ("standard",)
    peer_steps: int = QUALITY_STEPS
    units: int = 0
    atlas: tuple[int, int] | None = None
    heavy: Case | None = None
    maco: tuple[str, ...] = ()


QUICK = Plan(
    rounds=1,
    repeats=3,
    steps=((LITE, "middle", 1, SIZE), *((LITE, place, 4, SIZE) for place in PLACES)),
    quality=("middle",),
    atlas=(16, 4),
)
FULL = Plan(
    rounds=3,
    repeats=2,
    steps=tuple((LITE, p, n, size) for p in PLACES for n in (1, 4, 16) for size in (128, 224)),
    dense=tuple((network, place, 4, SIZE) for network in DENSE for place in PLACES),
    sizes=tuple(
        (network, place, n, size)
        for network in DENSE
        for place in PLACES
        for n, size in ((1, SIZE), (16, SIZE), (1, 224), (4, 224), (16, 224))
    ),
    quality=PLACES,
    transforms=("standard", "affine"),
    units=80,
    atlas=(48, 8),
    heavy=(LITE, "logits", 16, 224),
    maco=("middle", "logits"),
)

Rounds = Iterator[tuple[int, tuple[str, str]]]


def alternating(rounds: int, peer: str) -> Rounds:
    """Round by round who comes first and who second, turned about."""
    for number in range(rounds):
        yield number, (("ours", peer) if number % 2 == 0 else (peer, "ours"))


def values(works: Sequence[Work], number: int, key: str) -> list[float | None]:
    """One task's figure in each round."""
    return [None if (found := work.found[number]) is None else found[key] for work in works]


def step_target(network: str, place: str, batch: int) -> float:
    """The ratio to reach in a step."""
    if network in DENSE:
        return DENSE_TARGETS[network][place]
    return SINGLE_TARGET if batch == 1 else BATCH_TARGETS[place]


def steps(bench: Bench, plan: Plan) -> list[Row]:
    """Milliseconds a step."""
    return _steps(bench, plan, plan.steps)


def dense(bench: Bench, plan: Plan) -> list[Row]:
    """Milliseconds a step of networks of dense convolutions, each in processes of its own."""
    return _by_network(bench, plan, plan.dense)


def dense_sizes(bench: Bench, plan: Plan) -> list[Row]:
    """The same for other batches and sizes, in one round."""
    return _by_network(bench, dataclasses.replace(plan, rounds=1, repeats=1), plan.sizes)


def _by_network(bench: Bench, plan: Plan, cases: Sequence[Case]) -> list[Row]:
    by_network = [[case for case in cases if case[0] == network] for network in DENSE]
    return [row for some in by_network for row in _steps(bench, plan, some)]


def _steps(bench: Bench, plan: Plan, cases: Sequence[Case]) -> list[Row]:
    if not cases:
        return []
    names = ("network", "layer", "batch", "size")
    tasks = [
        {"kind": "step", **dict(zip(names, case, strict=True)), "repeats": plan.repeats}
        for case in cases
    ]
    works: dict[str, list[Work]] = {"ours": [], "lucent": []}
    for number, order in alternating(plan.rounds, "lucent"):
        for who in order:
            say(f"steps of {cases[0][0]}, round {number + 1} of {plan.rounds}, {who}")
            works[who].append(bench.work(who, tasks))
    rows = []
    for i, (network, place, batch, size) in enumerate(cases):
        images = "1 image" if batch == 1 else f"{batch} images"
        rows.append(
            Row(
                f"step: {network}, {place}, {images} of {size} x {size}",
                "ms",
                values(works["ours"], i, "ms"),
                values(works["lucent"], i, "ms"),
                target=step_target(network, place, batch),
            )
        )
    return rows


def maco(bench: Bench, plan: Plan) -> list[Row]:
    """Milliseconds a step of MaCo."""
    if not plan.maco:
        return []
    template = {"kind": "template", "network": LITE, "size": MACO_SIZE, "path": TEMPLATE}
    bench.work("ours", [template])
    about = {"network": LITE, "size": MACO_SIZE, "crops": CROPS, "repeats": plan.repeats}
    tasks = [{"kind": "maco", "layer": place, **about} for place in plan.maco]
    works: dict[str, list[Work]] = {"ours": [], "horama": []}
    for number, order in alternating(plan.rounds, "horama"):
        for who in order:
            say(f"MaCo, round {number + 1} of {plan.rounds}, {who}")
            works[who].append(bench.work(who, tasks))
    return [
        Row(
            f"step of MaCo: {LITE}, {place}, {CROPS} crops of {MACO_SIZE} x {MACO_SIZE}",
            "ms",
            values(works["ours"], i, "ms"),
            values(works["horama"], i, "ms"),
            who="horama",
            target=MACO_TARGET,
        )
        for i, place in enumerate(plan.maco)
    ]


@dataclass(frozen=True)
class Race:
    """One unit in one round: the scores and the clocks of both, from which a ratio follows.

    Attributes:
        ours: What `peers.ours.quality` found.
        peer: What `peers.lucent.quality` found, or None.
        ready: Seconds until each one's network was loaded, ours and the peer's.
        steps: After which the peer's score is what ours is to match, and the other way round.
    """

    ours: dict[str, Any]
    peer: dict[str, Any] | None
    ready: tuple[float, float]
    steps: int

    def to_the_peers_score(self, start: bool) -> tuple[float | None, float | None]:
        """Seconds of ours to the score that the peer ends with, and of the peer to its end."""
        mine = self.ours.get("seconds")
        if mine is not None and start:
            mine += self.ready[0] + self.ours["first"]
        if self.peer is None:
            return mine, None
        theirs = self.peer["seconds"][str(self.steps)]
        return mine, theirs + (self.ready[1] + self.peer["first"] if start else 0)

    def to_our_score(self) -> tuple[float, float | None, bool]:
        """Seconds of ours to its end, of the peer to that score, and whether it got there."""
        whole = self.ours["whole"]
        if self.peer is None:
            return whole, None, False
        scores = {int(after): score for after, score in self.ours["peer"].items()}
        reached = first_to_reach(scores, self.ours["scores"][str(self.steps)])
        last = max(scores) if reached is None else reached
        return whole, self.peer["seconds"][str(last)], reached is not None


def quality(bench: Bench, plan: Plan) -> list[Row]:
    """Time to the other's score on the clean picture, by our network's measure."""
    if not plan.quality:
        return []
    races: dict[str, list[Race]] = {transform: [] for transform in plan.transforms}
    about = {"kind": "quality", "network": LITE, "size": SIZE}
    for number in range(plan.rounds):
        say(f"time to quality, round {number + 1} of {plan.rounds}")
        longest = QUALITY_STEPS if number else plan.peer_steps
        cases = [
            {**about, "layer": place, "seed": number, "images": f"lucent-{number}-{place}.npz"}
            for place in plan.quality
        ]
        theirs = bench.work("lucent", [{**c, "steps": longest, "every": EVERY} for c in cases])
        for transform, found in list(races.items())[: 1 if number else None]:
            extra = {"steps": QUALITY_STEPS, "transform": transform}
            mine = bench.work("ours", [{**case, **extra} for case in cases])
            for our, peer in zip(mine.found, theirs.found, strict=True):
                if our is not None:
                    ready = mine.ready or 0, theirs.ready or 0
                    found.append(Race(our, peer, ready, QUALITY_STEPS))
    rows = []
    what = f"to lucent's score after {QUALITY_STEPS} steps"
    for transform, found in races.items():
        own = "" if transform == "standard" else ", with our default transform"
        reached = [race.ours.get("reached") for race in found]
        for start in (False, True):
            pairs = [race.to_the_peers_score(start) for race in found]
            rows.append(
                Row(
                    f"time {what}{own}, {'with' if start else 'without'} start",
                    "s",
                    [pair[0] for pair in pairs],
                    [pair[1] for pair in pairs],
                    target=QUALITY_TARGET if transform == "standard" and not start else None,
                    note="" if start else f"our step {shown(middle(reached)) or 'not reached'}",
                )
            )
    back = [race.to_our_score() for race in races["standard"]]
    there = sum(reached for *_, reached in back)
    rows.append(
        Row(
            f"time of lucent to our score after {QUALITY_STEPS} steps",
            "s",
            [mine for mine, *_ in back],
            [theirs for _, theirs, _ in back],
            note=f"it got there in {there} of {len(back)}, else the time of its run",
        )
    )
    return rows


def layer(bench: Bench, plan: Plan) -> list[Row]:
    """Units a second over a whole layer, and what was compiled for them."""
    if not plan.units:
        return []
    about = {"kind": "layer", "network": LITE, "layer": "middle", "units": plan.units}
    task = {**about, "batch": LAYER_BATCH, "size": SIZE, "steps": LAYER_STEPS}
    works: dict[str, list[Work]] = {"ours": [], "lucent": []}
    for number, order in alternating(plan.rounds, "lucent"):
        for who in order:
            say(f"a whole layer, round {number + 1} of {plan.rounds}, {who}")
            works[who].append(bench.work(who, [task]))

    def rates(who: str) -> list[float | None]:
        taken = values(works[who], 0, "seconds")
        return [None if seconds is None else plan.units / seconds for seconds in taken]

    name = f"{plan.units} units of a layer"
    return [
        Row(
            f"{name}, {LAYER_STEPS} steps of {LAYER_BATCH} images of {SIZE} x {SIZE}",
            "units/s",
            rates("ours"),
            rates("lucent"),
            more_is_better=True,
        ),
        Row(f"{name}: compilations of the loop", "", values(works["ours"], 0, "loops"), limit=1),
        Row(
            f"{name}: compilations after the first batch",
            "",
            values(works["ours"], 0, "later"),
            limit=0,
        ),
    ]


def atlas(bench: Bench, plan: Plan) -> list[Row]:
    """Units a second of an atlas, against a loop over the peer's `render_vis`."""
    if plan.atlas is None:
        return []
    about = {"network": LITE, "layer": "middle", "size": SIZE, "steps": ATLAS_STEPS}
    ours, theirs = plan.atlas
    tasks = {
        "ours": {"kind": "atlas", "units": ours, "batch": LAYER_BATCH, **about},
        "lucent": {"kind": "layer", "units": theirs, "batch": 1, **about},
    }
    works: dict[str, list[Work]] = {who: [] for who in tasks}
    for number, order in alternating(plan.rounds, "lucent"):
        for who in order:
            say(f"an atlas, round {number + 1} of {plan.rounds}, {who}")
            works[who].append(bench.work(who, [tasks[who]]))

    def rates(who: str, units: int) -> list[float | None]:
        taken = values(works[who], 0, "seconds")
        return [None if seconds is None else units / seconds for seconds in taken]

    name = f"atlas of {ours} units at {SIZE} x {SIZE}"
    return [
        Row(
            f"{name}, {ATLAS_STEPS} steps, against a loop over {theirs}",
            "units/s",
            rates("ours", ours),
            rates("lucent", theirs),
            target=ATLAS_TARGET,
            more_is_better=True,
        ),
        Row(f"{name}: compilations of the loop", "", values(works["ours"], 0, "loops"), limit=1),
    ]


def start(bench: Bench, plan: Plan) -> list[Row]:
    """Seconds to a first picture from the command line, and the memory of its process."""
    ended: dict[str, list[Ended | None]] = {"cold": [], "warm": [], "lucent": []}
    render = ["-m", "featvis_command", "render", LITE, "block8:3", "--transform", "standard"]
    render += ["--size", str(SIZE), "--steps", str(START_STEPS), "--quiet", "--force"]
    about = {"kind": "picture", "network": LITE, "layer": "middle", "size": SIZE}
    for number in range(plan.rounds):
        say(f"first picture, round {number + 1} of {plan.rounds}")
        for kind in ("cold", "warm"):
            done = bench.process([*render, "-o", f"{kind}.png"], f"start-{number}")
            if done.code:
                bench.trouble(f"featvis render: {done.last_line}")
            ended[kind].append(None if done.code else done)
        work = bench.work("lucent", [{**about, "steps": START_STEPS, "path": "lucent.png"}])
        ended["lucent"].append(work.ended if work.found[0] is not None else None)

    def of(kind: str, figure: str) -> list[float | None]:
        return [None if one is None else getattr(one, figure) for one in ended[kind]]

    name = f"first picture, {START_STEPS} steps at {SIZE} x {SIZE}"
    peer = of("lucent", "seconds")
    memory = f"peak memory, {name}"
    theirs = of("lucent", "peak")
    return [
        Row(f"{name}: cold", "s", of("cold", "seconds"), peer, limit=COLD_SECONDS),
        Row(f"{name}: warm", "s", of("warm", "seconds"), peer, target=1.0),
        Row(f"{memory}: cold", "MB", of("cold", "peak"), theirs, target=1.0),
        Row(f"{memory}: warm", "MB", of("warm", "peak"), theirs, target=1.0),
    ]


def memory(bench: Bench, plan: Plan) -> list[Row]:
    """Megabytes of a process that renders many large images, ours compiling too."""
    if plan.heavy is None:
        return []
    network, place, batch, size = plan.heavy
    about = {"kind": "take", "network": network, "layer": place, "batch": batch, "size": size}
    peaks: dict[str, list[float | None]] = {}
    for who in ("ours", "lucent"):
        say(f"memory, {who}")
        work = bench.work(who, [{**about, "steps": 4}])
        peaks[who] = [work.ended.peak if work.found[0] is not None else None]
    name = f"peak memory, {place}, {batch} images of {size} x {size}"
    return [Row(name, "MB", peaks["ours"], peaks["lucent"], target=1.0)]


#: What can be measured in a run of its own, in order.
PARTS: dict[str, Callable[[Bench, Plan], list[Row]]] = {
    one.__name__: one for one in (steps, dense, quality, start, memory, layer, atlas, maco)
}
#: What is measured only where it is asked for: two thirds of the time of all the others.
LONG: dict[str, Callable[[Bench, Plan], list[Row]]] = {dense_sizes.__name__: dense_sizes}


def measure(
    bench: Bench,
    plan: Any,
    parts: Sequence[str] = tuple(PARTS),
    ask: Callable[[], float] = load,
    known: Mapping[str, Callable[[Bench, Any], list[Row]]] = MappingProxyType(PARTS | LONG),
) -> list[Row]:
    """The rows of some parts of a plan, with the machine's load before each part.

    Args:
        bench: what has the work done.
        plan: how much of it, as the parts take it.
        parts: by name.
        ask: for the load.
        known: what can be measured.
    """
    rows = []
    for part in parts:
        busy = ask()
        say(f"{part}: others keep {busy:.2f} of {os.cpu_count()} processors busy")
        rows += [dataclasses.replace(row, load=busy) for row in known[part](bench, plan)]
    # A peer that is missing leaves its column empty.
    return [dataclasses.replace(row, peer=[]) if row.who in bench.missing else row for row in rows]


# ---- where the time goes -------------------------------------------------------------------

STEP_PARTS = ("decode", "transform", "network", "gradient", "optimizer")


def limit(found: dict[str, Any], machine: dict[str, Any]) -> float:
    """Milliseconds that the network's operations or its bytes take at the machine's best."""
    by_part = found["flops"] / machine["flops"], found["bytes"] / machine["bytes"]
    return 1000 * max(by_part)


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def rooflines(bench: Bench, quick: bool) -> Table:
    """A table of each kind of convolution of the network, and of the machine's limits for it."""
    size, batch = (SIZE, 1) if quick else (224, 4)
    tasks = [
        {"kind": "machine", "network": LITE},
        {"kind": "convolutions", "network": LITE, "size": size, "batch": batch},
    ]
    say("each kind of convolution")
    machine, found = bench.work("breakdown", tasks).found
    header = (
        f"{batch} of {size} x {size}, with gradient", "shape", "ms", "GFLOP/s", "of best", "GB/s",
        "of best", "limit, ms", "of limit",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for one in (found or {}).get("rows", []) if machine else []:
        ms, least = one["ms"], limit(one, machine)
        each = [
            share
            for part in ("flops", "bytes")
            for share in (one[part] / ms / 1e6, one[part] / ms * 1e3 / machine[part])
        ]
        rows.append((one["name"], one["shape"], *map(shown, (ms, *each, least, ms / least))))
    return header, rows


def profile(bench: Bench, quick: bool) -> Table:
    """A table of the parts of a step, and of how near the network is to the machine's limit.

    Of one image: those of a batch go through the network one or a few at a time.
    """
    sizes = (SIZE,) if quick else (SIZE, 224)
    cases = [(place, size) for place in PLACES for size in sizes]
    about = {"kind": "parts", "network": LITE, "batch": 1, "repeats": 3}
    tasks = [{**about, "layer": place, "size": size} for place, size in cases]
    say("the parts of a step")
    found = bench.work("breakdown", [{"kind": "machine", "network": LITE}, *tasks]).found
    machine = found[0]
    header = ("ms a step of one image", *STEP_PARTS, "rest", "step", "limit", "network/limit")
    rows: list[tuple[str, ...]] = []
    for (place, size), one in zip(cases, found[1:], strict=True):
        if one is None or machine is None:
            continue
        least = limit(one, machine)
        rest = one["step"] - sum(one[part] for part in STEP_PARTS)
        shares = (*(one[part] for part in STEP_PARTS), rest, one["step"], least)
        times = (one["network"] + one["gradient"]) / least
        rows.append((f"{place}, {size} x {size}", *map(shown, shares), shown(times)))
    if machine is not None:
        print(
            f"the machine: {machine['flops'] / 1e9:.0f} GFLOP/s in a matrix product, "
            f"{machine['bytes'] / 1e9:.1f} GB/s in a copy; limit: the longer of the network's "
            "operations and its bytes (as XLA counts them) at that, forward and input gradient"
        )
    return header, rows


# ---- the report ----------------------------------------------------------------------------


def facts(bench: Bench, seconds: float) -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for package in ("jax", "torch", "torch-lucent", "horama", "kornia", "torchvision"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "seconds": round(seconds),
        "versions_measured": versions,
        "missing": bench.missing,
        "troubles": bench.troubles,
    }


def write_figures(path: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Writes the figures as JSON."""
    content = {"facts": facts, "rows": [dataclasses.asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_figures(*paths: Path) -> tuple[list[Row], dict[str, Any]]:
    """What `write_figures` wrote; the facts of several runs, of parts, are added up."""
    rows, facts = [], {}
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows += [Row(**row) for row in content["rows"]]
        for name, value in content["facts"].items():
            if isinstance(value, list) or name == "seconds":
                facts[name] = facts.get(name, type(value)()) + value
            else:
                facts[name] = {**facts.get(name, {}), **value} if isinstance(value, dict) else value
    return rows, facts


def plot(rows: Sequence[Row]) -> Any:
    """A figure of all ratios, on a logarithmic axis, with what is to be reached."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [row for row in rows if row.ratios and min(row.ratios) > 0][::-1]
    figure, axes = plt.subplots(figsize=(10, 1 + 0.28 * len(drawn)), layout="constrained")
    for height, row in enumerate(drawn):
        color = {"PASS": "tab:green", "FAIL": "tab:red"}.get(row.verdict, "tab:gray")
        axes.plot([min(row.ratios), max(row.ratios)], [height] * 2, color=color, lw=3)
        axes.plot(statistics.median(row.ratios), height, "o", color=color)
        if row.target is not None:
            axes.plot(row.target, height, "|", color="black", ms=12)
    axes.axvline(1, color="black", lw=0.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(drawn)), [row.name for row in drawn], fontsize=7)
    axes.set_xlabel("times better than the peer: min, median, max; bar: to reach")
    return figure


def report(folder: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Prints the table and writes the page, with its plot where matplotlib is there."""
    import featvis as fv

    table = [cells(row) for row in rows]
    print(markdown(HEADER, table))
    page = fv.Report(folder, "featvis and its peers", __doc__.partition("\n")[0])
    page.table(HEADER, table, "medians over the rounds; ratios are of one round each")
    try:
        figure = plot(rows)
    except ImportError:
        print("no plot: matplotlib is not installed")
    else:
        page.figure("ratios", figure, "how many times better ours is")
    print(f"written: {page.write(**about)}")


def say(what: str) -> None:
    """Tells a person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Measures, prints the table for the README and writes the figures, the plot and a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=INSTALL)
    parser.add_argument("--quick", action="store_true", help="one case of each kind, one round")
    parser.add_argument("--profile", action="store_true", help="the parts of a step of ours")
    parser.add_argument("--ours", action="store_true", help="without the peers")
    help_of_part = "only this; repeat for more"
    parser.add_argument("--part", action="append", choices=PARTS | LONG, help=help_of_part)
    help_of_show = "figures.json of an earlier run, or of several with a part each"
    parser.add_argument("--show", type=Path, nargs="+", metavar="FILE", help=help_of_show)
    parser.add_argument("-o", "--out", type=Path, default=Path("peer_benchmark"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        who, launched, tasks = options.worker
        worker(who, float(launched), json.loads(tasks))
        return
    if options.show:
        report(options.out, *read_figures(*options.show))
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="peer-benchmark-") as folder:
        bench = Bench(Path(folder), options.ours)
        if options.profile:
            print(markdown(*profile(bench, options.quick)))
            print(markdown(*rooflines(bench, options.quick)))
            return
        rows = measure(bench, QUICK if options.quick else FULL, options.part or tuple(PARTS))
    about = facts(bench, time.perf_counter() - started)
    options.out.mkdir(parents=True, exist_ok=True)
    write_figures(options.out / "figures.json", rows, about)
    report(options.out, rows, about)
    for trouble in bench.troubles:
        print(f"failed: {trouble}")
    for who, reason in bench.missing.items():
        if not options.ours:
            print(f"{who} is not measured ({reason}): {INSTALL}")


if __name__ == "__main__":
    main()
