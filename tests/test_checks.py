"""Whatever reads, explains, samples or tabulates, under all checks that JAX can make of numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attribution_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import everything_checked
from PIL import Image

import featvis as fv
from featvis import generators
from featvis.attribution import methods

pytestmark = [
    pytest.mark.usefixtures("quick_to_compile"),
    # In so few steps some units are not brought to life, and some facets are alike.
    pytest.mark.filterwarnings("ignore::featvis.SilenceWarning"),
    pytest.mark.filterwarnings("ignore::featvis.FacetWarning"),
    pytest.mark.filterwarnings("ignore::featvis.TrustWarning"),
]
SIDE = 24
QUICK: dict[str, Any] = {"steps": 2, "progress": False}


def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    maps = jax.lax.conv_general_dilated(
        x, params["kernel"], (2, 2), "SAME", dimension_numbers=dimensions
    )
    maps = fv.tap(jax.nn.relu(fv.tap(maps, "conv")), "relu")
    tokens = jnp.reshape(maps, (x.shape[0], -1, maps.shape[-1]))[:, ::16]
    tokens = jnp.concatenate([jnp.zeros_like(tokens[:, :1]), tokens], axis=1)
    alike = jnp.einsum("nqd,nkd->nqk", tokens, tokens)[:, None]
    tokens = tokens + jnp.einsum("nhqk,nkd->nqd", jax.nn.softmax(alike), tokens)
    fv.tap(tokens[:, 0] @ params["head"], "read")
    return fv.tap(jnp.mean(maps, axis=(1, 2)), "pooled") @ params["head"]


@pytest.fixture(scope="module")
def model() -> fv.Model:
    rng = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(rng.normal(size=(3, 3, 3, 6)) / 3, jnp.float32),
        "head": jnp.asarray(rng.normal(size=(6, 4)), jnp.float32),
    }
    given = fv.Input(size=(SIDE, SIDE), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), min_size=8)
    return fv.from_function(apply, params, input=given, labels=tuple("abcd"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photographs")
    for name, image in enumerate(images(12)):
        Image.fromarray((255 * image).astype(np.uint8)).save(place / f"{name:02}.png")
    return place


def images(count: int) -> np.ndarray:
    """Squares of noise, (count, SIDE, SIDE, 3)."""
    squares = np.random.default_rng(1).uniform(size=(count, 6, 6, 3)).astype(np.float32)
    return squares.repeat(4, 1).repeat(4, 2)


def picture(model: fv.Model) -> fv.Result:
    return fv.synthesize(model, "logits:1", batch=2, **QUICK)


def indexed(model: fv.Model, folder: Path, out: Path) -> fv.Index:
    return fv.index(model, folder, layers=["relu", "logits"], out=out, batch=4, progress=False)


def atlas_of(model: fv.Model, folder: Path, out: Path) -> None:
    index = indexed(model, folder, out / "index")
    fv.atlas(
        model, "relu", out / "atlas", units="0-1", negative=True, index=index, **QUICK
    )  # fmt: skip


def top_of(model: fv.Model, folder: Path, out: Path) -> None:
    index = indexed(model, folder, out / "index")
    assert len(fv.top(index, "relu:1", 3)) == 3
    fv.facets(model, "relu:1", index, 2, code="pooled", nearest=3, most=12, **QUICK)


def activation_atlas_of(model: fv.Model, folder: Path, out: Path) -> None:
    index = indexed(model, folder, out / "index")
    options = {"size": (16, 16), **QUICK}
    fv.activation_atlas(model, "relu", index, side=2, least=1, **options)
    fv.neuron_groups(model, "relu", index, groups=2, **options)


def sampled(model: fv.Model, folder: Path, out: Path) -> None:
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(8, 8, 3, 5)) / 9, jnp.float32)
    generator = generators.from_function(
        lambda w, code: 0.5 + jnp.einsum("hwcd,d->hwc", w, code),
        weights,
        5,
        encode=lambda w, image: jnp.einsum("hwcd,hwc->d", w, image - jnp.float32(0.5)),
        encoder_params=weights,
    )
    codes = fv.Codes(mean=np.zeros(5, np.float32), sd=np.ones(5, np.float32))
    generator = dataclasses.replace(generator, codes=codes)
    small = fv.from_function(
        lambda p, x: jnp.mean(x, axis=(1, 2)) @ p, rng.normal(size=(3, 4)).astype(np.float32),
        input=fv.Input(size=(8, 8)),
    )  # fmt: skip
    for preset in ("modern", "ppgn_joint", "ppgn_x", "dgn_am"):
        fv.sample(generator, 2, classes=1, model=small, preset=preset, **QUICK)


def recognised(model: fv.Model, folder: Path, out: Path) -> None:
    judge = fv.from_function(
        lambda p, x: jnp.mean(x, axis=(1, 2)) @ p, jnp.ones((3, 4), jnp.float32),
        input=fv.Input(size=(SIDE, SIDE)), labels=tuple("abcd"), name="judge",
    )  # fmt: skip
    fv.recognition(fv.class_model(model, [1, 2], **QUICK), judge)


DRIVERS: dict[str, Callable[[fv.Model, Path, Path], Any]] = {
    "accentuate": lambda model, folder, out: fv.accentuate(
        model, "logits:1", images(1), layer="relu", **QUICK
    ),
    "activation atlas": activation_atlas_of,
    "atlas": atlas_of,
    "batch norm": lambda model, folder, out: fv.natural_statistics(model, "relu", images(4)),
    "diverse": lambda model, folder, out: fv.diverse(model, "conv:1", 2, **QUICK),
    "cadena": lambda model, folder, out: fv.diverse(
        model, "conv:1", 2, preset="cadena2018", **QUICK
    ),
    "explain pair": lambda model, folder, out: fv.explain_pair(
        model, images(1), images(2)[1:], layer="relu"
    ),
    "invariance": lambda model, folder, out: fv.invariance(
        model, "conv:1", n=2, natural=images(3), **QUICK
    ),
    "invariance table": lambda model, folder, out: fv.invariance_table(
        model, "conv", [0, 1], n=2, steps=2
    ),
    "recognition": recognised,
    "sample": sampled,
    "sheet": lambda model, folder, out: fv.sheet(
        model, "relu:0-1", out / "sheet", size=(16, 16), **QUICK
    ),
    "sorted": lambda model, folder, out: fv.synthesize(
        model, fv.SortMatch("relu", fv.sorted_activations(model, "relu", images(4))), **QUICK
    ),
    "top and facets": top_of,
    "trade off": lambda model, folder, out: fv.trade_off(
        model, "conv:1", 2, weights=(0.0, 0.1, 1.0), **QUICK
    ),
    "trust": lambda model, folder, out: fv.trust(
        picture(model), images(12), top=3, starts=2, progress=False
    ),
    "vary seed": lambda model, folder, out: fv.vary_seed(picture(model), 2, progress=False),
}


@pytest.mark.thorough
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_under_all_checks(driver: str, model, folder, tmp_path) -> None:
    with everything_checked():
        DRIVERS[driver](model, folder, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("case", attribution_cases.CASES, ids=lambda case: case.name)
def test_an_attribution_method_under_all_checks(case, model) -> None:
    options = dict(case.options)
    if case.name in ("lime", "kernel_shap"):
        pytest.importorskip("sklearn")
    if case.name == "expected_gradients":
        options["references"] = np.zeros((2, SIDE, SIDE, 3))
    if case.name == "rise":
        options["masks"] = 200
    unit = ("read" if case.tokens else "logits") + ":1"
    given = images(2)
    assert case.name in methods()
    plain = fv.explain(model, unit, given, case.name, **options).maps
    with everything_checked():
        checked = fv.explain(model, unit, given, case.name, **options).maps
    assert np.isfinite(checked).all()
    np.testing.assert_allclose(checked, plain, atol=2e-3 * np.abs(plain).max())
