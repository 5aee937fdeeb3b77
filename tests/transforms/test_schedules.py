"""Numbers that change over the steps: their values, in transforms and in runs."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import Compiled
from networks import TOY_SIZE

import featvis as fv
from featvis import text
from featvis.errors import InputError
from featvis.results.format import last_run
from featvis.transforms import (
    PRESETS,
    Blur,
    ColorShift,
    Compose,
    Flip,
    LinearSchedule,
    Noise,
    NormalCrop,
    Pad,
    RandomAffine,
    RandomResizedCrop,
    Schedule,
    Transform,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile")


class Brighten(Transform):
    """Somebody's own transform, which knows nothing of schedules: the image, and a number more."""

    amount: float | Schedule = 0.0

    def __call__(self, key, image):
        return image + self.amount


@dataclass(frozen=True)
class Halving(Schedule):
    """Somebody's own schedule."""

    first: float = 1.0

    def at(self, step):
        return self.first * 0.5 ** jnp.asarray(step, jnp.float32)

    @property
    def extent(self):
        return 0.0, self.first


def run(toy, transform, **options):
    options = {"steps": 8, "optimizer": "sgd(0.0)", "progress": False, **options}
    pixels = fv.BoundedPixels(TOY_SIZE, sd=0.0)
    return fv.synthesize(toy, "channel('linear', 1)", pixels, transform=transform, **options)


def brightness(toy, result):
    """By how much the picture was brighter than mid-grey at each step, from the score."""
    return result.scores[:, 0] / float(toy.params["linear"][..., 1].sum())


# ---- values --------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 256])
def test_a_linear_schedule_is_numpys_linspace(steps):
    schedule = LinearSchedule(0.5, 0.05).over(steps)
    assert schedule == LinearSchedule(0.5, 0.05, steps)
    found = jax.vmap(schedule.at)(jnp.arange(steps))
    np.testing.assert_allclose(found, np.linspace(0.5, 0.05, steps), atol=1e-7)
    assert float(schedule.at(0)) == np.float32(0.5)
    assert float(schedule.at(10 * steps)) == np.float32(0.05)
    assert schedule.over(7) == schedule
    assert schedule.extent == (0.05, 0.5)
    assert float(LinearSchedule(0.5, 0.05, 1).at(0)) == 0.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinearSchedule("a", 1), "start is a finite number"),
        (lambda: LinearSchedule(0, 1e40), "end is of a size of at most 3.4.*e.38, not 1e.40"),
        (lambda: LinearSchedule(10**400, 1), "start is a finite number"),
        (lambda: LinearSchedule(0, np.inf), "end is a finite number"),
        (lambda: LinearSchedule(0, 1, 0), "steps is an integer of at least 1"),
        (lambda: LinearSchedule(0, 1).at(3), "steps is known at a step"),
        (lambda: Noise(LinearSchedule(-0.1, 1)), "Noise: sd is a finite number of at least 0"),
        (lambda: Flip(LinearSchedule(0, 1.5)), "probability is a number from 0 to 1, not 1.5"),
        (lambda: Blur(LinearSchedule(1, 2)), "sigma is .* not LinearSchedule"),
        (lambda: Pad(LinearSchedule(1, 2)), "width is .* not LinearSchedule"),
        (lambda: NormalCrop(0.01), "side is a number from 0.05 to 1, not 0.01"),
        (lambda: NormalCrop(LinearSchedule(0.5, 0.01)), "side is a number from 0.05"),
        (lambda: NormalCrop(0.5, smallest=2), "smallest"),
        (lambda: NormalCrop(0.5, size=3), "size"),
        (lambda: RandomResizedCrop(low=LinearSchedule(0, 0.5)), "low is a number from 0.001"),
        (lambda: text.transform("LinearSchedule(0, 1)", (8, 8)), "is not a transform"),
        (
            lambda: Compose((Noise(LinearSchedule(1, 2)),))(jax.random.key(0), jnp.ones((4, 4, 1))),
            r"LinearSchedule\(.*\) has a number for each step; .*\.at\(step\)",
        ),
    ],
)
def test_what_makes_no_sense(make, words):
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("case", "like"),
    [
        (Noise(LinearSchedule(0.1, 0.3)), Noise),
        (ColorShift(LinearSchedule(0.1, 0.3)), ColorShift),
        (Flip(LinearSchedule(0.1, 0.3)), Flip),
        (RandomAffine(shift=LinearSchedule(0.1, 0.3)), lambda x: RandomAffine(shift=x)),
        (NormalCrop(LinearSchedule(0.1, 0.3)), NormalCrop),
        (NormalCrop(0.5, LinearSchedule(0.1, 0.3)), lambda x: NormalCrop(0.5, x)),
        (NormalCrop(0.5, 0.0, LinearSchedule(0.1, 0.3)), lambda x: NormalCrop(0.5, 0.0, x)),
        (RandomResizedCrop(LinearSchedule(0.1, 0.3)), RandomResizedCrop),
        (Brighten(LinearSchedule(0.1, 0.3)), Brighten),
        (Compose((Pad(1), Noise(LinearSchedule(0.1, 0.3)))), lambda x: Compose((Pad(1), Noise(x)))),
    ],
    ids=[str(number) for number in range(10)],
)
def test_at_a_step_a_transform_is_that_of_the_steps_number(case, like):
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(9, 12, 3)), jnp.float32)
    key = jax.random.key(1)
    timed = case.over(5)
    assert text.transform(repr(timed), (9, 12)) == timed
    assert hash(timed) == hash(case.over(5)) != hash(case.over(6))
    moved = jax.jit(lambda step: timed.at(step)(key, image))
    with Compiled() as compiled:
        pictures = [moved(step) for step in range(5)]
    assert compiled.count("lambda") == 1
    for picture, number in zip(pictures, (0.1, 0.15, 0.2, 0.25, 0.3), strict=True):
        np.testing.assert_allclose(picture, like(number)(key, image), atol=1e-5)


