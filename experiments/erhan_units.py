"""What do the units of deep networks of digits look for, and do three ways to show it agree?

Paper: Erhan, Bengio, Courville & Vincent 2009, "Visualizing Higher-Layer Features of a Deep
    Network" (technical report 1341, Montreal): activation maximization, sampling from a unit and
    linear combination, on a deep belief network and a stacked denoising autoencoder.
Command: python experiments/erhan_units.py MNIST_FOLDER -o OUT   (or without MNIST_FOLDER, on the
    digits of scikit-learn; --quick for a first look)
Runtime: 3 to 9.5 min on two CPU cores with other work beside it, 3.3 min of processor time;
    scikit-learn's digits 40 s, --quick 20 s.
What it showed: MNIST, three layers of 500 units, 36 units of each, seeds 0 and 1. Starts hardly
    matter: optima of one unit from two starts have a cosine of 0.99 to 1.00; those of two units
    0.02 to 0.07 in layers 1 and 2, and 0.3 to 0.4 in layer 3. The pictures: spots, strokes and
    tangles in layer 1; single strokes and spots in layer 2; in layer 3 of the DBN what may be a 6,
    a 4 or a 2, in the SdA tangles still. At its optimum a unit is on (1.00); the others are at 0.07
    to 0.11 in layers 2 and 3 of the DBN and at 0.24 to 0.40 in the SdA, about as on digits, but at
    0.53 to 0.62 in layer 1: one filter as large as a digit drives others too. Maximization and
    combination coincide at layer 1 (1.000), where theory says so, and seem to part with depth:
    0.62 at layer 2 and 0.24 at layer 3 of the DBN, 0.63 and 0.35 in the SdA. At layer 3 that is
    what all units have in common: without it the cosines of any two methods are 0.52 to 0.63, and
    of 36 pictures by another method a unit's own is the nearest for 97 to 100 % of the units.
    Sampling is the weakest of the three: at layer 1 a third to a half of the free chains end in
    blank images after 100 steps, and samples of one chain are much alike whichever unit is held.
    26 to 71 % of the optima's pixels are outside [0, 1].
"""

from __future__ import annotations

import functools
import gzip
import itertools
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import studies

import featvis as fv
from featvis.pages import Report

#: Images of one minibatch; share of the inputs that an autoencoder does not see.
BATCH, MASKED = 100, 0.3
MOMENTUM, WEIGHT_DECAY = 0.9, 2e-4
#: The first of so many parts of the data is held out from the training.
HELD_OUT = 12
#: An image whose mean is below that is blank: a faint digit has 0.03.
BLANK = 0.02
#: Units in a picture, and samples of each.
SHOWN, SAMPLES = 18, 4


class Budget(NamedTuple):
    """How large the networks are and how long everything goes on."""

    widths: tuple[int, ...]  # units by layer
    updates: int  # minibatches a layer
    units: int  # shown and measured, drawn from each layer
    starts: int  # of the maximization of each unit
    steps: int  # of the maximization
    chains: int  # for each clamped unit
    gibbs: int  # steps of a chain
    strongest: int  # connections of a linear combination


FULL = Budget((500, 500, 500), 8000, 36, 6, 300, 400, 100, 50)
#: Of the digits of scikit-learn, where larger networks leave most units unused.
DIGITS = Budget((100, 100, 100), 1000, 36, 6, 300, 400, 100, 20)
QUICK = Budget((100, 100, 100), 600, 16, 4, 150, 100, 50, 20)


# ---- data ----------------------------------------------------------------------------------


