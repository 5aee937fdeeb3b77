"""Networks and programs in other types of numbers, and under the checks that JAX can make."""

from __future__ import annotations

import warnings

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import everything_checked
from flax import nnx
from jax.experimental import io_callback
from objective_cases import CASES, Case, images, network
from PIL import Image

import featvis as fv
import objectives as ob
from featvis import text as components
from featvis import transforms
from featvis.cli import app
from featvis.evidence import metrics

pytestmark = pytest.mark.usefixtures("quick_to_compile")
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
HALVES = (jnp.float16, jnp.bfloat16)
PICTURES = images(1)
SIZE = (8, 10)
QUICK = {"steps": 2, "progress": False}


def saliency(model: fv.Model, objective: ob.Objective | str, given: object) -> np.ndarray:
    return fv.explain(model, objective, given, "saliency").maps


def rounded(dtype: object, scale: float = 1.0) -> dict[str, jax.Array]:
    return {name: (scale * a).astype(dtype) for name, a in network(PICTURES).items()}


# ---- objectives and metrics -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
@each
def test_objectives_compute_in_float32(case: Case, dtype: object) -> None:
    # Whose squares sum to more than float16 can hold (65504).
    given = rounded(dtype, 30.0)
    expected = case.objective({n: a.astype(jnp.float32) for n, a in given.items()}, PICTURES)
    assert np.isfinite(expected).all()
    for acts in (given, ob.Activations(given)):
        scores = case.objective(acts, PICTURES)
        assert scores.dtype == jnp.float32
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_way_to_read_activations_gives_float32(dtype: object) -> None:
    class Reader(ob.Objective):
        """Reads a layer in all the ways that a mapping has."""

        def __call__(self, acts, image):
            (values,) = [a for name, a in acts.items() if name == "late"]
            assert values.dtype == acts.get("late").dtype == jnp.float32
            assert {a.dtype for a in acts.values()} == {np.dtype("float32")}
            assert "late" in acts
            assert "other" not in acts
            return jnp.sum(values**2, (1, 2, 3))

    given = rounded(dtype, 30.0)
    truth = np.sum(np.asarray(given["late"], np.float64) ** 2, (1, 2, 3))
    for acts in (given, ob.Activations(given), ob.Activations(given.items())):
        np.testing.assert_allclose(Reader()(acts, PICTURES), truth, rtol=1e-5)
    # What goes through a compiled function stays what it was.
    assert {a.dtype for a in jax.tree.leaves(ob.Activations(given))} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("dtype", HALVES)
def test_metrics_compute_in_float64(dtype: object) -> None:
    late = rounded(dtype, 30.0)["late"]
    found, target = late[:2], late[1:]
    copies = [np.asarray(a, np.float64) for a in (found, target)]
    for name in (
        "relative_error", "pairwise_error", "cosine", "projection", "spearman", "signal_to_noise",
    ):  # fmt: skip
        metric = getattr(metrics, name)
        np.testing.assert_array_equal(metric(found, target), metric(*copies))
    logits = rounded(dtype)["logits"]
    assert metrics.same_class(logits, np.asarray(logits, np.float64)).all()
    for half, full in zip(metrics.null_pairs(found), metrics.null_pairs(copies[0]), strict=True):
        np.testing.assert_array_equal(half, full)
    truth = np.einsum("npc,npd->ncd", *[np.asarray(found, np.float64).reshape(2, 35, -1)] * 2) / 35
    np.testing.assert_allclose(fv.gram(found), truth, rtol=1e-5)


# ---- networks in other types ----------------------------------------------------------------


