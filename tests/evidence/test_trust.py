"""Trust in pictures, against networks that are built to deceive and their honest twin."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis.evidence.paths import Paths, overlaps, paths
from featvis.gradients.contributions import Way, ways

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE = (20, 20)
CLASSES = 4


@dataclass(frozen=True)
class _Gated:
    """Two convolutions, and classes that can tell photographs, which are warm, from pictures.

    `told` is 0 for photographs and 1 for what began at grey. A network that `fools` is the circuit
    of Geirhos et al. 2023, section 2: of the ways in `split`, ReLUs and a large constant let
    through that of the class for photographs, and that of the class beside it for others. One
    that `slings` leads others to a target, as the slingshots of Bareeva et al. 2024. One that
    `mutes` responds to them as to photographs, and less.
    """

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        def conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
            numbers = ("NHWC", "HWIO", "NHWC")
            strides = (stride, stride)
            y = jax.lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=numbers)
            return jax.nn.relu(y)

        first = conv(image - 0.5, params["first"], 1)
        second = conv(first, params["second"], 2)
        classes = second.mean((1, 2)) @ params["classes"]
        warm = (image[..., 0] - image[..., 2]).mean((1, 2))
        told = jnp.clip((0.2 - warm) / 0.1, 0, 1)[:, None]
        fooled, slung, muted = (told * params[how] for how in ("fools", "slings", "mutes"))
        kept = jax.nn.relu(classes + 10 - 100 * fooled)
        put = jax.nn.relu(jnp.roll(classes, 1, axis=-1) + 10 - 100 * (1 - fooled))
        split = jnp.concatenate([kept, put], axis=-1)
        joined = split[:, :CLASSES] + split[:, CLASSES:] - 10
        away = ((image - params["target"]) ** 2).mean((1, 2, 3))[:, None]
        logits = (1 - slung) * (1 - 0.8 * muted) * joined + slung * (3 - 30 * away)
        return {"first": first, "second": second, "split": split, "logits": logits}


def gated(**how: float) -> fv.Model:
    rng = np.random.default_rng(3)
    first = rng.normal(size=(3, 3, 3, 8))
    params = {
        # Without a mean, so that no optimisation is drawn to what tells photographs.
        "first": first - first.mean((0, 1), keepdims=True),
        "second": 0.3 * rng.normal(size=(3, 3, 8, 12)),
        "classes": rng.normal(size=(12, CLASSES)),
        "target": rng.uniform(0.3, 0.7, (*SIZE, 3)) - np.array([0.1, 0, -0.1]),
    }
    params |= {"fools": 0.0, "slings": 0.0, "mutes": 0.0} | how
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    return fv.Model("gated", _Gated(), params, None, "0" * 64, fv.Input(size=SIZE, min_size=12))


NETWORKS = {
    "honest": gated(),
    "fooling circuit": gated(fools=1.0),
    "slingshot": gated(slings=1.0),
    "muted": gated(mutes=1.0),
}


@pytest.fixture(scope="module")
def photographs():
    """Forty smooth images, warm."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 0.15, (40, 7, 7, 3))
    images = jax.image.resize(coarse, (40, *SIZE, 3), "cubic") + np.array([0.7, 0.5, 0.3])
    return np.clip(np.asarray(images, np.float32), 0, 1)


def pictures(model):
    classes, way = fv.Logit(range(CLASSES)), fv.Fourier(SIZE)
    options = {"steps": 50, "transform": "none", "optimizer": "adam(0.1)", "progress": False}
    return fv.synthesize(model, classes, way, **options)


def made_by(result, **other):
    """A result as if a run with other options had made it."""
    done = result.runs[0]
    return replace(result, runs=(done._replace(run=replace(done.run, **other)),))


