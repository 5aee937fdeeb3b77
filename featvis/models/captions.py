"""Networks that say words of an image, and the model of one sequence of words."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.dry_runs import tried
from featvis.errors import InputError
from featvis.models.call import plain, static
from featvis.models.function import from_function
from featvis.models.input import Input
from featvis.models.model import Model

#: Layers of the model of a sentence: the log-probability of each word, and their sum.
WORDS, SENTENCE = "words", "sentence"


@dataclass(frozen=True, eq=False)
class Captioner:
    """A network that gives words of an image their probabilities, one after the other.

    Attributes:
        apply: `(params, images (n, h, w, c), words (t,)) -> (n, t)`, the logarithm of the
            probability of each word, given the image and the words before it; pure.
        params: its weights, a pytree of arrays.
        vocabulary: the words, by number.
        input: the images that it takes.
        name: of the network.
    """

    apply: Callable[[Any, jax.Array, jax.Array], jax.Array]
    params: Any
    vocabulary: tuple[str, ...]
    input: Input = dataclasses.field(default_factory=Input)
    name: str = "captioner"

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: `apply` is no function, `input` no `Input`, or the vocabulary no words.
        """
        if not callable(self.apply):
            expected = "a function (params, images, words)"
            raise checks.error(self, "apply", expected, self.apply)
        if not isinstance(self.input, Input):
            expected = "an Input, as Input((28, 28), channels=1)"
            raise checks.error(self, "input", expected, self.input)
        words = self.vocabulary
        if not isinstance(words, (tuple, list)) or not words:
            raise checks.error(self, "vocabulary", "a tuple of words, at least one", words)
        for one in words:
            if not isinstance(one, str) or one.split() != [one]:
                raise checks.error(self, "vocabulary", "of words without spaces", one)
        if len(set(words)) < len(words):
            twice = next(one for one in words if words.count(one) > 1)
            raise checks.error(self, "vocabulary", "of words that are there once", twice)
        checks.set_fields(self, vocabulary=tuple(words))

    def numbers(self, words: str) -> tuple[int, ...]:
        """The numbers of words.

        Args:
            words: a sentence, with spaces between its words.

        Raises:
            InputError: none, or one that is not in the vocabulary; says the nearest.
        """
        given = words.split() if isinstance(words, str) else []
        if not given:
            example = " ".join(self.vocabulary[:2])
            raise InputError(f"words are a sentence, as {example!r}; got {words!r}")
        for one in given:
            if one not in self.vocabulary:
                near = difflib.get_close_matches(one, self.vocabulary, n=3) or self.vocabulary[:8]
                raise InputError(f"{self.name} has no word {one!r}; nearest: {', '.join(near)}")
        return tuple(self.vocabulary.index(one) for one in given)

    def model(self, words: str) -> Model:
        """The model of a sentence.

        Its layers are `words`, each one's log-probability (n, t), and `sentence`, their sum (n, 1).
        The words are data: another sentence of as many compiles nothing.

        Args:
            words: a sentence, with spaces between its words.

        Raises:
            InputError: as `numbers`; and a function that cannot be called so, or that gives another
                shape.
        """
        numbers = jnp.asarray(self.numbers(words), jnp.int32)
        self._try(numbers)
        params = {"network": self.params, "words": numbers}
        return from_function(_Said(static(self.apply)), params, input=self.input, name=self.name)

    def _try(self, numbers: jax.Array) -> None:
        """The function on shapes: two images of what it takes."""
        seen = jax.ShapeDtypeStruct((2, *self.input.size, self.input.channels), jnp.float32)
        failing = f"{self.name} cannot be called on images {seen.shape} and {len(numbers)} words"
        found = tried(failing, self.apply, self.params, seen, numbers)
        wanted, made = (2, len(numbers)), getattr(found, "shape", type(found).__name__)
        if made != wanted:
            raise InputError(
                f"{self.name} must give a logarithm for each image and word, {wanted} of images "
                f"{seen.shape}; it gives {made}"
            )


@dataclass(frozen=True)
class _Said:
    apply: Any

    def __call__(self, params: Any, images: jax.Array) -> dict[str, jax.Array]:
        words = plain(self.apply)(params["network"], images, params["words"])
        return {WORDS: words, SENTENCE: jnp.sum(words, axis=1, keepdims=True)}


def sentence_probability(logarithms: np.ndarray) -> np.ndarray:
    """The geometric mean of the probabilities of an image's words, (n,).

    Args:
        logarithms: of them, (n, t).
    """
    return np.exp(np.mean(logarithms, axis=1))
