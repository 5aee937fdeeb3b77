"""The experiment on the units of digit networks, against answers in closed form."""

import gzip
import itertools
import struct
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")

PATH = Path(__file__).parents[2] / "experiments" / "erhan_units.py"


@pytest.fixture(scope="module")
def erhan(experiment):
    return experiment("erhan_units")


def layer_of(erhan, seed, inputs, units, scale=1.0):
    rng = np.random.default_rng(seed)
    parts = (rng.normal(size=shape) * scale for shape in ((inputs, units), units, inputs))
    return erhan.Layer(*(jnp.asarray(part, jnp.float32) for part in parts))


def cosine(a, b):
    a, b = np.ravel(a), np.ravel(b)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def states(units):
    return np.array(list(itertools.product((0, 1), repeat=units)), np.float32)


def joint(layer):
    """The exact P(x, h) of a machine, (2^inputs, 2^units), by enumeration."""
    x, h = states(len(layer.visible)), states(len(layer.bias))
    kernel, bias, visible = (np.asarray(part, np.float64) for part in layer)
    weight = np.exp(x @ kernel @ h.T + h @ bias + (x @ visible)[:, None])
    return weight / weight.sum()


def likelihoods(probability, x):
    """P of each state of x (m, inputs) under independent units (n, inputs): (n, m)."""
    p = np.asarray(probability, np.float64)[:, None]
    return np.prod(np.where(x == 1, p, 1 - p), axis=2)


# ---- data ----------------------------------------------------------------------------------


def idx(images, magic=0x803):
    return struct.pack(">4I", magic, *images.shape) + images.tobytes()


def write(folder, content):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    return folder


