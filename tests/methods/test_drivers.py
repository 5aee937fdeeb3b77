"""Inversion, caricature, class models and accentuation on networks whose answers are known."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import Compiled
from networks import TOY_SIZE
from PIL import Image

import featvis as fv
from featvis import methods
from featvis.evidence import metrics
from featvis.methods import recipe as recipes
from featvis.results.format import last_run, runs_of

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def drive(driver, *args, **options):
    return driver(*args, **{"progress": False, **options})


def photographs(count=2, size=TOY_SIZE, seed=0):
    """Smooth images of little contrast, (n, h, w, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    phase = rng.uniform(0, 6, (count, 1, 1, 3))
    waves = np.sin(y[..., None] / 3 + x[..., None] / 4 + phase)
    return (0.5 + 0.2 * waves + rng.uniform(-0.1, 0.1, waves.shape)).astype(np.float32)


PHOTOGRAPHS = photographs()
SIZE = (6, 8)
NUMBERS = 6 * 8 * 3


@pytest.fixture(scope="module")
def linear():
    """Class scores w of an image about mid-grey."""
    w = np.random.default_rng(1).normal(size=(NUMBERS, 4)).astype(np.float32)

    def apply(params, image):
        return {"logits": (image - 0.5).reshape(len(image), -1) @ params["w"]}

    return fv.from_function(apply, {"w": w}, input=fv.Input(SIZE))


@pytest.fixture(scope="module")
def invertible():
    """An orthogonal mixture of all numbers."""
    w = np.linalg.qr(np.random.default_rng(2).normal(size=(NUMBERS, NUMBERS)))[0]

    def apply(params, image):
        return {"mixed": (image - 0.5).reshape(len(image), -1) @ params["w"]}

    return fv.from_function(apply, {"w": w.astype(np.float32)}, input=fv.Input(SIZE))


def cosine(a, b):
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


# ---- ground truths -------------------------------------------------------------------------


@pytest.mark.thorough
def test_class_model_of_a_linear_score_in_a_ball_is_its_weights(linear):
    result = drive(
        fv.class_model, linear, 2, parameterization="BoundedPixels(ball='l2', radius=1.0)",
        optimizer="sgd(0.1)", transform="none", steps=200,
    )  # fmt: skip
    found = result.images[0] - 0.5
    assert cosine(found, linear.params.weights["w"][:, 2]) > 0.999
    np.testing.assert_allclose(np.linalg.norm(found), 1, rtol=1e-4)


@pytest.mark.thorough
def test_class_model_of_simonyan_is_w_over_two_lambda(linear):
    at = methods.setting_of(linear, "logits", SIZE, None)
    off = jnp.full((1, *SIZE, 3), 0.6)
    # Our prior is λ times a mean over all numbers about mid-grey.
    weight = float(methods.simonyan2013(at).prior({}, off)[0]) / 0.1**2
    lam = weight / NUMBERS
    # Within the box.
    w = np.asarray(linear.params.weights["w"])
    w = w * 0.3 * 2 * lam / np.abs(w).max()
    given = dataclasses.replace(linear.params, weights={"w": w})
    model = dataclasses.replace(linear, params=given)
    result = drive(fv.class_model, model, 1, preset="simonyan2013", steps=3000)
    np.testing.assert_allclose(result.images[0].ravel() - 0.5, w[:, 1] / (2 * lam), atol=1e-3)
    best = np.sum(w[:, 1] ** 2) / (4 * lam)
    np.testing.assert_allclose(result.clean_scores[0], best, rtol=1e-3)
    np.testing.assert_allclose(result.evidence["logit"][0], 2 * best, rtol=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize(("preset", "steps"), [("modern", None), ("metamer", 400)])
def test_inversion_of_an_invertible_network_is_the_image(invertible, preset, steps):
    # Of more contrast, the sigmoid of "modern" can leave a pixel at its end for long.
    images = np.random.default_rng(0).uniform(0.3, 0.7, (3, *SIZE, 3)).astype(np.float32)
    result = drive(fv.invert, invertible, "mixed", images, preset=preset, steps=steps)
    assert np.all(result.evidence["relative_error"] < 0.01)
    assert np.all(result.evidence["psnr"] > 30)
    np.testing.assert_allclose(result.images, images, atol=0.01)


@pytest.fixture(scope="module")
def halves():
    """An orthogonal mixture of all numbers, in two layers of which neither says all."""
    w = np.linalg.qr(np.random.default_rng(2).normal(size=(NUMBERS, NUMBERS)))[0]

    def apply(params, image):
        mixed = (image - 0.5).reshape(len(image), -1) @ params["w"]
        return {"first": mixed[:, ::2], "second": mixed[:, 1::2]}

    return fv.from_function(apply, {"w": w.astype(np.float32)}, input=fv.Input(SIZE))


@pytest.mark.thorough
def test_inversion_of_several_layers(halves, tmp_path):
    images = np.random.default_rng(0).uniform(0.3, 0.7, (2, *SIZE, 3)).astype(np.float32)
    both = drive(fv.invert, halves, ["first", "second"], images)
    np.testing.assert_allclose(both.images, images, atol=0.01)
    for layer in ("first", "second"):
        assert np.all(both.evidence[f"relative_error:{layer}"] < 0.01)
        assert np.isfinite(both.evidence[f"pairwise_error:{layer}"]).all()
    weighted = drive(
        fv.invert, halves, {"first": 3.0, "second": 1}, images, preset="cvpr2015", steps=3
    )
    whole = last_run(weighted.manifest)["objective"]
    assert whole.startswith("0.75*feature_match('first', target) + 0.25*feature_match('second', ")
    again = fv.replay(weighted.save(tmp_path / "a"), model=halves, progress=False)
    np.testing.assert_array_equal(again.images, weighted.images)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ([], {}, "at least one layer"),
        (["first", "first"], {}, "inverted once"),
        ({"first": 0.0}, {}, "weight of layer 'first' must be above 0; got 0.0"),
        (["first", "second"], {"preset": "metamer"}, "the preset metamer is of one layer"),
        (["first", "second"], {"mask": np.ones((1, 1, 1))}, "a mask is of one layer"),
        (3, {}, "layer is a name, several, or weights"),
    ],
)
def test_layers_that_make_no_sense(halves, layer, options, message):
    with pytest.raises(fv.InputError, match=message):
        drive(fv.invert, halves, layer, np.full((*SIZE, 3), 0.4), **options)


