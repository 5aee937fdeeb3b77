"""Units that give no gradient are reported, with the reason."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import Compiled
from flax import nnx
from networks import TOY_SIZE

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")
BOX = fv.BoundedPixels(TOY_SIZE)


def network(unit):
    """A model with one layer `y` of two units, made of the pixels' means."""
    weights = jnp.array([[1.0, -1.0], [1.0, 2.0], [1.0, 1.0]])

    def apply(params, image):
        return {"mean": (hidden := image.mean((1, 2)) @ weights), "y": unit(hidden)}

    return fv.from_function(apply, None, input=fv.Input(size=TOY_SIZE, min_size=1))


def run(model, objective="channel('y', 0)", **options):
    options = {"steps": 3, "transform": "none", "optimizer": "sgd(1.0)", **options}
    return fv.synthesize(model, objective, BOX, progress=False, **options)


@jax.custom_vjp
def deaf(x):
    return 2 * x


deaf.defvjp(lambda x: (2 * x, None), lambda _, g: (0 * g,))

SILENT = {
    "a rectifier that stays closed": (
        lambda x: jax.nn.relu(x - 99),
        r"a rectifier \(relu\)",
    ),
    "bounds of their own": (
        lambda x: jnp.maximum(x, jnp.array([9.0, 8.0])),
        r"\(max\).* not recognised",
    ),
    "sigmoid": (lambda x: jax.nn.sigmoid(x + 40), r"a saturated unit \(logistic\)"),
    "tanh": (lambda x: jnp.tanh(x + 40), r"a saturated unit \(tanh\)"),
    "clip": (lambda x: jnp.clip(x + 40, 0, 1), r"a rectifier \(min\) is closed"),
    "int": (lambda x: x.astype(int).astype(float), "an integer conversion"),
    "round": (jnp.round, r"rounding \(round\)"),
    "floor": (jnp.floor, r"rounding \(floor\)"),
    "sign": (jnp.sign, r"rounding \(sign\)"),
    "argmax": (lambda x: jnp.argmax(x, -1, keepdims=True) * jnp.ones(2), "argmax gives no grad"),
    "compared": (lambda x: (x > 0) * jnp.ones(2), r"a comparison \(gt\)"),
    "stop_gradient": (jax.lax.stop_gradient, "stop_gradient"),
    "zero head": (lambda x: x @ jnp.zeros((2, 2)), r"weights of zero \(dot_general\)"),
    "zero scale": (lambda x: x * jnp.zeros(2), r"weights of zero \(mul\)"),
    "squared": (lambda x: jax.nn.relu(x - 99) ** 2, r"activations of zero, at which \w+ is flat"),
    "independent": (lambda x: jnp.ones_like(x), "does not depend on the image"),
    "its own rule": (deaf, r"a function with a gradient of its own \(deaf\)"),
    "in a scan": (
        lambda x: jax.lax.scan(lambda c, _: (jnp.round(c), None), x, None, length=2)[0],
        r"a scan ends it \(round in it\)",
    ),
    "in jit and remat": (jax.jit(jax.checkpoint(jnp.round)), r"rounding \(round\)"),
}


@pytest.mark.thorough
@pytest.mark.usefixtures("usual_promotions")
@pytest.mark.parametrize("case", SILENT)
def test_a_silent_unit_is_reported_with_the_reason(case):
    unit, reason = SILENT[case]
    model = network(unit)
    # A prior that moves the picture does not hide it.
    with pytest.warns(fv.SilenceWarning, match=f"gives no gradient: .*{reason}"):
        result = run(model, "channel('y', 0) - 0.1*l2")
    assert len(result.silent) == 1
    with pytest.warns(fv.SilenceWarning, match=reason):
        found = fv.explain(model, "channel('y', 1)", np.full((*TOY_SIZE, 3), 0.4), "saliency").maps
    assert not found.any()


@pytest.mark.thorough
def test_a_vanishing_gradient_is_reported():
    with pytest.warns(fv.SilenceWarning, match=r"it vanishes, at most \de-\d+ a pixel"):
        result = run(network(lambda x: jax.nn.sigmoid(x - 35)), optimizer="adam(0.05)")
    assert result.silent[0] is not None


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        ("conv:1", {}),
        ("dead:1", {"steps": 3}),  # redirected
        ("dead:1", {"steps": 30, "optimizer": "adam(0.05)"}),
        ("-tv", {}),  # no unit
        ("0*conv:1 - tv", {}),  # none is asked for
        ("[0, 1]*conv:[1, 2]", {}),
        ("conv:1 - 99*tv", {}),
    ],
)
def test_a_unit_that_gives_a_gradient_is_not(toy, objective, options):
    if objective == "dead:1" and options["steps"] == 3:
        options = {**options, "optimizer": "sgd(1e4)"}
    assert set(run(toy, objective, **options).silent) == {None}


