"""What the comparisons with PyTorch share: random weights, activations, how near they must be."""

import jax
import numpy as np
import torch

from featvis import zoo


def randomise(network):
    """Random weights, biases and batch statistics, the same each time."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                spread = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(0, spread, generator=random)
                if module.bias is not None:
                    module.bias.normal_(generator=random)
            if isinstance(module, torch.nn.BatchNorm2d):
                for positive in (module.weight, module.running_var):
                    positive.uniform_(0.5, 1.5, generator=random)
                for signed in (module.bias, module.running_mean):
                    signed.normal_(0, 0.2, generator=random)
    return network


def channels_last(tensor):
    return (tensor.movedim(1, -1) if tensor.ndim == 4 else tensor).detach().numpy()


def activations(network, image):
    """What the modules of `network.tapped()` give for images (n, h, w, c); pools as vectors."""
    found, hooks = {}, []
    for name, module in network.tapped().items():

        def keep(module, inputs, output, name=name):
            found[name] = output

        hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        network(torch.from_numpy(image).movedim(-1, 1))
    for hook in hooks:
        hook.remove()
    found["pool"] = found["pool"].flatten(1)
    return {name: found[name] for name in network.tapped()}


def assert_layers_agree(found, expected):
    """All layers, in the same order, by the spread of each; `expected` is PyTorch's."""
    assert list(found) == list(expected)
    for layer, array in found.items():
        wanted = channels_last(expected[layer])
        assert wanted.std() > 0.01
        np.testing.assert_allclose(
            array, wanted, rtol=1e-4, atol=1e-4 * wanted.std(), err_msg=layer
        )


def assert_published_facts(name):
    """As many parameters as published, and the smallest size that has positions everywhere."""
    entry = zoo.entries()[name]
    architecture, least = entry.architecture(), entry.input.min_size
    assert sum(map(np.prod, architecture.shapes().values())) == entry.parameters
    for side, fits in ((least, True), (least - 1, False)):
        image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        layers = jax.eval_shape(architecture, architecture.outline(), image)
        assert all(0 not in layer.shape for layer in layers.values()) is fits
