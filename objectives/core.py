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
import difflib
import functools
import keyword
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.errors import ObjectiveError, UnknownLayer
from objectives.literals import format_literal


class Activations(Mapping[str, Any]):
    """Layer name to activations (n, ...), in forward order; an unknown name says the nearest.

    They are handed out in float32, whatever a network computes in: the sums of squares of an
    objective have no room in float16, nor the digits in bfloat16.

    Args:
        layers: the activations by name, or pairs of both.
        **more: further ones.
    """

    def __init__(
        self, layers: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any
    ) -> None:
        whole = layers if isinstance(layers, Mapping) and not more else {**dict(layers), **more}
        self._layers: Mapping[str, Any] = whole

    def __getitem__(self, name: str) -> Any:
        if name not in self._layers:
            near = difflib.get_close_matches(str(name), self, n=4, cutoff=0.4)
            hint = f"; nearest: {', '.join(near)}" if near else f"; it has: {', '.join(self)}"
            raise UnknownLayer(f"unknown layer {name!r}{hint}")
        return _in_float32(self._layers[name])

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        shapes = (f"{name}: {tuple(np.shape(a))}" for name, a in self._layers.items())
        return f"Activations({', '.join(shapes)})"


def _in_float32(value: Any) -> Any:
    """Floating-point numbers in float32, anything else as it is."""
    number = isinstance(value, (np.ndarray, jax.Array))
    if number and jnp.issubdtype(value.dtype, jnp.floating) and value.dtype != np.float32:
        return value.astype(np.float32)
    return value


def _flatten_activations(acts: Activations) -> Any:
    # In forward order, where jax would sort the keys of a dictionary; as they are, not cast.
    layers = acts._layers
    return [(jax.tree_util.DictKey(name), layers[name]) for name in layers], tuple(layers)


jax.tree_util.register_pytree_with_keys(
    Activations,
    _flatten_activations,
    lambda names, values: Activations(zip(names, values, strict=True)),
)


See = Callable[[Any, Any], Mapping[str, Any]]
"""Images, and the places in the batch that they are for, to their activations."""


class NamedArray(np.ndarray):
    """Data of an objective that its text form writes by name, as `feature_match('block2', target)`.

    `parse(text, target=array)` reads it back. Numbers of float32 that are never changed; what is
    computed from one has no name.

    Args:
        values: an array of numbers.
        name: letters, digits and underscores, in lower case; no word of Python's own (`in`).

    Raises:
        ObjectiveError: another name, what is no number, or numbers that are not finite.
    """

    name: str | None

    def __new__(cls, values: ArrayLike, name: str) -> NamedArray:
        """Makes a copy of the values that is never changed."""
        fits = isinstance(name, str) and re.fullmatch(r"[a-z_][a-z0-9_]*", name, re.ASCII)
        if not fits or keyword.iskeyword(name):
            raise ObjectiveError(
                "an array's name is of lower case letters, digits and underscores, and no word of "
                f"Python's own; got {name!r}"
            )
        # None is fine for an optional field, and not here.
        plain = _canonical(name, np.asarray(None) if values is None else values)
        # A copy: what the caller does to the original afterwards is not the objective's.
        array = np.array(plain, np.float32).view(cls)
        array.name = name
        array.flags.writeable = False
        return array

    def __array_finalize__(self, array: Any) -> None:
        self.name = None


def static(*, default: Any = dataclasses.MISSING) -> Any:
    """A field that is part of the program: a layer's name, an option. Must be hashable.

    A field called `layer` names a layer: a string, or None where that is the default.
    """
    return dataclasses.field(default=default, metadata={"static": True})


def leaf(*, default: Any = dataclasses.MISSING, ndim: int | None = None) -> Any:
    """A field that is data, numbers of 32 bits: changing it does not recompile.

    Args:
        default: the value when none is given.
        ndim: the rank of one image's value; one axis more, in front, gives each image its own.
            None: the first axis is always the images', of length 1 (shared) or n.
    """
    return dataclasses.field(default=default, metadata={"leaf": True, "ndim": ndim})


