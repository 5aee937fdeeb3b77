"""One list of objectives over a small network, sent through every law by the tests."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import objectives as ob

COUNT = 3
#: Not square, like the maps of the network (5 x 7).
SHAPE = (COUNT, 10, 14, 3)


_rng = np.random.default_rng(0)


def _weights(*shape: int) -> np.ndarray:
    return (_rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)


_ATTRIBUTION = np.random.default_rng(1).normal(size=(5, 7, 8)).astype(np.float32)
_EARLY, _LATE, _LOGITS = _weights(3, 3, 3, 6), _weights(3, 3, 6, 8), 4 * _weights(8, 9)


def network(image: jax.Array) -> ob.Activations:
    """Smooth: early (n, 5, 7, 6) of both signs, late (n, 5, 7, 8) positive, logits (n, 9).

    And tokens (n, 36, 8), as of a transformer: one of the class, then late's. And
    what stands for a score's gradient by late.
    """

    def convolve(x: jax.Array, kernel: np.ndarray, stride: int) -> jax.Array:
        strides, axes = (stride, stride), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=axes)

    early = jnp.tanh(convolve(4 * (image - 0.5), _EARLY, 2))
    late = jax.nn.softplus(convolve(3 * early, _LATE, 1))
    patches = late.reshape(len(late), -1, 8)
    tokens = jnp.concatenate([patches.mean(1, keepdims=True) ** 2, patches], axis=1)
    logits = late.mean((1, 2)) @ _LOGITS
    attribution = jnp.broadcast_to(jnp.asarray(_ATTRIBUTION)[None], late.shape)
    layers = {"early": early, "late": late, "tokens": tokens, "logits": logits}
    return ob.Activations(layers | {"late/attribution": attribution})


def images(seed: int, shape: tuple[int, ...] = SHAPE) -> jax.Array:
    """Random pictures, away from grey, where |x - 0.5| has its corner."""
    rng = np.random.default_rng(seed)
    sides = rng.choice([0.25, 0.75], shape)
    return jnp.asarray(sides + rng.uniform(-0.2, 0.2, shape), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """An objective under a name, and whether it has a gradient at a random picture."""

    name: str
    objective: ob.Objective
    climbs: bool = True

    @property
    def couples(self) -> bool:
        return any(node.couples_images for node in self.objective.walk())


_target = {name: np.asarray(a) for name, a in network(images(7)).items()}
_grams = np.asarray(ob.gram(_target["early"]))
_vectors = _rng.uniform(0.2, 1.0, (COUNT, 8)).astype(np.float32)
_mask = np.zeros((1, 5, 7), np.float32)
_mask[:, 1:4, 2:5] = 1
_masks = np.concatenate([_mask, _mask[:, ::-1, ::-1] * 0.5, np.ones_like(_mask)])


def _statistics(layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Of other images, and over each channel."""
    a = _target[layer].reshape(-1, _target[layer].shape[-1])
    return 2 * a.mean(0), 3 * a.var(0)


_spread = _target["late"].reshape(-1, 8)
_precision = np.asarray(ob.precision(_spread - 0.5 * _spread.mean(0)))

