"""Tiny Darknet against a PyTorch network with the weights of a Keras model; and its classes."""

import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")

from twins import assert_layers_agree  # noqa: E402

ENTRY = zoo.entries()["darknet_tiny"]
# pjreddie's tiny.cfg: filters and size of the convolutions between the max pools.
STAGES = [
    [(16, 3)],
    [(32, 3)],
    [(16, 1), (128, 3), (16, 1), (128, 3)],
    [(32, 1), (256, 3), (32, 1), (256, 3)],
    [(64, 1), (512, 3), (64, 1), (512, 3), (128, 1)],
]


def reference(tensors, image):
    """Activations of an image (n, h, w, 3) by the names of the tensors in the Keras file."""
    functional = torch.nn.functional

    def convolve(x, number):
        kernel = torch.from_numpy(tensors[f"conv2d_{number}/kernel"]).permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel, padding=kernel.shape[2] // 2)

    def normalise(x, number):
        parts = ("moving_mean", "moving_variance", "gamma", "beta")
        name = f"batch_normalization_{number}"
        values = (torch.from_numpy(tensors[f"{name}/{part}"]) for part in parts)
        return functional.batch_norm(x, *values, eps=1e-3)

    out, number = {}, 0
    x = torch.from_numpy(image).movedim(-1, 1)
    for stage, layers in enumerate(STAGES):
        if stage:
            # A row or column alone is a window of its own.
            out[f"pool{stage}"] = x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
        for _ in layers:
            number += 1
            x = functional.leaky_relu(normalise(convolve(x, number), number), 0.1)
            out[f"conv{number}"] = x
    x = convolve(x, 16) + torch.from_numpy(tensors["conv2d_16/bias"])[:, None, None]
    out["conv16"] = x
    out["logits"] = x.mean((2, 3))
    return out


@pytest.fixture(scope="module")
def tensors():
    random = np.random.default_rng(0)
    tensors, inputs = {}, 3
    layers = [layer for stage in STAGES for layer in stage]
    for number, (outputs, kernel) in enumerate([*layers, (1000, 1)], 1):
        shape = (kernel, kernel, inputs, outputs)
        spread = (2 / np.prod(shape[:3])) ** 0.5
        tensors[f"conv2d_{number}/kernel"] = random.normal(0, spread, shape)
        norm = f"batch_normalization_{number}"
        if number == 16:
            tensors["conv2d_16/bias"] = random.normal(size=outputs)
        else:
            tensors[f"{norm}/gamma"] = random.uniform(0.5, 1.5, outputs)
            tensors[f"{norm}/beta"] = random.normal(0, 0.2, outputs)
            tensors[f"{norm}/moving_mean"] = random.normal(0, 0.2, outputs)
            tensors[f"{norm}/moving_variance"] = random.uniform(0.5, 1.5, outputs)
        inputs = outputs
    return {name: array.astype(np.float32) for name, array in tensors.items()}


@pytest.fixture
def file(tensors, tmp_path):
    np.savez(tmp_path / "weights.npz", **tensors)
    return tmp_path / "weights.npz"


@pytest.mark.parametrize("size", [(96, 96), (75, 101)])
def test_every_layer_agrees(size, file, tensors):
    image = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    expected = reference(tensors, image)
    found = ENTRY.load(file)(image)
    assert_layers_agree(found, expected)


def test_as_many_parameters_as_published(tensors):
    trained = [array.size for name, array in tensors.items() if "moving" not in name]
    assert sum(trained) == ENTRY.parameters


def without(tensors):
    del tensors["batch_normalization_3/beta"]


def with_another(tensors):
    tensors["batch_normalization_16/beta"] = np.zeros(1000, np.float32)


def misshapen(tensors):
    tensors["conv2d_16/bias"] = np.zeros(1001, np.float32)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (without, ["- batch_normalization_3/beta for conv3/bias (16,)"]),
        (with_another, ["+ batch_normalization_16/beta (1000,)"]),
        (
            misshapen,
            ["- conv2d_16/bias for conv16/bias (1000,)", "+ conv2d_16/bias (1001,)"],
        ),
    ],
)
def test_another_networks_tensors_are_listed(change, lines, tensors):
    changed = dict(tensors)
    change(changed)
    with pytest.raises(CheckpointError) as error:
        ENTRY.architecture().params_from(changed, ENTRY.layouts, "file")
    assert str(error.value).splitlines()[1:] == [f"  {line}" for line in lines]


def test_classes_are_those_of_the_list_beside_the_weights(file):
    assert ENTRY.load(file).labels is None
    names = [f"class {i}" for i in range(1000)]
    file.with_name("imagenet.shortnames.list").write_text("\n".join(names) + "\n")
    assert ENTRY.load(file).labels == tuple(names)
    ids = [f"n{i:08}" for i in range(1000)]
    file.with_name("imagenet.labels.list").write_text("\n".join(ids) + "\n")
    model = ENTRY.load(file)
    assert model.labels == tuple(names)
    assert model.class_index("n00000007") == 7


def test_a_list_of_other_classes_is_refused(file):
    file.with_name("imagenet.shortnames.list").write_text("cat\ndog\n")
    with pytest.raises(CheckpointError, match="2 classes, expected 1000"):
        ENTRY.load(file)
