"""Generators: the code as a parameterization, its bounds and priors, and what does not fit."""

import dataclasses
import json
import math

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import Compiled
from flax import nnx
from networks import TOY_SIZE

import featvis as fv
from featvis.synthesis import loop

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SHAPE = (*TOY_SIZE, 3)
NUMBERS = math.prod(SHAPE)
LENGTH = 6


def linear(params, code):
    """An image that is linear in its code, around mid-grey."""
    return 0.5 + (code @ params).reshape(SHAPE)


def least_squares(params, image):
    return (image - 0.5).reshape(-1) @ params


def orthonormal(seed):
    rows = np.random.default_rng(seed).normal(size=(NUMBERS, LENGTH))
    return np.linalg.qr(rows)[0].T.astype(np.float32)


def of_lines(seed=0, encoder=None):
    """A linear generator and its inverse, or another encoder's weights."""
    params = orthonormal(seed)
    inverse = params.T if encoder is None else encoder
    return fv.Generator(
        linear, (LENGTH,), params=params, encoder=least_squares, encoder_params=inverse
    )


def factory(weights=None):
    """One's own generator, found by its place; `weights` are a seed here."""
    return of_lines(int(weights or 0))


def silent_factory():
    return "nothing"


PLACE = "test_generators:factory"


def run(toy, way, objective="linear:1", **options):
    options = {"steps": 3, "transform": "none", "optimizer": "sgd(0.1)", **options}
    return fv.synthesize(toy, objective, way, progress=False, **options)


@pytest.fixture(scope="module")
def lines():
    return of_lines()


@pytest.fixture(scope="module")
def made(toy, lines):
    return run(toy, fv.Latent(generator=lines))


# ---- the program ----------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_second_generator_compiles_nothing(toy, made):
    with Compiled() as compiled:
        other = run(toy, fv.Latent(generator=of_lines(1)))
    assert compiled.names == []
    assert np.abs(other.images - made.images).max() > 0.01


def test_bounds_and_weights_of_priors_are_data_too(toy, lines):
    def way(high, weight, decay):
        priors = (fv.NormalPrior(weight), fv.Consistency(weight))
        return fv.Latent(generator=lines, low=-1.0, high=high, decay=decay, prior=priors)

    first = run(toy, way(np.full(LENGTH, 2, np.float32), 0.1, 0.01))
    with Compiled() as compiled:
        second = run(toy, way(np.full(LENGTH, 3, np.float32), 0.7, 0.02))
    assert compiled.names == []
    assert np.any(first.images != second.images)


def test_weights_are_no_constants_of_the_program(toy, lines):
    way = fv.Latent(generator=lines)
    text = loop.decode_images.lower(way, {"code": jnp.zeros((1, LENGTH))}).as_text()
    assert f"tensor<{LENGTH}x{NUMBERS}xf32>" in text
    assert len(text) < 10_000


# ---- what holds a code ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "code", "wanted"),
    [
        ({"low": 0.0, "high": [1, 1, 2, 2, 3, 3]}, [-1, 0.5, 3, 2, 9, 1], [0, 0.5, 2, 2, 3, 1]),
        ({"radius": 1.0}, [3, 0, 0, 0, 0, 0], [math.sqrt(6), 0, 0, 0, 0, 0]),
        ({"radius": 2.0}, [1, -1, 1, 1, 1, 1], [1, -1, 1, 1, 1, 1]),
        ({"radius": 2.0, "sphere": True}, [1, -1, 1, 1, 1, 1], [2, -2, 2, 2, 2, 2]),
        ({"radius": 1.0, "sphere": True}, [0] * 6, [0] * 6),
        # Squares of these are beyond float32.
        ({"radius": 2.0, "sphere": True}, [1e38, -1e38] * 3, [2, -2] * 3),
        ({"radius": 1.0}, [3e38, 0, 0, 0, 0, 0], [math.sqrt(6), 0, 0, 0, 0, 0]),
        ({"radius": 1e30}, [1e29, -1e29] * 3, [1e29, -1e29] * 3),
        ({"decay": 0.25}, [4, -8, 0, 0, 0, 0], [3, -6, 0, 0, 0, 0]),
    ],
)
def test_a_code_is_kept_in_its_bounds(lines, bounds, code, wanted):
    given = {k: np.float32(v) if isinstance(v, list) else v for k, v in bounds.items()}
    found = fv.Latent(generator=lines, **given).project({"code": jnp.float32(code)})
    np.testing.assert_allclose(found["code"], wanted, rtol=1e-6, atol=1e-7)