def precision(model: fv.Model) -> float:
    """Of what is computed with numbers of the type of its weights, a few of them in a row."""
    return 8 * float(jnp.finfo(jax.tree.leaves(model.params)[0].dtype).eps)


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"kernel": rng.normal(size=(3, 3, 3, 6)), "head": rng.normal(size=(6, 4))}


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def small(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """A network in the type of its weights, with activations above what float16 can square."""
    if params["kernel"].dtype != jnp.float64:  # those of float64 get images of float64
        x = x.astype(params["kernel"].dtype)
    a = fv.tap(jax.nn.relu(64 * convolve(x, params["kernel"])), "relu")
    return a.mean((1, 2)) @ params["head"]


def widened(params: dict[str, jax.Array], x: jax.Array) -> dict[str, jax.Array]:
    """The same, its activations copied to float32 by the network itself."""
    kernel, head = params["kernel"], params["head"]
    a = jax.nn.relu(64 * convolve(x.astype(kernel.dtype), kernel))
    layers = {"relu": a, "logits": a.mean((1, 2)) @ head}
    return {name: value.astype(jnp.float32) for name, value in layers.items()}


def as_model(apply: object, dtype: object) -> fv.Model:
    params = jax.tree.map(lambda w: jnp.asarray(w, dtype), weights())
    return fv.from_function(apply, params, input=fv.Input(size=SIZE))


def photographs(count: int = 2) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.uniform(0.1, 0.9, (count, *SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=HALVES, ids=lambda dtype: dtype.__name__)
def half(request: pytest.FixtureRequest) -> tuple[fv.Model, fv.Model]:
    return as_model(small, request.param), as_model(widened, request.param)


@pytest.mark.thorough
def test_what_is_measured_on_a_network_in_half_precision(half, tmp_path) -> None:
    model, copy = half
    given = photographs()
    pictures = fv.invert(model, "relu", given, **QUICK)
    found, original = copy(pictures.images), copy(given)
    for name in ("relative_error", "spearman", "signal_to_noise"):
        expected = getattr(metrics, name)(found["relu"], original["relu"])
        np.testing.assert_allclose(
            pictures.evidence[name], expected, rtol=precision(model), atol=precision(model)
        )
        assert np.isfinite(expected).all()
    classes = fv.class_model(model, [1, 2], **QUICK)
    logits = np.asarray(copy(classes.images)["logits"], np.float64)
    near = {"rtol": precision(model), "atol": precision(model) * np.abs(logits).max()}
    np.testing.assert_allclose(classes.evidence["logit"], logits[[0, 1], [1, 2]], **near)
    # Of the very same logits: another compiled program rounds them otherwise.
    logits = np.asarray(model(classes.images)["logits"], np.float64)
    posterior = np.exp(logits - logits.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    np.testing.assert_allclose(
        classes.evidence["probability"], posterior[[0, 1], [1, 2]], rtol=1e-5
    )
    for place, image in enumerate(given):
        Image.fromarray((255 * image).astype(np.uint8)).save(tmp_path / f"{place}.png")
    natural = fv.compare_with_natural(classes, tmp_path).evidence
    read = np.stack([fv.read_image(tmp_path / f"{place}.png") for place in range(2)])
    expected = np.asarray(copy(read)["logits"])[:, [1, 2]].mean(0)
    np.testing.assert_allclose(natural["natural_mean"], expected, **near)


@pytest.mark.thorough
def test_objectives_of_a_network_in_half_precision(half) -> None:
    model, copy = half
    given = photographs(1)
    aim = np.asarray(copy(given)["relu"])
    objective = (
        fv.Direction("relu", np.ones(6), 4.0)
        + 100 * fv.FeatureMatch("relu", aim + 1, metric="cosine")
        + fv.Layer("relu")
    )
    expected = np.asarray(objective(copy(given), given))
    result = fv.synthesize(model, objective, init=given, transform="none", **QUICK)
    np.testing.assert_allclose(result.scores[0], expected, rtol=1e-2)
    assert result.images.dtype == np.float32
    maps, truth = (saliency(m, fv.Direction("relu", np.ones(6), 4.0), given) for m in half)
    assert np.all(maps.max() > 0)
    np.testing.assert_allclose(maps, truth, rtol=0.05, atol=0.02 * truth.max())


class Nnx(nnx.Module):
    def __init__(self, dtype: object):
        kinds = {"dtype": dtype, "param_dtype": dtype, "rngs": nnx.Rngs(0)}
        self.conv = nnx.Conv(3, 4, (3, 3), **kinds)
        self.head = nnx.Linear(4, 3, **kinds)

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x)).mean((1, 2)))