def read_mnist(folder: Path) -> np.ndarray:
    """The training images of MNIST, (n, 28, 28) float32 in [0, 1].

    Args:
        folder: with `train-images-idx3-ubyte.gz`, as it is distributed.

    Raises:
        fv.InputError: no such file, or one that is damaged or holds something else.
    """
    path = folder / "train-images-idx3-ubyte.gz"
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise fv.InputError(f"there is no {path}; a folder of MNIST holds that file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise fv.InputError(f"{path} is not a whole gzip file: {error}") from error
    magic, count, height, width = struct.unpack(">4I", raw[:16].ljust(16, b"\0"))
    if magic != 0x803:
        raise fv.InputError(
            f"{path} holds no idx images: it starts with {magic:#010x}, not 0x00000803"
        )
    if len(raw) != 16 + count * height * width:
        raise fv.InputError(
            f"{path} holds {len(raw) - 16} pixels; its header promises {count} images of "
            f"{height} x {width}"
        )
    if count == 0:
        raise fv.InputError(f"{path} holds no image")
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(count, height, width)
    return pixels.astype(np.float32) / 255


def bundled_digits() -> np.ndarray:
    """The digits that scikit-learn carries, (1797, 8, 8) float32 in [0, 1]."""
    from sklearn.datasets import load_digits

    return load_digits().images.astype(np.float32) / 16


# ---- networks ------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A restricted Boltzmann machine, or an autoencoder with tied weights: the same numbers."""

    kernel: jax.Array  # (inputs, units)
    bias: jax.Array  # (units,)
    visible: jax.Array  # (inputs,), the bias of the way down


@jax.jit
def up(layer: Layer, x: jax.Array) -> jax.Array:
    """P(h = 1 | x), or the code of x: (..., inputs) to (..., units)."""
    return jax.nn.sigmoid(x @ layer.kernel + layer.bias)


@jax.jit
def down(layer: Layer, h: jax.Array) -> jax.Array:
    """P(x = 1 | h), or the reconstruction from h: (..., units) to (..., inputs)."""
    return jax.nn.sigmoid(h @ layer.kernel.T + layer.visible)


def draw(key: jax.Array, probability: jax.Array) -> jax.Array:
    """Independent binary units, 0 or 1 as float32, of the probability's shape."""
    # One axis compiles in a fraction of the time of several.
    chance = jax.random.uniform(key, (probability.size,)).reshape(probability.shape)
    return (chance < probability).astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("width",))
def untrained(data: jax.Array, width: int, key: jax.Array) -> Layer:
    """Small random weights, and visible biases at the log odds of the data's means.

    From zeros, the weights first learn what the biases are for, and many units die of it (Hinton
    2010, "A Practical Guide to Training Restricted Boltzmann Machines", section 8).

    Args:
        data: (n, inputs) in [0, 1].
        width: units.
        key: of the weights.
    """
    mean = jnp.clip(data.mean(axis=0), 0.01, 0.99)
    kernel = 0.01 * jax.random.normal(key, (data.shape[1] * width,)).reshape(-1, width)
    return Layer(kernel, jnp.zeros(width), jnp.log(mean) - jnp.log1p(-mean))


#: (layer, minibatch, key) to the gradient of descent.
Gradient = Callable[[Layer, jax.Array, jax.Array], Layer]


def contrastive_divergence(layer: Layer, x: jax.Array, key: jax.Array) -> Layer:
    """The direction of CD-1 that raises what it approximates the gradient of (Hinton 2002).

    Args:
        layer: a restricted Boltzmann machine of binary units.
        x: a minibatch (n, inputs) in [0, 1].
        key: of the draws of the hidden units and of their reconstruction.

    Returns:
        The negative of the direction to go, as a gradient of descent.
    """
    hidden, visible = jax.random.split(key)
    h = up(layer, x)
    # Drawn, and not left at its probabilities: the chains of `clamped_samples` then stay near the
    # digits for longer.
    again = draw(visible, down(layer, draw(hidden, h)))
    h_again = up(layer, again)
    return Layer((again.T @ h_again - x.T @ h) / len(x), (h_again - h).mean(0), (again - x).mean(0))


