"""Denoised ascent against scikit-image's denoising and a step by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.restoration import denoise_tv_chambolle

import featvis as fv
from featvis import text
from featvis.optimizers import denoised_ascent
from featvis.optimizers.denoising import denoised


@pytest.mark.thorough
def test_denoising_goes_to_the_least_of_its_energy():
    """Of a square under noise: as scikit-image's, whose weight is half of one over ours."""
    rng = np.random.default_rng(0)
    image = np.zeros((16, 20, 1), np.float32)
    image[4:12, 5:15] = 1
    image += 0.1 * rng.normal(size=image.shape).astype(np.float32)
    found = np.asarray(denoised(jnp.asarray(image), jnp.float32(5.0), sweeps=500))
    expected = denoise_tv_chambolle(image[..., 0], weight=0.1, eps=1e-9, max_num_iter=5000)
    np.testing.assert_allclose(found[..., 0], expected, atol=5e-3)


@pytest.mark.thorough
def test_a_step_is_along_the_gradient_over_its_mean_size():
    rule = denoised_ascent(2.55, 1e9)  # next to no denoising
    x = {"pixels": jnp.zeros((4, 5, 3))}
    g = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    updates, state = rule.update({"pixels": jnp.asarray(g)}, rule.init(x), x)
    np.testing.assert_allclose(updates["pixels"], -0.01 * g / np.abs(g).mean(), atol=1e-6)
    assert int(state.step) == 1
    none, _ = rule.update({"pixels": jnp.zeros((4, 5, 3))}, state, x)
    assert not np.any(none["pixels"])


def test_it_has_a_text_and_checks_its_arguments():
    text.optimizer("denoised_ascent(linear_schedule(1.0, 2.0, 9), 0.4)")
    for wrong in ({"length": 0, "weight": 1}, {"length": 1, "weight": -1}):
        with pytest.raises(fv.InputError, match="must be a number above 0"):
            denoised_ascent(**wrong)
