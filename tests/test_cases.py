"""Every class of every kind has a case, and each case obeys the laws of its kind.

The laws of one image, of gradients and of references are in the folders of their kinds; here is
what makes something usable in a run: its text, and a replay to the bit.
"""

import dataclasses
import inspect
import json

import command_cases
import jax.numpy as jnp
import metric_cases
import numpy as np
import parameterization_cases
import preset_cases
import pytest
import transform_cases
from parameterization_cases import parts

import featvis as fv
from featvis import methods, text
from featvis.cli import app
from featvis.evidence import metrics
from featvis.parameterizations import Parameterization
from featvis.transforms import (
    ColorShift,
    Compose,
    Flip,
    Jitter,
    Noise,
    Pad,
    Roll,
    Schedule,
    Transform,
)
from featvis_command.overview import commands

SIZE = (9, 14)
RUNS = parameterization_cases.runs(SIZE)

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def classes(base):
    """Every class of featvis under `base`."""
    found = set()
    for cls in base.__subclasses__():
        found |= classes(cls)
        if cls.__module__.startswith("featvis.") and not inspect.isabstract(cls):
            found.add(cls)
    return found


def kinds(cases):
    return {type(case) for case in cases}


def metric_functions():
    return {
        value
        for name, value in vars(metrics).items()
        if inspect.isfunction(value)
        and value.__module__ == metrics.__name__
        and not name.startswith("_")
    }


def preset_names():
    kinds_of = ("inversion", "caricature", "class model", "visualization", "sampling")
    found = {(kind, name) for kind in kinds_of for name in methods.presets(kind)}
    of_an_index = {(kind, "exp_maximization") for kind in ("class model", "visualization")}
    return found - of_an_index  # tests/natural


@pytest.mark.parametrize(
    ("there_are", "cases"),
    [
        (classes(Parameterization), kinds(parameterization_cases.cases())),
        (classes(Parameterization), kinds(part for run in RUNS for part in parts(run))),
        (classes(Transform) - {Compose}, kinds(case for case, _ in transform_cases.CASES)),
        (classes(Schedule), kinds(transform_cases.SCHEDULES)),
        (metric_functions(), {case.metric for case in metric_cases.CASES}),
        (preset_names(), {case[:2] for case in preset_cases.CASES}),
        ({*commands()}, {*command_cases.CASES}),
    ],
    ids=[
        "parameterizations",
        "their runs",
        "transforms",
        "schedules",
        "metrics",
        "presets",
        "commands",
    ],
)
def test_every_class_has_a_case(there_are, cases):
    assert there_are <= cases


# ---- parameterizations and transforms, in a run ---------------------------------------------


@pytest.fixture(scope="module")
def linear():
    """A unit a channel, of an image of any size and up to four channels."""

    def apply(params, image):
        return {"unit": (jnp.sin(3 * image) * params[: image.shape[-1]]).sum((1, 2))}

    weights = np.float32([1, -2, 0.5, 1.5])

    def of(channels):
        return fv.from_function(
            apply, weights, input=fv.Input(SIZE, channels=channels), name="linear"
        )

    return of


def run(model, way, **options):
    options = {"steps": 2, "transform": "none", "optimizer": "sgd(0.1)", **options}
    return fv.synthesize(model, "unit:0", way, seed=[1, 2], progress=False, **options)


