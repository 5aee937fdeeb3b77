import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis.jaxprs.attention import attentions
from featvis.jaxprs.injection import Program

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RANDOM = np.random.default_rng(0)
IMAGES = jnp.asarray(RANDOM.normal(size=(2, 4, 6, 3)), jnp.float32)
FIRST, *STEPS = (
    jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in ((3, 5), *[(5, 5)] * 3)
)
WEIGHTS = jnp.stack(STEPS)


@jax.jit
def _inside(x):
    return jnp.tanh(x @ FIRST)


def network(x):
    """Layers that come out of `jit`, `checkpoint` and a scan, turned, and as a part."""
    start = jax.checkpoint(_inside)(x)

    def step(h, weight):
        h = jnp.tanh(h @ weight)
        return h * 2.0, jnp.moveaxis(h, -1, 1)

    end, steps = jax.lax.scan(step, start, WEIGHTS)
    unread = jax.lax.while_loop(lambda i: i < 3, lambda i: i + 1, jnp.sum(x).astype(int))
    layers = {
        "start": start,
        "turned": jnp.moveaxis(start, -1, 1),
        "rows": start[:, 1:3].reshape(2, 12, 5),
        "unread": start * unread.astype(start.dtype),
        **{f"step{i}": jnp.moveaxis(steps[i], 1, -1) for i in range(3)},
    }
    return jnp.sum(end[:, 1:] ** 2, (1, 2, 3)), layers


def after(values, step):
    """The scores from what a step of the scan gives."""
    values = 2.0 * values
    for weight in STEPS[step + 1 :]:
        values = 2.0 * jnp.tanh(values @ weight)
    return jnp.sum(values[:, 1:] ** 2, (1, 2, 3))


@pytest.fixture(scope="module")
def program():
    return Program(network, IMAGES)


@pytest.mark.thorough
def test_the_program_is_the_function(program):
    scores, layers = network(IMAGES)
    result, values = program.run({program.layer("rows"): jnp.zeros((2, 12, 5))})
    np.testing.assert_allclose(result, scores, rtol=1e-5)
    np.testing.assert_allclose(next(iter(values.values())), layers["rows"], rtol=1e-5)


def test_what_is_added_to_a_layer_is_in_all_that_is_computed_from_it(program):
    start = _inside(IMAGES)
    for name, shape in (("start", (2, 4, 6, 5)), ("turned", (2, 5, 4, 6)), ("rows", (2, 12, 5))):
        added = jnp.asarray(RANDOM.normal(size=shape), jnp.float32)
        changed = {
            "start": lambda added: start + added,
            "turned": lambda added: start + jnp.moveaxis(added, 1, -1),
            "rows": lambda added: start.at[:, 1:3].add(added.reshape(2, 2, 6, 5)),
        }[name](added)
        result, _ = program.run({program.layer(name): added})
        np.testing.assert_allclose(result, after(changed / 2, -1), rtol=1e-4)


@pytest.mark.thorough
def test_the_gradient_by_each_step_of_a_scan_is_its_own(program):
    places = [program.layer(f"step{i}") for i in range(3)]
    values, gradients = program.gradients(places)
    for number, place in enumerate(places):
        wanted = jax.grad(lambda h, number=number: after(h, number).sum())(values[place])
        np.testing.assert_allclose(gradients[place], wanted, rtol=1e-4, atol=1e-5)
    assert [program.origin(place) for place in places] == [program.origin(places[0])] * 3


def test_a_layer_beside_the_way_has_no_place(program):
    assert program.layer("unread") is None
    unread = program.place(program.jaxpr.outvars[-1])
    with pytest.raises(fv.InputError, match="does not depend"):
        program.run({unread: jnp.zeros(unread.shape)})


@pytest.mark.thorough
def test_attention_is_found_as_what_it_is():
    def attention(x):
        tokens = x.reshape(2, 24, 3)
        scores = jnp.einsum("nqd,nkd->nqk", tokens, tokens)[:, None]
        mixed = jnp.einsum("nhqk,nkd->nqd", jax.nn.softmax(scores), tokens)
        plain = jnp.exp(scores) / jnp.sum(jnp.exp(scores), axis=2, keepdims=True)
        over_queries = jnp.einsum("nhqk,nkd->nqd", plain, tokens)
        return jnp.sum(mixed + over_queries, (1, 2)), {"tokens": tokens, "mixed": mixed}

    program = Program(attention, IMAGES)
    (place,) = attentions(program)
    found = program.values([place])[place]
    assert found.shape == (2, 1, 24, 24)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