_TERMS = {
    "channel": ob.Channel("late", 2),
    "channel, one an image": ob.Channel("early", [2, 0, 5]),
    "channel of vectors": ob.Channel("logits", 4),
    "neuron at the centre": ob.Neuron("late", 3),
    "neuron": ob.Neuron("early", 1, (1, 6)),
    "neuron, one an image": ob.Neuron("late", [1, 7, 0], [[0, 6], [4, 0], [2, 3]]),
    "neuron, a position an image": ob.Neuron("early", 1, [[0, 6], [4, 0], [2, 3]]),
    "channel of tokens": ob.Channel("tokens", 2),
    "channel without the class token": ob.Channel("tokens", [2, 0, 5], skip=1),
    "neuron at a token": ob.Neuron("tokens", 3, (35,)),
    "neuron, a token an image": ob.Neuron("tokens", [1, 7, 0], [[0], [4], [35]]),
    "direction at a token": ob.DirectionNeuron("tokens", _vectors[1], (0,), power=1.0),
    "direction": ob.Direction("late", _vectors[0]),
    "direction, power": ob.Direction("late", _vectors[0], power=2.0),
    "direction, one an image": ob.Direction("late", _vectors, power=4),
    "facet": ob.Facet("late", _vectors[0]),
    "facet, one an image": ob.Facet("late", _vectors),
    "direction of vectors": ob.Direction("logits", np.arange(9.0)),
    "direction neuron": ob.DirectionNeuron("late", _vectors[1], (4, 5)),
    "direction neuron, power": ob.DirectionNeuron("late", _vectors[1], power=1.0),
    "direction neuron, one an image": ob.DirectionNeuron(
        "late", _vectors, [[0, 6], [4, 0], [2, 3]], power=2.0
    ),
    "layer": ob.Layer("early"),
    "logit": ob.Logit(4),
    "logit, one an image": ob.Logit([8, 0, 3]),
    "probability": ob.Probability(4),
    "probability, one an image": ob.Probability([8, 0, 3]),
    "log probability": ob.LogProbability(2),
    "log probability, one an image": ob.LogProbability([8, 0, 3]),
    "doubted logit": ob.DoubtedLogit(2),
    "doubted logit of maps, one an image": ob.DoubtedLogit([7, 0, 3], "late"),
    "match": ob.FeatureMatch("early", _target["early"][:1]),
    "match, one an image": ob.FeatureMatch("early", _target["early"]),
    "match, masked": ob.FeatureMatch("early", _target["early"], _mask),
    "match, a mask an image": ob.FeatureMatch("early", _target["early"][:1], _masks),
    "match, log": ob.FeatureMatch("early", _target["early"], metric="log"),
    "match, log, masked": ob.FeatureMatch("late", _target["late"][:1], _mask, "log"),
    "match, named": ob.FeatureMatch("early", ob.NamedArray(_target["early"][1:2], "target")),
    "match, cosine": ob.FeatureMatch("late", _target["late"], metric="cosine"),
    "match, norm": ob.FeatureMatch("early", _target["early"], metric="norm"),
    "match, norm, masked": ob.FeatureMatch("late", _target["late"][:1], _masks, "norm"),
    "match, norm of vectors": ob.FeatureMatch("logits", _target["logits"], metric="norm"),
    "match, images beside": ob.FeatureMatch(
        "early", _target["early"][1:2], metric="norm", images=images(7)[1:2]
    ),
    "match of vectors": ob.FeatureMatch("logits", _target["logits"][:1]),
    "caricature": ob.Caricature("late", _target["late"][:1]),
    "caricature, one an image": ob.Caricature("late", _target["late"], power=4.0),
    "caricature, no power": ob.Caricature("early", _target["early"], power=0.0),
    "caricature, positive": ob.Caricature("early", _target["early"][:1], positive=True),
    "caricature, images beside": ob.Caricature("late", _target["late"], images=images(7)),
    "style": ob.Style("early", _grams[:1]),
    "style of tokens": ob.Style("tokens", np.asarray(ob.gram(_target["tokens"]))[:1]),
    "style, one an image": ob.Style("early", _grams),
    "diversity": ob.Diversity("early"),
    "distance of pixels": ob.MinDistance(),
    "distance of activations": ob.MinDistance("early"),
    "alignment of pixels": ob.Alignment(),
    "alignment of activations": ob.Alignment("late", decay=3.0),
    "batch statistics": ob.BatchStatistics("early", *_statistics("early")),
    "batch statistics of vectors": ob.BatchStatistics("logits", *_statistics("logits")),
    "sorted": ob.SortMatch("early", np.sort(_target["early"][0].reshape(-1, 6), axis=0)),
    "sorted, one an image": ob.SortMatch(
        "late", np.sort(_target["late"].reshape(COUNT, -1, 8), axis=1)
    ),
    "sorted, fewer levels": ob.SortMatch("late", np.linspace(0, 2, 8 * 5).reshape(5, 8)),
    "total variation": ob.TotalVariation(),
    "total variation, beta 1": ob.TotalVariation(beta=1.0),
    "alpha norm": ob.AlphaNorm(),
    "alpha norm, alpha 3": ob.AlphaNorm(3.0, center=0.25),
    "alpha norm, each colour": ob.AlphaNorm(3.0, joint=False),
    "L1": ob.L1(),
    "L2": ob.L2(center=0.25),
    "blur": ob.Blur(),
    "blur, wide": ob.Blur(sigma=6.0),
    "centre bias": ob.CenterBias(sigma=0.7),
    "change": ob.Change(ob.L2(0.0), images(7)[:1]),
    "change, one an image": ob.Change(ob.L1(0.1) + 0.5 * ob.TotalVariation(), images(7)),
    "tone": ob.Tone([0.4, 0.5, 0.6], [0.1, 0.2, 0.3]),
    "tone, one an image": ob.Tone(0.6 * _vectors[:, :3], [0.1, 0.2, 0.3]),
    "boundary": ob.Boundary(width=2),
    "boundary, all rim": ob.Boundary(width=9, sigma=0.7),
    "whitened direction": ob.WhitenedDirection("late", _vectors[0], _precision),
    "whitened direction, power": ob.WhitenedDirection("late", _vectors[0], _precision, power=2.0),
    "whitened direction, one an image": ob.WhitenedDirection(
        "late", _vectors, np.stack([_precision, np.eye(8), 2 * _precision]), power=1.0
    ),
    "spatial direction": ob.SpatialDirection("late", _target["late"][0, 1:3, 2:5]),
    "spatial direction, placed": ob.SpatialDirection(
        "late", _target["late"][0, 1:3, 2:5], (0, 1), power=1.0
    ),
    "spatial direction, one an image": ob.SpatialDirection(
        "early", _target["early"][:, :2, :2], [[0, 0], [1, 3], [1, 2]], power=2.0
    ),
    "window": ob.Window("late", 2, _mask[0] + 0.5),
    "window, one an image": ob.Window("early", [2, 0, 5], _masks),
    "at least": ob.AtLeast(ob.Channel("late", 2), 3.0),
    "at least, one an image": ob.AtLeast(ob.Logit(4), [20.0, 30.0, 40.0]),
    "level": ob.Level(ob.Channel("late", 2), 3.0),
    "level of a prior, one an image": ob.Level(ob.L2(), [0.5, 1.0, 2.0]),
    "softmax": ob.Softmax([ob.Logit(4), ob.Logit([1, 2, 3])], 2.0),
    "softmin": ob.Softmin((ob.Channel("late", 2), ob.Neuron("late", 3), ob.L2()), 3.0),
    "softmin, one an image": ob.Softmin([ob.Logit(4), 0.1 * ob.Logit(2)], [1.0, 2.0, 0.5]),
    "in groups": ob.InGroups(ob.Channel("late", 2) + ob.MinDistance(), 3),
}

