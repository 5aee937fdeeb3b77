"""A plain function of Python as an objective."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from objectives.errors import ObjectiveError
from objectives.fields import static
from objectives.objective import Objective


class Function(Objective):
    """What a function of `(activations, images)` gives, one score an image, each of its own alone.

    Two are equal where they are one function object, which compiles once. Its code has no text: the
    manifest has its name, and no replay.

    Args:
        function: of the activations (n, ...) by layer, in float32, and the images (n, h, w, c) in
            [0, 1] before any transform; gives (n,). What looks at the whole batch is a class with
            `couples_images`.

    Raises:
        ObjectiveError: no function of two arguments.
    """

    function: Callable[[Mapping[str, Any], Any], Any] = static()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.function, str):
            raise ObjectiveError(
                f"{self.function} was a function of Python, whose code no text has: only Python "
                "makes it again, by a run with that function"
            )
        if not callable(self.function) or isinstance(self.function, type):
            raise ObjectiveError(f"a function is expected, not {self.function!r}")
        try:
            inspect.signature(self.function).bind(None, None)
        except TypeError as error:
            raise ObjectiveError(
                f"an objective's function takes (activations, images); {self.name}: {error}"
            ) from None
        except ValueError:  # some of other languages do not say what they take
            pass

    @property
    def name(self) -> str:
        """The function's, with its module's."""
        inner = getattr(self.function, "func", self.function)
        module, name = getattr(inner, "__module__", ""), getattr(inner, "__qualname__", "")
        return f"{module}.{name}" if name else type(inner).__name__

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), those of the function."""
        try:
            scores = jnp.asarray(self.function(acts, image))
        except ObjectiveError:
            raise
        # Whatever somebody's function raises.
        except Exception as error:
            said = " ".join(str(error).split()) or "nothing"
            raise ObjectiveError(f"{self.name} raised {type(error).__name__}: {said}") from error
        count = jnp.shape(image)[0]
        if scores.shape != (count,):
            raise ObjectiveError(
                f"{self.name} gives scores of shape {scores.shape}; expected one an image, "
                f"{(count,)}, as a mean over all axes but the first"
            )
        return scores

    def __str__(self) -> str:
        return f"function({self.name!r})"

    def __repr__(self) -> str:
        return str(self)
