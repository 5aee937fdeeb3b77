"""What an objective is: a frozen pytree, one score an image, always maximised; and its algebra.

An objective maps `(activations, image)` to one score an image, a float array (n,). Layer names and
options are static; indices, weights and vectors are pytree leaves, so that another unit of the
same layer is the same compiled program. Writing a class is all that a new objective takes::

    class Projection(Objective):
        \"\"\"Mean projection of a layer's activations on a vector (c,), or on one an image.\"\"\"

        layer: str = static()
        vector: ArrayLike = leaf(ndim=1)

        def __call__(self, acts, image):
            vectors = jnp.atleast_2d(self.vector)[:, None, None, :]
            return (acts[self.layer] * vectors).sum(-1).mean((1, 2))

It prints as `projection('block8', [...])`, and `parse` reads that.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.activations import Activations, See, in_float32
from objectives.errors import ObjectiveError
from objectives.fields import (
    canonical,
    check_rank,
    checked_static,
    fields_of,
    image_count,
    is_array,
    is_traced,
    leaf,
    leaf_text,
    leaf_value,
    same_value,
    shorten,
    static,
)
from objectives.literals import format_literal


def is_objective(value: Any) -> bool:
    """Whether a value is an objective."""
    return isinstance(value, Objective)


def _computed_in_float32(call: Callable[..., Any]) -> Callable[..., jax.Array]:
    """What scores images, given all that it reads in float32, as its scores are."""

    @functools.wraps(call)
    def scores(self: Objective, acts: Mapping[str, Any], image: Any) -> jax.Array:
        acts = acts if isinstance(acts, Activations) else Activations(acts)
        found: jax.Array = in_float32(call(self, acts, in_float32(image)))
        return found

    return scores


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static, leaf, dataclasses.field)
)
class Objective(abc.ABC):
    """Base of every objective. A subclass is a frozen dataclass and a pytree without saying so.

    Objectives add, subtract, negate, multiply with each other, and multiply or divide by a number
    or by one weight an image (an array (n,)). They compare and hash by value, print as the text
    that `parse` reads, and are never changed in place.
    """

    #: Whether an image's score depends on the other images of the batch, its place or their number.
    couples_images: ClassVar[bool] = False
    #: Other names in the text form.
    aliases: ClassVar[tuple[str, ...]] = ()
    #: numpy must leave `array * objective` to us, or it makes an array of objects.
    __array_ufunc__ = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            cls.__call__ = _computed_in_float32(cls.__call__)  # type: ignore[method-assign]
        dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten_with_keys, lambda aux, data: _unflatten(cls, aux, data), _flatten
        )

    def __post_init__(self) -> None:
        for field in fields_of(type(self)):
            name = f"{type(self).__name__}.{field.name}"
            value = getattr(self, field.name)
            if field.metadata.get("static"):
                value = checked_static(name, field, value)
            elif field.metadata.get("leaf"):
                value = canonical(name, value)
                if value is None and field.default is not None:
                    raise ObjectiveError(
                        f"{name} must be a number or an array of numbers; got None"
                    )
                check_rank(name, field.metadata["ndim"], value)
            elif holds_objectives(value):
                value = tuple(value)
            elif not is_objective(value):
                value = canonical(name, value)
            object.__setattr__(self, field.name, value)

    @abc.abstractmethod
    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """One score an image.

        Args:
            acts: layer name to activations (n, ...) of the transformed images; a subclass gets
                them as `Activations`, in float32.
            image: the images themselves (n, h, w, c) in [0, 1], before any transform; a subclass
                gets them in float32.

        Returns:
            Scores (n,), to be maximised; float32.
        """

    # ---- structure -------------------------------------------------------------------------

    @property
    def children(self) -> tuple[Objective, ...]:
        """The objectives that this one is made of, in order."""
        found: list[Objective] = []
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if is_objective(value):
                found.append(value)
            elif holds_objectives(value):
                found.extend(value)
        return tuple(found)

    def walk(self) -> Iterator[Objective]:
        """This objective and all that it is made of, outermost first."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def terms(self) -> tuple[Objective, ...]:
        """What is summed: the terms of a sum, or this objective alone."""
        return (self,)

    @property
    def batch_size(self) -> int | None:
        """The number of images that per-image leaves ask for; None where any number will do.

        Raises:
            ObjectiveError: two leaves ask for different numbers of images.
        """
        sizes: dict[int, str] = {}
        for node in self._independent_nodes():
            for field in fields_of(type(node)):
                count = image_count(field, getattr(node, field.name))
                if count is not None:
                    sizes.setdefault(count, f"{type(node).__name__}.{field.name}")
        if len(sizes) > 1:
            said = " and ".join(f"{name} has {count}" for count, name in sizes.items())
            raise ObjectiveError(
                f"the parts of an objective want different numbers of images: {said}"
            )
        return next(iter(sizes), None)

    def _independent_nodes(self) -> Iterator[Objective]:
        """The nodes whose batch is the whole batch."""
        yield self
        for child in self.children:
            yield from child._independent_nodes()

    def seen(self, see: See) -> Objective:
        """This objective with the images that it compares with seen anew.

        Args:
            see: `(images, places)` to the activations of images, one for each of the places in the
                batch (None: for all of it), under the transforms of the pictures there.
        """
        changed = {}
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if is_objective(value):
                changed[field.name] = value.seen(see)
            elif holds_objectives(value):
                changed[field.name] = tuple(child.seen(see) for child in value)
        made: Objective = dataclasses.replace(self, **changed) if changed else self  # type: ignore[type-var]
        return made

    def check(self, acts: Mapping[str, Any], image_shape: Sequence[int]) -> None:
        """Everything that can be said before compiling: layers, indices, counts of images.

        Args:
            acts: layer name to anything with the `shape` of its activations (n, ...).
            image_shape: the images' shape (n, h, w, c).

        Raises:
            UnknownLayer: a layer that `acts` lacks.
            ObjectiveError: an index out of range, a shape that does not fit, or a number of images
                that the objective does not have weights or indices for.
        """
        acts = acts if isinstance(acts, Activations) else Activations(acts)
        count = image_shape[0]
        wanted = self.batch_size
        if wanted is not None and wanted != count:
            raise ObjectiveError(f"{self!r} is made for {wanted} images; the batch has {count}")
        for node in self.walk():
            node._check_node(acts)
        try:
            scores = jax.eval_shape(
                self,
                Activations({k: jax.ShapeDtypeStruct(a.shape, a.dtype) for k, a in acts.items()}),
                jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32),
            )
        except ObjectiveError:
            raise
        except (TypeError, ValueError) as error:
            raise ObjectiveError(f"{self!r} does not fit: {str(error).splitlines()[0]}") from error
        if scores.shape != (count,):
            raise ObjectiveError(
                f"{type(self).__name__} gives scores of shape {scores.shape}; "
                f"expected one score an image, {(count,)}"
            )

    def _check_node(self, acts: Activations) -> None:
        """Checks of values (not shapes) that this class alone knows of."""
        layer = getattr(self, "layer", None)
        if isinstance(layer, str):
            acts[layer]

    # ---- algebra ---------------------------------------------------------------------------

    def __add__(self, other: Any) -> Objective:
        return _add(self, other)

    def __radd__(self, other: Any) -> Objective:
        # The builtin sum() starts from the integer 0.
        return self if type(other) is int and other == 0 else _add(other, self)

    def __sub__(self, other: Any) -> Objective:
        other = _term(other)
        return NotImplemented if other is None else _add(self, -other)

    def __rsub__(self, other: Any) -> Objective:
        return _add(other, -self)

    def __neg__(self) -> Objective:
        return self * -1.0

    def __mul__(self, other: Any) -> Objective:
        if is_objective(other):
            return Product((self, other))
        weight = _weight(other)
        return NotImplemented if weight is None else Scaled(weight, self)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Objective:
        if is_objective(other):
            raise ObjectiveError(
                "objectives divide by numbers or by one weight an image, not by each other"
            )
        weight = _weight(other)
        if weight is None:
            return NotImplemented
        if not is_traced(weight) and np.any(np.asarray(weight) == 0):
            raise ObjectiveError(f"an objective cannot be divided by zero; got {shorten(other)}")
        with np.errstate(over="ignore"):  # Scaled refuses an infinite weight
            return Scaled(1.0 / weight, self)

    def __rtruediv__(self, other: Any) -> Objective:
        raise ObjectiveError("nothing divides by an objective; multiply by a weight instead")

    def on(self, images: int | Sequence[int]) -> Objective:
        """This objective for some images of the batch only; the others score 0 from it.

        Args:
            images: position or positions in the batch, each once.
        """
        return OnImages(self, images)  # type: ignore[arg-type]

    # ---- value semantics -------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        mine: Any = jax.tree_util.tree_flatten(self)
        theirs: Any = jax.tree_util.tree_flatten(other)
        return mine[1] == theirs[1] and all(
            np.array_equal(leaf_value(a), leaf_value(b))
            for a, b in zip(mine[0], theirs[0], strict=True)
        )

    def __hash__(self) -> int:
        leaves, treedef = jax.tree_util.tree_flatten(self)
        return hash((treedef, tuple((np.shape(a), leaf_value(a).tobytes()) for a in leaves)))

    def __str__(self) -> str:
        """The text that `parse` reads back as an equal objective."""
        return f"{text_name(type(self))}({', '.join(self._arguments(str))})"

    def __repr__(self) -> str:
        """Short and readable; arrays as their type and shape."""
        return f"{type(self).__name__}({', '.join(self._arguments(repr))})"

    def _arguments(self, form: Any) -> Iterator[str]:
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            required = field.default is dataclasses.MISSING
            if not required and same_value(value, field.default):
                continue
            if is_objective(value):
                text = form(value)
            elif holds_objectives(value):
                text = f"[{', '.join(form(v) for v in value)}]"
            elif form is repr:
                text = shorten(value)
            else:
                text = (format_literal if field.metadata.get("static") else leaf_text)(value)
            yield text if required else f"{field.name}={text}"