@pytest.mark.thorough
def test_the_crops_of_maco_are_those_of_the_paper():
    # Fel et al. 2023: sides normal around 50 % to 5 % in equal steps, of sd 5 %, clipped at 5 %.
    height = 400
    ramp = jnp.broadcast_to(jnp.arange(height, dtype=jnp.float32)[:, None, None], (height, 4, 1))
    (crop,) = [
        one for one in PRESETS["maco"]((height, 4)).transforms if isinstance(one, NormalCrop)
    ]
    timed, keys = crop.over(256), jax.random.split(jax.random.key(0), 2000)

    @jax.jit
    def ends(step):
        out = jax.vmap(lambda key: timed.at(step)(key, ramp)[:, 0, 0])(keys)
        return out[:, 0], out[:, -1]

    normal = np.random.default_rng(0).normal(size=100_000)
    for step in (0, 128, 255):
        first, last = map(np.asarray, ends(step))
        # The samples at pixel centres span the box less one step; at its upper end, 1, they do not.
        sides = (last - first) / (height - 1)
        wanted = np.clip(np.linspace(0.5, 0.05, 256)[step] + 0.05 * normal, 0.05, 1)
        assert sides.mean() == pytest.approx(wanted.mean(), abs=0.005)
        assert sides.std() == pytest.approx(wanted.std(), abs=0.005)
        assert sides.min() > 0.045
        middle = (first + last) / 2 / (height - 1)
        assert middle.mean() == pytest.approx(0.5, abs=0.015)
    assert middle.std() == pytest.approx(0.15, abs=0.01)


# ---- in a run ------------------------------------------------------------------------------


@pytest.mark.thorough
def test_scores_follow_a_schedule_of_ones_own_transform(toy):
    # The unit is linear, so that the score is as many times the brightness that was added.
    result = run(toy, "Brighten(LinearSchedule(0.0, 0.7))")
    np.testing.assert_allclose(brightness(toy, result), np.linspace(0, 0.7, 8), atol=1e-5)
    assert result.clean_scores[0] == pytest.approx(0, abs=1e-5)
    # At the end of the run.
    np.testing.assert_allclose(result.transformed_scores, result.scores[-1], rtol=1e-5)
    own = run(toy, Brighten(Halving(0.8)), steps=4)
    np.testing.assert_allclose(brightness(toy, own), [0.8, 0.4, 0.2, 0.1], atol=1e-5)
    assert run(toy, "Brighten(Halving(0.8))", steps=4).scores.tolist() == own.scores.tolist()


def test_another_step_another_unit_or_a_snapshot_compiles_nothing(toy):
    noisy = {"transform": "Noise(LinearSchedule(0.1, 0.3))", "optimizer": "sgd(0.1)", "steps": 80}
    whole = run(toy, **noisy)
    with Compiled() as compiled:
        cut = run(toy, **noisy, snapshots=[1, 2, 40])
    assert compiled.names == []
    np.testing.assert_array_equal(cut.images, whole.images)


def test_a_run_that_stopped_early_is_made_again_to_the_bit(toy, tmp_path):
    result = run(
        toy, "Noise(LinearSchedule(0.0, 3.0))", steps=60, patience=5, optimizer="sgd(1e-3)"
    )
    recorded = last_run(result.manifest)
    assert recorded["steps"] < 60
    assert recorded["transform"] == "Noise(sd=LinearSchedule(start=0.0, end=3.0, steps=60))"
    again = fv.replay(result.save(tmp_path / "a.png"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, result.images)
    np.testing.assert_array_equal(again.scores, result.scores)
    np.testing.assert_array_equal(again.transformed_scores, result.transformed_scores)


@pytest.mark.thorough
def test_a_run_that_goes_on_begins_its_schedule_anew(toy, tmp_path):
    first = run(toy, "Brighten(LinearSchedule(0.0, 0.7))")
    both = run(toy, "Brighten(LinearSchedule(0.4, 0.1))", steps=4, init=first)
    expected = [*np.linspace(0, 0.7, 8), *np.linspace(0.4, 0.1, 4)]
    np.testing.assert_allclose(brightness(toy, both), expected, atol=1e-5)
    again = fv.replay(both.save(tmp_path / "a.png"), model=toy, progress=False)
    np.testing.assert_array_equal(again.scores, both.scores)