def test_mnist_is_read_as_it_was_written(erhan, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    read = erhan.read_mnist(write(tmp_path, gzip.compress(idx(images))))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(np.round(read * 255), images)


IMAGES = np.zeros((3, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no .*train-images-idx3-ubyte.gz"),
        (b"no gzip", "is not a whole gzip file"),
        (gzip.compress(idx(IMAGES))[:-20], "is not a whole gzip file"),
        (gzip.compress(idx(IMAGES)[:-1]), "2351 pixels; its header promises 3 images of 28 x 28"),
        (gzip.compress(idx(IMAGES, 0x801)), "starts with 0x00000801, not 0x00000803"),
        (gzip.compress(b""), "starts with 0x00000000"),
        (gzip.compress(idx(IMAGES[:0])), "no image"),
    ],
    # A compressed file holds the time: as its own id a case would be another in each process.
    ids=["none", "no gzip", "cut", "a pixel less", "labels", "empty", "no image"],
)
def test_a_bad_mnist_folder_is_said_in_one_line(erhan, tmp_path, content, message):
    folder = tmp_path if content is None else write(tmp_path, content)
    with pytest.raises(fv.InputError, match=message) as error:
        erhan.read_mnist(folder)
    assert "\n" not in str(error.value)


# ---- training ------------------------------------------------------------------------------


@pytest.mark.thorough
def test_contrastive_divergence_is_at_rest_at_the_models_own_distribution(erhan):
    layer = layer_of(erhan, 1, 6, 3)
    x, exact = states(6), joint(layer).sum(axis=1)
    count = 100_000
    rng = np.random.default_rng(0)
    own, other = (x[rng.choice(len(x), count, p=p)] for p in (exact, exact[::-1]))
    gradient = jax.jit(erhan.contrastive_divergence)
    rest, moving = (gradient(layer, jnp.asarray(v), jax.random.key(0)) for v in (own, other))
    # A difference of two means of numbers in [0, 1], of standard deviation below 1/sqrt(count).
    assert max(float(jnp.abs(part).max()) for part in rest) < 5 / np.sqrt(count)
    # Elsewhere it goes down the exact slope: what the model expects less what the data have.
    h = erhan.up(layer, x)
    difference = exact - exact[::-1]
    slopes = (x.T * difference) @ h, difference @ h, difference @ x
    for part, slope in zip(moving, slopes, strict=True):
        assert cosine(part, slope) > 0.9


@pytest.mark.thorough
def test_contrastive_divergence_learns_the_digits_and_the_seed_is_all_its_luck(erhan):
    pytest.importorskip("sklearn")
    digits = jnp.asarray(erhan.bundled_digits().reshape(-1, 64))
    data, held_out = digits[:1600], digits[1600:]

    def train(seed):
        key = jax.random.key(seed)
        return erhan.train(erhan.contrastive_divergence, data, (64, 64), 400, 0.05, key)

    layers, again, another = train(0), train(0), train(1)
    spread = float(jnp.var(held_out, axis=0).mean())
    before = erhan.untrained(data, 64, jax.random.key(0))
    assert erhan.reconstruction_error(before, held_out) > 0.9 * spread
    assert erhan.reconstruction_error(layers[0], held_out) < 0.6 * spread
    codes = erhan.up(layers[0], held_out)
    assert erhan.reconstruction_error(layers[1], codes) < 0.6 * float(jnp.var(codes, axis=0).mean())
    for one, same, different in zip(layers, again, another, strict=True):
        np.testing.assert_array_equal(one.kernel, same.kernel)
        assert not np.allclose(one.kernel, different.kernel)


@pytest.mark.thorough
@pytest.mark.parametrize("masked", [0.0, 1.0])
def test_denoising_has_the_slope_of_the_cross_entropy(erhan, monkeypatch, masked):
    monkeypatch.setattr(erhan, "MASKED", masked)
    layer = layer_of(erhan, 10, 6, 3)
    x = np.random.default_rng(0).random((50, 6)).astype(np.float32)
    kernel, bias, visible = map(np.asarray, layer)
    seen = (1 - masked) * x
    h = 1 / (1 + np.exp(-(seen @ kernel + bias)))
    wrong = 1 / (1 + np.exp(-(h @ kernel.T + visible))) - x
    back = wrong @ kernel * h * (1 - h)
    slopes = (wrong.T @ h + seen.T @ back) / 50, back.mean(0), wrong.mean(0)
    gradient = erhan.denoising(layer, jnp.asarray(x), jax.random.key(0))
    for part, slope in zip(gradient, slopes, strict=True):
        np.testing.assert_allclose(part, slope, rtol=1e-3, atol=1e-5)


# ---- three pictures ------------------------------------------------------------------------


@pytest.mark.thorough
def test_one_layer_is_seen_alike_by_maximization_and_combination(erhan):
    layer, norm = layer_of(erhan, 2, 30, 4), 2.5
    model = erhan.as_model([layer], (5, 6), norm, "one layer")
    optima = erhan.maximise(model, "layer1", np.arange(4), norm, starts=2, steps=60)
    combined = erhan.linear_combination([layer], 1)
    np.testing.assert_array_equal(combined, layer.kernel.T)
    assert optima.inputs.shape == (4, 2, 30)
    np.testing.assert_allclose(np.linalg.norm(optima.inputs, axis=2), norm, rtol=1e-5)
    for own, filter_ in zip(optima.inputs, combined, strict=True):
        assert min(cosine(x, filter_) for x in own) > 0.999
    # The best images drive the model to what the inputs do: w · x = norm * |w|.
    best = np.linalg.norm(layer.kernel, axis=0) * norm + layer.bias
    acts = model(optima.images)["layer1/linear"]
    np.testing.assert_allclose(np.diag(acts), best, rtol=1e-3)
    assert 0 <= optima.late_gain < 1e-3


@pytest.mark.thorough
def test_one_layer_of_small_weights_is_sampled_along_its_filters(erhan):
    kernel = 0.05 * np.random.default_rng(3).normal(size=(30, 4))
    layer = erhan.Layer(*(jnp.asarray(x, jnp.float32) for x in (kernel, np.zeros(4), np.zeros(30))))
    clamped = jnp.concatenate([jnp.eye(4), jnp.zeros((1, 4))])
    start = jnp.full((2000, 30), 0.5)
    mean = erhan.clamped_samples([layer], clamped, start, jax.random.key(0), 5).mean(axis=1)
    for unit in range(4):
        assert cosine(mean[unit] - mean[-1], kernel[:, unit]) > 0.999


def test_a_machine_of_one_unit_has_its_expectation_in_closed_form(erhan):
    layer = layer_of(erhan, 4, 7, 1)
    start = jnp.full((3, 7), 0.5)
    x = erhan.clamped_samples([layer], jnp.ones((1, 1)), start, jax.random.key(0), 1)
    expected = jax.nn.sigmoid(layer.kernel[:, 0] + layer.visible)
    np.testing.assert_allclose(x, np.broadcast_to(expected, x.shape), rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("unit", [0, 2])
@pytest.mark.parametrize("depth", [1, 2])
def test_samples_of_a_clamped_unit_follow_the_exact_distribution(erhan, depth, unit):
    layers = [layer_of(erhan, 5, 6, 4, 2), layer_of(erhan, 9, 4, 3, 2)][-depth:]
    # Seldom on of itself, so that holding it at 1 changes much.
    layers[-1] = layers[-1]._replace(bias=jnp.full(3, -2.0))
    top, bottom = layers[-1], layers[0]
    on = states(len(top.bias))[:, unit] == 1
    exact = [joint(top)[:, on].sum(axis=1), joint(top).sum(axis=1)]  # clamped, and free
    exact = [p / p.sum() for p in exact]
    x = states(len(bottom.visible))
    if depth == 2:
        down = likelihoods(erhan.down(bottom, states(len(bottom.bias))), x)
        exact = [p @ down for p in exact]

    clamped = np.zeros((2, len(top.bias)), np.float32)
    clamped[0, unit] = 1
    count = 10_000
    start = jnp.full((count, len(top.visible)), 0.5)
    found = erhan.clamped_samples(layers, clamped, start, jax.random.key(0), 60)
    for row in range(2):
        estimate = likelihoods(found[row], x).mean(axis=0)
        # Each chain gives a likelihood in [0, 1], of a variance below that of a draw.
        limit = 5 * np.sqrt(exact[row] * (1 - exact[row]) / count)
        assert np.all(np.abs(estimate - exact[row]) < limit)
    assert 0.5 * np.abs(exact[0] - exact[1]).sum() > 0.2


def test_combinations_weigh_the_pictures_below_by_the_strongest_connections(erhan):
    first, second = layer_of(erhan, 7, 12, 5), layer_of(erhan, 8, 5, 3)
    whole = erhan.linear_combination([first, second], 5)
    np.testing.assert_allclose(whole, (first.kernel @ second.kernel).T, rtol=1e-4, atol=1e-5)
    single = erhan.linear_combination([first, second], 1)
    for unit in range(3):
        weights = np.asarray(second.kernel[:, unit])
        strongest = np.abs(weights).argmax()
        np.testing.assert_allclose(single[unit], weights[strongest] * first.kernel[:, strongest])
    with pytest.raises(fv.InputError, match="from 1 to 5"):
        erhan.linear_combination([first, second], 6)


# ---- the sphere ----------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_network_gets_the_pixels_of_the_sphere(erhan):
    layer, norm = layer_of(erhan, 9, 30, 4), 3.0
    sphere = erhan.Sphere((5, 6), 1, norm)
    params = sphere.init(jax.random.key(0))
    pixels = params["pixels"]
    np.testing.assert_allclose(jnp.linalg.norm(pixels), norm, rtol=1e-6)
    assert pixels.min() >= 0  # of U[0, 1]
    image = sphere.decode(sphere.project({"pixels": -7 * pixels.at[0].multiply(-1)}))
    assert image.min() >= 0
    assert image.max() <= 1
    given = sphere.encode(image)["pixels"]
    np.testing.assert_allclose(jnp.linalg.norm(given), norm, rtol=1e-6)
    second = layer_of(erhan, 11, 4, 3)
    acts = erhan.as_model([layer, second], (5, 6), norm, "two layers")(image[None])
    expected = given.reshape(1, -1) @ layer.kernel + layer.bias
    np.testing.assert_allclose(acts["layer1/linear"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(acts["layer1"], jax.nn.sigmoid(expected), rtol=1e-4)
    np.testing.assert_allclose(acts["layer2"], erhan.up(second, acts["layer1"]), rtol=1e-4)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sphere_has_a_norm(erhan, norm):
    with pytest.raises(fv.InputError, match="norm is a finite number above 0"):
        erhan.Sphere((5, 6), 1, norm)


# ---- the whole -----------------------------------------------------------------------------


def test_own_and_others(erhan):
    assert erhan.own_and_others(np.array([[1.0, 2], [4, 5]])) == (3, 3)
    np.testing.assert_allclose(
        erhan.cosines(np.array([[3.0, 4], [0, 0]]), np.array([[3.0, 4]])), [[1], [0]]
    )


@pytest.mark.thorough
def test_the_experiment_writes_its_report(erhan, tmp_path, monkeypatch, capsys):
    images = np.random.default_rng(0).integers(0, 256, (300, 6, 6)).astype(np.uint8)
    write(tmp_path, gzip.compress(idx(images)))
    monkeypatch.setattr(erhan, "QUICK", erhan.Budget((36,), 5, 4, 2, 3, 6, 2, 3))
    monkeypatch.setattr(fv, "enable_cache", lambda: None)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["erhan", str(tmp_path), "-o", str(out), "--quick"])
    erhan.main()
    assert (out / "index.html").exists()
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {
        f"{network}_{what}.png" for network in ("dbn", "sda") for what in ("layer1", "sensitivity")
    }
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "SdA, layer1, maximization, combination" in printed


def test_a_missing_folder_ends_the_experiment_with_a_line(erhan, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["erhan", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        erhan.main()
    assert capsys.readouterr().err == f"error: there is no folder {tmp_path / 'none'}\n"