def test_each_step_keeps_the_bounds(toy, lines):
    high = np.linspace(0.1, 0.6, LENGTH, dtype=np.float32)
    result = run(toy, fv.Latent(generator=lines, low=0.0, high=high), optimizer="sgd(100.0)")
    code = result.params["code"]
    assert np.all((code == 0) | (code == high))
    assert np.any(code == high)


def test_a_white_code_steps_along_what_numbers_do_together(toy, lines):
    # Of a code c + A·z the gradient by z of a linear unit is Aᵀ·b: the code moves by r·A·Aᵀ·b.
    rng = np.random.default_rng(0)
    factor, mean = np.float32(rng.normal(size=(2, LENGTH, LENGTH)) / 9)[0], np.float32([0.5] * 6)
    factor[2] = 0
    way = fv.Latent(generator=lines, mean=mean, factor=factor, white=True)
    plain = dataclasses.replace(way, white=False)
    # The law of the first code is the same.
    drawn, key = way.init(jax.random.key(1)), jax.random.key(1)
    np.testing.assert_array_equal(way.decode(drawn), plain.decode(plain.init(key)))
    z = np.float32(rng.normal(size=(1, LENGTH)))
    result = run(toy, way, init={"white": z}, steps=3, optimizer="sgd(0.1)")
    slope = lines.params @ np.asarray(toy.params["linear"][..., 1]).reshape(-1)
    moved = z[0] + 3 * 0.1 * factor.T @ slope
    np.testing.assert_allclose(result.params["white"][0], moved, rtol=1e-4, atol=1e-6)
    code = plain.encode(jnp.asarray(result.images[0]))["code"]
    np.testing.assert_allclose(code, mean + factor @ moved, atol=1e-4)
    assert code[2] == pytest.approx(0.5, abs=1e-5)
    # What draws the code to another goes back through the same matrix.
    other = jnp.arange(6.0)
    pulled = way.towards({"white": jnp.asarray(moved)}, other)["white"]
    np.testing.assert_allclose(pulled, factor.T @ (other - code), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("spread", [{"factor": np.diag(np.float32([1, 2, 3, 4, 5, 6]))},
                                    {"sd": np.float32([1, 2, 3, 4, 5, 6])}])  # fmt: skip
def test_the_bounds_of_a_white_code_are_its_box_and_the_radius_of_its_draw(lines, spread):
    way = fv.Latent(generator=lines, white=True, radius=2.0, sphere=True, low=0.0, **spread)
    kept = way.project({"white": jnp.float32([1, -1, 1, 1, 1, 1])})
    np.testing.assert_allclose(kept["white"], [2, -2, 2, 2, 2, 2], rtol=1e-6)
    wanted = lines.decode(jnp.float32([2, 0, 6, 8, 10, 12]))
    np.testing.assert_allclose(way.decode(kept), np.clip(wanted, 0, 1), atol=1e-5)
    small = way.encode(lines.decode(jnp.float32([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])))
    np.testing.assert_allclose(small["white"], [2.0] * 6, rtol=1e-3)


def test_a_normal_prior_and_a_linear_unit_meet_where_they_balance(toy, lines):
    # Its gradient by the code is the constant b: weight · (code − mean) / sd² = b.
    mean, sd = np.arange(LENGTH, dtype=np.float32) / 10, np.linspace(0.5, 1, LENGTH)
    prior = fv.NormalPrior(8.0, mean=mean, sd=sd.astype(np.float32))
    way = fv.Latent(generator=lines, mean=mean, sd=0.0, prior=prior)
    result = run(toy, way, steps=200, optimizer="sgd(0.02)")
    slope = lines.params @ np.asarray(toy.params["linear"][..., 1]).reshape(-1)
    np.testing.assert_allclose(result.params["code"][0], mean + slope * sd**2 / 8, rtol=1e-4)
    # The prior has no part in the scores.
    np.testing.assert_allclose(
        result.clean_scores, toy(result.images)["linear"][:, 1], rtol=1e-5, atol=1e-5
    )


def test_consistency_draws_to_what_the_encoder_makes(lines):
    encoder = of_lines(encoder=0.5 * lines.params.T)
    way = fv.Latent(generator=encoder, prior=fv.Consistency(0.4))
    code = jnp.arange(1.0, LENGTH + 1)
    np.testing.assert_allclose(way.pull({"code": code})["code"], -0.4 * 0.5 * code, rtol=1e-4)
    # Around another parameterization the code is drawn as well.
    around = fv.Region(TOY_SIZE, of=way, box=(0, 0, 4, 4))
    assert set(around.pull({"code": code})) == {"code"}


def test_a_learned_autoencoder_of_codes_is_data(toy, lines):
    def halved(params, code):
        return params * code

    def way(factor):
        prior = fv.Reconstruction(2.0, halved, params=np.float32([factor]))
        return fv.Latent(generator=lines, prior=prior)

    code = jnp.ones(LENGTH)
    np.testing.assert_allclose(way(0.5).pull({"code": code})["code"], -1 * np.ones(LENGTH))
    result = run(toy, way(0.5))
    with pytest.raises(fv.InputError, match="pass parameterization="):
        fv.replay(result.manifest, model=toy, progress=False)
    again = fv.replay(result.manifest, model=toy, progress=False, parameterization=way(0.5))
    np.testing.assert_array_equal(again.images, result.images)


def shown(size):
    return fv.Generator(
        lambda params, code: 0.5 + code, (*size, 3), params=(),
        encoder=lambda params, image: image - 0.5, encoder_params=(),
    )  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("size", [(5, 6), (4, 7)])
def test_a_code_in_waves_has_the_deviation_and_comes_back(size):
    way = fv.Latent(generator=shown(size), waves=1.0, sd=0.05)
    params = jax.jit(jax.vmap(way.init))(jax.random.split(jax.random.key(0), 2000))
    images = np.asarray(jax.jit(jax.vmap(way.decode))(params))
    # 2000 images of which each has its own mean: a few percent.
    np.testing.assert_allclose(images.std((0, 1, 2)), 0.05, rtol=0.05)
    again = way.decode(way.encode(images[0]))
    np.testing.assert_allclose(again, images[0], atol=1e-6)
    # The amplitude falls as 1 / f.
    power = (np.abs(np.fft.fft2(images - 0.5, axes=(1, 2))) ** 2).mean((0, 3))
    np.testing.assert_allclose(power[0, 1] / power[0, 2], 4, rtol=0.15)


@pytest.mark.thorough
def test_bounds_and_priors_of_waves_are_those_of_the_code():
    way = fv.Latent(
        generator=shown((5, 6)), waves=0.5, low=-0.3, high=0.3, prior=fv.NormalPrior(0.5)
    )
    params = way.init(jax.random.key(1))
    code = way.decode(params) - 0.5
    assert np.abs(code).max() <= 0.3 + 1e-6
    assert np.isclose(np.abs(code), 0.3, atol=1e-6).any()
    # The gradient of −|code|² / 4 by the waves.
    free = fv.Latent(generator=shown((5, 6)), waves=0.5, sd=0.1, prior=fv.NormalPrior(0.5))
    params = free.init(jax.random.key(1))
    slope = jax.grad(lambda p: -0.25 * jnp.sum((free.decode(p) - 0.5) ** 2))(params)
    np.testing.assert_allclose(free.pull(params)["waves"], slope["waves"], atol=1e-6)


# ---- from an image --------------------------------------------------------------------------


def test_a_run_begins_from_an_image_by_the_encoder(toy, lines, made):
    first = run(toy, fv.Latent(generator=lines), init=made.images, optimizer="sgd(0.0)", steps=1)
    np.testing.assert_allclose(first.images, made.images, atol=1e-5)
    decoder = fv.Generator(linear, (LENGTH,), params=lines.params)
    with pytest.raises(fv.InputError, match=r"has no encoder.*init=result"):
        run(toy, fv.Latent(generator=decoder), init=made.images)
    # From its own code it goes on all the same.
    assert run(toy, fv.Latent(generator=decoder), init=made.params).steps == 3


def test_another_size_is_resized_where_it_is_said_so(toy, lines):
    small = fv.Generator(lambda params, code: params * code, (6, 8, 3), params=np.float32([0.5]))
    with pytest.raises(fv.InputError, match=r"6x8 pixels, and 12x16 are asked .*resize='linear'"):
        fv.Latent(TOY_SIZE, generator=small)
    way = fv.Latent(TOY_SIZE, generator=small, resize="linear", sd=0.1)
    code = jax.random.uniform(jax.random.key(0), (6, 8, 3))
    wanted = jax.image.resize(0.5 * code, SHAPE, "linear")
    np.testing.assert_allclose(way.decode({"code": code}), wanted, atol=1e-6)
    assert "resize='linear'" in str(way)


@pytest.mark.thorough
def test_the_range_is_stated_and_what_is_beyond_it_clipped_with_a_gradient():
    def tanh(params, code):
        return jnp.tanh(code * params)

    with pytest.raises(fv.InputError, match=r"from -0\.9.* to 0\.9.*range=\(-1, 1\)"):
        fv.generators.from_function(tanh, jnp.ones(()), (4, 4, 3))
    found = fv.generators.from_function(tanh, jnp.ones(()), (4, 4, 3), range=(-1, 1))
    code = jnp.zeros((4, 4, 3)).at[0, 0, 0].set(9.0)
    image = found.decode(code)
    np.testing.assert_allclose([image[0, 0, 0], image[1, 1, 1]], [1, 0.5])
    beyond = fv.Latent(generator=fv.Generator(lambda p, z: p * z, (1, 1, 3), params=jnp.ones(())))
    params = {"code": jnp.float32([[[-2, 0.5, 3]]])}
    np.testing.assert_array_equal(beyond.decode(params)[0, 0], [0, 0.5, 1])
    slope = jax.grad(lambda params: beyond.decode(params).sum())(params)["code"]
    np.testing.assert_array_equal(slope, np.ones((1, 1, 3)))


# ---- libraries ------------------------------------------------------------------------------


class _Nnx(nnx.Module):
    def __init__(self, kernel):
        self.dense = nnx.Linear(LENGTH, NUMBERS, use_bias=False, rngs=nnx.Rngs(0))
        self.dense.kernel.set_value(kernel)
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, codes):
        return self.drop(0.5 + self.dense(codes).reshape(-1, *SHAPE))

    def encode(self, images):
        return (images - 0.5).reshape(len(images), -1) @ self.dense.kernel[...].T


