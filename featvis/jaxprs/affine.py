"""Affine maps inside a traced program, and the rules by which relevance goes back through them.

Layer-wise relevance propagation divides what arrives at z_j = Σ_i z_ij + b_j, z_ij = x_i·w_ij,
among the x_i by their contributions z_ij (Bach et al. 2015, "On Pixel-Wise Explanations for
Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation"). A bias is a contribution as
any other, and what it gets goes no further. Every rule here gives positive and negative
contributions a factor each, u_j and v_j:

    R_i = Σ_j z_ij⁺·u_j + z_ij⁻·v_j
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from featvis.errors import InputError

Linear = Callable[[jax.Array], jax.Array]
Factors = tuple[jax.Array, jax.Array]


@dataclass(frozen=True)
class Epsilon:
    """The ε-rule, u = v = R / (z + ε·sign z): contributions as they are, small z damped.

    Bach et al. 2015, equation 58. LRP-0 is ε = 0; there a z of 0 hands nothing on.

    Attributes:
        epsilon: 0 or more.
        relative: whether it is in units of the root mean square of z over an image (0.25 in
            Montavon et al. 2019), else in z's own.
    """

    epsilon: float | jax.Array = 0.0
    relative: bool = False

    def factors(
        self, z: jax.Array, positive: jax.Array, negative: jax.Array, r: jax.Array
    ) -> Factors:
        """The factors of z, its positive and its negative part and the relevance of z."""
        return (both := self.factor(z, r)), both

    def factor(self, z: jax.Array, r: jax.Array) -> jax.Array:
        """The factor of all contributions alike."""
        epsilon = jnp.asarray(self.epsilon, z.dtype)
        if self.relative and z.ndim > 1:
            epsilon *= jnp.sqrt(jnp.mean(z * z, tuple(range(1, z.ndim)), keepdims=True))
        return ratio(r, z + jnp.where(z >= 0, epsilon, -epsilon))


@dataclass(frozen=True)
class Gamma:
    """The γ-rule: contributions of the sign of z count 1 + γ times.

    Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview", 10.2.3, for inputs of
    either sign: where z is negative, the negative ones do.

    Attributes:
        gamma: 0 or more; 0 is LRP-0, and infinity the z⁺-rule.
        epsilon: added to what is divided by, as in the ε-rule.
    """

    gamma: float | jax.Array = 0.25
    epsilon: float | jax.Array = 0.0

    def factors(
        self, z: jax.Array, positive: jax.Array, negative: jax.Array, r: jax.Array
    ) -> Factors:
        """The factors of z, its positive and its negative part and the relevance of z."""
        above = z >= 0
        total = z + self.gamma * jnp.where(above, positive, negative)
        one = Epsilon(self.epsilon).factor(total, r)
        more = (1 + self.gamma) * one
        return jnp.where(above, more, one), jnp.where(above, one, more)


@dataclass(frozen=True)
class AlphaBeta:
    """The αβ-rule: α of the relevance to the positive contributions, -β to the negative ones.

    Bach et al. 2015, equation 60; α = 1, β = 0 is the z⁺-rule (Montavon et al. 2017, "Explaining
    Nonlinear Classification Decisions with Deep Taylor Decomposition"). A z without positive
    contributions hands nothing on of its α.

    Attributes:
        alpha: 1 or more; β is α - 1, so that relevance is conserved.
        epsilon: added to what is divided by, as in the ε-rule.
    """

    alpha: float | jax.Array = 2.0
    epsilon: float | jax.Array = 0.0

    def factors(
        self, z: jax.Array, positive: jax.Array, negative: jax.Array, r: jax.Array
    ) -> Factors:
        """The factors of z, its positive and its negative part and the relevance of z."""
        divide = Epsilon(self.epsilon).factor
        # The ε of a negative sum is negative, of which a sum of 0 knows nothing.
        return divide(positive, self.alpha * r), divide(-negative, (self.alpha - 1) * r)


Rule = Epsilon | Gamma | AlphaBeta


@dataclass(frozen=True)
class Depths:
    """Which rule is for which depth (a composite, Montavon et al. 2019, 10.3).

    Attributes:
        parts: (up to which depth, rule), from the image on: 1 is the score's depth. A layer's is
            the number of layers with weights on the longest way to it from the image, it included.
        bounded: whether the layers that see the pixels have the zᴮ-rule (Montavon et al. 2017),
            whose bounds are what black and white are to them.
        biased: whether a bias of a layer keeps what it contributed; else it is left out, and all
            is divided among what goes into the layer.
        halved: whether of a product of two matrices of values either gets half, also where one of
            them is a gate, as the probabilities of attention are (Chefer et al. 2021, "Transformer
            Interpretability Beyond Attention Visualization").
    """

    parts: tuple[tuple[float, Rule], ...] = ((1.0, Epsilon()),)
    bounded: bool = False
    biased: bool = True
    halved: bool = False

    def __post_init__(self) -> None:
        """Check that every depth has a rule."""
        ends = [end for end, _ in self.parts]
        if not ends or ends != sorted(ends) or ends[0] <= 0 or ends[-1] != 1:
            raise InputError(
                "parts must be (depth, rule) in rising order of depths above 0, the last 1; got "
                f"the depths {ends}"
            )

    def at(self, depth: int, of: int) -> Rule:
        """The rule at a depth of so many."""
        return next(rule for end, rule in self.parts if depth <= end * of or end == 1)


def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """The quotient a / b, and 0 where b is."""
    none = b == 0
    return jnp.where(none, 0, a / jnp.where(none, 1, b))


@dataclass(frozen=True, eq=False)
class Step:
    """A linear map, and those of its positive and of its negative weights.

    Attributes:
        full: by all its weights.
        positive: by the positive ones.
        negative: by the negative ones; None: there are none.
    """

    full: Linear
    positive: Linear
    negative: Linear | None = None


def weighing(function: Callable[[jax.Array, jax.Array], jax.Array], weights: jax.Array) -> Step:
    """The linear map that a function of (value, weights), linear in each, is of the value."""
    return Step(
        lambda x: function(x, weights),
        lambda x: function(x, jnp.maximum(weights, 0)),
        lambda x: function(x, jnp.minimum(weights, 0)),
    )


def moving(function: Linear) -> Step:
    """A linear map without negative weights."""
    return Step(function, function)


@dataclass(frozen=True, eq=False)
class Affine:
    """Linear maps one after the other, and what has been added on the way.

    A batch normalisation after a convolution is merged with it so.

    Attributes:
        steps: of which a step of a sum that mixes values comes first, if there is one.
        bias: what the map makes of 0; None: 0.
        weighted: whether its first step has weights of a layer.
    """

    steps: tuple[Step, ...] = ()
    bias: jax.Array | None = None
    weighted: bool = False

    def then(self, step: Step) -> Affine:
        """The map followed by another step."""
        bias = None if self.bias is None else step.full(self.bias)
        return replace(self, steps=(*self.steps, step), bias=bias)

    def plus(self, bias: jax.Array) -> Affine:
        """The map with something added."""
        return replace(self, bias=bias if self.bias is None else self.bias + bias)

    def full(self, x: jax.Array) -> jax.Array:
        """Without the bias."""
        for step in self.steps:
            x = step.full(x)
        return x

    def signed(self, positive: jax.Array, negative: jax.Array | None) -> Factors:
        """Positive and negative contributions, (Σ_i z_ij⁺, Σ_i z_ij⁻), to the map without the bias.

        Args:
            positive: the positive part of its argument, 0 elsewhere.
            negative: the negative part; None: 0.
        """
        for step in self.steps:
            ups, downs = [step.positive(positive)], []
            if step.negative is not None:
                downs.append(step.negative(positive))
            if negative is not None:
                downs.append(step.positive(negative))
                if step.negative is not None:
                    ups.append(step.negative(negative))
            positive, negative = sum(ups[1:], ups[0]), sum(downs[1:], downs[0]) if downs else None
        return positive, jnp.zeros_like(positive) if negative is None else negative

    def back(
        self, x: jax.Array, z: jax.Array, r: jax.Array, rule: Rule
    ) -> tuple[jax.Array, jax.Array | None]:
        """The relevance of the map's argument, and what its bias keeps of it.

        Args:
            x: the argument.
            z: what the map gives, with the bias.
            r: the relevance of z.
            rule: how it is divided.
        """
        if isinstance(rule, Epsilon):
            factor = rule.factor(z, r)
            kept = None if self.bias is None else self.bias * factor
            return x * jax.vjp(self.full, x)[1](factor)[0], kept
        parts = jnp.maximum(x, 0), jnp.minimum(x, 0)
        (above, below), back = jax.vjp(self.signed, *parts)
        bias = jnp.zeros_like(z) if self.bias is None else self.bias
        positive, negative = jnp.maximum(bias, 0), jnp.minimum(bias, 0)
        u, v = rule.factors(z, above + positive, below + negative, r)
        gained = [part * by for part, by in zip(parts, back((u, v)), strict=True)]
        kept = None if self.bias is None else positive * u + negative * v
        return gained[0] + gained[1], kept

    def back_bounded(
        self, x: jax.Array, r: jax.Array, low: jax.Array, high: jax.Array
    ) -> jax.Array:
        """The relevance of an argument between two bounds, by the zᴮ-rule.

        Montavon et al. 2017, equation 13: z_ij - l_i·w_ij⁺ - h_i·w_ij⁻ are the contributions, none
        of them negative; a bias has none.

        Args:
            x: the argument.
            r: the relevance of what the map gives.
            low: what x is at the least.
            high: what it is at the most.
        """

        def contributed(x: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
            return self.full(x) - self.signed(low, None)[0] - self.signed(high, None)[1]

        total, back = jax.vjp(contributed, x, low, high)
        gained = back(ratio(r, total))
        found: jax.Array = x * gained[0] + low * gained[1] + high * gained[2]
        return found
