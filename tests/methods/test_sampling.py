"""Plug & Play: closed forms of linear generators, the authors' traps, MNIST, and bad input."""

import compiles
import jax
import jax.numpy as jnp
import numpy as np
import preset_cases
import pytest

import featvis as fv
from featvis import generators
from featvis.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_to_compile")

_rng = np.random.default_rng(0)
_D, _PIXELS = 3, (4, 4, 1)
#: A linear generator around grey, and a linear encoder whose product contracts.
_G = 0.03 * _rng.normal(size=(16, _D)).astype(np.float32)
_E = (np.float32(np.diag([0.9, 0.7, 0.5])) @ np.linalg.pinv(_G)).astype(np.float32)
_AGAIN = (_E @ _G).astype(np.float64)
#: A Gaussian condition: log p = −‖W·(x − grey) − t‖²/2, whose mode in codes is unique.
_W = (np.eye(_D) @ np.linalg.pinv(_G)).astype(np.float32)
_T = np.float32([1.0, -0.5, 0.25])


def _decode(params, code):
    return 0.5 + (params @ code).reshape(_PIXELS)


def _encode(params, image):
    return params @ (image - 0.5).ravel()


def _other_generator():
    return generators.from_function(
        lambda params, code: params[..., 0] * code[0],
        np.ones((28, 28, 1, 1), np.float32),
        _D,
        range=(0, 1),
    )


def _linear(scale=1.0):
    return generators.from_function(
        _decode, jnp.asarray(scale * _G), _D, encode=_encode, encoder_params=jnp.asarray(_E / scale)
    )


@pytest.fixture(scope="module")
def gaussian():
    def apply(params, image):
        off = (image - 0.5).reshape(len(image), -1) @ params["w"].T - params["t"]
        return {"log": -0.5 * jnp.sum(off**2, axis=1, keepdims=True)}

    params = {"w": jnp.asarray(_W), "t": jnp.asarray(_T)}
    return fv.from_function(apply, params, input=fv.Input((4, 4), channels=1), name="gaussian")


def _codes(model, prior, rule, n=2, steps=400, scale=1.0, seed=0, weight=1.0):
    written = fv.Latent(generator=_linear(scale), prior=fv.Consistency(prior))
    found = fv.synthesize(
        model, weight * fv.Logit(0, "log"), written, optimizer=rule, transform="none", batch=n,
        steps=steps, seed=seed, progress=False,
    )  # fmt: skip
    return found.params["code"]


@pytest.mark.thorough
def test_without_a_prior_a_chain_ends_at_the_mode_and_with_a_large_one_at_fixed_points(gaussian):
    np.testing.assert_allclose(_codes(gaussian, 0.0, "sgd(0.1)"), [_T, _T], atol=1e-4)
    # The fixed point of ε1·(EG − 1)h + (t − h) = 0, and of EG alone: 0.
    prior = 5.0
    there = np.linalg.solve(np.eye(_D) - prior * (_AGAIN - np.eye(_D)), _T)
    np.testing.assert_allclose(_codes(gaussian, prior, "sgd(0.1)")[0], there, atol=1e-4)
    large = _codes(gaussian, 1e4, "sgd(0.0001)")
    assert np.abs(large).max() < 0.01


@pytest.mark.thorough
def test_with_noise_mean_and_covariance_are_those_of_the_closed_form(gaussian):
    """h' = h + r·(ε1·(EG − 1)h + t − h) + s·noise is linear: its stationary law is known."""
    prior, rate, sd, n = 0.5, 0.2, 0.3, 4000
    found = _codes(gaussian, prior, f"chain(sgd({rate}), gaussian_noise({sd}))", n=n, steps=60)
    slope = np.eye(_D) + rate * (prior * (_AGAIN - np.eye(_D)) - np.eye(_D))
    # Σ = A·Σ·Aᵀ + s²·1, as a sum of powers.
    powers = [np.linalg.matrix_power(slope, k) for k in range(400)]
    covariance = sd**2 * sum(one @ one.T for one in powers)
    mean = np.linalg.solve(np.eye(_D) - slope, rate * _T)
    error = np.sqrt(np.diag(covariance) / n)
    assert np.all(np.abs(found.mean(0) - mean) < 3 * error)
    spread = np.cov(found.T)
    diagonal = np.diag(covariance)
    bound = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / n)
    assert np.all(np.abs(spread - covariance) < 3 * bound)
    # Each chain its own noise: neighbours do not go together.
    centred = (found - found.mean(0)) / found.std(0)
    assert abs(np.mean(centred[1:] * centred[:-1])) < 3 / np.sqrt(n * _D)