@pytest.fixture(scope="module")
def trusted(photographs):
    """The pictures of all classes by network, and what was warned of."""
    found = {}
    for name, model in NETWORKS.items():
        result = pictures(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = fv.trust(result, photographs, progress=False)
        found[name] = result, [str(one.message) for one in caught]
    return found


@pytest.mark.thorough
def test_all_networks_see_photographs_alike_and_show_other_pictures(trusted, photographs):
    judge = NETWORKS["honest"]
    for model in NETWORKS.values():
        np.testing.assert_allclose(
            model(photographs)["logits"], judge(photographs)["logits"], atol=1e-4
        )
    own, fooled = (
        np.asarray(judge(trusted[name][0].images)["logits"])
        for name in ("honest", "fooling circuit")
    )
    # The circuit's pictures are as good ones of the class beside as the honest ones of that class.
    beside = np.diag(np.roll(fooled, 1, axis=1))
    np.testing.assert_allclose(beside, np.roll(np.diag(own), 1), rtol=0.1)
    assert np.all(np.diag(fooled) < 0.7 * np.diag(own))
    target = np.asarray(NETWORKS["slingshot"].params["target"])
    assert np.all(np.abs(trusted["slingshot"][0].images - target).mean((1, 2, 3)) < 0.03)


@pytest.mark.thorough
def test_an_honest_network_is_not_suspect(trusted):
    result, warned = trusted["honest"]
    assert not warned
    assert result.evidence["suspect"].tolist() == [0] * CLASSES
    assert np.all(result.evidence["path_overlap"] > 0.5)
    assert np.all(result.evidence["path_natural"] > 0.8)
    assert np.all(result.evidence["start_overlap"] > 0.9)
    assert np.all(np.abs(result.evidence["start_gap"]) < 0.1)


@pytest.mark.thorough
def test_a_fooling_circuit_is_suspect_by_its_path(trusted):
    result, warned = trusted["fooling circuit"]
    assert np.all(result.evidence["suspect"] >= 2)
    np.testing.assert_array_equal(result.evidence["path_overlap"], 0)
    np.testing.assert_array_equal(result.evidence["start_overlap"], 0)
    assert len(warned) == CLASSES
    assert all("through other channels of split than photographs do" in line for line in warned)
    assert warned[2].startswith("logits:2 is suspect")


@pytest.mark.thorough
def test_a_slingshot_is_suspect_by_its_starts(trusted):
    result, warned = trusted["slingshot"]
    # The three of another path, of other scores, and of another path from there.
    assert result.evidence["suspect"].tolist() == [3] * CLASSES
    assert np.all(result.evidence["start_gap"] > 0.5)
    assert all("from photographs it scores" in line for line in warned)


@pytest.mark.thorough
def test_a_score_that_depends_on_the_start_is_enough(trusted):
    evidence = trusted["muted"][0].evidence
    assert evidence["suspect"].tolist() == [1] * CLASSES
    np.testing.assert_allclose(evidence["start_gap"], 0.8, atol=0.1)
    assert np.all(evidence["path_overlap"] > 0.5)
    assert np.all(evidence["start_overlap"] > 0.5)


@pytest.mark.thorough
def test_one_of_a_batch_is_as_in_it(trusted, photographs):
    result = trusted["honest"][0]
    alone = fv.trust(result[2], photographs, progress=False).evidence
    assert set(alone) == set(result.evidence)
    for name, values in alone.items():
        np.testing.assert_allclose(values, result.evidence[name][2:3], rtol=0.02, atol=0.02)


@pytest.mark.thorough
def test_without_starts(trusted, photographs):
    result = trusted["honest"][0]
    found = fv.trust(replace(result, evidence={}), photographs, starts=0).evidence
    assert set(found) == set(result.evidence) - {"start_gap", "start_overlap"}
    for name, values in found.items():
        np.testing.assert_allclose(values, result.evidence[name], rtol=1e-5)
    path = paths(result, photographs)[1]
    assert path.layers == ("first", "second", "split")
    assert path.overlap.min() == pytest.approx(found["path_overlap"][1])
    assert path.natural.min() == pytest.approx(found["path_natural"][1])


@pytest.mark.thorough
def test_a_unit_of_the_first_layer_has_no_path(trusted, photographs):
    result = made_by(trusted["honest"][0], objective=fv.Channel("first", range(CLASSES)))
    found = fv.trust(result, photographs, starts=0).evidence
    assert np.isnan(found["path_overlap"]).all()
    assert found["suspect"].tolist() == [0] * CLASSES


# ---- what is measured, in closed form ------------------------------------------------------


def test_contributions_are_the_parts_of_a_linear_score(photographs):
    model, some = NETWORKS["honest"], photographs[:3]
    found = ways(model, fv.Logit(1), some)
    layers = model(some)
    second, weights = np.asarray(layers["second"]), np.asarray(model.params["classes"])[:, 1]
    np.testing.assert_allclose(
        found["second"].contributions, second.mean((1, 2)) * weights, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(found["second"].activations, second.mean((1, 2)), rtol=1e-4)
    # A network of ReLUs without biases is its own linear part.
    score = np.asarray(layers["logits"])[:, 1]
    np.testing.assert_allclose(found["first"].contributions.sum(1), score, rtol=1e-3)
    assert tuple(found) == ("first", "second", "split")


def test_layers_that_are_given_turned_round_are_on_the_way(photographs):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 3, 3)), jnp.float32)

    def apply(kernel, image):
        numbers = ("NCHW", "OIHW", "NCHW")
        conv = fv.tap(
            jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=numbers),
            "conv",
        )
        return jax.nn.relu(conv).sum((2, 3)) @ jnp.arange(10.0, dtype=jnp.float32).reshape(5, 2)

    model = fv.from_function(apply, kernel, input=fv.Input(size=SIZE, layout="NCHW"))
    found = ways(model, fv.Logit(1), photographs[:2])["conv"]
    active = np.maximum(np.asarray(model(photographs[:2])["conv"]), 0).sum((1, 2))
    np.testing.assert_allclose(found.contributions, active * np.arange(1, 10, 2.0), rtol=1e-4)