def denoising(layer: Layer, x: jax.Array, key: jax.Array) -> Layer:
    """Gradient of the cross-entropy of inputs against their reconstruction from a part of them.

    The masking noise and the tied weights of Vincent et al. 2008, "Extracting and Composing
    Robust Features with Denoising Autoencoders".

    Args:
        layer: an autoencoder.
        x: a minibatch (n, inputs) in [0, 1].
        key: of the inputs that are set to 0.
    """
    kept = x * draw(key, jnp.full(x.shape, 1 - MASKED))

    def loss(layer: Layer) -> jax.Array:
        logits = up(layer, kept) @ layer.kernel.T + layer.visible
        return optax.sigmoid_binary_cross_entropy(logits, x).sum(1).mean()

    return jax.grad(loss)(layer)


#: Short name, name, what trains it, at which rate.
NETWORKS = (
    ("DBN", "Deep belief network", contrastive_divergence, 0.05),
    ("SdA", "Stacked denoising autoencoder", denoising, 0.01),
)


@functools.partial(jax.jit, static_argnames=("gradient", "updates"))
def train_layer(
    gradient: Gradient, layer: Layer, data: jax.Array, key: jax.Array, updates: int, rate: float
) -> Layer:
    """Minibatch descent with momentum and weight decay; minibatches are drawn with replacement."""

    def update(state: tuple[Layer, Layer], key: jax.Array) -> tuple[tuple[Layer, Layer], None]:
        layer, velocity = state
        pick, noise = jax.random.split(key)
        batch = data[jax.random.randint(pick, (BATCH,), 0, len(data))]
        slope = gradient(layer, batch, noise)
        slope = slope._replace(kernel=slope.kernel + WEIGHT_DECAY * layer.kernel)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v - rate * g, velocity, slope)
        return (jax.tree.map(jnp.add, layer, velocity), velocity), None

    still = jax.tree.map(jnp.zeros_like, layer)
    (layer, _), _ = jax.lax.scan(update, (layer, still), jax.random.split(key, updates))
    return layer


def train(
    gradient: Gradient,
    data: jax.Array,
    widths: Sequence[int],
    updates: int,
    rate: float,
    key: jax.Array,
) -> list[Layer]:
    """Trains a stack greedily, each layer on what the one below makes of the data.

    Args:
        gradient: `contrastive_divergence` for a deep belief network, `denoising` for a stacked
            denoising autoencoder.
        data: (n, inputs) in [0, 1].
        widths: units by layer.
        updates: minibatches a layer.
        rate: of the descent.
        key: drives the first weights, the minibatches and the draws.
    """
    layers = []
    for number, width in enumerate(widths):
        first, rest = jax.random.split(jax.random.fold_in(key, number))
        layer = untrained(data, width, first)
        layers.append(train_layer(gradient, layer, data, rest, updates, rate))
        data = up(layers[-1], data)
    return layers


def reconstruction_error(layer: Layer, data: jax.Array) -> float:
    """Mean squared error an input, once up and down without noise."""
    return float(jnp.mean((down(layer, up(layer, data)) - data) ** 2))


def feed_forward(layers: Sequence[Layer], image: jax.Array) -> jax.Array:
    """The network as featvis sees it: `layer1/linear` is before the sigmoid, `layer1` after."""
    x = image.reshape(len(image), -1)
    for number, layer in enumerate(layers, start=1):
        x = fv.tap(x @ layer.kernel + layer.bias, f"layer{number}/linear")
        x = fv.tap(jax.nn.sigmoid(x), f"layer{number}")
    return x


def as_model(layers: Sequence[Layer], size: tuple[int, int], norm: float, name: str) -> fv.Model:
    """The network as a model of the images of `Sphere(size, 1, norm)`."""
    return fv.from_function(
        feed_forward,
        list(layers),
        input=fv.Input(size=size, channels=1, fixed_size=True, value_range=(-norm, norm)),
        name=name,
        output=f"layer{len(layers)}",
    )


# ---- three pictures of a unit --------------------------------------------------------------