@pytest.mark.thorough
def test_octaves_grow_to_the_whole_size_and_replay(toy, linear, tmp_path):
    at = methods.setting_of(toy, "logits", (32, 48), 6)
    stages = methods.octaves(at, number=3, scale=2).stages
    assert [one.parameterization.size for one in stages] == [(8, 12), (16, 24), (32, 48)]
    assert [one.steps for one in stages] == [2, 2, 2]
    # A network of one size sees the small picture magnified.
    result = drive(fv.class_model, linear, 2, preset="octaves", steps=2, number=2)
    first, last = runs_of(result.manifest)
    assert first["parameterization"].startswith("Upsampled(size=(6, 8)")
    assert last["parameterization"].startswith("Fourier(size=(6, 8)")
    again = fv.replay(result.save(tmp_path / "a"), model=linear, progress=False)
    np.testing.assert_array_equal(again.images, result.images)
    for wrong in ({"number": 0}, {"scale": 1.0}):
        with pytest.raises(fv.InputError, match="octaves is a"):
            drive(fv.class_model, toy, 2, preset="octaves", **wrong)


def test_inversion_under_a_mask_is_of_its_receptive_field(toy):
    # The field of 3 x 3 positions of a convolution of 3 x 3 is 5 x 5 pixels.
    mask = np.zeros((1, *TOY_SIZE), np.float32)
    mask[:, 4:7, 6:9] = 1
    start = np.full((*TOY_SIZE, 3), 0.5, np.float32)
    result = drive(
        fv.invert, toy, "conv", PHOTOGRAPHS[0], mask=mask, preset="metamer", steps=300, init=start
    )
    moved = np.abs(result.images[0] - start).max(-1) > 0
    assert moved[3:8, 5:10].all()
    assert moved.sum() == 25
    inside = (slice(None), slice(4, 7), slice(6, 9))
    wanted = np.asarray(toy(PHOTOGRAPHS[:1])["conv"])[inside]
    found = np.asarray(toy(result.images)["conv"])[inside]
    # The last steps have the length 1/128.
    assert metrics.relative_error(found, wanted)[0] < 0.02