class _Linen(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, codes):
        return 0.5 + flax.linen.Dense(NUMBERS, use_bias=False)(codes).reshape(-1, *SHAPE)


@pytest.mark.thorough
def test_modules_of_flax_are_generators(lines):
    module = _Nnx(lines.params)
    variables = {"params": {"Dense_0": {"kernel": lines.params}}}
    from_nnx = fv.generators.from_nnx(
        module, LENGTH, encoder=module, encoder_method="encode", range=(0, 1)
    )
    from_linen = fv.generators.from_linen(_Linen(), variables, LENGTH, range=(0, 1))
    code = jax.random.normal(jax.random.key(0), (LENGTH,))
    for one in (from_nnx, from_linen):
        np.testing.assert_allclose(one.decode(code), lines.decode(code), atol=1e-6)
        assert len(jax.tree.leaves(one.params)) == 1
        way = fv.Latent(generator=one)
        images = loop.decode_images(way, {"code": code[None]})
        np.testing.assert_allclose(images[0], np.clip(lines.decode(code), 0, 1), atol=1e-6)
        assert one.digest in str(way)
    np.testing.assert_allclose(from_nnx.encode(lines.decode(code)), code, atol=1e-5)
    # Equal modules are one program.
    twin = fv.generators.from_linen(_Linen(), variables, LENGTH, range=(0, 1))
    assert jax.tree.structure(twin) == jax.tree.structure(from_linen)
    assert not module.drop.deterministic  # it was not touched