@pytest.mark.thorough
def test_images_are_told_apart_and_kept_through_all_that_becomes_of_a_result(tmp_path):
    scales = jnp.array([1.0, 0.0])
    model = network(lambda x: x * scales)
    with pytest.warns(fv.SilenceWarning, match="for 1 of 2 images: weights of zero"):
        result = run(model, "channel('y', [0, 1])")
    assert result.silent[0] is None
    assert "weights of zero (mul), at layer 'y'" in result.silent[1]
    assert result[1].silent == result.silent[1:]
    assert result.summary()["silent"] == list(result.silent)
    path = result.save(tmp_path / "two")
    assert json.loads(path.with_suffix(".json").read_text())["result"]["silent"][0] is None
    html = result._repr_html_()
    assert html.count("no gradient: weights of zero") == 1
    # The same objective has never had a gradient; another one may have its own.
    with pytest.warns(fv.SilenceWarning):
        again = run(model, "channel('y', [0, 1])", init=result)
    assert again.silent == result.silent
    assert run(model, "channel('mean', [0, 1])", init=again).silent == (None, None)
    with pytest.warns(fv.SilenceWarning):
        assert fv.replay(path, model=model, progress=False).silent == result.silent
    with pytest.warns(fv.SilenceWarning, match="for 1 of 2 images"):
        ((_, many),) = fv.synthesize_many(
            model, ["channel('y', 0)", "channel('y', 1)"], BOX, steps=2, progress=False
        )
    assert (many.silent[0], many.silent[1] is None) == (None, False)


def test_a_living_run_compiles_what_it_did(toy):

    run(toy, "conv:1", steps=40)
    with Compiled() as compiled:
        run(toy, "conv:2", steps=40)
    assert compiled.names == []


def test_why_is_found_by_one_program_for_all_units_of_a_layer():
    model = network(lambda x: x * jnp.zeros(2))
    with pytest.warns(fv.SilenceWarning, match="weights of zero"):
        run(model, "channel('y', 0)")
    with Compiled() as compiled, pytest.warns(fv.SilenceWarning, match="weights of zero"):
        run(model, "channel('y', 1)")
    assert compiled.names == []


@pytest.mark.thorough
@pytest.mark.usefixtures("usual_promotions")
@pytest.mark.parametrize(
    "act",
    [
        lambda x: jnp.where(x > 0, x, 0),
        lambda x: jnp.maximum(x, jnp.zeros_like(x)),
        lambda x: jax.lax.clamp(0.0, x, 6.0),
        lambda x: x * (x > 0),
        lambda x: jax.nn.hard_tanh(x - 1) + 1,
        jax.checkpoint(lambda x: jnp.where(x > 0, x, 0)),
        lambda x: jax.lax.scan(lambda c, _: (jnp.where(c > 0, c, 0), None), x, None, length=2)[0],
    ],
    ids=["where", "maximum", "clamp", "mask", "hard_tanh", "remat", "scan"],
)
def test_every_spelling_of_a_dead_rectifier_gets_a_picture(act):
    class Net(nnx.Module):
        def __init__(self, rngs):
            bias = nnx.initializers.constant(-0.85)
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs, bias_init=bias)

        def __call__(self, x):
            return act(self.conv(x)).mean((1, 2))

    model = fv.from_nnx(Net(nnx.Rngs(0)), input=fv.Input(size=(16, 16)))
    grey = np.full((16, 16, 3), 0.5, np.float32)
    assert model(grey)["logits"][0, 1] == 0
    result = fv.synthesize(model, "logits:1", steps=40, init=grey, progress=False)
    assert result.silent == (None,)
    assert result.clean_scores[0] > 0.02


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("objective", "silent"),
    [
        (fv.Channel("y", 0).on([0]), {0}),
        (0.5 * fv.Channel("y", 0).on([1]) - fv.L2().on([0]), {1}),
        (fv.Channel("y", 0).on([0]) + fv.Channel("y", 1).on([2]), {0, 2}),
        ((fv.Channel("y", 0).on([1]) - fv.TotalVariation()).on([2, 0]), {0}),
        (fv.Channel("y", 0).on([0]) + 0 * fv.Channel("y", 1), {0}),
        (fv.Channel("y", 0).on([0]) - fv.TotalVariation(), {0}),
    ],
    ids=str,
)
def test_an_image_that_nothing_reads_is_not_silent(objective, silent):
    model = network(lambda x: jax.nn.sigmoid(x + 40))
    with pytest.warns(fv.SilenceWarning):
        result = run(model, objective, batch=3)
    assert {i for i, why in enumerate(result.silent) if why} == silent
