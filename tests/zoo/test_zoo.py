"""Every network of the zoo through the same laws, with random weights."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis import loading, zoo
from featvis.zoo.layers import adaptive_average_pool, average_pool, max_pool
from objectives.units import UNIT_LAYER

pytestmark = pytest.mark.usefixtures("quick_to_compile")

ENTRIES = zoo.entries()
#: Small ones that are run here; tests/parity runs them all, where there is PyTorch.
RUN = ["squeezenet1_1", "resnet18", "darknet_tiny", "cifar_resnet20"]


def test_the_zoo_is_complete():
    assert set(ENTRIES) >= {
        *(f"efficientnet_lite{i}" for i in range(5)),
        "mobilenet_v2", "mobilenet_v2_tf", "squeezenet1_1", "alexnet", "caffenet", "vgg16", "vgg19",
        "resnet18", "resnet50", "googlenet", "inception_v3", "darknet_tiny", "vit_small_patch16",
        "vit_base_patch16", "dinov2_small_patch14", "clip_base_patch32", "cifar_resnet20",
        "cifar_resnet56",
    }  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_known_without_the_weights(name):
    entry = ENTRIES[name]
    outline = loading.outline(name)
    layers = outline.layers()
    # A descriptor, which has no weights, has fewer layers and no vector at the end.
    assert len(layers) >= (8 if entry.parameters > 200_000 else 4)
    for layer, shape in layers.items():
        # Every unit can be written without quotes.
        assert UNIT_LAYER.fullmatch(layer), layer
        assert fv.parse(str(fv.Channel(layer, 0))) is not None
        assert all(shape), layer
    last = list(layers)[-1]
    assert len(layers[last]) == (1 if entry.parameters else 3), "the last layer is a vector"
    if entry.accuracy is not None:
        assert last == "logits"
        assert outline.labels is None or len(outline.labels) == layers["logits"][0]
        assert 0.5 < entry.accuracy < 1
    low = entry.input.min_size
    low += -low % entry.input.multiple_of
    small = outline.layers((low, low)) if not entry.input.fixed_size else layers
    assert all(all(shape) for shape in small.values()), "no position at the smallest size"
    # Parameters as published; a batch normalisation has two where we have a bias.
    sizes = {path: int(np.prod(shape)) for path, shape in entry.architecture().shapes().items()}
    biases = sum(size for path, size in sizes.items() if path.endswith("bias"))
    total = sum(sizes.values())
    assert total <= entry.parameters * 1.005
    assert entry.parameters <= (total + biases) * 1.005
    assert entry.summary
    assert entry.sources
    assert all(source.licence for source in entry.sources)
    assert entry.architecture() == entry.architecture()
    assert hash(entry.architecture()) == hash(entry.architecture())


@pytest.mark.thorough
@pytest.mark.parametrize("name", RUN)
def test_runs_with_random_weights_at_an_odd_size(name):
    entry = ENTRIES[name]
    model = entry.random()
    height, width = max(33, entry.input.min_size), max(47, entry.input.min_size)
    images = np.random.default_rng(0).uniform(size=(2, height, width, 3)).astype(np.float32)

    @jax.jit
    def run(model, images):
        def score(images):
            acts = model(images)
            return acts["logits"].sum(), acts

        (_, acts), gradient = jax.value_and_grad(score, has_aux=True)(images)
        return dict(acts), gradient

    acts, gradient = run(model, images)
    assert {k: a.shape[1:] for k, a in acts.items()} == model.layers((height, width))
    for layer, a in acts.items():
        assert jnp.isfinite(a).all(), layer
        assert float(jnp.std(a)) > 0, layer
    assert jnp.isfinite(gradient).all()
    assert (jnp.abs(gradient).max((1, 2, 3)) > 0).all()
    # The second image does not touch the first.
    other, _ = run(model, np.stack([images[0], 1 - images[1]]))
    np.testing.assert_allclose(acts["logits"][0], other["logits"][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "efficientnet_lite0"])
def test_missing_weights_say_where_to_get_them(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = ENTRIES[name]
    if entry.available:
        pytest.skip("a package of its weights is installed, or it has none")
    with pytest.raises(
        fv.CheckpointError, match=f"^the weights of {name} are not here: "
    ) as caught:
        fv.load(name)
    for source in entry.sources:
        assert source.file in str(caught.value) or source.by_hand(name) in str(caught.value)


def test_a_file_of_weights_of_another_network_names_file_key_and_shape(tmp_path):
    path = tmp_path / "weights.npz"
    kernel = np.zeros((3, 3, 3, 16), np.float32)
    np.savez(path, **{"conv2d_1/kernel": kernel[..., :8], "batch_normalization_1/gamma": kernel[0]})
    with pytest.raises(fv.CheckpointError) as caught:
        fv.load("darknet_tiny", weights=path)
    for wrong in (3, b"weights.npz", ["weights.npz"]):
        with pytest.raises(fv.InputError, match=r"name or path, .*; got "):
            fv.load("darknet_tiny", weights=wrong)
        with pytest.raises(fv.InputError, match=r"name or path, .*; got "):
            fv.load("os.path:join", weights=wrong)
    lines = str(caught.value).splitlines()
    assert str(path) in lines[0]
    assert re.search(r"differences from DarknetTiny\(\) in the layout of", lines[0])
    assert "  - conv2d_1/kernel for conv1/kernel (3, 3, 3, 16)" in lines
    assert "  + conv2d_1/kernel (3, 3, 3, 8)" in lines
    assert lines[-1].startswith("  … and")


# ---- the layers they share -----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 9), (8, 5)])
@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_pools_against_windows_one_by_one(shape, window, stride, padding):
    x = np.random.default_rng(0).normal(size=(1, *shape, 2)).astype(np.float32)
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))

    def windows(fill):
        padded = np.pad(x, pads, constant_values=fill)
        view = np.lib.stride_tricks.sliding_window_view(padded, (window, window), (1, 2))
        return view[:, ::stride, ::stride]

    np.testing.assert_array_equal(
        max_pool(x, window, stride, padding), windows(-np.inf).max((-2, -1))
    )
    if stride == 1:
        means = windows(0).mean((-2, -1))
        np.testing.assert_allclose(average_pool(x, window, padding), means, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "outputs"), [((13, 10), (6, 6)), ((4, 7), (7, 7)), ((6, 6), (6, 6))]
)
def test_adaptive_pool_is_the_mean_of_its_windows(size, outputs):
    x = np.random.default_rng(0).normal(size=(1, *size, 2)).astype(np.float32)
    found = adaptive_average_pool(x, outputs)
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            rows = slice(i * size[0] // outputs[0], -(-(i + 1) * size[0] // outputs[0]))
            columns = slice(j * size[1] // outputs[1], -(-(j + 1) * size[1] // outputs[1]))
            np.testing.assert_allclose(found[0, i, j], x[0, rows, columns].mean((0, 1)), atol=1e-6)
