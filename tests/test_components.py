import optax
import pytest

import featvis as fv
from featvis import components


@pytest.mark.parametrize("text", ["fourier", "Fourier", "Fourier()", "fourier()"])
def test_parameterization_by_name_gets_its_size(text):
    assert components.parameterization(text, (8, 10), 1) == fv.Fourier((8, 10), channels=1)


def test_parameterization_reads_its_own_repr():
    given = fv.Fourier((8, 10), channels=4, decay=1.5)
    assert components.parameterization(repr(given), (1, 1)) == given


@pytest.mark.parametrize("name", sorted(fv.transforms.PRESETS))
def test_transform_reads_presets_and_their_reprs(name):
    preset = components.transform(name)
    assert preset == fv.transforms.PRESETS[name]
    assert components.transform(repr(preset)) == preset
    assert components.transform(preset) is preset


def test_optimizer_text_is_read_once_and_composes():
    text = "chain(clip(1.0), adam(cosine_decay_schedule(0.05, 200)))"
    assert components.optimizer(text) is components.optimizer(text)
    assert isinstance(components.optimizer(text), optax.GradientTransformation)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (components.parameterization, "furier", "nearest: fourier"),
        (components.parameterization, "Fourier(decay=-1)", "decay"),
        (components.parameterization, "Fourier(dcay=1)", "dcay"),
        (components.parameterization, "__import__('os')", "unknown parameterization"),
        (components.parameterization, "'fourier'", "is not a parameterization"),
        (components.transform, "Jitter(", "malformed"),
        (components.transform, "Jiter(8)", "nearest: Jitter"),
        (components.transform, "Jitter(-8)", "Jitter"),
        (components.transform, "'standard'", "is not a transform"),
        (components.optimizer, "adam(0.05).init", "not allowed"),
        (components.optimizer, "adam(lambda s: 1)", "a lambda"),
        (components.optimizer, "adam(banana=1)", "banana"),
        (components.optimizer, "0.05", "is not an optax transformation"),
    ],
)
def test_bad_text_is_an_input_error(read, text, message):
    arguments = ((8, 8), 3) if read is components.parameterization else ()
    with pytest.raises(fv.InputError, match=message):
        read(text, *arguments)