def _is_objective(value: Any) -> bool:
    return isinstance(value, Objective)


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _array_name(value: Any) -> str | None:
    return value.name if isinstance(value, NamedArray) else None


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, jax.Array))


def _canonical(name: str, value: Any) -> Any:
    """A number as a plain number, an array as a fixed one of 32 bits; a traced one as it is."""
    if value is None or _is_traced(value) or _array_name(value) is not None:
        return value
    try:
        given = np.asarray(value)
    except (ValueError, TypeError):  # rows of several lengths
        given = np.asarray(None)
    dtype: Any = None
    if jnp.issubdtype(given.dtype, jnp.floating):  # bfloat16 too
        dtype = np.float32
    elif given.dtype.kind in "iub":
        dtype = np.bool_ if given.dtype.kind == "b" else np.int32
    if dtype is None:
        raise ObjectiveError(f"{name} must be a number or an array of numbers; got {_short(value)}")
    with np.errstate(over="ignore"):
        array = given.astype(dtype)
    if dtype is np.int32 and np.any(array != given):
        raise ObjectiveError(f"{name} must fit into 32 bits; got {_short(value)}")
    if not np.all(np.isfinite(array)):
        raise ObjectiveError(f"{name} must be finite in float32; got {_short(value)}")
    if given.ndim == 0:
        return float(given) if dtype is np.float32 else given.item()
    array.flags.writeable = False
    return array


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Checks an option that is a number; for the `__post_init__` of an objective's class.

    Raises:
        ObjectiveError: not a finite number, or one out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ObjectiveError(f"{name} must be a number; got {value!r}")
    if not (math.isfinite(value) and above < value and at_least <= value <= at_most):
        wanted = [
            f"{word} {bound:g}"
            for word, bound in (("above", above), ("at least", at_least), ("at most", at_most))
            if math.isfinite(bound)
        ]
        raise ObjectiveError(f"{name} must be {' and '.join(wanted) or 'finite'}; got {value!r}")


def _computed_in_float32(call: Callable[..., Any]) -> Callable[..., jax.Array]:
    """What scores images, given all that it reads in float32, as its scores are."""

    @functools.wraps(call)
    def scores(self: Objective, acts: Mapping[str, Any], image: Any) -> jax.Array:
        acts = acts if isinstance(acts, Activations) else Activations(acts)
        found: jax.Array = _in_float32(call(self, acts, _in_float32(image)))
        return found

    return scores


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static, leaf, dataclasses.field)
)
class Objective(abc.ABC):
    """Base of every objective. A subclass is a frozen dataclass and a pytree without saying so.

    Objectives add, subtract, negate, and multiply or divide by a number or by one weight an image
    (an array (n,)). They compare and hash by value, print as the text that `parse` reads, and are
    never changed in place.
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
        for field in _fields(type(self)):
            name = f"{type(self).__name__}.{field.name}"
            value = getattr(self, field.name)
            if field.metadata.get("static"):
                value = _checked_static(name, field, value)
            elif field.metadata.get("leaf"):
                value = _canonical(name, value)
                _check_rank(name, field.metadata["ndim"], value)
            elif _holds_objectives(value):
                value = tuple(value)
            elif not _is_objective(value):
                value = _canonical(name, value)
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
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if _is_objective(value):
                found.append(value)
            elif _holds_objectives(value):
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
            for field in _fields(type(node)):
                count = _images_of(field, getattr(node, field.name))
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
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if _is_objective(value):
                changed[field.name] = value.seen(see)
            elif _holds_objectives(value):
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
        if _is_objective(other):
            raise ObjectiveError(
                "objectives multiply with numbers or with one weight an image, not with each other"
            )
        weight = _weight(other)
        return NotImplemented if weight is None else Scaled(weight, self)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Objective:
        if _is_objective(other):
            raise ObjectiveError(
                "objectives divide by numbers or by one weight an image, not by each other"
            )
        weight = _weight(other)
        if weight is None:
            return NotImplemented
        if not _is_traced(weight) and np.any(np.asarray(weight) == 0):
            raise ObjectiveError(f"an objective cannot be divided by zero; got {_short(other)}")
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
            np.array_equal(_value(a), _value(b)) for a, b in zip(mine[0], theirs[0], strict=True)
        )

    def __hash__(self) -> int:
        leaves, treedef = jax.tree_util.tree_flatten(self)
        return hash((treedef, tuple((np.shape(a), _value(a).tobytes()) for a in leaves)))

    def __str__(self) -> str:
        """The text that `parse` reads back as an equal objective."""
        return f"{text_name(type(self))}({', '.join(self._arguments(str))})"

    def __repr__(self) -> str:
        """Short and readable; arrays as their type and shape."""
        return f"{type(self).__name__}({', '.join(self._arguments(repr))})"

    def _arguments(self, form: Any) -> Iterator[str]:
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            required = field.default is dataclasses.MISSING
            if not required and _same(value, field.default):
                continue
            if _is_objective(value):
                text = form(value)
            elif _holds_objectives(value):
                text = f"[{', '.join(form(v) for v in value)}]"
            elif form is repr:
                text = _short(value)
            else:
                text = (format_literal if field.metadata.get("static") else _leaf_text)(value)
            yield text if required else f"{field.name}={text}"


# ---- pytree plumbing -----------------------------------------------------------------------


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _split(cls: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the fields that are data, and of those that are part of the program."""
    data = tuple(f.name for f in _fields(cls) if not f.metadata.get("static"))
    meta = tuple(f.name for f in _fields(cls) if f.metadata.get("static"))
    return data, meta


