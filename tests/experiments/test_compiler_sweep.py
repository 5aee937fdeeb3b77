"""The sweep of the compiler's options finds what differs, and what is right."""

import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="module")
def sweep(experiment):
    return experiment("compiler_sweep")


def test_a_right_function_is_right(sweep):
    x = np.linspace(-3, 3, 64, dtype=np.float32)
    found = sweep.compare(("arctan", jnp.arctan, (x,)), {})
    assert found == {"value": 0, "values": 1, "gradient": 0, "gradients": 1}
    assert not sweep.is_wrong(found)


def test_values_gradients_and_runs_that_differ_are_wrong(sweep):
    nothing = np.zeros(3, np.float32)
    assert sweep.difference([nothing + 2e-5], [nothing]) == pytest.approx(2e-5)
    assert sweep.difference([nothing * np.nan], [nothing]) == np.inf
    assert sweep.difference([nothing + np.inf], [nothing]) == np.inf
    assert sweep.difference([nothing * np.nan], [nothing * np.nan]) == 0
    assert sweep.distinct([nothing, nothing, nothing + 1]) == 2
    assert sweep.is_wrong({"value": 2e-5, "values": 1})
    assert sweep.is_wrong({"value": 0.0, "values": 2})
    assert sweep.is_wrong({"gradient": np.inf, "gradients": 1})
