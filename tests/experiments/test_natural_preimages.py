"""The recipes that the study of pre-images makes of `modern`, against it."""

import dataclasses

import pytest

from featvis import methods


@pytest.fixture(scope="module")
def study(experiment):
    pytest.importorskip("skimage")
    return experiment("natural_preimages")


AT = methods.Setting((32, 24), 3, 4.0, 0.5, True, 20)


def parts(recipe):
    (stage,) = recipe.stages
    return stage.parameterization, stage.steps, stage.options


def test_nothing_changed_is_modern_itself(study):
    assert parts(study.modern_but()(AT)) == parts(methods.modern(AT))


def test_each_part_is_taken_out_alone(study):
    image, steps, options = parts(methods.modern(AT))
    for name, rule in study.PARTS.items():
        recipe = rule(AT)
        way, taken, given = parts(recipe)
        assert taken == steps
        differs = {
            "image": way != image,
            "optimizer": given["optimizer"] != options["optimizer"],
            **{
                field: getattr(recipe, field) != getattr(methods.modern(AT), field)
                for field in ("metric", "prior", "leaky")
            },
        }
        assert sum(differs.values()) == 1, name
    assert (
        dataclasses.replace(image, decay=1.25) == parts(study.PARTS["decay 1.25, not 1.1"](AT))[0]
    )


def test_plain_is_fourier_and_adam_alone(study, toy):
    recipe = study.plain(dataclasses.replace(AT, size=toy.input.size))
    (stage,) = recipe.stages
    assert (recipe.prior, recipe.leaky, stage.options["transform"]) == (None, False, "none")
