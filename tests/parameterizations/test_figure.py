"""A figure before random backgrounds: what is opaque is what the unit looks for."""

import jax
import numpy as np
import pytest
from networks import TOY_SIZE

import featvis as fv
from featvis import text

pytestmark = pytest.mark.usefixtures("quick_to_compile")

PARTS = {"of": fv.Pixels(TOY_SIZE, sd=1.0), "mask": fv.Pixels(TOY_SIZE, 1, sd=1.0)}
#: Of the unit's weights (h, w, 3) at each place, by how much colours can raise the score.
COUNT = TOY_SIZE[0] * TOY_SIZE[1]


def gains(toy):
    """What the score gains where all of a pixel is a figure in the best colours, (h, w)."""
    # Backgrounds are grey in the mean, which such a unit has 0 for.
    return np.abs(np.asarray(toy.params["linear"][..., 1])).sum(-1) / 2


@pytest.fixture(scope="module")
def found(toy):
    """Of a linear unit, with a price at which half of the places are worth it."""
    way = fv.Figure(TOY_SIZE, **PARTS, weight=float(np.median(gains(toy)) * COUNT))
    return fv.synthesize(
        toy, "linear:1", way, steps=400, optimizer="adam(0.1)", transform="none", progress=False
    )


def sigmoid(values):
    return 1 / (1 + np.exp(-np.asarray(values, float)))


def test_a_figure_is_laid_over_its_background():
    way = fv.Figure(TOY_SIZE, **PARTS)
    params = way.init(jax.random.key(0))
    colours, opacity = (sigmoid(params[f"{one}_pixels"]) for one in ("colours", "mask"))
    grey = opacity * colours + (1 - opacity) * 0.5
    np.testing.assert_allclose(way.decode(params), grey, atol=1e-6)
    layers = np.concatenate([colours, opacity], -1)
    np.testing.assert_allclose(way.with_opacity(params), layers, atol=1e-6)
    # Each key has a background of its own, which is the same for every figure.
    shown = [np.asarray(way.shown(jax.random.key(key), params)) for key in (1, 1, 2)]
    np.testing.assert_array_equal(shown[0], shown[1])
    drawn = [(image - opacity * colours) / (1 - opacity) for image in shown[1:]]
    assert np.abs(drawn[0] - drawn[1]).mean() > 0.1
    again = way.shown(jax.random.key(2), way.init(jax.random.key(5)))
    other = way.with_opacity(way.init(jax.random.key(5)))
    mixed = other[..., 3:] * other[..., :3] + (1 - other[..., 3:]) * drawn[1]
    np.testing.assert_allclose(again, mixed, atol=1e-5)
    still = fv.Figure(TOY_SIZE, **PARTS, sd=0.0)
    np.testing.assert_allclose(still.shown(jax.random.key(1), params), grey, atol=1e-6)


def test_backgrounds_are_grey_in_the_mean_and_smooth():
    way = fv.Figure(TOY_SIZE, **PARTS)
    nothing = {**way.init(jax.random.key(0)), "mask_pixels": np.full((*TOY_SIZE, 1), -50.0)}
    keys = jax.random.split(jax.random.key(3), 200)
    drawn = np.asarray(jax.vmap(way.shown, (0, None))(keys, nothing))
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.std() > 0.15
    # Independent pixels differ by 1.4 times their own deviation.
    assert np.diff(drawn, axis=1).std() < 0.75 * drawn.std()


def test_opacity_costs_its_weight():
    way = fv.Figure(TOY_SIZE, **PARTS, weight=3.0)
    params = way.init(jax.random.key(0))
    opacity = sigmoid(params["mask_pixels"])
    pulled = way.pull(params)
    assert list(pulled) == ["mask_pixels"]
    np.testing.assert_allclose(
        pulled["mask_pixels"], -3.0 / COUNT * opacity * (1 - opacity), atol=1e-8
    )


def test_what_is_worth_its_price_becomes_opaque_and_nothing_else(toy, found):
    worth, price = gains(toy), found.run.parameterization.weight / COUNT
    opacity = np.asarray(found.run.parameterization.with_opacity(
        {name: value[0] for name, value in found.params.items()}
    )[..., 3])  # fmt: skip
    clear = np.abs(worth - price) > 0.2
    assert clear.mean() > 0.6
    np.testing.assert_array_equal((opacity > 0.5)[clear], (worth > price)[clear])


def test_its_picture_is_transparent_and_it_replays(toy, found, tmp_path):
    picture = found.picture(transparent=True)
    assert picture.mode == "RGBA"
    # Laid over grey, as whoever reads it has it, it is the image again.
    picture.save(tmp_path / "figure.png")
    with pytest.warns(fv.ConversionWarning, match="mid-grey"):
        read = fv.read_images([tmp_path / "figure.png"], TOY_SIZE)
    np.testing.assert_allclose(read, found.images, atol=0.01)
    way = found.run.parameterization
    assert text.parameterization(str(way), (1, 1)) == way
    assert text.parameterization("figure", TOY_SIZE) == fv.Figure(TOY_SIZE)
    again = fv.replay(found.save(tmp_path / "a"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, found.images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fv.Figure((8, 8), weight=-1), "Figure: weight"),
        (lambda: fv.Figure((8, 8), sd="a"), "Figure: sd"),
        (lambda: fv.Figure((8, 8), of=fv.Pixels((8, 9))), r"of is .* of size \(8, 8\)"),
        (lambda: fv.Figure((8, 8), mask=fv.Pixels((8, 8))), "mask is .* channels=1"),
        (lambda: fv.Figure((8, 8), of=fv.Figure((8, 8))), "Figure stands around others"),
        (lambda: fv.Upsampled((9, 9), of=fv.Figure((8, 8))), "Figure stands around others"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(fv.InputError, match=message):
        make()