@pytest.mark.thorough
def test_caricature_exaggerates_more_with_strength(toy):
    photographs_ = photographs(4, seed=5)
    found = [
        drive(fv.caricature, toy, "relu", photographs_, strength=strength, steps=100)
        for strength in (0, 0.1, 0.25, 0.5, 1, 2, 4)
    ]
    agreements, distances = (
        np.array([one.evidence[name] for one in found]) for name in ("agreement", "psnr")
    )
    # Nothing is changed without, and ever more with it.
    np.testing.assert_allclose(agreements[0], 1, atol=5e-3)
    assert np.all(distances[0] > 50)
    assert np.all(np.diff(agreements, axis=0) > 0)
    assert np.all(np.diff(distances, axis=0) < 0)
    assert np.all(agreements[-1] > agreements[1] + 0.05)
    # The colours and the contrast are those of the photograph.
    for one in found:
        means, deviations = (
            np.array([f(images, axis=(1, 2)) for images in (one.images, photographs_)])
            for f in (np.mean, np.std)
        )
        np.testing.assert_allclose(means[0], means[1], atol=0.005)
        np.testing.assert_allclose(deviations[0], deviations[1], rtol=0.03)


@pytest.mark.thorough
@pytest.mark.parametrize("preset", ["modern", "ijcv2016"])
def test_caricature_starts_from_the_image(toy, preset):
    result = drive(
        fv.caricature, toy, "relu", PHOTOGRAPHS, preset=preset, steps=1, optimizer="sgd(0.0)"
    )
    np.testing.assert_allclose(result.images, PHOTOGRAPHS, atol=1e-5)
    np.testing.assert_allclose(result.evidence["agreement"], 1, atol=1e-4)
    np.testing.assert_allclose(result.evidence["cosine"], 1, atol=1e-4)


ACCENTUATED = {"layer": "relu", "steps": 40, "draws": 2}


@pytest.mark.thorough
def test_accentuation_without_weight_is_plain_synthesis_from_the_image(toy):
    result = drive(fv.accentuate, toy, "logits:1", PHOTOGRAPHS, keep=0.0, **ACCENTUATED)
    plain = fv.synthesize(
        toy, "logits:1", fv.Fourier(TOY_SIZE, decay=1.0), init=PHOTOGRAPHS, steps=40, draws=2,
        optimizer="adam(0.05)", progress=False,
        transform="Compose((RandomResizedCrop(0.05, 0.99, None), Noise(0.02082)))",
    )  # fmt: skip
    np.testing.assert_allclose(result.images, plain.images, atol=1e-4)
    np.testing.assert_allclose(result.clean_scores, plain.clean_scores, rtol=1e-3)