class Linen(flax.linen.Module):
    dtype: object

    @flax.linen.compact
    def __call__(self, x):
        kinds = {"dtype": self.dtype, "param_dtype": self.dtype}
        x = flax.linen.relu(flax.linen.Conv(4, (3, 3), name="conv", **kinds)(x))
        return flax.linen.Dense(3, **kinds)(x.mean((1, 2)))


def made_by(kind: str, dtype: object) -> fv.Model:
    if kind == "function":
        return as_model(small, dtype)
    if kind == "nnx":
        return fv.from_nnx(Nnx(dtype), input=fv.Input(size=SIZE))
    net = Linen(dtype)
    return fv.from_linen(
        net, net.init(jax.random.key(0), jnp.zeros((1, *SIZE, 3), dtype)), input=fv.Input(size=SIZE)
    )


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["function", "nnx", "linen"])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_own_networks_of_any_type(kind: str, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        model = made_by(kind, jnp.dtype(dtype))
        assert model.apply(model.params, jnp.zeros((2, *SIZE, 3), jnp.float32))[
            "logits"
        ].dtype == jnp.dtype(dtype)
        result = fv.synthesize(model, "logits:1", draws=2, batch=2, **QUICK)
        assert result.images.dtype == result.scores.dtype == np.float32
        assert {np.asarray(p).dtype for p in jax.tree.leaves(result.params)} == {
            np.dtype("float32")
        }
        expected = np.asarray(model(result.images)["logits"])[:, 1]
        np.testing.assert_allclose(result.clean_scores, expected, rtol=1e-2, atol=1e-3)


# ---- the checks of JAX ----------------------------------------------------------------------


def strict(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    a = fv.tap(convolve(x, params["kernel"].astype(x.dtype)), "conv")
    a = fv.tap(jax.nn.relu(a), "relu")
    return a.mean((1, 2)) @ params["head"].astype(x.dtype)


def checked_model() -> fv.Model:
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights())
    given = fv.Input(size=SIZE, value_range=(-1, 1), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    return fv.from_function(strict, params, input=given)


PARAMETERIZATIONS = [
    fv.Fourier(SIZE), fv.Pixels(SIZE), fv.BoundedPixels(SIZE, ball="l2", radius=2.0),
    fv.BoundedPixels(SIZE, ball="pixel", radius=0.3, noise="uniform"), fv.Pyramid(SIZE),
    fv.CPPN(SIZE, hidden=4, layers=2), fv.MaCo(SIZE),
    fv.Upsampled(SIZE, of=fv.BoundedPixels((4, 5), ball="linf", radius=0.4)),
    fv.FrozenChannels(SIZE, free=fv.Fourier(SIZE, 2), frozen=(1,)),
]  # fmt: skip


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: type(p).__name__)
def test_parameterizations_under_all_checks(parameterization) -> None:
    def there_and_back(key: jax.Array) -> object:
        params = parameterization.project(parameterization.init(key))
        image = parameterization.decode(params)
        if not isinstance(parameterization, fv.CPPN):
            params = parameterization.encode(image)
        return params, image

    with everything_checked():
        made = jax.jit(there_and_back)(jax.random.key(0))
    assert {a.dtype for a in jax.tree.leaves(made)} == {np.dtype("float32")}


TRANSFORMS = [
    transforms.Pad(2), transforms.Pad(2, "reflect"), transforms.Pad(2, "edge"),
    transforms.RandomCrop((6, 6)), transforms.Jitter(2), transforms.Roll(3),
    transforms.RandomAffine(), transforms.RandomAffine(border="constant", frame=1),
    transforms.RandomScale(border="reflect"), transforms.Rotate(),
    transforms.RandomResizedCrop(size=(7, 7)), transforms.Blur(1.0), transforms.Noise(0.1),
    transforms.Flip(), transforms.ColorShift(),
]  # fmt: skip


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_transforms_under_all_checks(transform) -> None:
    """Traced alone, which is where types and ranks count."""
    image = jax.ShapeDtypeStruct((*SIZE, 3), jnp.float32)

    def of(key: jax.Array, image: jax.Array) -> object:
        return transform(key, image), jax.grad(lambda x: jnp.sum(transform(key, x) ** 2))(image)

    with everything_checked():
        made = jax.eval_shape(of, jax.random.key(3), image)
    assert {a.dtype for a in made} == {np.dtype("float32")}


@pytest.mark.thorough
def test_transforms_draw_the_same_under_all_checks() -> None:
    image, key = photographs(1)[0], jax.random.key(3)
    cheap = transforms.Compose((
        transforms.Roll(3), transforms.Jitter(2), transforms.Flip(), transforms.ColorShift(),
        transforms.Noise(0.1), transforms.RandomResizedCrop(size=(7, 7)),
    ))  # fmt: skip
    with everything_checked():
        made = jax.jit(cheap)(key, image)
    np.testing.assert_allclose(made, jax.jit(cheap)(key, image), atol=1e-4)


OPTIMIZERS = [
    "adam(0.05)", "nadam(0.035)", "sgd(0.1)", "chain(clip(1.0), adam(0.05))", "rmsprop(0.01)",
    "chain(normalize_by_update_norm(), sgd(exponential_decay(1.0, 3000, 0.5, staircase=True)))",
    "preimage_adagrad(stepwise_schedule((2.68e6, 2.68e5), (1, 1)))", "polyak_sgd(1.0)",
    "preimage_momentum(stepwise_schedule((0.004, 0.0004), (1, 1)), 10.0)",
    "adam(cosine_onecycle_schedule(4, 0.1))",
]  # fmt: skip


@pytest.mark.parametrize("text", OPTIMIZERS)
def test_optimizers_under_all_checks(text: str) -> None:
    params = {"pixels": jnp.linspace(-1, 1, 6, dtype=jnp.float32).reshape(2, 3)}

    def step(params: object) -> object:
        made = components.optimizer(text)
        state = made.init(params)
        return *made.update(params, state, params, value=jnp.float32(1), grad=params), state

    with everything_checked():
        updates, after, before = jax.jit(step)(params)
    plain, _, _ = jax.jit(step)(params)
    kinds = [[a.dtype for a in jax.tree.leaves(state)] for state in (before, after)]
    assert kinds[0] == kinds[1]
    np.testing.assert_allclose(updates["pixels"], plain["pixels"], rtol=1e-4, atol=1e-8)


@each
def test_objectives_under_all_checks(case: Case) -> None:
    acts = network(PICTURES)
    with everything_checked():
        wide = {name: a.astype(jnp.float64) for name, a in acts.items()}
        assert case.objective(wide, PICTURES.astype(jnp.float64)).dtype == jnp.float32
        scores, pullback = jax.vjp(case.objective, acts, PICTURES)
        gradients = pullback(jnp.ones_like(scores))
    np.testing.assert_allclose(scores, case.objective(acts, PICTURES), rtol=1e-5, atol=1e-6)
    assert {a.dtype for a in jax.tree.leaves((scores, gradients))} == {np.dtype("float32")}


# In so few steps some units are not brought to life.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::featvis.SilenceWarning")
def test_all_drivers_under_all_checks(tmp_path) -> None:
    given = photographs()
    with everything_checked():
        model = checked_model()
        first = fv.synthesize(model, "relu:1 - 0.1*tv", batch=2, snapshots=2, patience=5, **QUICK)
        again = fv.replay(first.manifest, model=model, progress=False)
        np.testing.assert_array_equal(first.images, again.images)
        fv.synthesize(model, "relu:1 - 0.1*tv", batch=2, init=first, **QUICK)
        many = list(fv.synthesize_many(model, ["relu:0", "relu:3"], **QUICK))
        assert [places for places, _ in many] == [(0, 1)]
        assert np.all(saliency(model, "logits:1", given) >= 0)
        Image.fromarray((255 * given[0]).astype(np.uint8)).save(tmp_path / "0.png")
        made = [
            fv.invert(model, "relu", given, preset="ijcv2016", **QUICK),
            fv.caricature(model, "relu", given, **QUICK),
            fv.class_model(model, [1, 2], **QUICK),
            fv.accentuate(model, "logits:1", given, layer="relu", **QUICK),
            fv.compare_with_natural(first, tmp_path),
        ]
    assert all(result.images.dtype == np.float32 for result in [first, *made])
    assert all(np.isfinite(value).all() for result in made for value in result.evidence.values())


RUN = {"batch": 2, "patience": 1, "steps": 4, "progress": False}


@pytest.fixture(scope="module")
def unchecked() -> fv.Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fv.SilenceWarning)
        return fv.synthesize(checked_model(), "relu:1", **RUN)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::featvis.SilenceWarning")
