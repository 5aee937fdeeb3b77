"""Receptive fields against theory, and crops against the support of a gradient of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import TOY_SIZE
from PIL import Image

import featvis as fv
from featvis.natural import receptive_fields

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE = (40, 56)
#: Kernel, stride and padding before of each layer in a row.
CHAIN = {"conv": (3, 1, 1), "half": (5, 2, 2), "pool": (3, 2, 0), "last": (3, 1, 0)}


def apply(params, image):
    def conv(x, kernel, stride, padding):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    out = {}
    # Most of the units are off: what a field is does not depend on it.
    out["conv"] = x = jax.nn.relu(conv(image - 0.5, params["conv"], 1, "SAME") - 1)
    out["half"] = x = jax.nn.relu6(conv(x, params["half"], 2, [(2, 2), (2, 2)]))
    out["pool"] = x = jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID"
    )
    out["last"] = x = conv(x, params["last"], 1, "VALID")
    out["tokens"] = x.reshape(len(x), -1, x.shape[-1])
    out["all"] = x + x.mean((1, 2), keepdims=True)
    out["logits"] = x.mean((1, 2))
    return out


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(rng.normal(size=(side, side, 3, 3)) / side, jnp.float32)
        for name, side in (("conv", 3), ("half", 5), ("last", 3))
    }
    return fv.from_function(apply, params, input=fv.Input(size=SIZE), name="chain")


@pytest.fixture(scope="module")
def fields(network):
    names = [*CHAIN, "tokens", "all", "logits"]
    return dict(zip(names, receptive_fields(network, names, SIZE), strict=True))


def theory(count, side):
    """The pixels of each of `count` places along an axis, at the end of each layer of the chain."""
    first, length, step = 0, 1, 1
    for layer, (kernel, stride, before) in CHAIN.items():
        first -= before * step
        length += (kernel - 1) * step
        step *= stride
        yield (
            layer,
            [
                (max(0, first + step * i), min(side, first + step * i + length))
                for i in range(count)
            ],
        )


@pytest.mark.thorough
def test_fields_of_a_chain_are_those_of_theory(network, fields):
    shapes = network.layers(SIZE)
    for axis, name in ((0, "rows"), (1, "columns")):
        for layer, spans in theory(max(SIZE), SIZE[axis]):
            count = shapes[layer][axis]
            assert list(getattr(fields[layer], name)) == spans[:count], (layer, name)


def test_fields_of_tokens_and_of_what_sees_all(network, fields):
    wide = network.layers(SIZE)["last"][1]
    last, tokens = fields["last"], fields["tokens"]
    for token in range(len(tokens.rows)):
        assert tokens.box(token) == last.box(token)
    assert len(tokens.rows) == len(last.rows) * wide
    assert {fields["all"].box(place) for place in range(len(last.rows) * wide)} == {(0, 0, *SIZE)}
    # The mean of a VALID chain does not see the last pixels.
    assert fields["logits"].box(0) == (0, 0, last.rows[-1][1], last.columns[-1][1])


@pytest.mark.thorough
def test_a_crop_is_the_support_of_the_gradient(tmp_path):
    """Of the toy's convolution, whose gradient is that of JAX alone, at corners and inside."""
    pytest.importorskip("zarr")
    from networks import toy

    network, folder = toy(), tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(12):
        levels = rng.integers(0, 256, (*TOY_SIZE, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.png")
    made = fv.index(network, folder, layers="conv", out=tmp_path / "index", progress=False)
    of_pixels = jax.jit(
        jax.grad(
            lambda i, y, x, unit: network.apply(network.params, i[None])["conv"][0, y, x, unit]
        )
    )
    sides = set()
    for unit in range(6):
        found = fv.top(made, f"conv:{unit}", 12)
        for (y, x), box, crop, path in zip(
            found.positions, found.boxes, found.crops, found.files, strict=True
        ):
            image = fv.read_image(path)
            gradient = of_pixels(jnp.asarray(image), y, x, unit)
            ys, xs = np.nonzero(np.any(np.asarray(gradient) != 0, axis=-1))
            support = (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)
            assert support == tuple(box)
            up, left, down, right = support
            np.testing.assert_array_equal(crop, image[up:down, left:right])
            sides.add(crop.shape[:2])
    assert {(3, 3), (2, 3)} <= sides  # some are cut off by the frame
    tiles = found.tiles()
    assert {tile.size for tile in tiles} == {(128, 128)}
    assert found._repr_html_().count("<img") == 12


@pytest.mark.slow
def test_fields_of_a_real_network_are_those_of_theory(lite0):
    names = ["stem", "block0", "block2", "block4", "block6", "block8"]
    found = receptive_fields(lite0, names, (224, 224))
    assert [one.sides[0] for one in found] == [3, 7, 19, 67, 115, 211]


def test_fields_of_wide_convolutions_end_where_they_end():
    """Kernels that are fast give next to nothing, and not nothing, beyond a field."""
    rng = np.random.default_rng(0)
    params = [rng.normal(size=(3, 3, c, 32)).astype(np.float32) / 9 for c in (3, 32)]

    def apply(params, x):
        for kernel in params:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return {"last": x}

    model = fv.from_function(apply, params, input=fv.Input(size=(32, 32)), name="wide")
    (found,) = receptive_fields(model, ["last"], (32, 32))
    assert list(found.rows) == [(max(0, row - 2), min(32, row + 3)) for row in range(32)]