def _flatten(objective: Objective) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    data, meta = _split(type(objective))
    return (
        tuple(getattr(objective, name) for name in data),
        tuple(getattr(objective, name) for name in meta),
    )


def _flatten_with_keys(objective: Objective) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    data, _ = _split(type(objective))
    values, aux = _flatten(objective)
    keys = (jax.tree_util.GetAttrKey(name) for name in data)
    return tuple(zip(keys, values, strict=True)), aux


def _unflatten(cls: Any, aux: tuple[Any, ...], values: Iterable[Any]) -> Any:
    # Without __init__: JAX unflattens with placeholders that no check would pass.
    objective: Any = object.__new__(cls)
    data, meta = _split(cls)
    for name, value in zip(data + meta, (*values, *aux), strict=True):
        object.__setattr__(objective, name, value)
    return objective


def _holds_objectives(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(map(_is_objective, value))


def _value(leaf_: Any) -> np.ndarray:
    """What a leaf is in the program: a float of 32 bits or an integer."""
    array = np.asarray(leaf_)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    # Adding 0.0 makes -0.0 and 0.0, which are equal, the same bytes.
    return array.astype(np.float64) + 0.0


def _same(value: Any, default: Any) -> bool:
    if value is None or default is None:
        return value is default
    return not _is_array(value) and bool(value == default)


def _leaf_text(value: Any) -> str:
    name = _array_name(value)
    if name is not None:
        return name
    return format_literal(np.float32(value) if isinstance(value, float) else value)


def _short(value: Any) -> str:
    """One short line, of arrays the name, or the type and shape."""
    name = _array_name(value)
    if name is not None:
        return name
    if _is_array(value):
        if value.size <= 8 and not _is_traced(value):
            array = np.asarray(value)
            written = array.dtype in (np.float32, np.int32)
            return format_literal(array) if written else str(array.tolist())
        return f"<{value.dtype}{list(value.shape)}>"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _checked_static(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    try:
        hash(value)
    except TypeError:
        raise ObjectiveError(
            f"{name} is part of the program and must be hashable; got {_short(value)}"
        ) from None
    optional = value is None and field.default is None
    if field.name == "layer" and not optional and not (isinstance(value, str) and value):
        raise ObjectiveError(f"a layer is a name in quotes, such as 'block8'; got {value!r}")
    return value


def _check_rank(name: str, ndim: int | None, value: Any) -> None:
    if value is None:
        return
    rank = np.ndim(value)
    if ndim is None:
        fits, wanted = rank >= 1, "images first, (1, ...) or (n, ...)"
    else:
        fits, wanted = rank in (ndim, ndim + 1), f"rank {ndim}, or {ndim + 1} with images first"
    if not fits:
        raise ObjectiveError(f"{name} must have {wanted}; got shape {tuple(np.shape(value))}")


def _images_of(field: dataclasses.Field[Any], value: Any) -> int | None:
    if value is None or not field.metadata.get("leaf"):
        return None
    ndim, shape = field.metadata["ndim"], np.shape(value)
    if ndim is None:
        return shape[0] if shape[0] != 1 else None
    return shape[0] if len(shape) == ndim + 1 else None


def text_name(cls: type[Objective]) -> str:
    """The name of an objective's class in the text form: `DirectionNeuron`, direction_neuron."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()


# ---- the algebra's own nodes ---------------------------------------------------------------


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
        if not _is_objective(inner):
            raise ObjectiveError(f"a weight goes with an objective; got {_short(inner)}")
        if isinstance(inner, Scaled):
            weights: Any = self.weight, inner.weight
            try:
                with np.errstate(over="ignore"):
                    product = _canonical("a weight", weights[0] * weights[1])
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
        inner = str(self.objective)
        if isinstance(self.objective, Sum):
            inner = f"({inner})"
        weight = _leaf_text(self.weight)
        return f"-{inner}" if weight == "-1.0" else f"{weight}*{inner}"

    def __repr__(self) -> str:
        inner = repr(self.objective)
        return f"{_short(self.weight)}*{f'({inner})' if isinstance(self.objective, Sum) else inner}"


class Sum(Objective):
    """The sum of two or more objectives."""

    objectives: tuple[Objective, ...]

    def __post_init__(self) -> None:
        wrong = [term for term in self.objectives if not _is_objective(term)]
        if wrong:
            raise ObjectiveError(f"a sum is of objectives; got {_short(wrong[0])}")
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


class OnImages(Objective):
    """An objective for some images of the batch; the others get 0 from it."""

    objective: Objective
    images: tuple[int, ...] = static()

    def __post_init__(self) -> None:
        if not _is_objective(self.objective):
            raise ObjectiveError(f"images are for an objective; got {_short(self.objective)}")
        try:
            images = np.atleast_1d(np.asarray(self.images))
        except ValueError:
            images = np.zeros(0)
        if images.dtype.kind not in "iu" or images.ndim != 1 or not images.size or images.min() < 0:
            raise ObjectiveError(
                f"images must be positions in the batch, 0 or more; got {_short(self.images)}"
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

    def _printed(self, inner: str) -> str:
        if isinstance(self.objective, (Sum, Scaled)):
            inner = f"({inner})"
        return f"{inner}.on({list(self.images)})"

    def __str__(self) -> str:
        return self._printed(str(self.objective))

    def __repr__(self) -> str:
        return self._printed(repr(self.objective))


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
        isinstance(value, (int, float, np.integer, np.floating, list, tuple)) or _is_array(value)
    ):
        return None
    weight = _canonical("a weight", value)
    if np.ndim(weight) > 1:
        raise ObjectiveError(
            f"a weight is a number or one weight an image, (n,); got shape {np.shape(weight)}"
        )
    if _is_traced(weight):
        return weight
    return np.asarray(weight, np.float32) if np.ndim(weight) else float(weight)


def _term(value: Any) -> Objective | None:
    """A term of a sum: an objective, or a number or one an image; None for what is neither."""
    if _is_objective(value):
        return value
    weight = _weight(value)
    return None if weight is None else Constant(weight)


def _add(a: Any, b: Any) -> Any:
    first, second = _term(a), _term(b)
    return NotImplemented if first is None or second is None else Sum((first, second))


# ---- several objectives as one batch -------------------------------------------------------


def _leaf_fields(objective: Objective) -> Iterator[dataclasses.Field[Any] | None]:
    """The field of every leaf, in the order of `jax.tree.leaves`; None for a leaf undeclared."""
    data, _ = _split(type(objective))
    fields = {f.name: f for f in dataclasses.fields(objective)}  # type: ignore[arg-type]
    for name in data:
        value = getattr(objective, name)
        if _is_objective(value):
            yield from _leaf_fields(value)
        elif _holds_objectives(value):
            for child in value:
                yield from _leaf_fields(child)
        else:
            field = fields[name] if fields[name].metadata.get("leaf") else None
            yield from (field for _ in jax.tree_util.tree_leaves(value))


def _reads_the_batch(objective: Objective) -> bool:
    return any(o.couples_images or isinstance(o, OnImages) for o in objective.walk())


def signature(objective: Objective) -> tuple[Any, ...]:
    """Equal for objectives that `stack` puts in one batch, and so in one compiled program.

    One that looks at the whole batch does not stack: each has a signature of its own.
    """
    leaves, treedef = jax.tree_util.tree_flatten(objective)
    parts: list[Any] = [treedef]
    for value, field in zip(leaves, _leaf_fields(objective), strict=True):
        if field is None:
            parts.append((np.shape(value), _value(value).tobytes()))
        else:
            parts.append(_image_shape(field, value))
    if _reads_the_batch(objective):
        parts.append(object())
    return tuple(parts)


def _image_shape(field: dataclasses.Field[Any], value: Any) -> tuple[int, ...]:
    """The shape of one image's value of a leaf."""
    ndim, shape = field.metadata["ndim"], np.shape(value)
    return shape[1:] if ndim is None else shape[len(shape) - ndim :]


def images_of(objective: Objective, start: jax.Array | int, count: int) -> Objective:
    """The objective of `count` images from the position `start` on; that of all where it is shared.

    Args:
        objective: whose images do not depend on each other: see `separable`.
        start: a position in the batch, which may be traced.
        count: of images.
    """

    def part(value: Any, field: dataclasses.Field[Any] | None) -> Any:
        if field is None or _images_of(field, value) is None:
            return value
        return jax.lax.dynamic_slice_in_dim(jnp.asarray(value), start, count)

    leaves, structure = jax.tree_util.tree_flatten(objective)
    parts = [part(v, f) for v, f in zip(leaves, _leaf_fields(objective), strict=True)]
    sliced: Objective = jax.tree_util.tree_unflatten(structure, parts)
    return sliced


def separable(objective: Objective) -> bool:
    """Whether each image's score depends on that image alone, wherever it is in the batch.

    An objective with arrays that are not declared (`leaf`) is not: they may be one an image.
    """
    leaves = jax.tree_util.tree_leaves(objective)
    undeclared = (
        field is None and np.ndim(value) > 0
        for value, field in zip(leaves, _leaf_fields(objective), strict=True)
    )
    return not _reads_the_batch(objective) and not any(undeclared)


def stack(objectives: Sequence[Objective]) -> Objective:
    """Several objectives of one kind as one objective with an image for each.

    `stack([Channel("block8", 3), Channel("block8", 7)])` is `Channel("block8", [3, 7])`; an
    objective that has several images already keeps them.

    Args:
        objectives: at least one; of the same structure, layers and options.

    Raises:
        ObjectiveError: none given, of different kinds, or several that look at the whole batch.
    """
    if not objectives:
        raise ObjectiveError("stack needs at least one objective")
    first = objectives[0]
    if len(objectives) == 1:
        return first
    for other in objectives:
        if _reads_the_batch(other):
            raise ObjectiveError(f"{other!r} looks at the whole batch and cannot be stacked")
        if signature(other) != signature(first):
            raise ObjectiveError(f"only objectives of one kind stack; got {first!r} and {other!r}")
    counts = [objective.batch_size or 1 for objective in objectives]
    columns = zip(*(jax.tree_util.tree_leaves(o) for o in objectives), strict=True)
    stacked = []
    for values, field in zip(columns, _leaf_fields(first), strict=True):
        if field is None:
            stacked.append(values[0])
            continue
        shape = _image_shape(field, values[0])
        rows = [np.broadcast_to(v, (n, *shape)) for v, n in zip(values, counts, strict=True)]
        stacked.append(_canonical(field.name, np.concatenate(rows)))
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(first), stacked)