@pytest.mark.parametrize(
    "check", [jax.debug_nans, jax.debug_infs, jax.enable_x64], ids=["nans", "infinities", "x64"]
)
def test_a_run_under_one_check_is_the_run_without(check, unchecked) -> None:
    with check(True):
        checked = fv.synthesize(checked_model(), "relu:1", **RUN)
    np.testing.assert_allclose(checked.images, unchecked.images, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(checked.scores), np.isnan(unchecked.scores))
    np.testing.assert_array_equal(checked.steps, unchecked.steps)


@pytest.mark.thorough
def test_a_nan_of_the_network_is_our_error_under_the_checks() -> None:
    # Finite at first, and not from the second step on: from mid-grey the mean falls below.
    def apply(params: object, x: jax.Array) -> jax.Array:
        return -jnp.log(x.mean((1, 2)) - 0.45)

    model = fv.from_function(apply, {}, input=fv.Input(size=SIZE))
    options = {"optimizer": "sgd(10.0)", "transform": "none", "steps": 6, "progress": False}
    with everything_checked(wide=False):
        with pytest.raises(fv.NonFiniteError, match=r"at step \d+ of image 0") as caught:
            fv.synthesize(model, "logits:1", fv.Pixels(SIZE), **options)
        kept = caught.value.result
        assert kept.stopped == ("non-finite",)
        assert np.isfinite(kept.images).all()
        assert np.isfinite(kept.scores).all()
        with pytest.raises(fv.NonFiniteError, match="NaN or infinity"):
            model(np.zeros((1, *SIZE, 3), np.float32))
        with pytest.raises(fv.NonFiniteError, match="NaN or infinity"):
            saliency(steep_model(), "logits:1", np.zeros((1, *SIZE, 3)))
    with pytest.raises(fv.NonFiniteError, match="image 0"):
        saliency(steep_model(), "logits:1", np.zeros((1, *SIZE, 3)))