class Sphere(fv.Parameterization):
    """Network inputs of one Euclidean norm: the constraint of Erhan et al. 2009, section 3.1.

    The parameters are `pixels`, (h, w, c) float32, what the network gets. They go beyond the data's
    [0, 1] on both sides; none of them can exceed the norm, so `image = 0.5 + pixels / (2 * norm)`
    is in [0, 1] without any clipping. The model's `value_range=(-norm, norm)` undoes it.

    Args:
        size: (height, width) in pixels, two positive ints.
        channels: number of channels, at least 1.
        norm: of the whole image, above 0; the paper's is the average norm of the data.

    Raises:
        fv.InputError: at construction, for a field that is out of its range.
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        if not 0 < self.norm < np.inf:
            raise fv.InputError(f"Sphere: norm is a finite number above 0, not {self.norm!r}")
        object.__setattr__(self, "norm", float(self.norm))

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draw pixels from U[0, 1], projected."""
        return self.project({"pixels": jax.random.uniform(key, self.shape)})

    def decode(self, params: dict[str, jax.Array]) -> jax.Array:
        """Turn (h, w, c) pixels of that norm into an image in [0, 1]."""
        return 0.5 + params["pixels"] / (2 * self.norm)

    def encode(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return the pixels of `image`, (h, w, c) in [0, 1], projected.

        Raises:
            fv.InputError: if the image has another shape.
        """
        return self.project({"pixels": 2 * self.norm * (self._check_image(image) - 0.5)})

    def project(self, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Rescale to the norm; zeros, which have no direction, stay zeros."""
        length = jnp.sqrt(jnp.sum(params["pixels"] ** 2))
        return {"pixels": params["pixels"] * (self.norm / jnp.maximum(length, 1e-12))}


class Optima(NamedTuple):
    """What maximises units of a layer, from several starts each."""

    inputs: np.ndarray  # (units, starts, inputs), in the order of the activations, highest first
    images: np.ndarray  # (units, h, w, 1), the best of each as the model takes it
    late_gain: float  # of the mean activation in the last tenth of the steps, as a share of it


def maximise(
    model: fv.Model,
    layer: str,
    units: np.ndarray,
    norm: float,
    *,
    starts: int = 1,
    steps: int = 400,
    seed: int = 0,
) -> Optima:
    """Activation maximization of the units before their sigmoid, all in one batch.

    A step goes along the gradient by a share of the norm, from 0.2 down to 0 over the steps,
    whatever the gradient's length: the layers' activations differ in scale, and all that is looked
    for is a direction.

    Args:
        model: of `as_model`.
        layer: `layer1` and so on.
        units: their indices, (n,).
        norm: of the inputs.
        starts: from U[0, 1], renormalised, for each unit.
        steps: of the ascent.
        seed: of the starts.
    """
    schedule = f"cosine_decay_schedule({0.2 * norm}, {steps})"
    result = fv.synthesize(
        model,
        fv.Channel(f"{layer}/linear", np.repeat(units, starts)),
        Sphere(model.input.size, 1, norm),
        optimizer=f"chain(normalize_by_update_norm(), sgd({schedule}))",
        transform="none",
        steps=steps,
        seed=seed,
    )
    order = np.argsort(-result.clean_scores.reshape(len(units), starts), axis=1)
    inputs = result.params["pixels"].reshape(len(units), starts, -1)
    images = result.images.reshape(len(units), starts, *result.images.shape[1:])
    means = result.scores.mean(axis=1)
    return Optima(
        np.take_along_axis(inputs, order[..., None], 1),
        images[np.arange(len(units)), order[:, 0]],
        float(1 - means[-1 - steps // 10] / means[-1]),
    )


def linear_combination(layers: Sequence[Layer], strongest: int) -> np.ndarray:
    """Pictures of all units of the last layer, (units, inputs), from the filters below them.

    At the first layer a unit's filter; above, the sum of the pictures of the layer below, weighted
    by the unit's connections of the largest absolute weights (Lee et al. 2008; Erhan et al. 2009,
    section 3.3).

    Args:
        layers: from the first to the one of the units.
        strongest: connections that count, at most those that there are.

    Raises:
        fv.InputError: a number of connections out of range.
    """
    pictures = np.asarray(layers[0].kernel).T
    for layer in layers[1:]:
        weights = np.asarray(layer.kernel).T
        if not 1 <= strongest <= weights.shape[1]:
            raise fv.InputError(f"strongest is from 1 to {weights.shape[1]}, not {strongest}")
        rank = np.argsort(np.argsort(-np.abs(weights), axis=1), axis=1)
        pictures = np.where(rank < strongest, weights, 0) @ pictures
    return pictures


@functools.partial(jax.jit, static_argnames=("steps",))
def clamped_samples(
    layers: Sequence[Layer], clamped: jax.Array, start: jax.Array, key: jax.Array, steps: int
) -> jax.Array:
    """Samples of a deep belief network whose top layer is the last, with units of it held at 1.

    Gibbs chains between the last layer and the one below, then one ancestral pass down (Erhan et
    al. 2009, section 3.2). The rows share their random numbers: what differs between them is the
    clamped units' doing, and not the draws'.

    Args:
        layers: from the first to the one of the clamped units.
        clamped: (rows, units), 1 where a unit is held at 1, else 0; zeros leave the model free.
        start: (chains, inputs of the last layer), probabilities that the chains start from.
        key: of all draws.
        steps: of each chain.

    Returns:
        P(x = 1) given the first layer's units at the end of each chain, (rows, chains, inputs):
        their mean over the chains is E[x | h = 1], the x drawn from them are samples.
    """
    *below, top = layers
    ahead, back = jax.random.split(key)

    def sample(held: jax.Array) -> jax.Array:
        def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            one, other = jax.random.split(key)
            h = draw(one, up(top, draw(other, x)))
            return down(top, jnp.maximum(h, held)), None

        x, _ = jax.lax.scan(step, start, jax.random.split(ahead, steps))
        for number, layer in reversed(list(enumerate(below))):
            x = down(layer, draw(jax.random.fold_in(back, number), x))
        return x

    return jax.vmap(sample)(clamped)


# ---- the study -----------------------------------------------------------------------------


def directions(pictures: np.ndarray) -> np.ndarray:
    """Each row of (n, d) over its Euclidean norm; zeros stay zeros."""
    return pictures / np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-12)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of all rows of one array (n, d) with all of another (m, d): (n, m); 0 with zeros."""
    return directions(a) @ directions(b).T


def own_and_others(matrix: np.ndarray) -> tuple[float, float]:
    """Mean of the diagonal of a square matrix, and of the rest."""
    own = np.eye(len(matrix), dtype=bool)
    return float(matrix[own].mean()), float(matrix[~own].mean())


def grey(pictures: np.ndarray) -> np.ndarray:
    """Signed pictures (n, inputs) for the eye: 0 is mid-grey, its own largest size black or white.

    Never clipped; pictures are not comparable in contrast.
    """
    largest = np.maximum(np.abs(pictures).max(axis=1, keepdims=True), 1e-12)
    return 0.5 + pictures / (2 * largest)


class Study(NamedTuple):
    """The rows of the tables."""

    training: list[list[object]]
    units: list[list[object]]
    agreement: list[list[object]]
    sampling: list[list[object]]


HEADERS = Study(
    ["network", "layer", "error", "error of the mean"],
    [
        "network",
        "layer",
        "cosine of two starts",
        "cosine of two units",
        "response to own optimum",
        "to others' optima",
        "to digits",
        "pixels outside [0, 1]",
        "late gain",
    ],
    [
        "network",
        "layer",
        "pictures",
        "cosine, same unit",
        "different units",
        "same unit, without the mean",
        "own is nearest",
    ],
    ["layer", "blank samples of the free model", "blank digits", "cosine of two halves"],
)
CAPTIONS = Study(
    "Mean squared error of a layer's reconstruction of its inputs, and of their mean, on digits "
    "held out from the training.",
    "Activation maximization, means over the units. Responses are after the sigmoid; late gain is "
    "what the last tenth of the steps adds to the activation before it, as a share.",
    "Cosines of the pictures of one unit by two methods, and of two units, means; the same for one "
    "unit without what all units have in common, the mean of each method's pictures at norm 1; and "
    "how often, so, a unit's own is the nearest of all pictures by the second method. Sampling is "
    "E[x | h = 1] less E[x] of the free model.",
    "Whether the sampling can be trusted: share of blank images, those of a mean pixel below "
    f"{BLANK}, to which a chain that leaves the digits falls; and the cosine of a unit's pictures "
    "from two halves of the chains.",
)


class Samples(NamedTuple):
    """What the samples of clamped units show."""

    expectation: np.ndarray  # E[x | h = 1], (units, inputs)
    difference: np.ndarray  # the same less E[x] of the free model
    examples: np.ndarray  # P(x = 1) at the ends of single chains, (SAMPLES, units, inputs)
    blank: float  # share of the free model's
    repeated: float  # cosine of a unit's differences by two halves of the chains, mean


def sample_units(
    layers: Sequence[Layer], units: np.ndarray, start: jax.Array, key: jax.Array, steps: int
) -> Samples:
    """Samples of the model with each unit of its last layer held at 1 in turn, and free.

    Args:
        layers: from the first to the one of the units.
        units: their indices, (n,).
        start: as of `clamped_samples`; an even number of chains.
        key: of all draws.
        steps: of each chain.
    """
    clamped = np.zeros((len(units) + 1, layers[-1].bias.size), np.float32)
    clamped[np.arange(len(units)), units] = 1  # the last row is the free model's
    samples = np.asarray(clamped_samples(layers, clamped, start, key, steps))
    mean = samples.mean(axis=1)
    halves = [half.mean(axis=1) for half in np.split(samples, 2, axis=1)]
    return Samples(
        mean[:-1],
        mean[:-1] - mean[-1],
        np.moveaxis(samples[:-1, :SAMPLES], 1, 0),
        float(np.mean(samples[-1].mean(axis=1) < BLANK)),
        own_and_others(cosines(*(half[:-1] - half[-1] for half in halves)))[0],
    )


def study_network(
    name: str,
    layers: Sequence[Layer],
    generative: bool,
    data: jax.Array,
    size: tuple[int, int],
    budget: Budget,
    seed: int,
    report: Report,
    table: Study,
) -> None:
    """Pictures and figures of the first units of each layer of a trained network.

    Args:
        name: of the network, for the pictures and tables.
        layers: the network.
        generative: whether its units can be sampled.
        data: (n, inputs) in [0, 1], of which the norm is taken, and where chains start.
        size: (height, width) of the inputs.
        budget: of the maximization and the sampling.
        seed: of both.
        report: gets the pictures.
        table: gets the rows.
    """
    norm = float(jnp.linalg.norm(data, axis=1).mean())
    model = as_model(layers, size, norm, name)
    units = np.arange(budget.units)
    matrices = []
    inputs = data
    for number in range(1, len(layers) + 1):
        layer = f"layer{number}"
        optima = maximise(
            model, layer, units, norm, starts=budget.starts, steps=budget.steps, seed=seed
        )
        best = optima.inputs[:, 0]
        shown = {
            "maximization": best,
            "combination": linear_combination(layers[:number], budget.strongest)[units],
        }
        rows = [grey(pictures) for pictures in shown.values()]
        caption = "activation maximization; linear combination"
        if generative:
            key = jax.random.fold_in(jax.random.key(seed), number)
            sampled = sample_units(
                layers[:number], units, inputs[: budget.chains], key, budget.gibbs
            )
            shown["sampling"] = sampled.difference
            blank = float(np.mean(data.mean(axis=1) < BLANK))
            table.sampling.append([layer, sampled.blank, blank, sampled.repeated])
            rows += [sampled.expectation, grey(sampled.difference), *sampled.examples]
            caption += (
                "; E[x | h = 1], black 0 and white 1; the same less E[x] of the free model; "
                f"{SAMPLES} samples, P(x = 1) given the first layer"
            )
        report.pictures(
            f"{name.lower()}_{layer}",
            np.concatenate([row[:SHOWN] for row in rows]).reshape(-1, *size, 1),
            columns=min(SHOWN, len(units)),
            zoom=max(1, 56 // size[1]),
            caption=f"{name}, {layer}, units 0 to {min(SHOWN, len(units)) - 1}, by rows: "
            f"{caption}. Signed pictures: 0 is mid-grey, each over its own largest size.",
        )

        responses = np.asarray(model(optima.images)[layer])[:, units]
        matrices.append(responses[..., None])
        own, others = own_and_others(responses)
        inputs = up(layers[number - 1], inputs)
        same = np.mean([own_and_others(cosines(x, x))[1] for x in optima.inputs])
        different = own_and_others(cosines(best, best))[1]
        outside = float(np.mean((best < 0) | (best > 1)))
        to_digits = float(inputs[:, units].mean())
        table.units.append(
            [name, layer, same, different, own, others, to_digits, outside, optima.late_gain]
        )
        for one, other in itertools.combinations(shown, 2):
            a, b = directions(shown[one]), directions(shown[other])
            alike = own_and_others(a @ b.T)
            # What all units have in common would hide what is one unit's.
            special = cosines(a - a.mean(axis=0), b - b.mean(axis=0))
            nearest = float(np.mean(special.argmax(axis=1) == units))
            row = [*alike, own_and_others(special)[0], nearest]
            table.agreement.append([name, layer, f"{one}, {other}", *row])
    report.pictures(
        f"{name.lower()}_sensitivity",
        matrices,
        [f"layer{number}" for number in range(1, len(layers) + 1)],
        columns=len(layers),
        zoom=8,
        caption=f"{name}: response after the sigmoid, black 0 and white 1, of each unit (column) "
        "to the optimum of each (row).",
    )


def main() -> None:
    """Trains both networks, studies their units and writes the report."""
    line = studies.CommandLine(
        __doc__, "erhan_units", folder="the files of MNIST", holds=["train-images-idx3-ubyte.gz"],
        bundled="scikit-learn", quick="small networks, few updates",
        seed="the networks and the pictures",
    )  # fmt: skip
    options, started = line.read(), time.perf_counter()
    images = read_mnist(options.folder) if options.folder else bundled_digits()
    budget = QUICK if options.quick else FULL if options.folder else DIGITS
    size = images.shape[1:]
    data = jnp.asarray(images.reshape(len(images), -1))
    held_out, data = jnp.split(data, [len(data) // HELD_OUT])

    report = Report(
        options.out,
        "What do the units of deep networks of digits look for?",
        "Erhan, Bengio, Courville and Vincent 2009, Visualizing Higher-Layer Features of a Deep "
        "Network: three pictures of a unit, in a deep belief network (DBN) and in a stacked "
        f"denoising autoencoder (SdA) trained here on {len(data)} digits of "
        f"{size[0]} x {size[1]} pixels.",
    )
    table = Study([], [], [], [])
    for place, (name, title, gradient, rate) in enumerate(NETWORKS):
        key = jax.random.fold_in(jax.random.key(options.seed), place)
        layers = train(gradient, data, budget.widths, budget.updates, rate, key)
        below = held_out
        for number, layer in enumerate(layers, start=1):
            spread = float(jnp.var(below, axis=0).mean())
            table.training.append(
                [name, f"layer{number}", reconstruction_error(layer, below), spread]
            )
            below = up(layer, below)
        report.heading(title)
        generative = gradient is contrastive_divergence
        study_network(name, layers, generative, data, size, budget, options.seed, report, table)

    report.heading("Figures")
    for header, rows, caption in zip(HEADERS, table, CAPTIONS, strict=True):
        report.table(header, rows, caption)
        print(*header, sep=", ")
        for row in rows:
            print(*(f"{x:.3g}" if isinstance(x, float) else x for x in row), sep=", ")
    seconds = time.perf_counter() - started
    page = report.write(arguments=options, seconds=seconds, budget=budget._asdict())
    studies.finish(started, page, len(images))


if __name__ == "__main__":
    studies.run(main)
