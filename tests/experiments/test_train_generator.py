"""Training goes on from its checkpoints to the very weights it would have had, or says why not."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import featvis as fv
from featvis.generators.networks.mnist_ppgn import CodeDenoiser

pytest.importorskip("orbax.checkpoint")

pytestmark = pytest.mark.usefixtures("quick_to_compile")

_CODE = 4


@pytest.fixture(scope="module")
def study(experiment):
    return experiment("train_generator")


@pytest.fixture
def training(study, monkeypatch):
    """Trains a small part in a folder, as the study does its own: a checkpoint each two steps."""
    monkeypatch.setattr(study, "CHUNK", 2)
    monkeypatch.setattr(study, "BATCH", 3)
    # A clock on which a minute is over whenever somebody looks.
    monkeypatch.setattr(
        study, "time", SimpleNamespace(perf_counter=itertools.count(0, 61).__next__)
    )
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 2, 1), np.uint8)
    network, rule = CodeDenoiser(_CODE, 5), optax.adam(optax.cosine_decay_schedule(0.1, 6))

    def encoder(params, images):
        return {"code": images.reshape(len(images), -1)}

    def train(folder, look=lambda state, step: None, **facts):
        data = study.Images(images, np.zeros(9, np.int32))
        trainer = study.Trainer(data, folder, 3, {"steps": 6, **facts})
        params = network.random_params(1)
        update = study.denoising(network, encoder, (), jnp.ones(_CODE), rule)
        state = {"params": params, "moments": rule.init(params)}
        return trainer.train("denoiser", state, update, 6, look)

    return train


@pytest.mark.thorough
@pytest.mark.usefixtures("usual_promotions")
def test_what_was_cut_off_ends_with_the_same_weights(training, tmp_path):
    whole = training(tmp_path / "whole")
    seen = []

    def cut(state, step):
        seen.append(step)
        if len(seen) in (1, 2):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            training(tmp_path / "cut", cut)
    again = training(tmp_path / "cut", cut)
    assert seen == [2, 4, 6]
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    # What is done is done.
    jax.tree.map(np.testing.assert_array_equal, training(tmp_path / "cut", cut), whole)
    assert seen == [2, 4, 6]


@pytest.mark.usefixtures("usual_promotions")
def test_checkpoints_of_another_run_are_refused(training, tmp_path):
    training(tmp_path)
    with pytest.raises(fv.InputError, match=r"a run with steps 6; got 8: .* as -o"):
        training(tmp_path, steps=8)
    with pytest.raises(fv.InputError, match="a run with width None; got 16"):
        training(tmp_path, width=16)