@pytest.mark.thorough
def test_accentuation_is_nearer_to_the_image_the_greater_the_weight(toy):
    weights = (0.0, 0.1, 0.3, 1.0, 1e6)
    found = [
        drive(fv.accentuate, toy, "logits:1", PHOTOGRAPHS, keep=weight, **ACCENTUATED)
        for weight in weights
    ]
    original = np.asarray(toy(PHOTOGRAPHS)["logits"])[:, 1]
    distances, psnr = (
        np.array([one.evidence[name] for one in found]) for name in ("distance", "psnr")
    )
    assert np.all(np.diff(distances, axis=0) < 0)
    assert np.all(np.diff(psnr, axis=0) > 0)
    for weight, one in zip(weights, found, strict=True):
        np.testing.assert_allclose(one.evidence["original_score"], original, rtol=1e-5)
        acts = toy(one.images)
        score = np.asarray(acts["logits"])[:, 1]
        np.testing.assert_allclose(one.evidence["score"], score, rtol=1e-4)
        apart = np.asarray(acts["relu"]) - np.asarray(toy(PHOTOGRAPHS)["relu"])
        away = np.sqrt((apart**2).sum(-1)).mean((1, 2))
        whole = score - weight * one.evidence["balance"] * away
        np.testing.assert_allclose(one.clean_scores, whole, rtol=1e-3, atol=1e-3)
    assert np.all(found[0].evidence["score"] > original + 0.1)
    # A large weight gives the image back.
    assert np.all(psnr[-1] > 60)


