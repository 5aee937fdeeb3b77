"""Occlusion against captum, enlarged masks against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from featvis.attribution import Probed
from featvis.attribution.masking import enlarge
from featvis.attribution.perturbation import occlusion

torch = pytest.importorskip("torch")
captum = pytest.importorskip("captum.attr")


def test_occlusion_is_captums():
    image = np.random.default_rng(0).uniform(size=(24, 20, 3)).astype(np.float32)

    def score(images):
        return np.tanh(np.asarray(images)[:, 3:20:2].mean((1, 2, 3))) * 10

    theirs = captum.Occlusion(
        lambda x: torch.tensor(score(x.permute(0, 2, 3, 1).numpy()))
    ).attribute(torch.tensor(image).permute(2, 0, 1)[None], (3, 6, 6), (3, 4, 4), baselines=0.5)
    found = occlusion(Probed(image, score, 16, jax.random.key(0)), window=6, stride=4)
    np.testing.assert_allclose(found, theirs[0, 0].numpy(), atol=1e-4)


def test_enlarging_is_pytorchs():
    masks = np.random.default_rng(0).random((2, 5, 7)).astype(np.float32)
    wanted = torch.nn.UpsamplingBilinear2d(size=(13, 20))(torch.tensor(masks)[:, None])[:, 0]
    np.testing.assert_allclose(enlarge(jnp.asarray(masks), (13, 20)), wanted, atol=1e-6)