# ---- every method ---------------------------------------------------------------------------


# A bound that holds already has no gradient.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::featvis.SilenceWarning")
def test_inversion_and_diversity_through_a_generator(toy, lines):
    way = fv.Latent(generator=lines, sd=0.1)
    wanted = np.asarray(lines.decode(jnp.linspace(-0.3, 0.3, LENGTH)))
    found = fv.invert(toy, "conv", wanted, parameterization=way, steps=4, progress=False)
    assert found.params["code"].shape == (1, LENGTH)
    several = fv.diverse(toy, "conv:1", 2, parameterization=way, steps=4, progress=False)
    assert several.params["code"].shape == (2, LENGTH)


# ---- texts and replay -----------------------------------------------------------------------


def test_a_place_is_a_text_and_its_digest_is_in_the_manifest(toy, tmp_path):
    result = run(toy, f"latent:{PLACE}=3")
    digest = of_lines(3).digest
    assert (
        f"generator('{PLACE}', sha256='{digest}')" in result.manifest["runs"][0]["parameterization"]
    )
    path = result.save(tmp_path / "unit.png")
    # The place alone makes other weights: refused, with both digests.
    other = of_lines(0).digest
    with pytest.raises(fv.InputError, match=rf"digest {other[:12]}, and {digest[:12]}"):
        fv.replay(path, model=toy, progress=False)
    with pytest.raises(fv.InputError, match=rf"digest {digest[:12]}; .* holds {other[:12]}"):
        fv.replay(path, model=toy, progress=False, parameterization=fv.Latent(generator=of_lines()))
    again = fv.replay(
        path, model=toy, progress=False, parameterization=fv.Latent(generator=of_lines(3))
    )
    np.testing.assert_array_equal(again.images, result.images)