@pytest.mark.thorough
def test_another_generator_of_the_same_architecture_compiles_nothing(gaussian):
    _codes(gaussian, 0.5, "sgd(0.1)")
    with compiles.Compiled() as found:
        other = _codes(gaussian, 0.25, "sgd(0.1)", scale=2.0)
    assert found.steps == 0
    assert np.isfinite(other).all()


@pytest.mark.thorough
def test_samples_of_another_generator_compile_nothing(toy):
    def drawn(seed):
        return fv.sample(
            preset_cases.generator(seed), 2, classes=[0, 1], model=toy, steps=2, progress=False
        )

    first = drawn(0)
    with compiles.Compiled() as found:
        second = drawn(1)
    assert found.names == []
    assert np.abs(first.result.images - second.result.images).max() > 0.01


@pytest.mark.thorough
@pytest.mark.parametrize(("transform", "frame"), [("none", 0), ("Pad(2)", 2)])
def test_a_sample_is_measured_in_the_ways_that_it_is_shown(toy, transform, frame):
    found = fv.sample(
        preset_cases.generator(), 2, classes=[0, "b"], model=toy, steps=2, transform=transform,
        progress=False,
    )  # fmt: skip
    around = ((0, 0), (frame, frame), (frame, frame), (0, 0))
    shown = np.pad(found.result.images, around, constant_values=0.5)
    logits = np.asarray(toy(shown)["logits"], np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = shares[np.arange(4), [0, 0, 1, 1]]
    np.testing.assert_allclose(found.result.evidence["probability"], own, rtol=1e-4)


# ---- MNIST's generator, as it is shipped


@pytest.fixture(scope="module")
def sevens():
    return fv.sample("mnist_ppgn", 3, classes=[7, "3"], steps=60, rate=0.2, seed=1, progress=False)


@pytest.mark.thorough
def test_samples_of_the_shipped_generator_are_of_their_class(sevens):
    assert sevens.names == ("7", "3")
    assert sevens.result.images.shape == (6, 28, 28, 1)
    assert sevens.acceptance == np.mean(sevens.result.evidence["probability"] >= 0.5)
    assert sevens.acceptance >= 5 / 6
    assert len(sevens.of("7")) + len(sevens.of("3")) == len(sevens.images)
    figures = sevens.summary()["7"]
    assert 0 < figures["ms_ssim"] < 1
    assert figures["distance"] > 0


@pytest.mark.thorough
def test_the_context_of_a_hole_is_unchanged_to_the_bit(sevens):
    image = sevens.images[0]
    hole = np.zeros((28, 28))
    hole[8:20, 8:20] = 1
    filled = fv.sample(
        "mnist_ppgn", 2, classes=7, inpaint=image, mask=hole, steps=3, progress=False
    )
    outside = np.broadcast_to(hole[None, ..., None] == 0, filled.result.images.shape)
    wanted = np.broadcast_to(image, filled.result.images.shape)
    np.testing.assert_array_equal(filled.result.images[outside], wanted[outside])
    assert np.any(filled.result.images[~outside] != wanted[~outside])


_HOLE = np.pad(np.ones((4, 4)), 12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, r"one of classes, unit and words, as .*\(--class 7\); got none"),
        ({"classes": 7, "unit": "conv2:3"}, "classes and unit"),
        ({"classes": 10}, "classes 0 to 9, not 10"),
        ({"classes": "eleven"}, "no class 'eleven'"),
        ({"classes": []}, "at least one class"),
        ({"unit": "conv2:99"}, "conv2 has units 0 to 31"),
        ({"unit": "conv2"}, "a unit is one of a layer"),
        ({"words": "a seven"}, "give one as model"),
        ({"words": "a seven", "model": "mnist_judge"}, "captioner.s place is package.module:fac"),
        ({"classes": 3.5}, "a number or a name, not 3.5"),
        ({"classes": [3, "3"]}, "class '?3'? is asked for twice"),
        ({"classes": ["3+5", "5+3"]}, r"class '3\+5' is asked for twice"),
        ({"classes": "3+3"}, r"'3\+3' has a class twice; classes at once are several, as 3\+5"),
        ({"classes": {7: 1}}, r"a number, a name, or a list of them; got \{7: 1\}"),
        ({"classes": {7, 8}}, r"a list of them; got \{8, 7\}|a list of them; got \{7, 8\}"),
        ({"classes": b"7"}, "a class is a number or a name, not b'7'"),
        ({"classes": 7, "parameterization": 3}, "parameterization must be one, .*'fourier'; got 3"),
        ({"classes": 7, "preset": "ppgn_jont"}, "nearest: ppgn_joint"),
        ({"classes": 7, "keep": "first"}, "'last' or 'best'"),
        ({"classes": 7, "n": 10**9}, "n is at most 65536; got 1000000000"),
        ({"classes": [1, 2, 3], "n": 22_000}, "n is at most 21845 of each of 3 sets; got 22000"),
        ({"classes": 7, "accept": 2}, "accept is a number from 0 to 1, not 2"),
        ({"classes": 7, "seed": -1}, "seed is an integer of at least 0, not -1"),
        ({"classes": 7, "noise": np.inf}, "noise is a finite number of at least 0, not inf"),
        ({"classes": 7, "rate": 0.0, "preset": "dgn_am"}, "rate is a number above 0"),
        ({"classes": 7, "context": 1.0}, "context is of an image with a hole"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1))}, "mask is missing"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1)), "mask": 0 * _HOLE}, "empty"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1)), "mask": _HOLE / 2}, "got 0.5 in it"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1)), "mask": 0 * _HOLE + 1}, "no context"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1)), "mask": np.ones((5, 5))}, r"\(5, 5\)"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1)), "mask": "a"}, "no file a"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1)), "mask": {}}, "a mask must be an array"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1)), "mask": 255 * _HOLE}, "it: divide it by"),
        ({"classes": 7, "inpaint": np.zeros((28, 28, 1)), "mask": _HOLE, "init": 0}, "leave it"),
        ({"classes": 7, "model": 3}, "model is a featvis.Model, or the name of one; got 3"),
        ({"classes": 7, "judge": 3}, "judge is a featvis.Model, or the name of one; got 3"),
        ({"classes": 7, "judge": "mnist_classifier"}, "the judge is mnist_classifier itself"),
        ({"classes": 7, "parameterization": "pixels"}, "parameterization is of no generator: give"),
        (
            {"classes": 7, "parameterization": fv.Latent(generator=_other_generator())},
            r"Generator\(mnist_ppgn.* is of another, Generator\(of one, code \(3,\)\)",
        ),
        ({"classes": 7, "generator": 3}, "generator is a featvis.Generator, or the name of one"),
        ({"classes": 7, "generator": ["mnist_ppgn"]}, "generator is a featvis.Generator"),
        ({"classes": 7, "model": "efficientnet_lite0"}, "1 channel|channels"),
        ({"classes": 7, "generator": "mnist_ppgm"}, "nearest: mnist_ppgn"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(options, says):
    options = {"generator": "mnist_ppgn", "n": 2, **options}
    with pytest.raises((InputError, fv.UnknownModel, fv.ObjectiveError), match=says):
        fv.sample(progress=False, **options)


@pytest.mark.thorough
def test_a_unit_that_no_picture_brings_to_life_is_refused_with_those_that_live():
    with pytest.raises(InputError, match=r"code:3 is dead: .* not: code:2, code:4, code:1"):
        fv.sample("mnist_ppgn", 2, unit="code:3", progress=False)


@pytest.mark.thorough
def test_a_captioner_of_anything_but_logarithms_is_refused():
    def apply(params, images, words):
        return 3 + 0 * jnp.repeat(images.mean((1, 2)), len(words), axis=1)

    captioner = fv.Captioner(apply, (), ("a", "b"), fv.Input((28, 28), channels=1))
    with pytest.raises(InputError, match=r"gives 3 for a word of a grey image: .* at most 0"):
        fv.sample("mnist_ppgn", 2, words="a b", model=captioner, progress=False)


def test_samples_that_do_not_fit_the_memory_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("featvis.limits.available_on", lambda device: 2**20)
    with pytest.raises(fv.TooLargeError, match=r"of the 2000 images would fit"):
        fv.sample("mnist_ppgn", 2000, classes=7, progress=False)


def test_weights_of_another_generator_and_codes_of_another_shape_are_refused(tmp_path):
    from safetensors.numpy import save_file

    place = tmp_path / "other.safetensors"
    save_file({"generator/start/kernel": np.zeros((5, 5), np.float32)}, place)
    with pytest.raises(fv.CheckpointError, match="differences from CodeGenerator"):
        generators.load("mnist_ppgn", place)
    generator = generators.load("mnist_ppgn")
    with pytest.raises(InputError, match=r"takes codes \(64,\); got \(32,\)"):
        fv.Latent(generator=generator, code=(32,))
    with pytest.raises(InputError, match="write the generator as generator="):
        fv.Latent(generator)


# ---- conditions


@pytest.mark.thorough
def test_the_authors_log_p_leaves_out_what_the_other_logits_do():
    """Of a linear softmax the gradient is known: W_k − Σ p_j·W_j, and theirs (1 − p_k)·W_k."""
    weights = np.float32(_rng.normal(size=(16, 4)))

    def apply(params, image):
        return {"logits": image.reshape(len(image), -1) @ params}

    model = fv.from_function(apply, weights, input=fv.Input((4, 4), channels=1))
    x = jnp.asarray(_rng.uniform(size=(1, *_PIXELS)), jnp.float32)

    def slope(objective):
        def score(x):
            return objective(model.apply(model.params, x), x).sum()

        return jax.grad(score)(x).ravel()

    p = jax.nn.softmax(x.ravel() @ weights)
    np.testing.assert_allclose(slope(fv.LogProbability(2)), weights[:, 2] - weights @ p, atol=1e-5)
    theirs = (1 - p[2]) * weights[:, 2]
    np.testing.assert_allclose(slope(fv.DoubtedLogit(2)), theirs, atol=1e-5)
    assert np.abs(theirs - slope(fv.LogProbability(2))).max() > 0.1


def test_words_are_said_in_their_order_and_unknown_ones_are_refused():
    """The sum over words of log p, of a captioner whose words are brightness by rows."""

    def apply(params, images, words):
        rows = jax.nn.log_softmax(params * images.mean(3).mean(2)[:, : words.shape[0], None])
        return jnp.take_along_axis(rows, words[None, :, None], axis=2)[..., 0]

    captioner = fv.Captioner(
        apply, jnp.float32([1, -2, 0.5]), ("a", "dark", "row"), fv.Input((4, 4), channels=1)
    )
    x = np.float32(_rng.uniform(size=(2, *_PIXELS)))
    found = captioner.model("row a dark")(x)
    scores = np.float32([1, -2, 0.5]) * x.mean((2, 3))[:, :3, None]
    wanted = (scores - np.log(np.exp(scores).sum(2, keepdims=True)))[:, [0, 1, 2], [2, 0, 1]]
    np.testing.assert_allclose(found["words"], wanted, rtol=1e-5)
    np.testing.assert_allclose(found["sentence"][:, 0], wanted.sum(1), rtol=1e-5)
    with pytest.raises(InputError, match="no word 'rows'; nearest: row"):
        captioner.model("a rows")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"apply": 3}, "Captioner: apply is a function"),
        ({"vocabulary": ()}, "at least one, not"),
        ({"vocabulary": "abc"}, "vocabulary is a tuple of words"),
        ({"vocabulary": ("a", "a")}, "that are there once, not 'a'"),
        ({"vocabulary": ("a row",)}, "without spaces, not 'a row'"),
        ({"vocabulary": (1, 2)}, "without spaces, not 1"),
        ({"input": (28, 28)}, r"input is an Input, as Input\(\(28, 28\), channels=1\)"),
        ({"apply": lambda p, x, w: x.mean((1, 2))}, r"\(2, 2\) of images .*; it gives \(2, 1\)"),
        ({"apply": lambda p, x, w: p["no"]}, "cannot be called on images .* and 2 words: TypeErr"),
    ],
)  # fmt: skip
def test_a_captioner_that_cannot_say_words_is_refused(fields, says):
    def apply(params, images, words):
        return -jnp.repeat(images.mean((1, 2)), len(words), axis=1)

    usual = {"apply": apply, "vocabulary": ("a", "b"), "input": fv.Input((4, 4), channels=1)}
    with pytest.raises(InputError, match=says):
        fv.Captioner(params=(), **{**usual, **fields}).model("a b")
