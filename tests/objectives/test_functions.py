"""Plain functions as objectives."""

import functools

import numpy as np
import pytest
from compiles import Compiled
from networks import TOY_SIZE

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def channel(acts, image):
    return acts["conv"][..., 3].mean((1, 2))


def run(toy, objective, **options):
    options = {"steps": 3, "transform": "none", "progress": False, **options}
    return fv.synthesize(toy, objective, fv.Pixels(TOY_SIZE), **options)


@pytest.mark.thorough
def test_a_function_is_the_objective_that_it_computes(toy):
    with Compiled() as compiled:
        found = run(toy, channel, seed=[1, 2])
    assert compiled.steps == 1
    named = run(toy, "conv:3", seed=[1, 2])
    np.testing.assert_allclose(found.images, named.images, atol=1e-6)
    np.testing.assert_allclose(found.clean_scores, named.clean_scores, rtol=1e-5)
    with Compiled() as compiled:
        run(toy, channel, seed=[3, 4])
    assert compiled.names == []
    # It reads activations: it has evidence, and members.
    pictures = np.random.default_rng(0).uniform(size=(4, *TOY_SIZE, 3)).astype(np.float32)
    compared = [fv.compare_with_natural(one, pictures) for one in (found, named)]
    np.testing.assert_allclose(*(one.evidence["natural_max"] for one in compared), rtol=1e-5)
    assert "test_functions.channel" in found[1]._repr_html_()


def test_it_adds_and_scales_as_any(toy):
    whole = 2 * fv.Function(channel) - 0.1 * fv.TotalVariation()
    assert whole == 2 * fv.Function(channel) - 0.1 * fv.TotalVariation()
    assert whole != 2 * fv.Function(lambda acts, image: channel(acts, image))
    image = np.full((1, *TOY_SIZE, 3), 0.25, np.float32)
    wanted = 2 * channel(toy(image), image)
    np.testing.assert_allclose(whole(toy(image), image), wanted, rtol=1e-5)
    assert fv.Function(functools.partial(channel)).name.endswith("test_functions.channel")


@pytest.mark.thorough
def test_its_code_is_in_no_manifest_and_replay_says_so(toy):
    result = run(toy, channel, steps=1)
    assert result.manifest["runs"][0]["objective"].endswith("test_functions.channel')")
    with pytest.raises(fv.ParseError, match=r"channel was a function of Python, whose code no"):
        fv.replay(result.manifest, model=toy, progress=False)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda acts: 0, r"takes \(activations, images\); .*<lambda>: too many positional"),
        (lambda acts, image, more: 0, "missing a required argument: 'more'"),
        (lambda acts, image: acts["conv"].mean(), r"scores of shape \(\); expected one an image"),
        (lambda acts, image: acts["conv"].mean(1), r"shape \(1, 16, 6\)"),
        (lambda acts, image: acts["cnv"].mean((1, 2, 3)), "unknown layer 'cnv'; nearest: conv"),
        (lambda acts, image: image[99, None].foo, "raised (AttributeError|IndexError)"),
        (lambda acts, image: None, "<lambda> raised"),
    ],
)
def test_a_function_that_does_not_fit(toy, function, message):
    with pytest.raises(fv.ObjectiveError, match=message):
        run(toy, function)


@pytest.mark.parametrize("value", [fv.Channel, 3, None])
def test_what_is_no_objective(toy, value):
    with pytest.raises(fv.InputError, match="an Objective, its text or a function"):
        run(toy, value)