def steep_model() -> fv.Model:
    """Of an infinite gradient where the picture is black."""
    return fv.from_function(steep, {}, input=fv.Input(size=SIZE))


def steep(params: object, x: jax.Array) -> jax.Array:
    return jnp.sqrt(x.mean((1, 2)))


# ---- what has no gradient -------------------------------------------------------------------


def loop(x: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda c: jnp.sum(c) < 100, lambda c: 1.5 * c, x)


def traced_bound(x: jax.Array) -> jax.Array:
    steps = jnp.sum(x > 0).astype(jnp.int32)
    return jax.lax.fori_loop(0, steps, lambda i, c: 1.5 * c, x)


def outside(x: jax.Array) -> jax.Array:
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(np.asarray, like, x, vmap_method="sequential")


def outside_in_scan(x: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda c, _: (outside(c), None), x, None, length=2)[0]


def printed(x: jax.Array) -> jax.Array:
    return io_callback(np.asarray, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


_own = jax.extend.core.Primitive("my_kernel")
_own.def_abstract_eval(lambda x: x)


def behind(step: object) -> fv.Model:
    def apply(params: object, x: jax.Array) -> jax.Array:
        early = fv.tap(jnp.tanh(2 * x), "early")
        return fv.tap(step(early), "late").mean((1, 2))

    return fv.from_function(apply, {}, input=fv.Input(size=SIZE))


OBSTACLES = {
    "while": loop, "pure_callback": outside, "io_callback": printed, "my_kernel": _own.bind,
}  # fmt: skip


@pytest.mark.parametrize(
    ("primitive", "step"),
    [*OBSTACLES.items(), ("while", traced_bound), ("while", jax.jit(loop)),
     ("pure_callback", outside_in_scan)],
)  # fmt: skip
def test_a_unit_without_a_gradient_is_said_before_compiling(primitive, step) -> None:
    model = behind(step)
    given = np.full((1, *SIZE, 3), 0.4)
    said = f"layer 'late' of the network is computed with `{primitive}`.*jax.custom_vjp.*'early'"
    for run in (
        lambda: fv.synthesize(model, "late:1", **QUICK),
        lambda: fv.synthesize_many(model, ["early:1", "late:1"], **QUICK),
        lambda: saliency(model, "late:1", given),
        lambda: fv.invert(model, "late", given, **QUICK),
        lambda: fv.accentuate(model, "early:1", given, layer="late", **QUICK),
        lambda: fv.synthesize(model, "early:1 + 0.1*layer('late')", **QUICK),
    ):
        with pytest.raises(fv.GradientError, match=said) as caught:
            run()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", [loop, outside, printed])
def test_what_is_before_an_obstacle_has_its_gradient(step) -> None:
    model = behind(step)
    given = np.full((1, *SIZE, 3), 0.4)
    # d mean(tanh 2x) / dx = 2 (1 - tanh² 2x) / pixels
    expected = 2 * (1 - np.tanh(0.8) ** 2) / np.prod(SIZE)
    np.testing.assert_allclose(saliency(model, "early:1", given), expected, rtol=1e-5)
    result = fv.synthesize(model, "early:1", transform="none", **QUICK)
    assert result.scores[1] > result.scores[0]


def test_what_no_gradient_goes_through_is_no_obstacle() -> None:
    given = np.full((1, *SIZE, 3), 0.4)
    beside = behind(lambda x: 3 * x + loop(jax.lax.stop_gradient(x)))
    expected = 3 * saliency(beside, "early:1", given)
    np.testing.assert_allclose(saliency(beside, "late:1", given), expected, rtol=1e-5)
    fixed = behind(lambda x: jax.lax.fori_loop(0, 3, lambda i, c: 2 * c, x))
    np.testing.assert_allclose(saliency(fixed, "late:1", given), 8 * expected / 3, rtol=1e-5)


class Endless(ob.Objective):
    """Scores by a loop."""

    layer: str = ob.static()

    def __call__(self, acts, image):
        return loop(acts[self.layer].mean((1, 2, 3)))


class Outside(transforms.Transform):
    """Goes through the host."""

    def __call__(self, key, image):
        return outside(image)


class Looping(fv.Pixels):
    """Decodes by a loop."""

    def decode(self, params):
        return loop(super().decode(params))


def test_objectives_transforms_and_parameterizations_without_a_gradient() -> None:
    model = behind(jnp.sin)
    with pytest.raises(fv.GradientError, match=r"Endless\('late'\) has no gradient.*`while`"):
        fv.synthesize(model, Endless("late"), **QUICK)
    with pytest.raises(fv.GradientError, match=r"Endless\('late'\) has no gradient.*`while`"):
        saliency(model, Endless("late"), np.full((1, *SIZE, 3), 0.4))
    with pytest.raises(fv.GradientError, match=r"Outside\(\) has no gradient.*`pure_callback`"):
        fv.synthesize(model, "late:1", transform=Outside(), **QUICK)
    with pytest.raises(fv.GradientError, match=r"Looping\(.* has no gradient.*`while`"):
        fv.synthesize(model, "late:1", Looping(SIZE), **QUICK)


def looping_network() -> fv.Model:
    return behind(loop)


@pytest.mark.thorough
def test_the_command_line_says_it_in_one_line(capsys, tmp_path) -> None:
    place = f"{__name__}:looping_network"
    assert app.main(["render", "--model", place, "late:1", "-o", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "`while`" in line
    assert list(tmp_path.iterdir()) == []