@pytest.mark.thorough
def test_the_first_step_of_an_accentuation_goes_less_far_the_greater_the_weight(toy):
    steps = [
        drive(
            fv.accentuate, toy, "logits:1", PHOTOGRAPHS, layer="relu", keep=weight, steps=1,
            transform="none", draws=1, optimizer="sgd(1e-4)", parameterization="BoundedPixels",
        )
        for weight in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    moved = [np.abs(one.images - PHOTOGRAPHS).sum((1, 2, 3)) for one in steps]
    # At the image itself the distance has no gradient that could be blown up.
    np.testing.assert_allclose(moved[1], moved[0], rtol=1e-3)
    np.testing.assert_allclose(moved[2], moved[0], rtol=1e-3)


@pytest.mark.thorough
def test_the_balance_of_an_accentuation_is_the_ratio_of_both_pulls(linear):
    # Of a vector, r = ‖Wᵀ(x−x₀)‖ has the gradient W·u, where u is the direction in the layer.
    x = photographs(2, SIZE)
    options = {
        "layer": "logits", "steps": 1, "transform": "none", "draws": 1, "optimizer": "sgd(0.0)",
        "parameterization": "BoundedPixels", "seed": 7,
    }  # fmt: skip
    found = drive(fv.accentuate, linear, "channel('logits', 2)", x, **options).evidence["balance"]
    w = np.asarray(linear.params.weights["w"], np.float64)
    u = np.random.default_rng(0).normal(size=(1000, 4))
    pulls = np.abs((u / np.linalg.norm(u, axis=1, keepdims=True)) @ w.T).sum(1)
    ratios = np.abs(w[:, 2]).sum() / pulls
    assert np.all((ratios.min() * 0.99 < found) & (found < ratios.max() * 1.01))
    # Twice the unit is twice the balance, and another layer's scale is the balance's too.
    twice = drive(fv.accentuate, linear, "2*channel('logits', 2)", x, **options).evidence["balance"]
    np.testing.assert_allclose(twice, 2 * found, rtol=1e-5)


# ---- evidence ------------------------------------------------------------------------------


@pytest.mark.thorough
def test_evidence_of_an_inversion_is_that_of_the_metrics(toy):
    result = drive(fv.invert, toy, "relu", PHOTOGRAPHS, steps=3)
    found, original = toy(result.images), toy(PHOTOGRAPHS)
    y, y0 = np.asarray(found["relu"]), np.asarray(original["relu"])
    wanted = {
        "relative_error": metrics.relative_error(y, y0),
        "psnr": metrics.psnr(result.images, PHOTOGRAPHS),
        "spearman": metrics.spearman(y, y0),
        "signal_to_noise": metrics.signal_to_noise(y, y0),
        "naturalness": metrics.naturalness(result.images, PHOTOGRAPHS),
        "pairwise_error": metrics.pairwise_error(y, y0),
        "same_class": metrics.same_class(found["logits"], original["logits"]),
    }
    assert set(result.evidence) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(result.evidence[name], values, rtol=1e-6, err_msg=name)
    # The likeness is the logarithm of it, less a little total variation.
    prior = 20 * np.asarray(fv.TotalVariation(2.0)({}, result.images))
    np.testing.assert_allclose(
        result.clean_scores, -np.log(result.evidence["relative_error"]) - prior, rtol=1e-4
    )
    assert set(result[1].evidence) == set(wanted)


def test_several_pre_images_of_one_image(toy):
    same = np.repeat(PHOTOGRAPHS[:1], 2, 0)
    result = drive(fv.invert, toy, "relu", same, steps=3, seed=[3, 4])
    assert "pairwise_error" not in result.evidence
    assert np.abs(result.images[0] - result.images[1]).max() > 1e-5


def test_evidence_of_a_network_without_classes(invertible):
    image = np.full((*SIZE, 3), 0.4, np.float32)
    result = drive(fv.invert, invertible, "mixed", image, preset="metamer", steps=400)
    assert set(result.evidence) == {
        "relative_error", "psnr", "spearman", "signal_to_noise", "naturalness"
    }  # fmt: skip


# ---- classes -------------------------------------------------------------------------------

QUICK = {"preset": "simonyan2013", "steps": 12, "optimizer": "adam(0.01)"}


@pytest.mark.thorough
def test_classes_by_number_by_name_and_several(toy):
    number = drive(fv.class_model, toy, 2, **QUICK)
    name = drive(fv.class_model, toy, "c", **QUICK)
    np.testing.assert_array_equal(number.images, name.images)
    assert last_run(number.manifest)["objective"].startswith("1.0*logits:2 ")
    several = drive(fv.class_model, toy, ["e", 2, "0"], **QUICK)
    assert len(several) == 3
    np.testing.assert_allclose(several.images[1], number.images[0], atol=1e-5)
    logits = np.asarray(toy(several.images)["logits"], np.float64)
    wanted = [4, 2, 0]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for i, index in enumerate(wanted):
        assert several.evidence["logit"][i] == pytest.approx(logits[i, index], rel=1e-4)
        assert several.evidence["probability"][i] == pytest.approx(shares[i, index], rel=1e-4)
        assert several.evidence["rank"][i] == 1 + np.sum(logits[i] > logits[i, index])


def test_rank_counts_the_classes_above(toy):
    image = PHOTOGRAPHS[0]
    logits = np.asarray(toy(image[None])["logits"])[0]
    options = {**QUICK, "steps": 1, "init": image, "optimizer": "sgd(0.0)"}
    ranks = [drive(fv.class_model, toy, i, **options).evidence["rank"][0] for i in range(5)]
    assert ranks == [1 + np.sum(logits > score) for score in logits]
    assert sorted(ranks) == [1, 2, 3, 4, 5]


@pytest.mark.thorough
def test_what_of_a_class_is_maximised(toy):
    result = drive(fv.class_model, toy, 1, of="probability", **QUICK)
    assert last_run(result.manifest)["objective"].startswith("1.0*probability(1) ")
    np.testing.assert_allclose(
        result.evidence["probability"],
        jax.nn.softmax(np.asarray(toy(result.images)["logits"]))[:, 1],
        rtol=1e-5,
    )
    at = methods.setting_of(toy, "logits", TOY_SIZE, None)
    assert methods.plug_in(at).of == "log_probability"
    assert methods.visualization(at).of == methods.simonyan2013(at).of == "score"


def test_a_name_of_several_classes_lists_them(toy):
    model = dataclasses.replace(toy, labels=("tiger cat", "tabby cat", "dog", "fox", "crab"))
    with pytest.raises(fv.InputError, match=r"2 classes .* 0 'tiger cat', 1 'tabby cat'"):
        fv.class_model(model, "cat")
    with pytest.raises(fv.InputError, match=r"nearest: .*'crab'"):
        fv.class_model(model, ["dog", "crabs"])


# ---- compiling -----------------------------------------------------------------------------


@pytest.mark.thorough
def test_another_class_image_or_strength_compiles_nothing(toy):
    others = photographs(seed=9)
    steps = {"steps": 3, "progress": False}
    runs = [
        lambda images, i: fv.class_model(toy, i, **QUICK, progress=False),
        lambda images, i: fv.class_model(toy, [i, 3], **QUICK, progress=False),
        lambda images, i: fv.invert(toy, "relu", images, preset="ijcv2016", seed=i, **steps),
        lambda images, i: fv.invert(toy, "relu", images, **steps),
        lambda images, i: fv.caricature(
            toy, "relu", images, strength=1.0 + i, steps=40, progress=False
        ),
        lambda images, i: fv.accentuate(
            toy, f"logits:{i}", images, layer="relu", keep=0.5 + 0.5 * i, draws=2, **steps
        ),
    ]
    for run in runs:
        first = run(PHOTOGRAPHS, 0)
        with Compiled() as compiled:
            second = run(others, 1)
        parts = ("start_state", "take_steps", "decode_images", "evaluate_images")
        assert not [part for part in parts if compiled.count(part)]
        assert np.abs(first.images - second.images).max() > 1e-3
    with Compiled() as compiled:
        run(PHOTOGRAPHS[:1], 0)
    assert compiled.steps == 1


# ---- stages, snapshots, replay -------------------------------------------------------------


def test_stages_go_on_from_each_other_and_replay_to_the_bit(toy, tmp_path):
    result = drive(
        fv.invert, toy, "relu", PHOTOGRAPHS, preset="ijcv2016", steps=7, snapshots=7, seed=5
    )
    assert sorted(result.snapshots) == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(result.snapshots[7], result.images)
    assert result.scores.shape == (7, 2)
    assert result.steps.tolist() == [7, 7]
    assert result.stopped == ("steps", "steps")
    # 6 steps, and 1 at a tenth of the rate.
    assert [run["steps"] for run in runs_of(result.manifest)] == [6, 1]
    moves = [np.abs(result.snapshots[s + 1] - result.snapshots[s]).max() for s in (1, 6)]
    assert moves[1] > 0
    again = fv.replay(result.save(tmp_path / "both"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, result.images)
    np.testing.assert_array_equal(again.scores, result.scores)
    np.testing.assert_array_equal(again.snapshots[3], result.snapshots[3])
    alone = fv.replay(result[1].save(tmp_path / "one"), model=toy, progress=False)
    np.testing.assert_array_equal(alone.images, result.images[1:])
    few = drive(fv.invert, toy, "relu", PHOTOGRAPHS, preset="ijcv2016", steps=7, snapshots=[2, 7])
    assert sorted(few.snapshots) == [2, 7]
    with pytest.raises(fv.InputError, match="snapshots must be 0 to 7"):
        drive(fv.invert, toy, "relu", PHOTOGRAPHS, preset="ijcv2016", steps=7, snapshots=8)


@pytest.mark.thorough
def test_plug_in_replays_over_all_its_sizes(toy, tmp_path, monkeypatch):
    whole = methods.plug_in

    def short(at):
        recipe = whole(at)
        return dataclasses.replace(recipe, stages=recipe.stages[::3])

    monkeypatch.setitem(recipes._PRESETS["inversion"], "plug_in", short)
    result = drive(fv.invert, toy, "relu", PHOTOGRAPHS[0], preset="plug_in", steps=14)
    monkeypatch.undo()
    assert len(result.scores) == 6
    for run, size in zip(runs_of(result.manifest), [(3, 4), (8, 10), (12, 16)], strict=True):
        assert f"BoundedPixels(size={size}" in run["parameterization"]
    again = fv.replay(result.save(tmp_path / "a"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, result.images)


@pytest.mark.thorough
def test_others_replay_to_the_bit(toy, tmp_path):
    mask = np.zeros((1, *TOY_SIZE), np.float32)
    mask[:, 3:8, 5:10] = 1
    eight_bits = (np.round(PHOTOGRAPHS * 255) / np.float32(255)).astype(np.float32)
    results = [
        drive(fv.invert, toy, "relu", eight_bits, mask=mask, steps=3),
        drive(fv.caricature, toy, "relu", PHOTOGRAPHS, steps=40),
        drive(fv.accentuate, toy, "logits:0", PHOTOGRAPHS, layer="relu", steps=3, draws=2),
        drive(fv.class_model, toy, ["a", "b"], **QUICK),
    ]
    # A leaky gradient, of one rectifier before the layer.
    assert last_run(results[0].manifest)["model"]["leak"] == 1
    for i, result in enumerate(results):
        again = fv.replay(result.save(tmp_path / f"{i}"), model=toy, progress=False)
        np.testing.assert_array_equal(again.images, result.images)
        np.testing.assert_array_equal(again.clean_scores, result.clean_scores)


def test_an_interrupt_ends_the_run_and_not_its_stage_alone(toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(
            "featvis.synthesis.terminal.interruptible", lambda: contextlib.nullcontext(lambda: True)
        )
        result = drive(fv.invert, toy, "relu", PHOTOGRAPHS, preset="ijcv2016", snapshots=[3, 340])
    assert result.stopped == ("interrupt", "interrupt")
    assert 0 < len(result.scores) < 300
    assert len(runs_of(result.manifest)) == 1
    assert sorted(result.snapshots) == [3]
    assert np.all(result.evidence["relative_error"] > 0)
    again = fv.replay(result.save(tmp_path / "a"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, result.images)


@pytest.mark.thorough
def test_a_nan_ends_the_run_with_what_there_was():
    def apply(params, image):
        return {"root": jnp.sqrt(0.6 - image)}

    model = fv.from_function(apply, {}, input=fv.Input(SIZE))
    near = np.full((*SIZE, 3), 0.59, np.float32)
    far = np.full((*SIZE, 3), 0.4, np.float32)
    with pytest.raises(fv.NonFiniteError, match=r"at step \d+ of image 0: the term") as caught:
        drive(fv.invert, model, "root", near, preset="ijcv2016", init=far)
    result = caught.value.result
    assert result.stopped == ("non-finite",)
    assert 0 < len(result.scores) < 300
    assert np.all(np.isfinite(result.images))
    assert len(runs_of(result.manifest)) == 1


@pytest.mark.thorough
def test_options_go_to_every_stage(toy):
    result = drive(
        fv.invert, toy, "relu", PHOTOGRAPHS[0], preset="ijcv2016", steps=7, draws=2,
        transform="Roll(2)", optimizer="sgd(0.1)", parameterization="pixels", patience=5,
    )  # fmt: skip
    for run in runs_of(result.manifest):
        assert (run["draws"], run["transform"]) == (2, "Roll(shift=2)")
        assert (run["optimizer"], run["patience"]) == ("sgd(0.1)", 5)
        assert run["parameterization"].startswith("Pixels(")


# ---- images and mistakes -------------------------------------------------------------------


@pytest.mark.thorough
def test_pictures_from_files_and_arrays_of_any_size(toy, tmp_path):
    levels = np.round(photographs(2, (12, 16)) * 255).astype(np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, picture in zip(paths, levels, strict=True):
        Image.fromarray(picture).save(path)
    quick = {"preset": "metamer", "steps": 2}
    arrays = drive(fv.invert, toy, "relu", levels / np.float32(255), **quick)
    files = drive(fv.invert, toy, "relu", paths, **quick)
    np.testing.assert_array_equal(files.images, arrays.images)
    one = drive(fv.invert, toy, "relu", str(paths[1]), **quick)
    np.testing.assert_allclose(one.evidence["psnr"], files.evidence["psnr"][1:], atol=3)
    smaller = drive(fv.invert, toy, "relu", paths[0], size=(9, 11), **quick)
    assert smaller.images.shape == (1, 9, 11, 3)
    other = photographs(1, (9, 11))
    # A text has the size of the images, not the network's own.
    text = drive(fv.invert, toy, "relu", other[0], parameterization="pixels", **quick)
    assert text.images.shape == (1, 9, 11, 3)
    Image.fromarray(levels[0, :8, :8]).save(tmp_path / "small.png")
    with pytest.warns(fv.ConversionWarning, match="enlarged from 8x8"):
        drive(fv.invert, toy, "relu", tmp_path / "small.png", size=(9, 11), **quick)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: fv.invert(m, "relu", x, size=(9, 9)), fv.InputError, "size is of picture"),
        (lambda m, x: fv.invert(m, "relu", "none.png"), fv.InputError, "no file none.png"),
        (lambda m, x: fv.invert(m, "relu", []), fv.InputError, "got an array"),
        (lambda m, x: fv.invert(m, "relu", x + 1), fv.InputError, r"images must be in \[0, 1\]"),
        (lambda m, x: fv.invert(m, "relu", x[..., :1]), fv.InputError, "3 channels"),
        (lambda m, x: fv.invert(m, "rlu", x), fv.UnknownLayer, "nearest: relu"),
        (lambda m, x: fv.invert(m, "relu", x, preset="plugin"), fv.InputError, "nearest: plug_in"),
        (lambda m, x: fv.invert(m, "relu", x, steps=0), fv.InputError, "steps must be an integer"),
        (lambda m, x: fv.invert(m, "relu", x, seed=-1), fv.InputError, "seed must be"),
        (
            lambda m, x: fv.invert(m, "relu", x, parameterization="Pixels((8, 8))"),
            fv.InputError,
            r"has the size \(8, 8\), and \(12, 16\)",
        ),
        (
            lambda m, x: fv.invert(m, "relu", x, mask=np.ones((1, 3, 3))),
            fv.ObjectiveError,
            "the mask has shape",
        ),
        (lambda m, x: fv.invert(m, "relu", x, seed=[1, 2, 3]), fv.InputError, "different numbers"),
        (
            lambda m, x: fv.caricature(m, "relu", x, strength=-1),
            fv.InputError,
            "at least 0; got -1",
        ),
        (
            lambda m, x: fv.caricature(m, "relu", x, strength=float("nan")),
            fv.InputError,
            "strength must be a number of at least 0; got nan",
        ),
        (
            lambda m, x: fv.caricature(m, "relu", x, preset="metamer"),
            fv.InputError,
            "known: modern, ijcv2016",
        ),
        (lambda m, x: fv.class_model(m, []), fv.InputError, "at least one class"),
        (lambda m, x: fv.class_model(m, 5), fv.InputError, "classes 0 to 4, not 5"),
        (lambda m, x: fv.class_model(m, 1, of="odds"), fv.InputError, "of must be one of score"),
        (lambda m, x: fv.class_model(m, 1, size=(4, 4)), fv.InputError, "at least 8x8"),
        (lambda m, x: fv.class_model(m, 1, preset="simonyan"), fv.InputError, "simonyan2013"),
        (
            lambda m, x: fv.accentuate(m, "logits:1", x, layer="relu", keep=-1),
            fv.ObjectiveError,
            "keep must be at least 0",
        ),
        (lambda m, x: fv.accentuate(m, "logts:1", x, layer="relu"), fv.UnknownLayer, "logits"),
        (lambda m, x: fv.accentuate(m, "logits:1", x, layer="rel"), fv.UnknownLayer, "relu"),
        (lambda m, x: fv.accentuate(m, 3, x, layer="relu"), fv.InputError, "must be an Objective"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(toy, monkeypatch, call, error, message):
    monkeypatch.setattr("featvis.synthesis.run.take_steps", None)
    with pytest.raises(error, match=message) as caught:
        call(toy, PHOTOGRAPHS)
    assert "\n" not in str(caught.value)


def test_a_network_with_labels_and_no_logits_says_so(invertible):
    model = dataclasses.replace(invertible, labels=("a", "b"))
    with pytest.raises(
        fv.InputError, match=r"none of its layers is called 'logits'; .*\(logits=\)"
    ):
        fv.class_model(model, "a")


@pytest.mark.thorough
def test_drivers_take_a_networks_name():
    with pytest.raises(fv.UnknownModel, match="efficientnet_lite0"):
        methods.invert("efficientnet_lite", "block1", PHOTOGRAPHS)