CASES = [Case(name, objective) for name, objective in _TERMS.items()] + [
    Case("constant", ob.Constant(2.0), climbs=False),
    Case("constant, one an image", ob.Constant([1.0, -2.0, 0.5]), climbs=False),
    Case("scaled", -0.3 * ob.Channel("late", 2)),
    Case("scaled, one an image", np.array([1.0, -2.0, 0.5]) * ob.Logit(4)),
    Case("sum", ob.Channel("late", 2) - 0.1 * ob.TotalVariation() + 1.5),
    Case(
        "interpolation",
        np.array([0, 0.25, 1]) * ob.Logit(4) + np.array([1, 0.75, 0]) * ob.Logit([1, 2, 3]),
    ),
    Case("product", ob.Channel("late", 2) * ob.Logit(4) * (2 * ob.L2() + 1)),
    Case("scaled product", -0.5 * (ob.Channel("late", [2, 5, 1]) * (0.3 * ob.Layer("early")))),
    Case("on some images", ob.Channel("late", [2, 5]).on([2, 0])),
    Case("on some images, of pixels", 2 * (ob.L2() + ob.Layer("early")).on([1])),
    Case("sum with a batch objective", ob.Channel("late", 2) + 0.5 * ob.Diversity("early")),
    Case("batch objective on some images", ob.MinDistance("early").on([0, 2])),
]
