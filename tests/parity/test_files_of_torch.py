"""Files that PyTorch writes, against what it wrote."""

import argparse
import collections
import datetime
import pathlib
import warnings

import numpy as np
import pytest

from featvis.errors import CheckpointError
from featvis.weights.files import read_file, read_weights

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.Flatten(),
        torch.nn.Linear(288, 5),
    )


@pytest.fixture(scope="module")
def content(network):
    """What a training script might save, all at once."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are deprecated
        quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    return {
        "epoch": 3,
        "state_dict": torch.nn.ModuleDict({"module": network}).state_dict(),
        "ema": averaged.state_dict(),
        "half": {key: one.bfloat16() for key, one in network.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(out=pathlib.Path("runs")),
        "best": np.float64(71.3),
        "history": collections.defaultdict(list, loss=[np.float32(1)]),
        "array": np.ones(4),
        "random": np.random.RandomState(0).get_state(),
        "date": datetime.datetime(2026, 7, 6),
        "device": torch.device("cpu"),
        "type": torch.bfloat16,
        "size": torch.Size([1, 2]),
        "function": torch.nn.functional.relu,
        "class": torch.nn.Linear,
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "quantised": quantised,
        "complex": torch.ones(2, dtype=torch.complex64),
        "sparse": torch.eye(3).to_sparse_coo(),
        "expanded": torch.ones(1).expand(3),
    }


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def saved(request, content, tmp_path):
    path = tmp_path / "run.pth"
    torch.save(content, path, _use_new_zipfile_serialization=request.param)
    return path


def test_a_training_checkpoint(saved, content, network):
    assert [part.key for part in read_file(saved).parts] == ["", "state_dict", "ema", "half"]
    for part, expected in {
        "": content["state_dict"],
        "#ema/module": network.state_dict(),
        "#half": content["half"],
    }.items():
        found = read_weights(f"{saved}{part}")
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            np.testing.assert_array_equal(found[name], tensor.to(torch.float64).numpy())


def test_a_tensor_that_is_another_type(saved):
    file = read_file(saved)
    with pytest.raises(CheckpointError, match=r"torch\.ComplexFloatStorage, which is not read"):
        file.parts[0].arrays["complex"]
    np.testing.assert_array_equal(file.parts[0].arrays["expanded"], [1, 1, 1])
    np.testing.assert_array_equal(file.parts[0].arrays["parameter"], [1, 1, 1])


def test_a_whole_module_is_not_read(network, tmp_path):
    torch.save(network, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"an object of .*Sequential': save its state_dict"):
        read_weights(tmp_path / "net.pth")