def split_fields(cls: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the fields that are data, and of those that are part of the program."""
    data = tuple(f.name for f in fields_of(cls) if not f.metadata.get("static"))
    meta = tuple(f.name for f in fields_of(cls) if f.metadata.get("static"))
    return data, meta


def _flatten(objective: Objective) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    data, meta = split_fields(type(objective))
    return (
        tuple(getattr(objective, name) for name in data),
        tuple(getattr(objective, name) for name in meta),
    )


def _flatten_with_keys(objective: Objective) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    data, _ = split_fields(type(objective))
    values, aux = _flatten(objective)
    keys = (jax.tree_util.GetAttrKey(name) for name in data)
    return tuple(zip(keys, values, strict=True)), aux


def _unflatten(cls: Any, aux: tuple[Any, ...], values: Iterable[Any]) -> Any:
    # Without __init__: JAX unflattens with placeholders that no check would pass.
    objective: Any = object.__new__(cls)
    data, meta = split_fields(cls)
    for name, value in zip(data + meta, (*values, *aux), strict=True):
        object.__setattr__(objective, name, value)
    return objective


def holds_objectives(value: Any) -> bool:
    """Whether a value is a list or tuple of objectives."""
    return isinstance(value, (tuple, list)) and bool(value) and all(map(is_objective, value))


def text_name(cls: type[Objective]) -> str:
    """The name of an objective's class in the text form: `DirectionNeuron`, direction_neuron."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()


class Constant(Objective):
    """The same score whatever the image: what a number becomes when added to an objective."""

    value: ArrayLike = leaf(ndim=0)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """The value, one an image (n,)."""
        return jnp.broadcast_to(jnp.asarray(self.value, jnp.float32), (image.shape[0],))


class Scaled(Objective):
    """A weight, one number or one an image, times an objective."""

    weight: ArrayLike = leaf(ndim=0)
    objective: Objective

    def __post_init__(self) -> None:
        super().__post_init__()
        inner = self.objective
        if not is_objective(inner):
            raise ObjectiveError(f"a weight goes with an objective; got {shorten(inner)}")
        if isinstance(inner, Scaled):
            weights: Any = self.weight, inner.weight
            try:
                with np.errstate(over="ignore"):
                    product = canonical("a weight", weights[0] * weights[1])
            except (TypeError, ValueError) as error:
                if isinstance(error, ObjectiveError):
                    raise
                counts = " and ".join(str(np.size(weight)) for weight in weights)
                raise ObjectiveError(f"weights for {counts} images do not multiply") from None
            object.__setattr__(self, "weight", product)
            object.__setattr__(self, "objective", inner.objective)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Weighted scores (n,)."""
        return jnp.asarray(self.weight, jnp.float32) * self.objective(acts, image)

    def __str__(self) -> str:
        inner = _within(self.objective, str, Sum, Product)
        weight = leaf_text(self.weight)
        return f"-{inner}" if weight == "-1.0" else f"{weight}*{inner}"

    def __repr__(self) -> str:
        return f"{shorten(self.weight)}*{_within(self.objective, repr, Sum, Product)}"


class Sum(Objective):
    """The sum of two or more objectives."""

    objectives: tuple[Objective, ...]

    def __post_init__(self) -> None:
        wrong = [term for term in self.objectives if not is_objective(term)]
        if wrong:
            raise ObjectiveError(f"a sum is of objectives; got {shorten(wrong[0])}")
        flat = tuple(part for term in self.objectives for part in term.terms)
        if len(flat) < 2:
            raise ObjectiveError(f"a sum is of two or more objectives; got {len(flat)}")
        object.__setattr__(self, "objectives", flat)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Summed scores (n,)."""
        first, *rest = (term(acts, image) for term in self.objectives)
        for scores in rest:
            first = first + scores
        return first

    @property
    def terms(self) -> tuple[Objective, ...]:
        """What is summed."""
        return self.objectives

    def _joined(self, form: Any) -> str:
        first, *rest = map(form, self.objectives)
        signed = (f" - {text[1:]}" if text.startswith("-") else f" + {text}" for text in rest)
        return first + "".join(signed)

    def __str__(self) -> str:
        return self._joined(str)

    def __repr__(self) -> str:
        return self._joined(repr)


class Product(Objective):
    """The product of two or more objectives: high where all of them are, if they are above 0.

    Args:
        objectives: its factors, at least two; products among them are taken apart.
    """

    objectives: tuple[Objective, ...]

    def __post_init__(self) -> None:
        wrong = [factor for factor in self.objectives if not is_objective(factor)]
        if wrong or len(self.objectives) < 2:
            raise ObjectiveError(
                f"a product is of two or more objectives; got {shorten(self.objectives)}"
            )
        factors: list[Objective] = []
        for one in self.objectives:
            factors += one.objectives if isinstance(one, Product) else [one]
        object.__setattr__(self, "objectives", tuple(factors))

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Products of the scores (n,)."""
        first, *rest = (factor(acts, image) for factor in self.objectives)
        for scores in rest:
            first = first * scores
        return first

    def __str__(self) -> str:
        return " * ".join(_within(factor, str, Sum, Scaled) for factor in self.objectives)

    def __repr__(self) -> str:
        return " * ".join(_within(factor, repr, Sum, Scaled) for factor in self.objectives)


def _within(objective: Objective, form: Callable[[Any], str], *kinds: type[Objective]) -> str:
    """An objective as a part of an expression: some kinds stand in brackets."""
    text = form(objective)
    return f"({text})" if isinstance(objective, kinds) else text


class OnImages(Objective):
    """An objective for some images of the batch; the others get 0 from it."""

    objective: Objective
    images: tuple[int, ...] = static()

    def __post_init__(self) -> None:
        if not is_objective(self.objective):
            raise ObjectiveError(f"images are for an objective; got {shorten(self.objective)}")
        try:
            images = np.atleast_1d(np.asarray(self.images))
        except ValueError:
            images = np.zeros(0)
        if images.dtype.kind not in "iu" or images.ndim != 1 or not images.size or images.min() < 0:
            raise ObjectiveError(
                f"images must be positions in the batch, 0 or more; got {shorten(self.images)}"
            )
        named = tuple(images.tolist())
        if len(set(named)) != len(named):
            raise ObjectiveError(f"images must be named once each; got {list(named)}")
        object.__setattr__(self, "images", named)
        inner = self.objective.batch_size
        if inner is not None and inner != len(named):
            raise ObjectiveError(
                f"{self.objective!r} is made for {inner} images; on() names {len(named)}"
            )

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), 0 for the images not named."""
        count = image.shape[0]
        if max(self.images) >= count:
            raise ObjectiveError(
                f"on() names image {max(self.images)}; the batch has images 0 to {count - 1}"
            )
        chosen = np.array(self.images)
        scores = self.objective(_Subset(acts, chosen), image[chosen])
        return jnp.zeros(count, scores.dtype).at[chosen].set(scores)

    def seen(self, see: See) -> Objective:
        """With the images that it compares with seen anew, at the places of its own."""
        chosen = np.array(self.images)

        def at_our_places(images: Any, places: Any) -> Mapping[str, Any]:
            return see(images, chosen if places is None else chosen[places])

        return dataclasses.replace(self, objective=self.objective.seen(at_our_places))

    def _independent_nodes(self) -> Iterator[Objective]:
        yield self

    def _printed(self, form: Callable[[Any], str]) -> str:
        inner = _within(self.objective, form, Sum, Scaled, Product)
        return f"{inner}.on({list(self.images)})"

    def __str__(self) -> str:
        return self._printed(str)

    def __repr__(self) -> str:
        return self._printed(repr)


class _Subset(Mapping[str, Any]):
    """Activations of some images, taken layer by layer only where read."""

    def __init__(self, acts: Mapping[str, Any], chosen: np.ndarray) -> None:
        self._acts, self._chosen = acts, chosen

    def __getitem__(self, name: str) -> Any:
        return self._acts[name][self._chosen]

    def __iter__(self) -> Iterator[str]:
        return iter(self._acts)

    def __len__(self) -> int:
        return len(self._acts)


def _weight(value: Any) -> Any:
    """A number or one weight an image as a leaf; None for what is neither."""
    if isinstance(value, bool) or not (
        isinstance(value, (int, float, np.integer, np.floating, list, tuple)) or is_array(value)
    ):
        return None
    weight = canonical("a weight", value)
    if np.ndim(weight) > 1:
        raise ObjectiveError(
            f"a weight is a number or one weight an image, (n,); got shape {np.shape(weight)}"
        )
    if is_traced(weight):
        return weight
    return np.asarray(weight, np.float32) if np.ndim(weight) else float(weight)


def _term(value: Any) -> Objective | None:
    """A term of a sum: an objective, or a number or one an image; None for what is neither."""
    if is_objective(value):
        return value
    weight = _weight(value)
    return None if weight is None else Constant(weight)


def _add(a: Any, b: Any) -> Any:
    first, second = _term(a), _term(b)
    return NotImplemented if first is None or second is None else Sum((first, second))
