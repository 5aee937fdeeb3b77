"""Attribution by changed back-propagation: other gradients of ReLUs, and relevance.

All are transformations of the traced program of the score, so that they work on any network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from featvis.attribution.baselines import Baseline
from featvis.attribution.gradients import Steps, integrated_gradients
from featvis.attribution.method import Explained, method
from featvis.attribution.options import Range
from featvis.jaxprs.affine import AlphaBeta, Depths, Epsilon, Gamma, Rule
from featvis.jaxprs.redirection import deconvolved, guided, guided_everywhere
from featvis.jaxprs.relevance import relevance

Positive = Annotated[float, Range(0)]
Measured = tuple[jax.Array, dict[str, jax.Array]]

#: Up to which depth the composite has the γ-rule and then the ε-rule: the first 7 of VGG-16's 16
#: layers with weights, and the next 6.
_LOW, _MIDDLE = 7 / 16, 13 / 16


@method("deconvnet")
def deconvnet(given: Explained) -> jax.Array:
    """The largest size over colours of a gradient of which ReLUs pass what is positive, 0 or more.

    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1.
    """
    return _changed(given, deconvolved)


@method("guided_backpropagation")
def guided_backpropagation(given: Explained) -> jax.Array:
    """The same where ReLUs that are open alone pass anything, 0 or more.

    Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional Net", section 3.4.
    """
    return _changed(given, guided)


@method("guided_nonlinearity")
def guided_nonlinearity(given: Explained) -> jax.Array:
    """Guided back-propagation of which max pools too pass what is positive alone, 0 or more."""
    return _changed(given, guided_everywhere)


@method("guided_nonlinearity_ig")
def guided_nonlinearity_ig(
    given: Explained, *, baseline: Baseline = "black", steps: Steps = 50
) -> jax.Array:
    """Integrated gradients with the gradients of `guided_nonlinearity`; signed, not complete.

    Args:
        given: what is explained.
        baseline: as of `integrated_gradients`.
        steps: of each path, one gradient each.
    """
    changed = _Guided(**vars(given))
    return integrated_gradients(changed, baseline=baseline, steps=steps)[0]


class _Guided(Explained):
    """What is explained, with guided gradients."""

    def score(self, images: jax.Array) -> jax.Array:
        found: jax.Array = guided_everywhere(super().score)(images)
        return found


def _changed(given: Explained, change: Callable[..., Any]) -> jax.Array:
    def total(images: jax.Array) -> jax.Array:
        return jnp.sum(change(given.score)(images))

    return jnp.max(jnp.abs(jax.grad(total)(given.images)), axis=-1)


@method("lrp_0")
def lrp_0(given: Explained, *, bounded: bool = False, biased: bool = True) -> Measured:
    """Relevance by contributions as they are, LRP-0; signed.

    Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
    Relevance Propagation". On a network of ReLUs it is the gradient times what the network takes.
    The metrics of all methods of relevance are `conserved`, the part of the score that got to the
    pixels, and `conserved_with_biases`, with what biases kept.

    Args:
        given: what is explained.
        bounded: whether the layers that see the pixels have the zᴮ-rule.
        biased: whether biases keep what they contributed; else all gets to the pixels.
    """
    return _relevance(given, Epsilon(), bounded, biased)


@method("lrp_epsilon")
def lrp_epsilon(
    given: Explained,
    *,
    epsilon: Positive = 0.25,
    relative: bool = True,
    bounded: bool = False,
    biased: bool = True,
) -> Measured:
    """Relevance by contributions of which ε damps those to small sums, LRP-ε; signed.

    Bach et al. 2015, equation 58.

    Args:
        given: what is explained.
        epsilon: what is added to a sum of contributions, with its sign.
        relative: whether in units of a layer's root mean square over an image (Montavon et al.
            2019), else in the layer's own.
        bounded: whether the layers that see the pixels have the zᴮ-rule.
        biased: whether biases keep what they contributed; else all gets to the pixels.
    """
    return _relevance(given, Epsilon(epsilon, relative), bounded, biased)


@method("lrp_gamma")
def lrp_gamma(
    given: Explained, *, gamma: Positive = 0.25, bounded: bool = False, biased: bool = True
) -> Measured:
    """Relevance of which contributions of the sum's own sign get more, LRP-γ; signed.

    Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview", 10.2.3.

    Args:
        given: what is explained.
        gamma: how much more.
        bounded: whether the layers that see the pixels have the zᴮ-rule.
        biased: whether biases keep what they contributed; else all gets to the pixels.
    """
    return _relevance(given, Gamma(gamma), bounded, biased)


@method("lrp_alpha_beta")
def lrp_alpha_beta(
    given: Explained,
    *,
    alpha: Annotated[float, Range(1)] = 2.0,
    bounded: bool = False,
    biased: bool = True,
) -> Measured:
    """Relevance of which α goes to the positive contributions and 1 - α to the negative; signed.

    Bach et al. 2015, equation 60.

    Args:
        given: what is explained.
        alpha: β is α - 1.
        bounded: whether the layers that see the pixels have the zᴮ-rule.
        biased: whether biases keep what they contributed; else all gets to the pixels.
    """
    return _relevance(given, AlphaBeta(alpha), bounded, biased)


@method("lrp_z_plus")
def lrp_z_plus(given: Explained, *, bounded: bool = True, biased: bool = True) -> Measured:
    """Relevance by positive contributions alone, the z⁺-rule: deep Taylor decomposition.

    Montavon et al. 2017, "Explaining Nonlinear Classification Decisions with Deep Taylor
    Decomposition": of one sign, that of the score.

    Args:
        given: what is explained.
        bounded: whether the layers that see the pixels have the zᴮ-rule.
        biased: whether biases keep what they contributed; else all gets to the pixels.
    """
    return _relevance(given, AlphaBeta(1.0), bounded, biased)


@method("lrp_composite")
def lrp_composite(
    given: Explained,
    *,
    gamma: Positive = 0.25,
    epsilon: Positive = 0.25,
    bounded: bool = True,
    biased: bool = True,
) -> Measured:
    """Relevance by a rule for each depth: LRP-γ, LRP-ε in the middle, LRP-0 at the top; signed.

    Montavon et al. 2019, 10.3, with its depths of VGG-16 as shares of any network's.

    Args:
        given: what is explained.
        gamma: of the lower layers.
        epsilon: of the middle ones, in units of a layer's root mean square over an image.
        bounded: whether the layers that see the pixels have the zᴮ-rule.
        biased: whether biases keep what they contributed; else all gets to the pixels.
    """
    parts = ((_LOW, Gamma(gamma)), (_MIDDLE, Epsilon(epsilon, relative=True)), (1.0, Epsilon()))
    return _by_depths(given, Depths(parts, bounded))


def _relevance(given: Explained, rule: Rule, bounded: bool, biased: bool) -> Measured:
    return _by_depths(given, Depths(((1.0, rule),), bounded))


def _by_depths(given: Explained, depths: Depths) -> Measured:
    found = relevance(given.score, given.images, depths)
    maps = jnp.sum(found.pixels, axis=-1)
    reached = jnp.sum(maps, axis=(1, 2))

    def share(part: jax.Array) -> jax.Array:
        # All of it is all of it, of a score of 0 too.
        whole = part == found.score
        return jnp.where(whole, 1, part / jnp.where(whole, 1, found.score))

    return maps, {
        "conserved": share(reached),
        "conserved_with_biases": share(reached + found.biases),
    }
