"""Every parameterization through the same laws, and what is particular to each."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parameterization_cases import ROW, cases, name
from scipy import ndimage
from skimage.data import astronaut
from skimage.transform import resize

from featvis import text
from featvis.errors import FeatvisError, InputError
from featvis.parameterizations import (
    CPPN,
    BoundedPixels,
    FixedNorm,
    Fourier,
    Framed,
    FrozenChannels,
    Inpainted,
    Latent,
    MaCo,
    Parameterization,
    Phases,
    Pixels,
    Pyramid,
    Shared,
    Upsampled,
    color,
)
from featvis.parameterizations.component import data_of

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def everything():
    """Every kind at one size; at odd sizes and other channel counts those whose code depends on it.

    A ball and a CPPN treat all sizes alike.
    """
    found = cases()
    for size, channels in [((7, 7), 3), ((8, 6), 3), ((1, 5), 3), ((9, 14), 1), ((9, 14), 5)]:
        kinds = (Pixels, Fourier, Pyramid, MaCo, Upsampled)
        found += [c for c in cases(size, channels) if isinstance(c, kinds)]
    return [
        pytest.param(c, id=f"{name(c)}-{c.size[0]}x{c.size[1]}x{c.channels}-{i}")
        for i, c in enumerate(found)
    ]


def random_image(case, low=0.02, high=0.98, seed=0):
    return np.random.default_rng(seed).uniform(low, high, case.shape).astype(np.float32)


def assert_close(tree, expected, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), tree, expected)


def photograph(size):
    return jnp.asarray(resize(astronaut(), size, anti_aliasing=True), jnp.float32)


def exact(case):
    """Whether the case can represent every image."""
    free = not isinstance(case, (CPPN, FixedNorm, Inpainted, Latent, MaCo, Phases, Upsampled))
    return free and getattr(case, "ball", None) is None


@pytest.mark.parametrize("case", everything())
def test_laws_of_one_image(case):
    target = random_image(case)
    decode, encode = jax.jit(case.decode), jax.jit(case.encode)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        params = case.init(jax.random.key(3))
        image = decode(params)
        projected = case.project(params)
        encoded = None if isinstance(case, CPPN) else encode(target)
    # A bare array given to start from is an image: parameters are never one.
    assert type(params) is type(projected) is dict
    assert encoded is None or encoded.keys() == params.keys()
    assert all(isinstance(value, jax.Array) for value in params.values())
    for leaf in jax.tree.leaves((params, image, projected, encoded)):
        assert leaf.dtype == jnp.float32
    assert image.shape == case.shape
    assert 0 <= image.min() <= image.max() <= 1
    # The same key gives the same parameters, and they obey the constraints already.
    assert_close(params, case.init(jax.random.key(3)), 0)
    assert_close(params, projected, 1e-6)
    if isinstance(case, CPPN):
        return
    # What decode has made comes back, off the clipping at both ends of the range.
    if 0.002 < image.min() <= image.max() < 0.998 and not isinstance(case, Inpainted):
        np.testing.assert_allclose(decode(encode(image)), image, atol=2e-5)
    if exact(case):
        decoded = decode(encoded)
        np.testing.assert_allclose(decoded, target, atol=2e-5)
        assert_close(encode(decoded), encoded, 3e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("case", cases(), ids=name)
def test_batch_by_vmap_equals_one_at_a_time_and_jit_equals_eager(case):
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.vmap(case.init)(keys)
    images = jax.jit(jax.vmap(case.decode))(params)
    for i in range(3):
        one = case.init(keys[i])
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], params), one, 1e-6)
        np.testing.assert_allclose(images[i], case.decode(one), atol=2e-5)
    if not isinstance(case, CPPN):
        assert float(jnp.abs(images[0] - images[1]).max()) > 0


@pytest.mark.thorough
@pytest.mark.parametrize("case", cases(), ids=name)
def test_gradient_is_finite_and_ascends(case):
    weights = jax.random.normal(jax.random.key(1), case.shape)
    params = case.init(jax.random.key(0))

    def score(params):
        return (case.decode(params) * weights).sum()

    gradient = jax.jit(jax.grad(score))(params)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))
    step = 1e-3 / float(optax.tree.norm(gradient))
    moved = jax.tree.map(lambda p, g: p + step * g, params, gradient)
    assert float(score(moved)) > float(score(params))


@pytest.mark.parametrize("case", cases(), ids=name)
def test_equal_by_value_and_readable_as_text(case):
    twin = dataclasses.replace(case)
    assert twin == case
    assert hash(twin) == hash(case)
    assert text.parameterization(str(case), (1, 1), data=data_of(case).get) == case
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.channels = 2


def test_numpy_and_list_arguments_become_literals():
    case = Fourier([np.int64(4), 6], np.int32(1), decay=np.float32(0.5))
    assert repr(case) == "Fourier(size=(4, 6), channels=1, decay=0.5, sd=0.01)"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Fourier(64), "Fourier: size"),
        (lambda: Fourier((64,)), "size"),
        (lambda: Fourier((64, 0)), "positive"),
        (lambda: Fourier((64, 8.0)), "size"),
        (lambda: Fourier((64, True)), "size"),
        (lambda: Pixels((8, 8), 0), "Pixels: channels"),
        (lambda: Pixels((8, 8), 1.5), "channels"),
        (lambda: Pixels((8, 8), sd=-1), "sd"),
        (lambda: Pixels((8, 8), sd=math.nan), "finite"),
        (lambda: Fourier((8, 8), decay=-0.1), "decay"),
        (lambda: Fourier((8, 8), decay="1"), "'1'"),
        (lambda: BoundedPixels((8, 8), ball="l3", radius=1), "'linf'"),
        (lambda: BoundedPixels((8, 8), ball="l2"), "radius"),
        (lambda: BoundedPixels((8, 8), ball="l2", radius=0), "above 0"),
        (lambda: BoundedPixels((8, 8), radius=1), "radius"),
        (lambda: BoundedPixels((8, 8), noise="flat"), "BoundedPixels: noise is one of 'normal', "),
        (lambda: BoundedPixels((8, 8), noise=None), "'uniform', not None"),
        (lambda: Pyramid((8, 8), levels=0), "levels"),
        (lambda: CPPN((8, 8), hidden=0), "hidden"),
        (lambda: CPPN((8, 8), layers=0), "layers"),
        (lambda: MaCo((8, 8), 1), "from_images"),
        (lambda: MaCo((8, 8), 1, template=((1, 2, 3),)), "template"),
        (lambda: MaCo((8, 8), 1, template=((1, 2, 3, "4"),)), "template"),
        (lambda: MaCo.from_images([]), "at least one image"),
        (lambda: MaCo.from_images([np.zeros((8, 8, 3)), np.zeros((8, 9, 3))]), "one shape"),
        (lambda: CPPN((8, 8)).encode(jnp.zeros((8, 8, 3))), "no closed form"),
        (lambda: Fourier((8, 9)).encode(jnp.zeros((9, 8, 3))), r"\(8, 9, 3\)"),
    ],
)
def test_bad_input_is_one_typed_line(make, words):
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert isinstance(caught.value, FeatvisError)
    assert "\n" not in str(caught.value)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError):
        Parameterization((8, 8))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "case",
    [Pixels((64, 48)), BoundedPixels((64, 48)), Fourier((64, 48)), Pyramid((64, 48))],
    ids=name,
)
@pytest.mark.usefixtures("usual_promotions")
def test_reaches_a_photograph(case):
    target = photograph(case.size)
    optimizer = optax.adam(0.05)

    def error(params):
        return jnp.abs(case.decode(params) - target).mean()

    @jax.jit
    def fit(params):
        def step(state, _):
            params, moments = state
            gradient = jax.grad(lambda p: ((case.decode(p) - target) ** 2).mean())(params)
            updates, moments = optimizer.update(gradient, moments)
            return (case.project(optax.apply_updates(params, updates)), moments), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=1000)[0][0]

    assert float(error(fit(case.init(jax.random.key(0))))) < 0.01


@pytest.mark.parametrize(("size", "channels"), [((6, 8), 3), ((7, 5), 3), ((5, 6), 1), ((6, 7), 5)])
def test_fourier_is_the_documented_formula(size, channels):
    case = Fourier(size, channels, decay=0.7, sd=1.0)
    params = case.init(jax.random.key(0))
    height, width = size
    planes = np.zeros((channels, height, width))
    y, x = np.mgrid[:height, :width]
    for v in range(height):
        for u in range(width // 2 + 1):
            vertical = (v if v <= (height - 1) // 2 else v - height) / height
            frequency = max(math.hypot(vertical, u / width), 1 / max(size))
            scale = math.sqrt(height * width) / frequency**0.7 / 4
            # A bin without a conjugate twin counts once.
            times = 1 if u == 0 or 2 * u == width else 2
            angle = 2 * np.pi * (v * y / height + u * x / width)
            real, imag = (np.asarray(params[k][:, v, u], np.float64) for k in ("real", "imag"))
            waves = real[:, None, None] * np.cos(angle) - imag[:, None, None] * np.sin(angle)
            planes += times * scale / (height * width) * waves
    pixels = np.moveaxis(planes, 0, -1)
    if channels == 3:
        root = np.array([[0.26, 0.09, 0.02], [0.27, 0, -0.05], [0.27, -0.09, 0.03]])
        pixels = pixels @ (root / 0.461952).T
    np.testing.assert_allclose(jax.jit(case.decode)(params), 1 / (1 + np.exp(-pixels)), atol=2e-5)


def test_decorrelated_colours_invert_and_their_largest_column_is_one():
    rgb = jax.random.normal(jax.random.key(0), (3, 4, 5))
    np.testing.assert_allclose(color.correlate(color.decorrelate(rgb)), rgb, atol=1e-5)
    assert np.linalg.norm(color.MATRIX, axis=0).max() == pytest.approx(1)


@pytest.mark.parametrize(("ball", "radius"), [("l2", 1.0), ("linf", 0.2), ("pixel", 0.3)])
def test_projection_onto_a_ball_stays_within_it_and_is_idempotent(ball, radius):
    case = BoundedPixels((6, 9), 3, ball=ball, radius=radius)
    far = 5 * jax.random.normal(jax.random.key(0), case.shape)
    for scale in (0.0, 1e-3, 1.0):
        inside = case.project({"pixels": scale * far})["pixels"]
        norm = {
            "l2": lambda p: jnp.linalg.norm(p),
            "linf": lambda p: jnp.abs(p).max(),
            "pixel": lambda p: jnp.linalg.norm(p, axis=-1).max(),
        }[ball](inside)
        assert float(norm) <= radius * (1 + 1e-6)
        np.testing.assert_allclose(case.project({"pixels": inside})["pixels"], inside, atol=1e-7)
        image = case.decode({"pixels": inside})
        np.testing.assert_allclose(image, inside + 0.5, atol=1e-7)
    assert float(norm) == pytest.approx(radius, rel=1e-5)
    small = 1e-3 * jnp.ones(case.shape)
    np.testing.assert_array_equal(case.project({"pixels": small})["pixels"], small)


def test_box_clips_the_value_but_not_the_gradient():
    case = BoundedPixels((2, 2), 1)
    params = {"pixels": jnp.full(case.shape, 0.9)}
    np.testing.assert_array_equal(case.decode(params), jnp.ones(case.shape))
    np.testing.assert_array_equal(
        jax.grad(lambda p: case.decode(p).sum())(params)["pixels"], jnp.ones(case.shape)
    )
    np.testing.assert_array_equal(case.project(params)["pixels"], jnp.full(case.shape, 0.5))


def test_uniform_noise_has_the_standard_deviation_and_its_bounds():
    sd = 0.1
    normal, uniform = (BoundedPixels((60, 80), sd=sd, noise=n) for n in ("normal", "uniform"))
    drawn = np.asarray(uniform.init(jax.random.key(0))["pixels"])
    assert drawn.shape == uniform.shape
    assert drawn.std() == pytest.approx(sd, rel=0.02)
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert np.abs(drawn).max() <= sd * math.sqrt(3)
    # A quarter of the numbers in each quarter of the range, as no other noise has it.
    edges = sd * math.sqrt(3) * np.linspace(-1, 1, 5)
    shares = np.histogram(drawn, edges)[0] / drawn.size
    np.testing.assert_allclose(shares, 0.25, atol=0.02)
    assert np.abs(normal.init(jax.random.key(0))["pixels"]).max() > sd * math.sqrt(3)
    wide = BoundedPixels((60, 80), sd=0.5, noise="uniform").init(jax.random.key(0))["pixels"]
    assert np.abs(wide).max() == 0.5
    assert repr(uniform).endswith("ball=None, radius=None, sd=0.1, noise='uniform')")
    assert text.parameterization(repr(uniform), (1, 1)) == uniform


def test_pyramid_levels_halve_upwards():
    grids = Pyramid((9, 14), 1, levels=4).init(jax.random.key(0))
    shapes = [(1, 9, 14), (1, 5, 7), (1, 3, 4), (1, 2, 2)]
    assert [grids[f"level{k}"].shape for k in range(4)] == shapes


@pytest.mark.thorough
@pytest.mark.usefixtures("usual_promotions")
def test_cppn_learns_xor():
    case = CPPN((16, 24), 1, hidden=12, layers=3)
    y, x = np.mgrid[:16, :24]
    target = jnp.asarray(((y < 8) ^ (x < 12))[..., None], jnp.float32)
    optimizer = optax.adam(0.01)

    @jax.jit
    def fit(params):
        def step(state, _):
            params, moments = state
            gradient = jax.grad(lambda p: ((case.decode(p) - target) ** 2).mean())(params)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=200)[0][0]

    image = case.decode(fit(case.init(jax.random.key(0))))
    assert float(((image > 0.5) == (target > 0.5)).mean()) > 0.97


@pytest.mark.thorough
def test_cppn_decodes_the_same_network_at_another_size():
    params = CPPN((5, 5), 1, hidden=4, layers=2).init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.3, params)
    small = CPPN((5, 5), 1, hidden=4, layers=2).decode(params)
    large = CPPN((9, 9), 1, hidden=4, layers=2).decode(params)
    np.testing.assert_allclose(large[::2, ::2], small, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "channels"), [((8, 10), 3), ((9, 10), 3), ((8, 9), 1), ((7, 5), 3)]
)
def test_maco_magnitude_before_squashing_is_the_template(size, channels):
    case = MaCo(size) if channels == 3 else MaCo(size, 1, template=(ROW,))
    template = case.magnitude()
    assert template.shape == (channels, size[0], size[1] // 2 + 1)
    image = np.asarray(
        jax.jit(lambda p: case.decode({"phase": 3 * p["phase"]}))(case.init(jax.random.key(0))),
        float,
    )
    planes = np.moveaxis(np.log(image) - np.log1p(-image), -1, 0)
    if channels == 3:
        planes = np.einsum("ij,jhw->ihw", color.INVERSE, planes)
    np.testing.assert_allclose(np.abs(np.fft.rfft2(planes)), template, rtol=5e-4, atol=5e-4)


@pytest.mark.thorough
def test_maco_default_is_well_exposed():
    case = MaCo((96, 128))
    images = jnp.stack([case.decode(case.init(jax.random.key(seed))) for seed in range(4)])
    assert 0.40 < float(images.mean()) < 0.52
    assert 0.15 < float(images.std()) < 0.30
    assert float(((images < 0.02) | (images > 0.98)).mean()) < 0.01


@pytest.mark.thorough
def test_maco_template_comes_back_from_images_that_have_it():
    truth = ((-0.3, -1.9, -1.1, 0.02), (0.4, -2.5, -0.9, 0.03), (-0.2, -2.6, -1.0, 0.01))
    case = MaCo((32, 40), template=truth)
    keys = jax.random.split(jax.random.key(0), 3)
    images = [np.asarray(case.decode(case.init(k))) for k in keys]
    fitted = MaCo.from_images(images, size=(16, 20))
    assert fitted.size == (16, 20)
    np.testing.assert_allclose(fitted.template, truth, atol=2e-3)
    grey = MaCo.from_images([image[..., :1] for image in images])
    assert grey.shape == (32, 40, 1)


@pytest.mark.thorough
def test_maco_cannot_represent_a_photograph():
    target = photograph((64, 48))
    case = MaCo((64, 48))
    assert float(jnp.abs(case.decode(case.encode(target)) - target).mean()) > 0.05


@pytest.mark.thorough
@pytest.mark.parametrize("shape", [(8, 10, 3), (9, 7, 3), (6, 5, 1)])
def test_phases_of_an_image_give_it_back_and_others_keep_its_magnitudes(shape):
    image = np.random.default_rng(0).uniform(0.02, 0.98, shape).astype(np.float32)
    case = Phases.of(image, shape[2])
    np.testing.assert_allclose(case.decode(case.encode(image)), image, atol=1e-5)
    drawn = np.asarray(case.decode(case.init(jax.random.key(0))), float)
    assert np.abs(drawn - image).mean() > 0.1
    spectra = []
    for picture in (drawn, image.astype(float)):
        planes = np.moveaxis(np.log(picture) - np.log1p(-picture), -1, 0)
        if shape[2] == 3:
            planes = np.einsum("ij,jhw->ihw", color.INVERSE, planes)
        spectra.append(np.abs(np.fft.rfft2(planes)))
    np.testing.assert_allclose(*spectra, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("case", [MaCo((6, 7)), MaCo((5, 8))], ids=str)
def test_the_gradient_by_phase_is_that_of_differences(case):
    phase = np.asarray(case.init(jax.random.key(0))["phase"])
    weights = np.random.default_rng(0).normal(size=(*case.size, 3))

    @jax.jit
    def total(phase):
        return jnp.sum(case.decode({"phase": phase}) * jnp.asarray(weights, jnp.float32))

    gradient = np.asarray(jax.jit(jax.grad(total))(phase))
    step = 1e-2
    for place in [(0, 1, 1), (1, 2, 0), (2, 3, 2), (0, 0, 0), (1, 4, 3)]:
        moved = np.zeros_like(phase)
        moved[place] = step
        slope = (total(phase + moved) - total(phase - moved)) / (2 * step)
        assert gradient[place] == pytest.approx(float(slope), rel=2e-2, abs=2e-3)


def test_phases_refuse_magnitudes_of_another_size():
    with pytest.raises(InputError, match=r"\(3, 8, 5\), not an array of shape \(3, 8, 8\)"):
        Phases((8, 8), magnitudes=np.ones((3, 8, 8)))
    with pytest.raises(InputError, match="one image"):
        Phases.of(np.zeros((2, 8, 8, 3), np.float32))


@pytest.mark.thorough
def test_frozen_channels_are_the_given_ones():
    case = FrozenChannels((5, 7), 4, free=Pixels((5, 7), 2), frozen=[3, 0])
    image = random_image(case)
    params = case.encode(image)
    np.testing.assert_array_equal(case.decode(params)[..., [0, 3]], image[..., [0, 3]])
    changed = {k: v if k in case.held else v + 1 for k, v in params.items()}
    decoded = case.decode(changed)
    np.testing.assert_array_equal(decoded[..., [0, 3]], image[..., [0, 3]])
    assert (decoded[..., [1, 2]] > image[..., [1, 2]]).all()
    drawn = case.decode(case.init(jax.random.key(0)))
    np.testing.assert_array_equal(drawn[..., [0, 3]], 0.5)
    assert drawn[..., 1].std() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frozen": ()}, "frozen is some of the channels 0 to 2"),
        ({"frozen": (0, 1, 2)}, "not all"),
        ({"frozen": (0, 0)}, "each once"),
        ({"frozen": (3,)}, "0 to 2"),
        ({"frozen": (0,), "value": 2}, "value is a number from 0 to 1"),
        ({"frozen": (0,)}, r"as Fourier\(channels=2\), not None"),
        ({"frozen": (0,), "free": Pixels((4, 4), 3)}, r"of size \(4, 4\) and 2 channels"),
        ({"frozen": (0,), "free": Pixels((4, 5), 2)}, r"of size \(4, 4\) and 2 channels"),
    ],
)
def test_frozen_channels_that_make_no_sense(fields, message):
    with pytest.raises(InputError, match=message):
        FrozenChannels((4, 4), 3, **fields)


@pytest.mark.thorough
@pytest.mark.parametrize("of", [Pixels((4, 5)), BoundedPixels((3, 9)), Fourier((7, 9))], ids=name)
def test_upsampled_keeps_a_constant_and_is_the_inner_one_at_its_own_size(of):
    case = Upsampled((7, 9), of=of)
    constant = jnp.full(case.shape, 0.3)
    np.testing.assert_allclose(case.decode(case.encode(constant)), constant, atol=1e-6)
    same, params = Upsampled(of.size, of=of), of.init(jax.random.key(0))
    image = of.decode(params)
    np.testing.assert_array_equal(same.decode(params), image)
    assert_close(same.encode(image), of.encode(image), 1e-5)


def test_upsampled_is_bilinear_between_half_pixel_centres_with_the_edge_repeated():
    case = Upsampled((2, 8), of=BoundedPixels((1, 4), 1))
    image = case.decode({"pixels": jnp.array([0.0, 0.4, 0.2, -0.4]).reshape(1, 4, 1) - 0.1})
    row = np.array([0, 0.1, 0.3, 0.35, 0.25, 0.05, -0.25, -0.4]) + 0.4
    np.testing.assert_allclose(image[..., 0], [row, row], atol=1e-6)


@pytest.mark.thorough
def test_upsampled_white_is_no_whiter_than_white():
    whites = [np.full((length, 41 - length, 1), 0.5, np.float32) for length in range(1, 40)]

    @jax.jit
    def brightest(whites):
        cases = [Upsampled((40, 40), of=BoundedPixels(white.shape[:2], 1)) for white in whites]
        pairs = zip(cases, whites, strict=True)
        return jnp.stack([case.decode({"pixels": white}).max() for case, white in pairs])

    np.testing.assert_array_equal(brightest(whites), 1)


def test_upsampled_pixels_are_linear():
    case = Upsampled((9, 14), of=BoundedPixels((5, 6)))
    a, b = (0.2 * np.random.default_rng(seed).uniform(-1, 1, (5, 6, 3)) for seed in (0, 1))
    one, two, both = (case.decode({"pixels": p}) - 0.5 for p in (a, b, 2 * a - 0.5 * b))
    np.testing.assert_allclose(both, 2 * one - 0.5 * two, atol=1e-6)


@pytest.mark.thorough
def test_upsampled_starts_from_the_nearest_image_it_can_show():
    case = Upsampled((16, 24), of=BoundedPixels((4, 6)))
    y, x = np.mgrid[:16, :24]
    # Linear up to the outermost half of a small pixel, where the edge is repeated.
    ramp = np.clip((y + 0.5) / 16, 1 / 8, 7 / 8) * np.clip((x + 0.5) / 24, 1 / 12, 11 / 12)
    ramp = jnp.asarray(np.stack([ramp, 1 - ramp, ramp], -1), jnp.float32)
    np.testing.assert_allclose(case.decode(case.encode(ramp)), ramp, atol=1e-5)
    # No small step of the parameters brings another image nearer.
    target = jnp.asarray(random_image(case, 0.3, 0.7))

    def distance(params):
        return ((case.decode(params) - target) ** 2).sum()

    gradient = jax.grad(distance)(case.encode(target))["pixels"]
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


@pytest.mark.thorough
def test_upsampled_starts_within_the_range_of_intensities():
    # Of sharp edges, the nearest image overshoots.
    board = np.kron(np.indices((4, 6)).sum(0) % 2, np.ones((4, 4)))[..., None]
    of = FrozenChannels((4, 6), 2, free=Pixels((4, 6), 1), frozen=(0,))
    held = Upsampled((16, 24), of=of).encode(jnp.asarray(np.repeat(board, 2, -1)))["frozen"]
    assert (held.min(), held.max()) == (0, 1)


def test_upsampled_obeys_and_holds_what_the_inner_one_does():
    ball = Upsampled((6, 6), of=BoundedPixels((3, 3), 2, ball="linf", radius=0.1))
    assert ball.shape == (6, 6, 2)
    projected = ball.project({"pixels": jnp.full((3, 3, 2), 0.4)})
    np.testing.assert_allclose(projected["pixels"], 0.1)
    frozen = FrozenChannels((3, 3), 2, free=Pixels((3, 3), 1), frozen=(1,))
    assert Upsampled((6, 6), of=frozen).held == frozen.held == {"frozen"}


def test_upsampled_text_fills_in_the_channels_of_both():
    found = text.parameterization("Upsampled(of=Pixels((4, 4)), size=(8, 8))", (1, 1), 5)
    assert found == Upsampled((8, 8), 5, Pixels((4, 4), 5))
    assert text.parameterization("upsampled(of=pixels(size=(4, 4)))", (8, 8)).size == (8, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"Upsampled: of is the parameterization .*, as Pixels\(\(56, 56\)\), not None"),
        ({"of": (4, 4)}, r"not \(4, 4\)"),
        ({"of": Pixels((9, 4))}, r"at most of size \(8, 8\), not Pixels\(size=\(9, 4\)"),
        ({"of": Pixels((4, 9))}, r"at most of size \(8, 8\)"),
        ({"of": Pixels((4, 4), 1), "channels": 3}, r"channels is 1, as of Pixels\(.*, not 3"),
        ({"of": Pixels((4, 4)), "size": (8,)}, "size is"),
    ],
)
def test_upsampled_that_makes_no_sense(fields, message):
    with pytest.raises(InputError, match=message):
        Upsampled(**{"size": (8, 8), **fields})


@pytest.mark.thorough
def test_framed_pastes_a_picture_into_the_middle_of_its_noise():
    of = BoundedPixels((9, 12), 2, noise="uniform", sd=0.288)
    case, key = Framed((9, 12), of=of, frame=(3, 4)), jax.random.key(5)
    noise = np.asarray(of.decode(of.init(key)))
    assert_close(case.init(key), of.init(key), 0)
    y, x = np.mgrid[:3, :4]
    small = np.stack([x / 4, (x + y) / 8], -1).astype(np.float32)
    inner = np.stack(
        [ndimage.zoom(small[..., c], 2, order=1, mode="nearest", grid_mode=True) for c in (0, 1)],
        -1,
    )
    found = np.asarray(case.decode(case.resume(key, jnp.asarray(small))))
    expected = noise.copy()
    expected[1:7, 2:10] = inner
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Magnified, it is so at the smaller size.
    twice = Upsampled((18, 24), of=case)
    whole = twice.decode(twice.resume(key, jnp.full((5, 5, 2), 0.3)))
    np.testing.assert_allclose(whole[4:12, 6:18], 0.3, atol=1e-5)
    # What is given to start from has no frame; other kinds start from the picture itself.
    image = jnp.asarray(random_image(case))
    np.testing.assert_allclose(case.decode(case.encode(image)), image, atol=1e-6)
    np.testing.assert_allclose(of.decode(of.resume(key, image)), image, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"Framed: of is a parameterization, as Pixels\(\(84, 84\)\), not None"),
        ({"of": Pixels((8, 4))}, r"of size \(8, 8\) and 3 channels"),
        ({"of": Pixels((8, 8)), "frame": 2}, r"\(rows, columns\), two integers, not 2"),
        ({"of": Pixels((8, 8)), "frame": (-1, 2)}, "frame is an integer of at least 0"),
        ({"of": Pixels((8, 8)), "frame": (8, 2)}, r"smaller than the image, \(8, 8\)"),
    ],
)
def test_framed_that_makes_no_sense(fields, message):
    with pytest.raises(InputError, match=message):
        Framed((8, 8), **fields)


# ---- a fixed norm


@pytest.mark.thorough
def test_a_fixed_norm_is_kept_at_any_contrast_and_within_the_box():
    rng = np.random.default_rng(0)
    for contrast in (0.05, 0.3, 0.45):
        case = FixedNorm((8, 9), 3, contrast=contrast, window=(1, 2, 6, 5))
        drawn = jnp.asarray(rng.normal(size=(6, 5, 3)), jnp.float32)
        image = np.array(case.decode({"pixels": drawn}))
        assert np.linalg.norm(image - 0.5) == pytest.approx(case.norm, rel=1e-5)
        assert np.sqrt(np.mean((image[1:7, 2:7] - 0.5) ** 2)) == pytest.approx(contrast, rel=1e-5)
        assert 0 <= image.min() <= image.max() <= 1
        image[1:7, 2:7] = 0.5
        assert np.all(image == 0.5)
    # A few pixels alone cannot have it; they go as far as they can.
    spot = jnp.zeros((4, 4, 1)).at[0, 0, 0].set(2.0)
    found = np.asarray(FixedNorm((4, 4), 1, contrast=0.4).decode({"pixels": spot}))
    assert found[0, 0, 0] == 1.0
    assert np.all(np.delete(found.ravel(), 0) == 0.5)


@pytest.mark.thorough
def test_the_gradient_at_a_fixed_norm_has_no_part_along_it():
    case, rng = FixedNorm((6, 6), 1, contrast=0.1), np.random.default_rng(1)
    z, w = (jnp.asarray(rng.normal(size=(6, 6, 1)), jnp.float32) for _ in range(2))

    def score(pixels):
        return jnp.sum(w * case.decode({"pixels": pixels}))

    g, length = jax.grad(score)(z), float(jnp.linalg.norm(z))
    assert abs(float(jnp.sum(g * z))) < 1e-5 * length
    tangent = w - z * jnp.sum(w * z) / length**2
    np.testing.assert_allclose(g, case.norm / length * tangent, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"contrast": 0.5}, "contrast is a number below 0.5, not 0.5"),
        ({"window": (0, 0, 5, 4)}, r"window is \(top, left, height, width\) within \(4, 4\)"),
        ({"window": (1, 1, 0, 2)}, "window is"),
        ({"window": (1, 1)}, "window is"),
    ],
)
def test_fixed_norms_that_there_are_not(fields, message):
    with pytest.raises(InputError, match=message):
        FixedNorm((4, 4), 1, **fields)


@pytest.mark.thorough
def test_a_shared_part_is_added_before_the_sigmoid():
    case = Shared((8, 8), of=Pixels((8, 8), 1))
    assert (case.grid, case.shared, case.channels) == ((1, 1), {"shared"}, 1)
    params = {"pixels": jnp.full((8, 8, 1), 0.3), "shared": jnp.full((1, 1, 1), -1.0)}
    np.testing.assert_allclose(case.decode(params), 1 / (1 + np.exp(0.7)), rtol=1e-5)
    assert Upsampled((16, 16), of=case).shared == {"shared"}
    for fields, message in [
        ({"of": None}, "an image's own part"),
        ({"of": Pixels((4, 4))}, r"of the shape \(8, 8, 3\)"),
        ({"of": Pixels((8, 8)), "grid": (9, 1)}, r"grid is at most \(8, 8\)"),
    ]:
        with pytest.raises(InputError, match=message):
            Shared((8, 8), **fields)
