"""Faithfulness against Quantus, which computes the same of a network in PyTorch."""

import warnings

import jax
import numpy as np
import pytest

from featvis.attribution import Probed
from featvis.attribution.faithfulness import (
    area,
    deletion,
    inside_boxes,
    mass_inside,
    max_sensitivity,
    pointing,
    rank_iou,
)
from featvis.attribution.localisation import Box

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus")

COMMON = {
    "abs": False,
    "normalise": False,
    "return_aggregate": False,
    "disable_warnings": True,
    "display_progressbar": False,
}


@pytest.fixture(scope="module")
def given():
    """A network of two classes in PyTorch, images (n, c, h, w) of one colour, and maps."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(120, 2)
    ).eval()
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 1, 8, 7)).astype(np.float32)
    images[:, :, 3, 4] = 0  # Their black is the lowest value of an image.
    return network, images, rng.normal(size=(2, 8, 7)).astype(np.float32)


def probed(network, image, unit=1):
    def score(images):
        with torch.no_grad():
            seen = torch.tensor(np.array(images)).permute(0, 3, 1, 2)
            return network(seen)[:, unit].numpy()

    return Probed(np.moveaxis(image, 0, -1), score, 16, jax.random.key(0))


def boxes_of(images):
    masks = [
        inside_boxes([Box(1, 2, 4, 6)], images.shape[2:]),
        inside_boxes([Box(0, 0, 3, 3), Box(2, 2, 7, 8)], images.shape[2:]),
    ]
    return np.stack(masks)


def test_deletion_is_pixel_flipping(given):
    network, images, maps = given
    theirs = quantus.PixelFlipping(features_in_step=4, perturb_baseline="black", **COMMON)(
        model=network, x_batch=images, y_batch=np.array([1, 1]), a_batch=maps[:, None],
        softmax=False, device="cpu",
    )  # fmt: skip
    for curve, image, ranked in zip(theirs, images, maps, strict=True):
        found = deletion(probed(network, image), ranked, steps=14, baseline="black")
        # Theirs begins after the first step.
        np.testing.assert_allclose(found[1:], curve, atol=1e-4)
        whole = probed(network, image).score(np.moveaxis(image, 0, -1)[None])[0]
        assert area(found) == pytest.approx(np.trapezoid([whole, *curve], dx=1 / 14), abs=1e-4)


def of_rank(ranked, inside):
    """The share of as many pixels as the object has that is inside: r, of an IoU of r / (2 - r)."""
    iou = rank_iou(ranked, inside)
    return 2 * iou / (1 + iou)


@pytest.mark.parametrize(
    ("metric", "measure"),
    [
        ("PointingGame", lambda ranked, inside: pointing(ranked, inside, tolerance=0)),
        ("RelevanceMassAccuracy", mass_inside),
        ("RelevanceRankAccuracy", of_rank),
    ],
)
def test_localisation(given, metric, measure):
    network, images, maps = given
    maps, inside = np.abs(maps), boxes_of(images)
    theirs = getattr(quantus, metric)(**COMMON)(
        model=network, x_batch=images, y_batch=np.array([1, 1]), a_batch=maps[:, None],
        s_batch=inside[:, None], device="cpu",
    )  # fmt: skip
    found = [measure(ranked, one) for ranked, one in zip(maps, inside, strict=True)]
    np.testing.assert_allclose(found, np.ravel(theirs), atol=1e-4)


def test_max_sensitivity(given):
    network, images, _ = given
    channels_last = np.moveaxis(images, 1, -1)

    def explained(x):
        seen = torch.tensor(np.moveaxis(np.float32(x), -1, 1), requires_grad=True)
        (slope,) = torch.autograd.grad(network(seen)[:, 1].sum(), seen)
        return (slope * seen).sum(1).detach().numpy()

    def their_explanation(model, inputs, targets, **_):
        return explained(np.moveaxis(np.asarray(inputs), 1, -1))[:, None]

    # The draws of ours, one after the other, in the place of theirs.
    rng = np.random.default_rng(5)
    draws = [rng.uniform(-0.05, 0.05, channels_last.shape) for _ in range(4)]
    left = iter(np.moveaxis(np.clip(channels_last + d, 0, 1), -1, 1) for d in draws)

    def next_draw(arr, indices, **_):
        return np.float32(next(left)).reshape(arr.shape)

    theirs = quantus.MaxSensitivity(nr_samples=4, perturb_func=next_draw, **COMMON)(
        model=network, x_batch=images, y_batch=np.array([1, 1]), explain_func=their_explanation,
        device="cpu",
    )  # fmt: skip
    found = max_sensitivity(explained, channels_last, radius=0.05, samples=4, seed=5)
    np.testing.assert_allclose(found, theirs, atol=1e-4)