def test_a_text_without_a_name_is_said(toy):
    with pytest.raises(fv.InputError, match=r"latent: is followed by a generator's name"):
        run(toy, "latent:")


def test_shapes_that_a_generator_does_not_take_are_said():
    made = of_lines()
    with pytest.raises(fv.InputError, match=r"takes codes .*; got \(3,\)"):
        made.decode(jnp.zeros(3))
    for code in (None, 4.5):
        with pytest.raises(fv.InputError, match="code is an integer of at least 1"):
            fv.generators.from_function(lambda params, code: code, None, code)
    with pytest.raises(fv.InputError, match="makes NaN or infinity of standard normal codes"):
        fv.generators.from_function(lambda params, code: jnp.full((8, 8, 3), jnp.nan), None, 4)


def test_what_a_place_makes_is_found_again(toy):
    result = run(toy, f"Latent(generator=generator({PLACE!r}), decay=0.5, prior=Consistency(0.1))")
    again = fv.replay(json.loads(json.dumps(result.manifest)), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, result.images)
    assert again.run.parameterization == result.run.parameterization


def test_a_map_is_written_in_waves_where_nothing_else_is_said():
    found = fv.Latent.usual(shown((5, 6)))
    assert (found.waves, found.sd, found.size) == (1.0, 0.3, (5, 6))
    assert fv.Latent.usual(of_lines()) == fv.Latent(generator=of_lines())


