"""What an attribution method is: one function, found by its name, and options from its signature.

```python
@method("gradient_times_input")
def gradient_times_input(given: Explained) -> jax.Array:
    return jnp.sum(given.images * given.gradient(given.images), axis=-1)
```

A method in a file of this folder is there without being entered anywhere, and one's own wherever
its function is defined. `explain` loads, checks, compiles and batches around it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis.attribution.options import Option, options_of_function
from featvis.errors import InputError, printable
from featvis.jaxprs.injection import Program
from featvis.jaxprs.liveness import pruned
from featvis.models import Apply
from objectives import Activations, Objective


@dataclass(frozen=True)
class Explained:
    """Images and the score to be explained: what a method gets, inside one compiled program.

    All of it is traced: what a method computes of it is compiled once for a network, a layer and a
    number and size of images. Draw randomness by `noise` or from `keys`, one an image, so that an
    image's map does not depend on those beside it.

    Attributes:
        images: (n, h, w, c) in [0, 1].
        keys: a key an image, (n,).
        apply: the network, `(params, images) -> {layer: activations}` in forward order.
        params: its weights.
        objective: the score, of images of this batch in their order.
        prune: whether the score has a gradient only without what it does not depend on.
    """

    images: jax.Array
    keys: jax.Array
    apply: Apply
    params: Any
    objective: Objective
    prune: bool = False

    def score(self, images: jax.Array) -> jax.Array:
        """The scores (n,) of other images of this shape, a pure function of them.

        `jax.grad`, `jax.vjp` and `jax.make_jaxpr` go through it, down to the network.

        Args:
            images: (n, h, w, c), in the places of the batch.
        """

        def scores(images: jax.Array) -> jax.Array:
            return self.objective(Activations(self.apply(self.params, images)), images)

        found: jax.Array = (pruned(scores) if self.prune else scores)(images)
        return found

    def gradient(self, images: jax.Array) -> jax.Array:
        """The gradient of the sum of the scores by images, (n, h, w, c).

        Args:
            images: (n, h, w, c), in the places of the batch.
        """
        return jax.grad(lambda images: jnp.sum(self.score(images)))(images)

    @property
    def program(self) -> Program:
        """The program of the scores, traced anew: its layers can be looked at and added to."""

        def scores(images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            layers = self.apply(self.params, images)
            return self.objective(Activations(layers), images), layers

        return Program(scores, self.images)

    def noise(self, number: jax.Array | int) -> jax.Array:
        """The standard normal noise of a number, of the images' shape, drawn for each image alone.

        Args:
            number: of the draw, which may be traced, as in a scan.
        """

        def draw(key: jax.Array) -> jax.Array:
            return jax.random.normal(
                jax.random.fold_in(key, number), self.images.shape[1:], jnp.float32
            )

        return jax.vmap(draw)(self.keys)


@dataclass(frozen=True)
class Probed:
    """One image and a score that can only be asked for: what a method without gradients gets.

    It runs on the host, and works on any function of images.

    Attributes:
        image: (h, w, c) float32 in [0, 1], NumPy's.
        score: the scores (m,), NumPy's, of any number of images (m, h, w, c), of NumPy or JAX.
        batch: how many images go together best; `score` divides more of them, and a method that
            asks for so many at a time has them in memory and no more.
        key: of JAX, for what the method draws.
    """

    image: np.ndarray
    score: Callable[[Any], np.ndarray]
    batch: int
    key: jax.Array

    @property
    def random(self) -> np.random.Generator:
        """NumPy's generator of the same seed, anew at each call."""
        return np.random.default_rng(np.asarray(jax.random.key_data(self.key)))


@dataclass(frozen=True)
class Method:
    """A method: its function and what `explain` has to know of it.

    Attributes:
        name: by which it is asked for.
        function: of an `Explained` to maps (n, h, w), or of a `Probed` to one map (h, w); or of
            these and metrics, numbers an image by name: (n,), of a `Probed` one each.
        black_box: whether it takes a `Probed`.
        options: its keyword-only arguments by name.
    """

    name: str
    function: Callable[..., Any]
    black_box: bool
    options: Mapping[str, Option]

    @property
    def told(self) -> str:
        """What it is: the first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def written(self) -> list[str]:
        """The options that a text can say: all but arrays."""
        return [name for name, one in self.options.items() if one.kind != "array"]

    def read(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Read options from their texts, unchecked.

        Args:
            texts: by name.

        Raises:
            InputError: one that the method does not have, or no number where one is expected.
        """
        for name in texts:
            if name not in self.options:
                listed = ", ".join(f"--{one}" for one in self.written) or "none"
                raise InputError(f"the method {self.name} has no option --{name}; it has: {listed}")
        return {name: self.options[name].read(self.name, text) for name, text in texts.items()}


_METHODS: dict[str, Method] = {}


def method(
    name: str, *, black_box: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function as an attribution method, which `explain` finds by its name.

    Its options are its keyword-only arguments, each with a default, and each told in its docstring.
    What they may be is written in their annotations: see `featvis.attribution.options`. Of a method
    in a compiled program numbers with a point and arrays are data, traced; all else is a part of
    the program.

    Args:
        name: what `explain` and the command line call it.
        black_box: whether it needs scores alone: it then gets a `Probed`, one image at a time, on
            the host, and works on any function of images; else an `Explained`, in a program.

    Raises:
        InputError: an option without a default, or of a kind that cannot be checked.
    """

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        _METHODS[name] = Method(name, function, black_box, options_of_function(function))
        return function

    return mark


def methods() -> Mapping[str, Method]:
    """Return all attribution methods by name, sorted."""
    package = importlib.import_module("featvis.attribution")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_METHODS.items()))


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        InputError: there is none; says the nearest and all there are.
    """
    known = methods()
    if not isinstance(name, str) or name not in known:
        # By their letters: GradCAM is grad_cam.
        letters = {one.replace("_", ""): one for one in known}
        meant = re.sub(r"[\W_]", "", name.casefold()) if isinstance(name, str) else ""
        near = difflib.get_close_matches(meant, letters, n=1, cutoff=0.5)
        hint = f"nearest: {letters[near[0]]}; " if near else ""
        shown = printable(repr(name), 80)
        raise InputError(f"unknown method {shown}; {hint}known: {', '.join(known)}")
    return known[name]
