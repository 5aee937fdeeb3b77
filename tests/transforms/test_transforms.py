"""Every transform through the same laws, and each against a plain reference."""

import ast
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from transform_cases import CASES, FIXED

import featvis as fv
from featvis import transforms
from featvis.errors import InputError
from featvis.kernels import resampling
from featvis.transforms import (
    PRESETS,
    Blur,
    ColorShift,
    Compose,
    Cutout,
    Flip,
    Jitter,
    LinearSchedule,
    Noise,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomResizedCrop,
    RandomScale,
    Roll,
    Rotate,
    Transform,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile")

IDS = [f"{type(case).__name__}-{i}" for i, (case, _) in enumerate(CASES)]


def image_of(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def smooth(height, width):
    """A picture without detail finer than the interpolation can follow."""
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(y / 5) * np.cos(x / 7), np.cos((x + y) / 9), np.sin(x / 6)]
    return np.stack(planes, axis=-1).astype(np.float32) / 2 + 0.5


@pytest.mark.thorough
@pytest.mark.parametrize(("case", "size"), CASES, ids=IDS)
def test_laws(case, size):
    images = image_of((3, 11, 14, 3))
    keys = jax.random.split(jax.random.key(0), 3)
    probe = image_of((3, *size, 3), seed=1)
    direction = image_of(images.shape, seed=2)

    @jax.jit
    def run(keys, images):
        batched = jax.vmap(case)
        out, back = jax.vjp(lambda x: batched(keys, x), images)
        return out, back(probe)[0]

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        out, gradient = run(keys, images)
    moved = run(keys, images + direction)[0]
    assert out.shape == (3, *size, 3)
    assert out.dtype == jnp.float32
    assert case.output_shape((11, 14, 3)) == (*size, 3)
    # The same key, the same result; jit of the batch equals one image on its own, eagerly.
    np.testing.assert_array_equal(run(keys, images)[0], out)
    np.testing.assert_allclose(case(keys[1], images[1]), out[1], atol=1e-5)
    # Every transform is affine in the image, so its derivative is a difference, and the gradient
    # must be the adjoint: <J v, u> = <v, J' u>.
    assert bool(jnp.isfinite(gradient).all())
    forward = float(((moved - out) * probe).sum())
    assert float((direction * gradient).sum()) == pytest.approx(forward, rel=1e-4)
    # Two images draw for themselves.
    same = run(keys, jnp.broadcast_to(images[:1], images.shape))[0]
    if isinstance(case, FIXED) or case == Compose(()):
        np.testing.assert_array_equal(same[0], same[1])
    else:
        assert len({np.asarray(one).tobytes() for one in same}) > 1


def test_two_widths_are_before_and_after():
    image = image_of((4, 5, 2))
    padded = Pad((1, 3), value=0.25)(jax.random.key(0), image)
    expected = np.pad(image, ((1, 3), (1, 3), (0, 0)), constant_values=0.25)
    np.testing.assert_array_equal(padded, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(
    "case", [Pad(2), Jitter(2), RandomAffine(), RandomResizedCrop(), Blur(1.0), ColorShift()]
)
def test_channels_are_treated_alike_in_any_number(case, channels):
    plane = image_of((7, 5, 1))
    key = jax.random.key(1)
    out = case(key, jnp.repeat(plane, channels, axis=-1))
    assert out.shape == case.output_shape((7, 5, channels))
    if not isinstance(case, ColorShift):
        np.testing.assert_allclose(out, jnp.repeat(out[..., :1], channels, axis=-1), atol=1e-6)


@pytest.mark.parametrize(
    ("border", "mode"), [("edge", "nearest"), ("reflect", "mirror"), ("constant", "grid-constant")]
)
@pytest.mark.parametrize(
    ("scale", "degrees", "shift"),
    [
        (1.0, 0.0, (0.0, 0.0)),
        (0.8, 0.0, (0.0, 0.0)),
        (1.0, 25.0, (0.0, 0.0)),
        (1.2, -170.0, (2.5, -4.0)),
    ],
)
def test_affine_against_scipy(border, mode, scale, degrees, shift):
    image = np.asarray(image_of((13, 18, 3)))
    with jax.numpy_rank_promotion("raise"):
        out = resampling.affine(
            jnp.asarray(image),
            scale=scale,
            degrees=degrees,
            shift=shift,
            border=border,
            value=0.25,
        )
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turn = turn / scale
    centre = np.array([6.0, 8.5])
    for c in range(3):
        expected = ndimage.affine_transform(
            image[..., c],
            turn,
            centre - turn @ (centre + np.array(shift)),
            order=1,
            mode=mode,
            cval=0.25,
        )
        np.testing.assert_allclose(out[..., c], expected, atol=2e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [(40, 56), (41, 33)])
def test_rotate_is_counterclockwise_and_agrees_with_a_cubic_rotation(size):
    image = smooth(*size)
    out = Rotate(20, 20)(jax.random.key(0), jnp.asarray(image))
    # On an array whose rows go down, scipy's positive angle is counterclockwise too.
    expected = ndimage.rotate(image, 20, reshape=False, order=3, mode="nearest")
    inner = (slice(10, -10), slice(10, -10))
    np.testing.assert_allclose(out[inner], expected[inner], atol=0.02)


def test_scale_above_one_enlarges():
    image = smooth(40, 56)
    out = RandomScale(2, 2)(jax.random.key(0), jnp.asarray(image))
    expected = ndimage.zoom(image[10:30, 14:42], (2, 2, 1), order=1, grid_mode=True, mode="nearest")
    np.testing.assert_allclose(out[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-3)


@pytest.mark.thorough
@pytest.mark.usefixtures("usual_promotions")
def test_draws_stay_within_their_bounds():
    image = jnp.zeros((21, 21, 1)).at[10, 10].set(1)
    keys = jax.random.split(jax.random.key(0), 64)
    shifted = jax.vmap(lambda k: RandomAffine((1, 1), (0, 0), 6.0)(k, image))(keys)[..., 0]
    rows = (shifted.sum(2) * jnp.arange(21)[None]).sum(1) - 10
    columns = (shifted.sum(1) * jnp.arange(21)[None]).sum(1) - 10
    for offsets in (rows, columns):
        assert -6.001 <= float(offsets.min()) < -4
        assert 4 < float(offsets.max()) <= 6.001
    assert abs(float(jnp.corrcoef(rows, columns)[0, 1])) < 0.4


@pytest.mark.thorough
def test_crops_are_windows_at_every_place():
    image = jnp.arange(6 * 7, dtype=jnp.float32).reshape(6, 7, 1)
    keys = jax.random.split(jax.random.key(0), 200)
    corners = set()
    for crop in np.asarray(jax.vmap(lambda k: Jitter(2)(k, image))(keys)):
        top, left = divmod(int(crop[0, 0, 0]), 7)
        np.testing.assert_array_equal(crop, image[top : top + 4, left : left + 5])
        corners.add((top, left))
    assert corners == {(y, x) for y in range(3) for x in range(3)}


def test_roll_is_a_roll():
    image = image_of((5, 6, 1))
    out = np.asarray(Roll(8)(jax.random.key(2), image))
    rolled = [np.roll(image, (y, x), (0, 1)) for y in range(5) for x in range(6)]
    assert any(np.array_equal(out, r) for r in rolled)


def test_a_gaussian_blur_of_three_by_three_has_its_impulse_response():
    impulse = jnp.zeros((7, 8, 1)).at[3, 4].set(1)
    out = Blur(1.0, radius=1)(jax.random.key(0), impulse)[..., 0]
    side = math.exp(-0.5) / (1 + 2 * math.exp(-0.5))
    line = np.array([side, 1 - 2 * side, side])
    expected = np.zeros((7, 8))
    expected[2:5, 3:6] = np.outer(line, line)
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_blur_against_scipy():
    image = np.asarray(image_of((12, 9, 2)))
    expected = ndimage.gaussian_filter(image, (1.5, 1.5, 0), mode="nearest", radius=(5, 5, 0))
    out = Blur(1.5)(jax.random.key(0), jnp.asarray(image))
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.thorough
def test_resized_crop_of_everything_is_the_image_and_averages_when_it_reduces():
    image = image_of((8, 12, 3))
    whole = RandomResizedCrop(1, 1)
    np.testing.assert_allclose(whole(jax.random.key(0), image), image, atol=1e-5)
    half = RandomResizedCrop(1, 1, size=(4, 6))(jax.random.key(0), image)
    expected = jax.image.resize(image, (4, 6, 3), "linear", antialias=True)
    np.testing.assert_allclose(half, expected, atol=1e-5)


@pytest.mark.thorough
def test_resized_crop_stays_inside_the_picture():
    ramp = jnp.broadcast_to(jnp.arange(20.0)[:, None, None], (20, 20, 1))
    keys = jax.random.split(jax.random.key(0), 100)
    out = np.asarray(jax.vmap(lambda k: RandomResizedCrop(0.2, 0.5)(k, ramp))(keys))[..., 0]
    extent = out[:, -1, 0] - out[:, 0, 0]
    assert out.min() >= 0
    assert out.max() <= 19
    # The samples at pixel centres span the box less one step.
    assert extent.min() > 0.2 * 20 * 0.9
    assert extent.max() < 0.5 * 20
    assert np.median(out[:, 10, 0]) == pytest.approx(9.5, abs=1)


@pytest.mark.thorough
def test_a_resized_crop_without_a_deviation_is_anywhere_with_the_same_chance():
    ramp = jnp.broadcast_to(jnp.arange(20.0)[:, None, None], (20, 20, 1))
    keys = jax.random.split(jax.random.key(0), 400)
    out = np.asarray(jax.vmap(lambda k: RandomResizedCrop(0.5, 0.5, None)(k, ramp))(keys))[..., 0]
    # A box of 10 pixels begins at 0 to 10, its first sample is a quarter of a pixel further in.
    starts = np.sort(out[:, 0, 0])
    np.testing.assert_allclose(starts, np.linspace(0, 10, 400) - 0.25, atol=0.8)
    np.testing.assert_allclose(out.min((1, 2)), out[:, 0, 0], atol=1e-6)


def test_noise_flip_and_colour_shift_do_what_they_say():
    image = jnp.full((40, 50, 3), 0.5)
    noisy = Noise(0.2)(jax.random.key(0), image) - image
    assert float(noisy.std()) == pytest.approx(0.2, rel=0.05)
    ramp = image_of((4, 5, 2))
    np.testing.assert_array_equal(Flip(1)(jax.random.key(0), ramp), ramp[:, ::-1])
    np.testing.assert_array_equal(Flip(0)(jax.random.key(0), ramp), ramp)
    pair = jnp.stack([jnp.zeros((2, 3)), jnp.ones((2, 3))])  # (2, 2, 3): a row of 0, a row of 1
    out = np.asarray(ColorShift(1.0)(jax.random.key(0), pair))
    assert np.all(np.abs(out[0, 0]) <= 1)
    assert np.all(np.abs(np.log(out[1, 0] - out[0, 0])) <= 1)
    assert len(set(out[0, 0].tolist())) == 3


@pytest.mark.thorough
def test_cutout_hides_a_rectangle_anywhere_and_each_pixel_alike():
    image = jnp.full((40, 60, 1), 1.0)
    shown = jax.vmap(Cutout(0.5, 0.25), (0, None))(jax.random.split(jax.random.key(0), 600), image)
    hidden = np.asarray(shown == 0.25)[..., 0]
    assert np.all(hidden | np.asarray(shown == 1)[..., 0])
    # A rectangle: where a row and a column are hidden in part, their crossing is.
    crossing = hidden.any(2)[:, :, None] & hidden.any(1)[:, None, :]
    np.testing.assert_array_equal(hidden, crossing)
    assert (hidden.any(2).sum(1).max(), hidden.any(1).sum(1).max()) == (20, 30)
    # A point at u is hidden where the centre is within a quarter: 0.5 inside, 0.25 at the border.
    assert hidden[:, 20, 30].mean() == pytest.approx(0.25, abs=0.06)
    assert hidden[:, 0, 30].mean() == pytest.approx(0.125, abs=0.05)


def literal(node):
    """Build a transform from the tree of its repr, without evaluating anything."""
    if isinstance(node, ast.Call):
        kinds = [*Transform.__subclasses__(), LinearSchedule]
        kind = {kind.__name__: kind for kind in kinds}[node.func.id]
        return kind(**{k.arg: literal(k.value) for k in node.keywords})
    if isinstance(node, ast.Tuple) and any(isinstance(e, ast.Call) for e in node.elts):
        return tuple(literal(e) for e in node.elts)
    return ast.literal_eval(node)


@pytest.mark.parametrize(
    "case", [case for case, _ in CASES] + [make((11, 14)) for make in PRESETS.values()], ids=repr
)
def test_equal_by_value_and_readable_as_text(case):
    twin = literal(ast.parse(repr(case), mode="eval").body)
    assert twin == case
    assert hash(twin) == hash(case)
    assert dataclasses.replace(case) == case


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pad(-1), "Pad: width"),
        (lambda: Pad(1.5), "1.5"),
        (lambda: Pad((1, -1)), "Pad: width"),
        (lambda: Pad((1, 2, 3)), "or two"),
        (lambda: Pad(1, "wrap"), "'reflect'"),
        (lambda: Pad(1, value=math.inf), "finite"),
        (lambda: RandomCrop(5), "size"),
        (lambda: Jitter(-2), "Jitter: shift"),
        (lambda: Roll("3"), "'3'"),
        (lambda: RandomAffine(scale=1.1), "pair"),
        (lambda: RandomAffine(scale=(1.1, 0.9)), "in this order"),
        (lambda: RandomAffine(scale=(0, 1)), "scale"),
        (lambda: RandomAffine(rotate=(-200, 0)), "-180"),
        (lambda: RandomAffine(shift=-1), "shift"),
        (lambda: RandomScale(1.2, 0.8), "RandomScale"),
        (lambda: Rotate(10, -10), "Rotate"),
        (lambda: RandomResizedCrop(0.5, 1.5), "RandomResizedCrop"),
        (lambda: RandomResizedCrop(sd=-1), "sd"),
        (lambda: RandomResizedCrop(size=(0, 4)), "size"),
        (lambda: Blur(0), "sigma"),
        (lambda: Blur(1, radius=0), "radius"),
        (lambda: Noise(-0.1), "Noise: sd"),
        (lambda: Flip(1.2), "from 0 to 1"),
        (lambda: ColorShift(math.nan), "strength"),
        (lambda: Cutout(1.5), "Cutout: side"),
        (lambda: Compose((Pad(1), "flip")), "'flip'"),
        (lambda: Compose(Pad(1)), "tuple of transforms"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("case", "shape"),
    [
        (RandomCrop((5, 5)), (4, 6, 3)),
        (Jitter(4), (4, 6, 3)),
        (Pad(4, "reflect"), (4, 6, 3)),
        (Pad((0, 4), "reflect"), (4, 6, 3)),
        (Compose((Pad(1), Jitter(9))), (4, 6, 3)),
        (Noise(0.1), (4, 6)),
        (Blur(1.0), (2, 4, 6, 3)),
    ],
)
def test_images_that_do_not_fit(case, shape):
    with pytest.raises(InputError, match=f"{shape[0]}|6x8"):
        case(jax.random.key(0), jnp.zeros(shape))


@pytest.mark.thorough
def test_the_smallest_image_goes_through():
    image = jnp.full((1, 1, 1), 0.3)
    for border in transforms.BORDERS:
        out = RandomAffine(border=border, value=0.3)(jax.random.key(0), image)
        np.testing.assert_allclose(out, image, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "shift", "frame"), [((160, 160), 8.0, 12), ((512, 300), 8.0, 12), ((32, 64), 1.6, 2)]
)
def test_presets_are_in_proportion_to_small_images(size, shift, frame):
    assert PRESETS["affine"](size).shift == pytest.approx(shift)
    height, width, _ = PRESETS["standard"](size).output_shape((*size, 3))
    assert (height - size[0], width - size[1]) == (frame, frame)


@pytest.mark.thorough
@pytest.mark.parametrize("frame", [0, 3])
@pytest.mark.parametrize(
    ("scale", "degrees"), [(1.0, 0.0), (0.7, 30.0), (1.2, -170.0), (1.7, 45.0)]
)
def test_the_gradient_of_an_affine_map_is_its_transpose(scale, degrees, frame):
    image = np.asarray(image_of((9, 12, 2)))

    def mapped(image):
        return resampling.affine(
            jnp.asarray(image),
            scale=scale,
            degrees=degrees,
            shift=(1.3, -2.6),
            border="constant",
            value=0.25,
            frame=frame,
            largest=scale,
        )

    # An affine map of the pixels: its matrix, column by column.
    nothing = np.asarray(mapped(np.zeros_like(image)))
    pixels = np.eye(image.size, dtype=np.float32).reshape(-1, *image.shape)
    matrix = np.asarray(jax.vmap(mapped)(pixels)).reshape(image.size, -1)
    matrix = matrix - nothing.reshape(1, -1)
    weight = np.random.default_rng(0).normal(size=nothing.shape).astype(np.float32)
    _, pullback = jax.vjp(mapped, image)
    expected = (matrix @ weight.reshape(-1)).reshape(image.shape)
    np.testing.assert_allclose(pullback(weight)[0], expected, atol=2e-5)


@pytest.mark.thorough
def test_no_preset_lets_the_outermost_pixels_stand_for_those_beyond_them():
    # How much of what is seen each pixel makes up, averaged over draws: an edge that goes on gives
    # the outermost ones more than those inside of them, which draws a frame around a picture.
    keys = jax.random.split(jax.random.key(0), 300)

    def weights(case, key):
        seen, back = jax.vjp(lambda image: case(key, image), jnp.zeros((24, 30, 1)))
        return back(jnp.ones_like(seen))[0][..., 0]

    def ratio(case):
        mean = np.asarray(jax.jit(jax.vmap(lambda key: weights(case, key)))(keys)).mean(0)
        outermost = np.concatenate([mean[[0, -1], 1:-1].ravel(), mean[1:-1, [0, -1]].ravel()])
        next_ones = np.concatenate([mean[[1, -2], 2:-2].ravel(), mean[2:-2, [1, -2]].ravel()])
        return outermost.mean() / next_ones.mean()

    assert ratio(RandomAffine(shift=1.2, border="edge")) > 1.2
    for make in PRESETS.values():
        assert ratio(make((24, 30)).over(2).at(0)) < 1.01
    for case in (RandomAffine(shift=1.2), RandomScale(), Rotate()):
        assert ratio(case) < 1.01


# ---- the user's own ------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_transform_of_ones_own_is_one_class(toy):
    class Dimmed(Transform):
        """Darken an image, by a share that may be a schedule; no decorator, no private hook."""

        share: Any = 0.5

        def __call__(self, key, image):
            return image * (1 - self.share * jax.random.uniform(key, ()))

    own = Dimmed(0.25)
    assert own == Dimmed(0.25) != Dimmed()
    assert repr(own) == "Dimmed(share=0.25)"
    with pytest.raises(fv.InputError, match="Dimmed: one image"):
        own(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.share = 1.0
    options = {"steps": 3, "progress": False}
    made = fv.synthesize(toy, "conv:1", transform=own, **options)
    again = fv.synthesize(toy, "conv:1", transform="Compose((Dimmed(0.25),))", **options)
    np.testing.assert_array_equal(made.images, fv.replay(made.manifest, model=toy).images)
    assert again.images.shape == made.images.shape
    moving = Dimmed(LinearSchedule(0.1, 0.9))
    scheduled = fv.synthesize(toy, "conv:1", transform=moving, **options)
    replayed = fv.replay(scheduled.manifest, model=toy, progress=False)
    np.testing.assert_array_equal(scheduled.images, replayed.images)


@pytest.mark.thorough
def test_what_is_magnified_lies_anywhere_in_the_picture():
    # An axis that holds its own place: what is seen of it says where one looks.
    place = jnp.broadcast_to(jnp.linspace(0, 1, 64)[:, None, None], (64, 64, 1))
    keys = jax.random.split(jax.random.key(0), 2000)
    views = RandomAffine((2.0, 2.0), (0, 0), 0.0, spread=1.0)
    centres = jax.vmap(lambda key: views(key, place)[31:33, :, 0].mean())(keys)
    # Half of the picture is seen: its centre lies from a quarter to three quarters, uniformly.
    np.testing.assert_allclose(centres.min(), 0.25, atol=0.01)
    np.testing.assert_allclose(centres.max(), 0.75, atol=0.01)
    np.testing.assert_allclose(centres.std(), 0.5 / np.sqrt(12), rtol=0.05)
    middle = RandomAffine((2.0, 2.0), (0, 0), 0.0)
    np.testing.assert_allclose(
        jax.vmap(lambda key: middle(key, place)[31:33, :, 0].mean())(keys[:5]), 0.5, atol=0.01
    )


@pytest.mark.thorough
def test_enlarging_is_as_likely_as_reducing():
    place = jnp.broadcast_to(jnp.linspace(0, 1, 64)[:, None, None], (64, 64, 1))
    keys = jax.random.split(jax.random.key(0), 2000)
    scaled = RandomAffine((0.5, 2.0), (0, 0), 0.0, "edge")
    slope = jax.vmap(lambda key: jnp.diff(scaled(key, place)[30:33, 0, 0]).mean())(keys) * 63
    logarithms = -np.log(slope)
    np.testing.assert_allclose(
        [logarithms.min(), logarithms.max()], [-np.log(2), np.log(2)], atol=0.01
    )
    np.testing.assert_allclose(logarithms.mean(), 0, atol=0.03)
    np.testing.assert_allclose(logarithms.std(), 2 * np.log(2) / np.sqrt(12), rtol=0.05)


@pytest.mark.thorough
def test_views_are_within_the_picture_and_in_proportion_to_small_ones():
    assert PRESETS["views"]((224, 224)).scale == (1.0, pytest.approx(3.3))
    assert PRESETS["views"]((32, 64)).scale == (1.0, pytest.approx(1.46))
    inside = RandomAffine((1.0, 3.3), (0, 0), 0.0, "constant", 9.0, spread=1.0)
    keys = jax.random.split(jax.random.key(0), 200)
    assert jax.vmap(lambda key: inside(key, jnp.zeros((24, 16, 1))))(keys).max() < 1e-3
