"""The tiny autoencoders against PyTorch, under the authors' names and those of diffusers."""

import jax
import numpy as np
import pytest

from featvis import generators
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")

from twins import randomise  # noqa: E402

nn = torch.nn


def three(inputs, outputs, stride=1, bias=True):
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


class Residual(nn.Module):
    """A block, and what is beside it in TAEF2."""

    def __init__(self, pooled):
        super().__init__()
        self.conv = nn.Sequential(three(64, 64), nn.ReLU(), three(64, 64), nn.ReLU(), three(64, 64))
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU(),
                nn.Conv2d(256, 64, 1, bias=False),
            )  # fmt: skip

    def forward(self, x):
        y = x + self.pool(x) if hasattr(self, "pool") else x
        return (self.conv(y) + y).relu()


class Bend(nn.Module):
    def forward(self, x):
        return 3 * (x / 3).tanh()


def decoder(channels, pooled):
    modules = [Bend(), three(channels, 64), nn.ReLU()]
    for stage, blocks in enumerate((3, 3, 3, 1)):
        if stage:
            modules += [nn.Upsample(scale_factor=2), three(64, 64, bias=False)]
        modules += [Residual(pooled and not stage) for _ in range(blocks)]
    return nn.Sequential(*modules, three(64, 3))


def encoder(channels, pooled):
    modules = [three(3, 64), Residual(False)]
    for stage in range(3):
        modules.append(three(64, 64, 2, bias=False))
        modules += [Residual(pooled and stage == 2) for _ in range(3)]
    return nn.Sequential(*modules, three(64, channels))


def tensors(network, prefix="", moved=0):
    found = {}
    for name, tensor in network.state_dict().items():
        place, _, rest = name.partition(".")
        found[f"{prefix}{int(place) - moved}.{rest}"] = tensor.numpy()
    return found


@pytest.fixture(scope="module", params=["taef1", "taef2"])
def pair(request):
    """Our entry, and the decoder and the encoder of PyTorch."""
    entry = next(one for one in generators.available() if one.name == request.param)
    shape = entry.code[0], request.param == "taef2"
    torch.manual_seed(0)
    return entry, randomise(decoder(*shape)).eval(), randomise(encoder(*shape)).eval()


def test_both_ways_agree(pair, tmp_path):
    entry, decodes, encodes = pair
    folder = tmp_path / "files"
    folder.mkdir()
    for part, network in (("decoder", decodes), ("encoder", encodes)):
        torch.save(network.state_dict(), folder / f"{entry.name}_{part}.pth")
    found = entry.load(folder) if entry.name != "taef2" else entry.load(
        f"{folder}/taef2_decoder.pth", f"{folder}/taef2_encoder.pth"
    )  # fmt: skip
    rng = np.random.default_rng(0)
    # Neither square nor a power of two; beyond where the decoder bends.
    code = 2 * rng.standard_normal((3, 5, *entry.code), np.float32)
    image = rng.uniform(size=(24, 40, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = decodes(torch.from_numpy(code)[None].movedim(-1, 1)).movedim(1, -1)[0].numpy()
        again = encodes(torch.from_numpy(image)[None].movedim(-1, 1)).movedim(1, -1)[0].numpy()
    for ours, theirs in (
        (jax.jit(found.decode)(code), wanted),
        (jax.jit(found.encode)(image), again),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    # As diffusers has them, in one file; the bend is no module there.
    whole = tensors(decodes, "decoder.layers.", 1) | tensors(encodes, "encoder.layers.")
    np.savez(tmp_path / "whole.npz", **whole)
    assert entry.load(tmp_path / "whole.npz") == found


def test_another_ones_weights_are_refused(tmp_path):
    taesd, taef1 = (one for one in generators.available() if one.name in ("taef1", "taesd"))
    torch.save(decoder(4, False).state_dict(), tmp_path / "taesd_decoder.pth")
    torch.save(encoder(16, False).state_dict(), tmp_path / "taef1_encoder.pth")
    with pytest.raises(CheckpointError, match=r"1 more|2 differences"):
        taef1.load(tmp_path / "taesd_decoder.pth")
    with pytest.raises(CheckpointError, match=r"14.weight for layer14/kernel \(3, 3, 64, 4\)"):
        taesd.load(tmp_path / "taesd_decoder.pth", tmp_path / "taef1_encoder.pth")
    alone = taesd.load(tmp_path)  # a folder without an encoder of its own
    assert alone.encoder is None
    with pytest.raises(CheckpointError, match=r"has none of taef1_decoder\.pth"):
        taef1.load(tmp_path)
