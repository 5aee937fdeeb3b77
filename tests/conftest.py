import functools
import gc
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import jax
import networks
import pytest

import featvis
import featvis.loading
from featvis.kernels import compiling

# A busy machine is no failure: nothing is timed in a test.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# What featvis adds up has one type: the user's own code may be strict, too.
jax.config.update("jax_numpy_dtype_promotion", "strict")

# JAX makes and drops so many objects while it traces that a tenth of the time went to looking
# through the others.
gc.set_threshold(100_000, 20, 100)

# Many tests compile the same program under another name: a sixth of the suite's time.
_cache = tempfile.TemporaryDirectory(prefix="featvis-tests-")
jax.config.update("jax_compilation_cache_dir", _cache.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_configure(config: pytest.Config) -> None:
    """Files in their order, the last of which are short: those of few tests may take long."""
    config.option.loadscopereorder = False


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A file's bytes name no test: an archive holds the time, which differs between processes."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Programs of the modules before fill gigabytes, through which Python's collector walks."""
    yield
    jax.clear_caches()


@pytest.fixture
def usual_promotions() -> Iterator[None]:
    """For tests whose own code, or another library's, adds up numbers of several types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def quick_options() -> dict[str, bool]:
    """XLA's own options that compile sooner, of those that it has in this version."""
    option = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x + 1, compiler_options=option)(1.0)
    except jax.errors.JaxRuntimeError:
        return {}
    return option


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """Hundreds of small programs, each run a few times: compiling them is what takes the time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "compiler_options", lambda: dict(quick_options()))
        yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def experiment() -> Iterator[Callable[[str], ModuleType]]:
    """Imports an experiment: they are files, and no package; `studies` is found beside them."""
    loaded = []
    folder = Path(__file__).parent.parent / "experiments"
    sys.path.insert(0, str(folder))

    def load(name: str) -> ModuleType:
        path = folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # a dataclass looks up its module
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.path.remove(str(folder))
    for name in {*loaded, "studies"} & {*sys.modules}:
        del sys.modules[name]


@pytest.fixture(scope="session")
def lite0():
    return featvis.loading.load("efficientnet_lite0")


@pytest.fixture(scope="session")
def toy():
    return networks.toy()
