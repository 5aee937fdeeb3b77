import tempfile
from collections.abc import Iterator

import hypothesis
import jax
import networks
import pytest

import featvis.models

# A busy machine is no failure: nothing is timed in a test.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Many tests compile the same program under another name: a sixth of the suite's time.
_cache = tempfile.TemporaryDirectory(prefix="featvis-tests-")
jax.config.update("jax_compilation_cache_dir", _cache.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """Hundreds of small programs, each run a few times: compiling them is what takes the time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def lite0():
    return featvis.models.load("efficientnet_lite0")


@pytest.fixture(scope="session")
def toy():
    return networks.toy()