def test_known_generators_say_what_they_are():
    entries = {one.name: one for one in fv.generators.available()}
    assert {"taesd", "taesdxl", "taef1", "taef2", "dgn_am"} <= set(entries)
    taef2 = entries["taef2"].as_dict()
    assert (taef2["code"], taef2["stride"], taef2["encoder"]) == ([32], 8, True)
    json.dumps(taef2)


# ---- what does not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: fv.Latent(generator="taef2"), "is a Generator, as featvis.generators.load"),
        (lambda g: fv.Latent((9, 9), generator=g), "12x16 pixels, and 9x9 are asked for"),
        (lambda g: fv.Latent(generator=g, channels=1), "channels is 3, as of Generator.*not 1"),
        (lambda g: fv.Latent(generator=g, code=(5,)), r"takes codes \(6,\); got \(5,\)"),
        (lambda g: fv.Latent(generator=g, resize="lines"), "one of 'linear', 'cubic'"),
        (lambda g: fv.Latent(generator=g, low=np.zeros(5)), r"codes \(6,\), not 'one \(5,\)'"),
        (lambda g: fv.Latent(generator=g, low=1.0, high=0.0), "low is at most high, 0,"),
        (lambda g: fv.Latent(generator=g, sd=-1.0), "sd is at least 0"),
        (lambda g: fv.Latent(generator=g, mean=np.float32([np.nan])), "mean is finite"),
        (lambda g: fv.Latent(generator=g, radius=0.0), "radius is a number above 0"),
        (lambda g: fv.Latent(generator=g, sphere=True), "of the sphere"),
        (lambda g: fv.Latent(generator=g, radius=1.0, low=0.5), "low <= 0 <= high"),
        (lambda g: fv.Latent(generator=g, waves=1.0), r"waves is None: a code \(6,\) .* no map"),
        (lambda g: fv.Latent(generator=shown((4, 4)), waves=5.0), "waves is a number from 0 to 4"),
        (lambda g: fv.Latent(generator=shown((4, 4)), waves=1.0, sd=0.0), "above 0 where codes"),
        (lambda g: fv.Latent(generator=shown((4, 4)), waves=1.0, white=True), "without waves"),
        (lambda g: fv.Latent(generator=g, white=1), "white is True or False, not 1"),
        (lambda g: fv.Latent(generator=g, decay=1.5), "decay is a number from 0 to 1"),
        (lambda g: fv.Latent(generator=g, prior=0.1), "prior is a CodePrior, as NormalPrior"),
        (lambda g: fv.Latent(generator=g, prior=()), "a tuple of at least one"),
        (
            lambda g: fv.Latent(generator=g, factor=np.full((6, 6), np.nan, np.float32)),
            "factor is finite",
        ),
        (
            lambda g: fv.Latent(generator=g, prior=fv.NormalPrior(mean=np.zeros(5, np.float32))),
            r"NormalPrior: it cannot draw a code \(6,\) of Generator.*: ValueError",
        ),
        (
            lambda g: fv.Latent(
                generator=g, prior=fv.Reconstruction(1.0, lambda p, z: jnp.zeros((2, *z.shape)))
            ),
            r"Reconstruction: it draws codes \(6,\) of Generator.* by \(2, 6\), not \(6,\)",
        ),
        (
            lambda g: fv.Latent(generator=g, prior=fv.Reconstruction(1.0, lambda p, z: p["no"])),
            "Reconstruction: it cannot draw a code",
        ),
        (
            lambda g: fv.Latent(
                generator=fv.generators.from_function(linear, g.params, 6),
                prior=fv.Consistency(1.0),
            ),
            r"has no encoder, .* and without Consistency",
        ),
        (
            lambda g: fv.Inpainted(
                of=fv.Latent(generator=dataclasses.replace(g, encoder=None, encoder_params=None)),
                size=TOY_SIZE,
                box=(0, 0, 2, 2),
            ),
            "Inpainted: of is a Latent of a generator with an encoder, not",
        ),
        (
            lambda g: fv.Inpainted(
                TOY_SIZE, of=fv.Latent(generator=g), mask=np.full(TOY_SIZE, np.nan)
            ),
            r"Inpainted: mask is weights .* in \[0, 1\], not all 0; got an array .* nan to nan",
        ),
        (lambda g: fv.Latent(generator=g, low=np.float32([0, 3, 9, 0, 0, 0]), high=2.0),
         "Latent: low is at most high, 2, everywhere, not 3.0"),
        (lambda g: fv.NormalPrior(sd=0.0), "NormalPrior: sd is above 0, not 0.0"),
        (lambda g: fv.NormalPrior(mean=np.float32([np.nan])), "NormalPrior: mean is finite"),
        (lambda g: fv.Codes(mean=0.0, sd=-1.0), "Codes: sd is at least 0, not -1.0"),
        (lambda g: fv.Codes(mean=np.float32([np.inf]), sd=1.0), "Codes: mean is finite"),
        (lambda g: fv.NormalPrior(-1.0), "weight is a finite number of at least 0"),
        (lambda g: fv.Reconstruction(1.0), "reconstruct is a function"),
        (lambda g: fv.Generator(linear, (5,), params=g.params), r"decoder cannot .*\(5,\): Type"),
        (lambda g: fv.Generator(linear, (2, 3), params=g.params), r"\(n,\) or \(h, w, c\)"),
        (
            lambda g: fv.Generator(linear, (6,), params=g.params, encoder=linear),
            "encoder cannot be called",
        ),
        (
            lambda g: fv.Generator(linear, (6,), params=g.params, encoder=lambda p, x: x),
            r"encoder does not fit .* float32 \(12, 16, 3\)",
        ),
        (lambda g: fv.Generator(lambda p, z: z, (6,), params=()), r"it makes float32 \(6,\)"),
        (
            lambda g: fv.Generator(lambda p, z: linear(p, z)[None], (6,), params=g.params),
            "without a batch",
        ),
        (
            lambda g: fv.Generator(lambda p, z: z, (3,), params=(), stride=8),
            "makes 8x8 pixels of 8x8 positions; expected 8 times as many",
        ),
        (lambda g: fv.generators.load("taef3"), "unknown generator 'taef3'; nearest: taef"),
        (lambda g: fv.generators.load("test_generators:none"), "has no none"),
        (lambda g: fv.generators.load("test_generators:silent_factory"), "got str"),
        (
            lambda g: fv.Generator(linear, (6,), params=g.params, encoder_params=g.params),
            "encoder_params is None without an encoder",
        ),
        (lambda g: fv.generators.from_nnx(linear, 6), "a module of Flax NNX; got function"),
        (lambda g: fv.generators.from_linen(3, {}, 6), "of Flax Linen; got int"),
        (lambda g: fv.generators.from_linen(_Linen(), {}, 6, method="no"), "has no method 'no'"),
        (lambda g: fv.generators.from_function("x", {}, 6), "decode is a function"),
        (lambda g: fv.generators.from_function(linear, g.params, "6"), "at least 1, not '6'"),
        (lambda g: fv.generators.load("mnist_ppgn", 3), r"weights are a file's name .* got 3"),
        (lambda g: fv.generators.load("mnist_ppgn", ""), r"weights are a file's name .* got ''"),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_so(lines, make, message):
    with pytest.raises((fv.InputError, fv.UnknownModel), match=message) as caught:
        make(lines)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_here_say_where_they_go(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATVIS_CACHE", str(tmp_path))
    with pytest.raises(fv.CheckpointError, match=r"put .*taef2_decoder\.pth into .*latent:NAME=FI"):
        fv.generators.load("taef2")
    (tmp_path / "taef2_decoder.pth").write_bytes(b"no weights")
    with pytest.raises(fv.CheckpointError, match=r"taef2_decoder\.pth"):
        fv.generators.load("taef2", tmp_path)


def test_a_network_of_other_channels_says_so(toy):
    grey = fv.Generator(lambda params, code: code, (12, 16, 1), params=())
    with pytest.raises(fv.InputError, match="expects images of 3 channels, got 1"):
        run(toy, fv.Latent(generator=grey))
