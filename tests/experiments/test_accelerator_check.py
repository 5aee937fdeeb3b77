"""The check of an accelerator runs, keeps to its time, and says what it lacks."""

import json
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def check(experiment):
    sys.path.insert(0, str(FOLDER))
    yield experiment("accelerator_check")
    sys.path.remove(str(FOLDER))
    for name in [name for name in sys.modules if name.partition(".")[0] == "peers"]:
        del sys.modules[name]


@pytest.mark.thorough
def test_tiny_steps_are_measured_and_kept(check, tmp_path, capsys):
    kept = tmp_path / "found.json"
    options = ["--quick", "--places", "middle", "--no-peer", "--sections", "device", "steps"]
    check.main([*options, "--json", str(kept)])
    found = json.loads(kept.read_text())
    (row,) = found["cases"]
    assert (row["network"], row["images"], row["size"]) == ("cifar_resnet20", 2, 32)
    assert row["ms"] > 0
    assert row["equal"]
    assert row["finite"]
    # The first seven convolutions, forward, and all but the first again for the gradient.
    assert row["flops"] > 2 * 2 * (7 * 32 * 32 * 9 * 16 * 16)
    assert 0.3 < row["estimate"] / row["stated"] < 3
    assert found["platform"] == "cpu"
    assert "failures" not in found
    printed = capsys.readouterr().out
    assert "| cifar_resnet20 | layer2_0 | default | 2 |" in printed


def test_what_there_is_no_time_for_is_said(check, capsys):
    began = time.monotonic()
    check.main(["--quick", "--minutes", "0", "--no-peer", "--sections", "device", "units", "steps"])
    assert time.monotonic() - began < 20
    printed = capsys.readouterr().out
    assert "skipped: cifar_resnet20 layer2_0 default" in printed
    assert "skipped: units (needs about" in printed


def test_a_failure_is_a_line(check, tmp_path, capsys):
    report = check.Report(time.monotonic() + 60, tmp_path / "found.json")
    with report.trying("a section"):
        raise MemoryError("too\nlarge")
    assert capsys.readouterr().out == "failed: a section: MemoryError: too large\n"
    assert json.loads(report.file.read_text())["failures"] == ["a section: MemoryError: too large"]


def test_a_peer_that_is_not_there(check, capsys):
    peer = check.Peer("nowhere")
    try:
        report = check.Report(time.monotonic() + 60, None)
        case = check.Case("efficientnet_lite0", "middle", "default", 1, 32)
        for _ in range(2):
            assert check.against(report, peer, case, 1.0) == {"peer": None, "ratio": None}
    finally:
        peer.close()
    # Once.
    assert capsys.readouterr().out == "no lucent: No module named 'peers.nowhere'\n"