def check_replay(result, model):
    """The pictures are pictures, each its own, and are made again from the manifest's text."""
    images = result.images
    assert images.dtype == np.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert np.any(images[0] != images[1])
    again = fv.replay(json.loads(json.dumps(result.manifest)), model=model, progress=False)
    for name in ("images", "scores", "clean_scores", "transformed_scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))


@pytest.mark.thorough
@pytest.mark.parametrize("case", RUNS, ids=parameterization_cases.name)
def test_a_run_of_every_parameterization_replays(case, linear):
    model = linear(case.channels)
    check_replay(run(model, case), model)


def test_every_transform_has_a_text():
    for case, _ in transform_cases.CASES:
        found = text.transform(repr(case), (1, 1))
        # Equal ones are one program, so what is read back draws what was drawn.
        assert found == case
        assert hash(found) == hash(case)


@pytest.mark.thorough
def test_a_run_through_transforms_replays(linear):
    cheap = (Pad, Jitter, Roll, Noise, Flip, ColorShift)
    chosen = {type(case): case for case, _ in transform_cases.CASES if isinstance(case, cheap)}
    assert len(chosen) == len(cheap)
    model = linear(3)
    result = run(model, fv.Pixels(SIZE), transform=Compose(tuple(chosen.values())))
    check_replay(result, model)


@pytest.mark.parametrize("schedule", transform_cases.SCHEDULES, ids=repr)
def test_schedules_have_a_text_and_an_end(schedule):
    noise = Noise(schedule)
    assert text.transform(repr(noise), (1, 1)) == noise
    timed = noise.over(5)
    assert text.transform(repr(timed), (1, 1)) == timed
    assert np.isfinite([float(timed.at(step).sd) for step in range(5)]).all()


# ---- metrics -------------------------------------------------------------------------------

by_metric = pytest.mark.parametrize(
    "case", metric_cases.CASES, ids=lambda case: case.metric.__name__
)


@by_metric
def test_a_metric_has_one_figure_an_image_in_the_images_order(case):
    found = case.metric(*case.given)
    again = case.metric(*(np.asarray(one, np.float64) for one in case.given))
    for a, b in zip(np.atleast_1d(found), np.atleast_1d(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    if not case.figures:
        return
    assert found.shape == (len(case.given[0]),)
    order = [3, 0, 5, 1, 4, 2]
    turned = [one[order] if place < case.of_images else one for place, one in enumerate(case.given)]
    np.testing.assert_allclose(case.metric(*turned), found[order], rtol=1e-5, atol=1e-7)
    if case.same is not None:
        target = case.given[1]
        np.testing.assert_allclose(case.metric(target, target), case.same, atol=1e-6)


@by_metric
def test_a_metric_refuses_what_is_not_finite(case):
    broken = [np.array(one) for one in case.given]
    broken[0].flat[0] = np.nan
    with pytest.raises(fv.InputError):
        case.metric(*broken)


# ---- presets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "options"), preset_cases.CASES, ids=lambda value: str(value)
)
def test_all_of_a_preset_has_a_text(kind, name, options, toy):
    options = dict(options)
    at = methods.setting_of(toy, "logits", toy.input.size, options.pop("steps"))
    if kind == "sampling":
        at = dataclasses.replace(at, generator=preset_cases.generator())
    recipe = methods.chosen("a driver", kind, name, options)(at)
    assert sum(stage.steps for stage in recipe.stages) == at.steps
    for stage in recipe.stages:
        way = stage.parameterization
        # What is known of a generator's codes is arrays, whose text is their digest.
        if kind != "sampling":
            assert text.parameterization(str(way), (1, 1)) == way
        shaped = text.transform(stage.options.get("transform", "affine"), way.size)
        assert text.transform(repr(shaped), way.size) == shaped
        assert isinstance(stage.options.get("optimizer", "adam(0.1)"), str)
        text.optimizer(stage.options.get("optimizer", "adam(0.1)"))
    assert recipe.stages[-1].parameterization.size == toy.input.size
    if recipe.prior is not None:
        assert fv.parse(str(recipe.prior)) == recipe.prior
    assert (inspect.getdoc(methods.presets(kind)[name]) or "").strip()


SAMPLERS = [case for case in preset_cases.CASES if case[0] == "sampling"]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "options"), [case[1:] for case in SAMPLERS], ids=str)
def test_chains_of_a_sampler_are_their_own_and_replay(name, options, toy):
    generator = preset_cases.generator()
    found = fv.sample(
        generator, 2, classes=[0, "b"], model=toy, preset=name, seed=3, progress=False, **options
    )
    result = found.result
    assert found.names == ("a", "b")
    assert result.images.shape == (4, *toy.input.size, 3)
    assert 0 <= result.images.min() <= result.images.max() <= 1
    assert len(np.unique(result.images.reshape(4, -1), axis=0)) == 4
    assert found.accepted.tolist() == (result.evidence["probability"] >= 0.5).tolist()
    # Arrays are not in the manifest: what they were is given again, and told by its digest.
    at = methods.setting_of(toy, "logits", toy.input.size, options["steps"])
    rule = methods.presets("sampling")[name]
    way = rule(dataclasses.replace(at, generator=generator)).stages[-1].parameterization
    again = fv.replay(
        json.loads(json.dumps(result.manifest)), model=toy, parameterization=way, progress=False
    )
    np.testing.assert_array_equal(again.images, result.images)


# ---- commands ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", command_cases.CASES)
def test_a_mistake_is_one_line_that_says_what_and_help_is_help(command, capsys, monkeypatch):
    monkeypatch.setattr("featvis.cli.output.enable_cache", lambda: None)
    arguments, said = command_cases.CASES[command]
    assert _exit_code([command, *arguments]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "Traceback" not in errors
    assert _exit_code([command, "--help"]) == 0
    # The first line of its docstring, as far as the terminal's width does not break it.
    assert " ".join(commands()[command].split()[:3]) in capsys.readouterr().out


def _exit_code(arguments):
    try:
        return app.main(arguments) or 0
    except SystemExit as error:
        return error.code or 0