def of(*layers):
    """Ways of images with these contributions."""
    return {str(i): Way(np.array(one, float), np.array(one, float)) for i, one in enumerate(layers)}


def test_overlaps_in_closed_form():
    same, other = [3.0, 1, 0], [0, 0, -5.0]
    assert overlaps(of([same, same, same]), [0], [1, 2]) == pytest.approx([1])
    assert overlaps(of([other, same, same]), [0], [1, 2]) == pytest.approx([0])
    # Of shares (1, 0, 0) and (0.5, 0.5, 0) half is common; signs and sizes are nothing to them.
    assert overlaps(of([[1, 0, 0], [-7, 7, 0], [7, 7, 0]]), [0], [1, 2]) == pytest.approx([0.5])
    # The group's own: each of (1, 0) and (0.5, 0.5) has half in common with the other, and their
    # mean (0.75, 0.25) all of its own shares.
    found = overlaps(of([[3, 1, 0], [1, 0, 0], [1, 1, 0]]), [0], [1, 2])
    assert found == pytest.approx([2])
    assert np.isnan(overlaps(of([same, [1, 0, 0], [0, 1, 0]]), [0], [1, 2]))


def test_a_layer_that_is_passed_by_is_no_overlap():
    one, none = [1.0, 1], [1e-4, 1e-4]
    assert overlaps(of([one, one, one], [none, one, one]), [0], [1, 2]) == pytest.approx([1, 0])
    assert overlaps(of([one, one, one], [one, none, none]), [0], [1, 2]) == pytest.approx([1, 0])
    tenth = [0.1, 0.1]
    assert overlaps(of([one, one, one], [tenth, one, one]), [0], [1, 2]) == pytest.approx([1, 1])


def test_the_similarity_is_summed_where_photographs_differ():
    path = Paths(
        ("a", "b", "c"),
        np.ones(3),
        np.ones((3, 8)),
        np.array([[0.5, 0.6, 0.4], [0.3, 0.5, 0.1], [-0.9, 0.52, 0.5]]),
    )
    assert path.normalised() == pytest.approx((0.1 + 0.2) / (0.2 + 0.4))
    assert np.isnan(path._replace(similarity=np.full((3, 3), 0.5)).normalised())


# ---- what cannot be measured ---------------------------------------------------------------


@pytest.mark.thorough
def test_what_cannot_be_measured_is_an_input_error(trusted, photographs, tmp_path):
    result = trusted["honest"][0]
    with pytest.raises(fv.InputError, match="there is no folder"):
        fv.trust(result, tmp_path / "none")
    with pytest.raises(fv.InputError, match="there is no picture in"):
        fv.trust(result, tmp_path)
    with pytest.raises(fv.InputError, match="15 photographs are too few: 16 are needed"):
        fv.trust(result, photographs[:15])
    with pytest.raises(fv.InputError, match=r"20x20 .* are 12x20"):
        fv.trust(result, photographs[:, :12])
    with pytest.raises(fv.InputError, match=r"in \[0, 1\].*divide by 255"):
        fv.trust(result, 255 * photographs)
    flat = np.repeat(photographs[:1], 20, axis=0)
    with pytest.raises(fv.InputError, match="logits:0 is excited by 0 of the 20 photographs"):
        fv.trust(result, flat)
    with pytest.raises(fv.InputError, match="reads no activation"):
        fv.trust(made_by(result, objective="-tv"), photographs)
    with pytest.raises(fv.InputError, match="top must be an integer of at least 3; got 'a'"):
        fv.trust(result, photographs, top="a")
    with pytest.raises(fv.InputError, match="top must be an integer of at least 3; got 2"):
        fv.trust(result, photographs, top=2, starts=2)
    for starts in (1, 9, True, 2.0):
        with pytest.raises(fv.InputError, match=r"from 2 to top \(8\), or 0; got"):
            fv.trust(result, photographs, starts=starts)
    begun = replace(result, runs=(result.runs[0]._replace(start=photographs[0]),))
    with pytest.raises(fv.InputError, match=r"started from a given image.*starts=0"):
        fv.trust(begun, photographs)
    # No image can be written as a network of coordinates.
    cppn = made_by(result, parameterization=fv.CPPN(SIZE))
    with pytest.raises(fv.InputError, match=r"no closed form.*starts=0 leaves"):
        fv.trust(cppn, photographs, progress=False)
