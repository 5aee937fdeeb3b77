"""VGG-16 and VGG-19 at their true size against PyTorch, with torchvision's and timm's names."""

import jax
import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")

from twins import assert_published_facts  # noqa: E402

nn = torch.nn

# Outputs of the convolutions by stack.
VGG16 = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]
VGG19 = [[64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4]


class Features(nn.Module):
    """What the networks of both publishers are before the dense layers."""

    def __init__(self, stacks):
        super().__init__()
        modules, self.names, inputs = [], [], 3
        for i, stack in enumerate(stacks, 1):
            for j, outputs in enumerate(stack, 1):
                modules += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                self.names += [f"conv{i}_{j}", f"relu{i}_{j}"]
                inputs = outputs
            modules.append(nn.MaxPool2d(2))
            self.names.append(f"pool{i}")
        self.features = nn.Sequential(*modules)

    def forward(self, image):
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x, out = ((image - mean) / std).permute(0, 3, 1, 2), {}
        for name, module in zip(self.names, self.features, strict=True):
            out[name] = x = module(x)
        out["fc6"] = x = self.fc6(nn.functional.adaptive_avg_pool2d(x, 7))
        out["relu6"] = x = x.relu()
        out["fc7"] = x = self.fc7(x)
        out["relu7"] = x = x.relu()
        out["logits"] = self.fc8(x)
        return out


class Torchvision(Features):
    def __init__(self, stacks):
        super().__init__(stacks)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000),
        )  # fmt: skip

    def fc6(self, x):
        return self.classifier[0](x.flatten(1))

    def fc7(self, x):
        return self.classifier[3](x)

    def fc8(self, x):
        return self.classifier[6](x)


class Timm(Features):
    def __init__(self, stacks):
        super().__init__(stacks)
        self.pre_logits = nn.ModuleDict(
            {"fc1": nn.Conv2d(512, 4096, 7), "fc2": nn.Conv2d(4096, 4096, 1)}
        )
        self.head = nn.ModuleDict({"fc": nn.Linear(4096, 1000)})

    def fc6(self, x):
        return self.pre_logits["fc1"](x).flatten(1)

    def fc7(self, x):
        return self.pre_logits["fc2"](x[:, :, None, None]).flatten(1)

    def fc8(self, x):
        return self.head["fc"](x)


def initialised(network):
    # Without the initialisation of PyTorch, which takes longer than all the rest.
    network = network.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        spread = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
        parameter.data.normal_(0, spread, generator=generator)
    return network


def on_meta(publisher, stacks):
    with torch.device("meta"):
        return publisher(stacks)


# Of 2 x 2 positions at the end; of 1 x 8, more than the dense layers have columns; of 2 x 3.
# That the names of the other two pairs fit is seen below, where one difference is the only one.
@pytest.mark.parametrize(
    ("name", "publisher", "stacks", "sizes"),
    [
        ("vgg16", Torchvision, VGG16, [(64, 64), (41, 263)]),
        ("vgg19", Timm, VGG19, [(64, 64), (70, 97)]),
    ],
)
def test_every_layer_agrees(name, publisher, stacks, sizes):
    entry, twin = zoo.entries()[name], initialised(on_meta(publisher, stacks))
    architecture = entry.architecture()
    tensors = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    params = architecture.params_from(tensors, entry.layouts, "twin")
    apply = jax.jit(architecture)
    for size in sizes:
        image = np.random.default_rng(0).uniform(size=(1, *size, 3)).astype(np.float32)
        with torch.no_grad():
            expected = twin(torch.from_numpy(image))
        found = apply(params, entry.input.prepare(image))
        assert list(entry.outline().layers()) == list(expected)
        for layer, tensor in expected.items():
            array = tensor.movedim(1, -1).numpy()
            scale = np.abs(array).max()
            assert scale > 0, layer
            np.testing.assert_allclose(
                found[layer], array, rtol=1e-4, atol=1e-4 * scale, err_msg=layer
            )


@pytest.mark.parametrize(
    ("name", "publisher", "key", "shape", "lines"),
    [
        (
            "vgg16",
            Torchvision,
            "features.28.bias",
            None,
            ["- features.28.bias for conv5_3/bias (512,)"],
        ),
        ("vgg16", Timm, "features.1.bias", (64,), ["+ features.1.bias (64,)"]),
        (
            "vgg19",
            Torchvision,
            "classifier.6.weight",
            (10, 4096),
            [
                "- classifier.6.weight for logits/kernel (4096, 1000)",
                "+ classifier.6.weight (10, 4096)",
            ],
        ),
        (
            "vgg19",
            Timm,
            "pre_logits.fc2.weight",
            (4096, 4096, 2, 1),
            [
                "- pre_logits.fc2.weight for fc7/kernel (4096, 4096)",
                "+ pre_logits.fc2.weight (4096, 4096, 2, 1)",
            ],
        ),
    ],
)
def test_another_file_is_refused(name, publisher, key, shape, lines):
    twin = on_meta(publisher, VGG16 if name == "vgg16" else VGG19)
    shapes = {name: tuple(tensor.shape) for name, tensor in twin.state_dict().items()}
    shapes[key] = shape
    zero = np.float32(0)
    tensors = {name: np.broadcast_to(zero, size) for name, size in shapes.items() if size}
    entry = zoo.entries()[name]
    message = rf"twin: {len(lines)} differences .* {publisher.__name__.lower()} "
    with pytest.raises(CheckpointError, match=message) as caught:
        entry.architecture().params_from(tensors, entry.layouts, "twin")
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == lines


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_published_facts(name):
    assert_published_facts(name)
