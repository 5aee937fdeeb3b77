"""Parameterizations that hold arrays: data of the program, never constants of it."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import Compiled
from networks import TOY_SIZE

import featvis as fv
from featvis.parameterizations.parameterization import draw_normal
from featvis.synthesis import loop

pytestmark = pytest.mark.usefixtures("quick_to_compile")

NUMBERS = math.prod(TOY_SIZE) * 3
#: Of a matrix of so many rows for images of TOY_SIZE: 50 MB.
WIDE = 50 * 10**6 // (4 * NUMBERS)


class Linear(fv.Parameterization):
    """A linear decoder: sigmoid(z @ weights)."""

    weights: jax.typing.ArrayLike = fv.leaf()

    def init(self, key):
        return {"z": 0.01 * draw_normal(key, [(self.weights.shape[0],)])[0]}

    def decode(self, params):
        return jax.nn.sigmoid((params["z"] @ self.weights).reshape(self.shape))


class Two(fv.Parameterization):
    """Data in a pytree, a number of the program, and one that is data."""

    layers: dict = fv.leaf()
    power: int = 1
    gain: float = fv.leaf(default=2.0)

    def init(self, key):
        return {"z": draw_normal(key, [(2,)])[0]}

    def decode(self, params):
        z = params["z"] @ self.layers["a"]["kernel"] + self.layers["b"]
        return jax.nn.sigmoid(self.gain * z**self.power).reshape(self.shape)


def latent(seed=0, rows=4):
    rng = np.random.default_rng(seed)
    return Linear(TOY_SIZE, weights=rng.normal(size=(rows, NUMBERS)).astype(np.float32))


def run(toy, way, objective="conv:1", **options):
    options = {"steps": 3, "transform": "none", "progress": False, **options}
    return fv.synthesize(toy, objective, way, **options)


@pytest.fixture(scope="module")
def made(toy):
    return run(toy, latent())


@pytest.mark.thorough
def test_weights_of_50_megabytes_are_data_of_one_program(toy):
    first, second = (latent(seed, WIDE) for seed in (0, 1))
    assert first.weights.nbytes > 49e6
    with Compiled() as compiled:
        one = run(toy, first)
    assert compiled.steps == 1
    with Compiled() as compiled:
        other = run(toy, second)
    assert compiled.names == []
    assert np.abs(one.images - other.images).max() > 0.01
    # Nor are they in the text of the program that decodes them.
    text = loop.decode_images.lower(first, one.params).as_text()
    assert len(text) < 10_000
    assert f"tensor<{WIDE}x{NUMBERS}xf32>" in text


def test_weights_are_no_constants_of_the_program_of_the_steps(toy):
    way = latent(rows=64)
    objective, keys = fv.Channel("conv", jnp.int32(1)), loop.image_keys(0, 1)
    program = loop.Program(toy.apply, way, fv.transforms.Compose(()), "adam(0.01)")
    state = loop.start_state(way, "adam(0.01)", keys, None, "random")
    given = toy.params, objective, keys, state, jnp.zeros(1, bool), jnp.int32(3), jnp.int32(9)
    traced = jax.make_jaxpr(lambda program, *given: loop.take_steps(program, *given))(
        program, *given
    )
    inner = [e.params["jaxpr"] for e in traced.eqns if "jaxpr" in e.params]
    assert inner
    assert all(np.size(c) < 100 for one in [traced, *inner] for c in one.consts)


@pytest.mark.thorough
def test_an_identity_decoder_is_pixels_to_the_bit(toy):
    # Adam's roots are fused with what is before them, and rounded as the compiler fuses.
    options = {"seed": [4, 9], "steps": 5, "optimizer": "sgd(0.1)"}
    identity = Linear(TOY_SIZE, weights=np.eye(NUMBERS, dtype=np.float32))
    through, plain = (run(toy, way, **options) for way in (identity, fv.Pixels(TOY_SIZE)))
    np.testing.assert_array_equal(through.images, plain.images)
    np.testing.assert_array_equal(through.scores, plain.scores)
    assert np.any(through.images[0] != through.images[1])  # each has its own parameters


def test_equal_by_value_and_alike_to_the_program_by_structure():
    one, twin, other = latent(), latent(), latent(1)
    assert one == twin
    assert hash(one) == hash(twin) == hash(other)
    assert one != other
    assert one != latent(rows=5)
    assert one != dataclasses.replace(one, channels=3, size=(16, 12))
    # What others do with their array afterwards is theirs.
    mine = np.zeros((2, NUMBERS), np.float32)
    way = Linear(TOY_SIZE, weights=mine)
    mine += 1
    assert not np.any(way.weights)
    with pytest.raises(ValueError, match="read-only"):
        way.weights[0] = 1


def test_text_names_data_by_digest_and_repr_by_shape():
    way = fv.Upsampled((24, 32), of=latent())
    assert "weights=<float32[4, 576]>" in repr(way)
    assert str(way).count("sha256('") == 1
    assert str(way) == str(fv.Upsampled((24, 32), of=latent())) != str(latent(1))
    # Of anything that has no data they are one.
    assert str(fv.Pixels((4, 4))) == repr(fv.Pixels((4, 4)))


@pytest.mark.thorough
def test_pytrees_and_numbers_are_data_too(toy):
    tree = {"a": {"kernel": np.ones((2, NUMBERS), np.float32)}, "b": np.zeros(NUMBERS, np.float32)}
    way = Two(TOY_SIZE, layers=tree)
    assert "gain=2.0" in str(way)
    first = run(toy, way)
    with Compiled() as compiled:
        second = run(
            toy, dataclasses.replace(way, gain=3.0, layers=jax.tree.map(jnp.asarray, tree))
        )
    assert compiled.names == []
    assert np.any(first.images != second.images)
    with Compiled() as compiled:
        run(toy, dataclasses.replace(way, power=3))
    assert compiled.steps == 1


@pytest.mark.thorough
def test_a_small_array_is_kept_and_replayed(toy, made, tmp_path):
    again = fv.replay(made.save(tmp_path / "unit.png"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, made.images)
    assert again.run.parameterization == latent()
    with pytest.raises(fv.InputError, match="parameterization= is for one that holds data"):
        fv.replay(run(toy, fv.Pixels(TOY_SIZE)).manifest, model=toy, parameterization=latent())


@pytest.mark.thorough
def test_an_array_of_another_type_is_kept_as_it_is(toy, tmp_path):
    weights = np.random.default_rng(0).normal(size=(4, NUMBERS))
    made = run(toy, Linear(TOY_SIZE, weights=weights))
    again = fv.replay(made.save(tmp_path / "unit.png"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, made.images)
    np.testing.assert_array_equal(again.run.parameterization.weights, weights)


def test_a_picture_without_its_weights_says_which_it_needs(toy, made):
    mine = next(iter(made.manifest["arrays"]))
    manifest = json.loads(json.dumps({**made.manifest, "arrays": {}}))
    with pytest.raises(fv.InputError, match=rf"digest {mine[:12]}, .*pass parameterization="):
        fv.replay(manifest, model=toy, progress=False)
    theirs = next(iter(run(toy, latent(1)).manifest["arrays"]))
    with pytest.raises(fv.InputError, match=rf"digest {mine[:12]}; Linear.* holds {theirs[:12]}"):
        fv.replay(manifest, model=toy, progress=False, parameterization=latent(1))
    again = fv.replay(manifest, model=toy, progress=False, parameterization=latent())
    np.testing.assert_array_equal(again.images, made.images)


def test_weights_of_a_generator_are_named_and_not_kept(toy):
    tree = {"a": {"kernel": np.ones((2, NUMBERS), np.float32)}, "b": np.zeros(NUMBERS, np.float32)}
    way = Two(TOY_SIZE, layers=tree)
    result = run(toy, way, steps=1)
    assert result.manifest["arrays"] == {}
    with pytest.raises(fv.InputError, match="pass parameterization="):
        fv.replay(result.manifest, model=toy, progress=False)
    again = fv.replay(result.manifest, model=toy, progress=False, parameterization=way)
    np.testing.assert_array_equal(again.images, result.images)


def test_going_on_with_a_class_that_has_no_encode(toy, made):
    further = run(toy, latent(), init=made, steps=1)
    assert further.steps == 4
    with pytest.raises(fv.InputError, match=r"Linear has no way .*encode.*init=result\.params"):
        run(toy, latent(), init=made.images)


class Listed(fv.Pixels):
    """An array in a field that is not declared as data."""

    mask: tuple = ()


class Small(fv.Pixels):
    """Another size than its own."""

    def decode(self, params):
        return super().decode(params)[1:]


class Bare(fv.Pixels):
    """A bare array of parameters."""

    def init(self, key):
        return super().init(key)["pixels"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(TOY_SIZE, weights="x"), "Linear: weights is arrays or numbers, .*'x'"),
        (lambda: Listed(TOY_SIZE, mask=np.ones(3)), r"mask: ArrayLike = leaf\(\); got ndarray"),
        (lambda: Small(TOY_SIZE), r"decode must give an image \(12, 16, 3\)"),
        (lambda: Bare(TOY_SIZE), "init must give a dict of float32 arrays"),
    ],
)
def test_what_is_no_parameterization_says_so(toy, make, message):
    with pytest.raises(fv.InputError, match=message):
        run(toy, make())
