import gc

import jax.numpy as jnp
import optax
import pytest

import featvis as fv
from featvis import text as components

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.mark.parametrize("text", ["fourier", "Fourier", "Fourier()", "fourier()"])
def test_parameterization_by_name_gets_its_size(text):
    assert components.parameterization(text, (8, 10), 1) == fv.Fourier((8, 10), channels=1)


def test_parameterization_reads_its_own_repr():
    given = fv.Fourier((8, 10), channels=4, decay=1.5)
    assert components.parameterization(repr(given), (1, 1)) == given


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Fourier((4, 6))", fv.Fourier((4, 6), 1)),
        ("Fourier((4, 6), 3)", fv.Fourier((4, 6), 3)),
        ("Fourier((4, 6), 3, 2.0)", fv.Fourier((4, 6), 3, decay=2.0)),
        ("Fourier(size=[4, 6], decay=2.0)", fv.Fourier((4, 6), 1, decay=2.0)),
        ("pixels(channels=3)", fv.Pixels((8, 10), 3)),
    ],
)
def test_the_text_may_name_size_and_channels(text, expected):
    assert components.parameterization(text, (8, 10), 1) == expected


def test_two_sizes_are_an_error_where_one_was_asked_for():
    for text in ("Fourier((8, 10))", "Fourier(size=(8, 10))", "fourier"):
        found = components.parameterization(text, (8, 10), fixed_size=True)
        assert found == fv.Fourier((8, 10))
    for text in ("Fourier((4, 6))", "Fourier(size=(4, 6))"):
        with pytest.raises(fv.InputError, match=r"\(4, 6\).*\(8, 10\)"):
            components.parameterization(text, (8, 10), fixed_size=True)


def test_one_name_of_two_classes_names_both():
    def one():
        class Doubled(fv.Pixels):
            pass

        class Jitter(fv.transforms.Transform):
            def __call__(self, key, image):
                return image

        return Doubled, Jitter

    def other():
        class Doubled(fv.Pixels):
            pass

        return Doubled

    # Twice, as when a cell of a notebook is run again: only the later counts.
    mine = one(), one()
    assert components.parameterization("doubled", (8, 8)) == mine[1][0]((8, 8))
    try:
        with pytest.raises(
            fv.InputError, match=r"featvis\.transforms\.geometry\.Jitter and .*test_comp"
        ):
            components.transform("Jitter(8)", (8, 8))
        assert components.transform("none", (8, 8)) == fv.transforms.Compose(())
    finally:
        del mine
        gc.collect()
    assert components.transform("Jitter(8)", (8, 8)) == fv.transforms.Jitter(8)
    other()
    for text in ("doubled", "Doubled(sd=1.0)", "Doubled()"):
        with pytest.raises(fv.InputError, match=r"one\..*Doubled and .*test_comp.*other\."):
            components.parameterization(text, (8, 8))


@pytest.mark.parametrize("name", sorted(fv.transforms.PRESETS))
def test_transform_reads_presets_and_their_reprs(name):
    preset = components.transform(name, (64, 48))
    assert preset == fv.transforms.PRESETS[name]((64, 48))
    assert components.transform(repr(preset), (1, 1)) == preset
    assert components.transform(preset, (1, 1)) is preset


def test_optimizer_text_is_read_once_and_composes():
    text = "chain(clip(1.0), adam(cosine_decay_schedule(0.05, 200)))"
    assert components.optimizer(text) is components.optimizer(text)
    assert isinstance(components.optimizer(text), optax.GradientTransformation)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "text",
    [
        "adam(0.05)",
        "adamw(1e-2, weight_decay=0.1)",
        "nadam(0.05)",
        "sgd(0.1, momentum=0.9)",
        "polyak_sgd(max_learning_rate=1.0)",
        "chain(clip_by_global_norm(1.0), scale(-0.1))",
        "chain(add_noise(0.1, 0.55, key=0), sgd(exponential_decay(0.1, 10, 0.5)))",
        "sgd(join_schedules([constant_schedule(0.1), linear_schedule(0.1, 0.0, 5)], [5]))",
        "adam(warmup_cosine_decay_schedule(0.0, 0.05, 10, 200))",
        "apply_if_finite(adam(0.05), 3)",
        "preimage_momentum(stepwise_schedule((0.004, 0.0004), (100, 200)), 106.27)",
    ],
)
def test_optimizer_takes_value_and_gradient(text):
    optimizer = components.optimizer(text)
    params, gradient = {"a": jnp.ones(3)}, {"a": jnp.full(3, 0.5)}
    updates, _ = optimizer.update(
        gradient, optimizer.init(params), params, value=jnp.float32(2.0), grad=gradient
    )
    assert bool((updates["a"] <= 0).all())


def test_optimizer_object_takes_value_and_gradient():
    gradient = {"a": jnp.ones(3)}
    plain = optax.scale(-1.0)
    updates, _ = components.optimizer(plain).update(gradient, plain.init(gradient), value=1.0)
    assert bool((updates["a"] == -1).all())


@pytest.mark.parametrize(
    "name",
    ["power_iteration", "l2_loss", "global_norm", "apply_updates", "inject_hyperparams", "nnls"],
)
def test_optimizer_text_has_transformations_and_schedules_alone(name):
    with pytest.raises(fv.InputError, match="unknown optimizer"):
        components.optimizer(f"{name}(1)")


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (components.parameterization, "furier", "nearest: fourier"),
        (components.parameterization, "Fourier(decay=-1)", "decay"),
        (
            components.parameterization,
            "Fourier(dcay=1)",
            "Fourier has no argument 'dcay'; it takes size, channels, decay, sd",
        ),
        (components.parameterization, "fourier(dcay=1)", "fourier has no argument 'dcay'"),
        (components.parameterization, "Fourier((8, 8), size=(8, 8))", "multiple values"),
        (components.parameterization, "Fourier((8, 8), 3, 1.0, 0.1, 5)", "got 5 arguments"),
        (components.parameterization, "Fourier(8)", "Fourier: size is"),
        (components.parameterization, "Parameterization()", "unknown parameterization"),
        (components.parameterization, "__import__('os')", "unknown parameterization"),
        (components.parameterization, "'fourier'", "is not a parameterization"),
        (components.transform, "Jitter(", "malformed"),
        (components.transform, "Jiter(8)", "nearest: Jitter"),
        (components.transform, "Jitter(-8)", "Jitter"),
        (components.transform, "'standard'", "is not a transform"),
        (components.optimizer, "adam(0.05).init", "not allowed"),
        (components.optimizer, "adam(lambda s: 1)", "a lambda"),
        (components.optimizer, "adam(banana=1)", "banana"),
        (components.optimizer, "adam", r"adam needs its arguments, as adam\(0\.05\)"),
        (components.optimizer, "clip", r"clip needs its arguments, as clip\(max_delta\)"),
        (components.optimizer, "chain(clip(1.0), adam)", r"as adam\(0\.05\)"),
        (components.optimizer, "adma", "unknown optimizer 'adma'; nearest: adam"),
        (components.optimizer, "adma(0.05)", "unknown optimizer 'adma'; nearest: adam"),
        (components.optimizer, "adam()", "adam needs learning_rate"),
        (components.optimizer, "cosine_decay_schedule(0.1, 9)", "is not an optax transformation"),
        (components.optimizer, "0.05", "is not an optax transformation"),
    ],
)
def test_bad_text_is_an_input_error(read, text, message):
    with pytest.raises(fv.InputError, match=message):
        read(text) if read is components.optimizer else read(text, (8, 8))
