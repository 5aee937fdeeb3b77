"""What an objective is: a frozen pytree, one score an image, always maximised; and its algebra.

An objective maps `(activations, image)` to one score an image, a float array (n,). Layer names and
options are static; indices, weights and vectors are pytree leaves, so that another unit of the
same layer is the same compiled program. Writing a class is all that a new objective takes::

    class Direction(Objective):
        \"\"\"Mean projection of a layer's activations on `vector`.\"\"\"

        layer: str = static()
        vector: ArrayLike = leaf(ndim=1)

        def __call__(self, acts, image):
            return (acts[self.layer] @ self.vector).mean((1, 2))
"""

from __future__ import annotations

import abc
import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.errors import ObjectiveError, UnknownLayer
from objectives.literals import format_literal


class Activations(dict[str, Any]):
    """Layer name to activations (n, ...), in forward order; an unknown name says the nearest."""

    def __missing__(self, name: str) -> Any:
        near = difflib.get_close_matches(str(name), self, n=4, cutoff=0.4)
        hint = f"; nearest: {', '.join(near)}" if near else f"; it has: {', '.join(self)}"
        raise UnknownLayer(f"unknown layer {name!r}{hint}")


def static(default: Any = dataclasses.MISSING) -> Any:
    """A field that is part of the program: a layer's name, an option. Must be hashable."""
    return dataclasses.field(default=default, metadata={"static": True})


def leaf(default: Any = dataclasses.MISSING, *, ndim: int | None = None) -> Any:
    """A field that is data: changing it does not recompile.

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


def _canonical(name: str, value: Any) -> Any:
    """Numbers and sequences as plain numbers or numpy arrays of 32 bits; jax arrays as they are."""
    if value is None or isinstance(value, (bool, int, float, jax.Array)) or _is_traced(value):
        return value
    if isinstance(value, np.generic):
        return value.item()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ObjectiveError(f"{name} must be a regular array of numbers; got {value!r}") from error
    if array.dtype.kind in "iub":
        return array.astype(np.int32)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    raise ObjectiveError(f"{name} must be a number or an array of numbers; got {value!r}")


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static, leaf, dataclasses.field)
)
class Objective(abc.ABC):
    """Base of every objective. A subclass is a frozen dataclass and a pytree without saying so.

    Objectives add, subtract, negate, and multiply or divide by a number or by one weight an image
    (an array (n,)). They compare and hash by value, print as the text that `parse` reads, and are
    never changed in place.
    """

    #: Whether an image's score depends on the other images of the batch.
    couples_images: ClassVar[bool] = False
    #: Other names in the text form.
    aliases: ClassVar[tuple[str, ...]] = ()
    #: numpy must leave `array * objective` to us, or it makes an array of objects.
    __array_ufunc__ = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten_with_keys, lambda aux, data: _unflatten(cls, aux, data), _flatten
        )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if not field.metadata.get("static"):
                value = getattr(self, field.name)
                if not _is_objective(value) and not _holds_objectives(value):
                    value = _canonical(field.name, value)
                    object.__setattr__(self, field.name, value)
                    _check_rank(self, field, value)
            else:
                try:
                    hash(getattr(self, field.name))
                except TypeError:
                    raise ObjectiveError(
                        f"{type(self).__name__}.{field.name} is part of the program and must be "
                        f"hashable; got {getattr(self, field.name)!r}"
                    ) from None

    @abc.abstractmethod
    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """One score an image.

        Args:
            acts: layer name to activations (n, ...) of the transformed images.
            image: the images themselves (n, h, w, c) in [0, 1], before any transform.

        Returns:
            Scores (n,), to be maximised.
        """

    # ---- structure -------------------------------------------------------------------------

    @property
    def children(self) -> tuple[Objective, ...]:
        """The objectives that this one is made of, in order."""
        found: list[Objective] = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
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
            for field in dataclasses.fields(node):  # type: ignore[arg-type]
                count = _images_of(field, getattr(node, field.name))
                if count is not None:
                    sizes.setdefault(count, f"{type(node).__name__}.{field.name}")
        if len(sizes) > 1:
            said = " and ".join(f"{name} has {count}" for count, name in sizes.items())
            raise ObjectiveError(f"the parts of an objective want different numbers of images: {said}")
        return next(iter(sizes), None)

    def _independent_nodes(self) -> Iterator[Objective]:
        """The nodes whose batch is the whole batch."""
        yield self
        for child in self.children:
            yield from child._independent_nodes()

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
        scores = jax.eval_shape(
            lambda acts, image: self(Activations(acts), image),
            {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in acts.items()},
            jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32),
        )
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
        if isinstance(other, int) and other == 0:
            return self
        return _add(other, self)

    def __sub__(self, other: Any) -> Objective:
        return _add(self, -other if _is_objective(other) else _negated(other))

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
            raise ObjectiveError(f"an objective cannot be divided by zero; got {other!r}")
        return Scaled(1.0 / weight, self)

    def on(self, images: int | Sequence[int]) -> Objective:
        """This objective for some images of the batch only; the others score 0 from it.

        Args:
            images: position or positions in the batch, each once.
        """
        return OnImages(self, (images,) if isinstance(images, int) else tuple(images))

    # ---- value semantics -------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        mine, mine_def = jax.tree_util.tree_flatten(self)
        theirs, theirs_def = jax.tree_util.tree_flatten(other)
        return mine_def == theirs_def and all(
            np.array_equal(_value(a), _value(b), equal_nan=True)
            for a, b in zip(mine, theirs, strict=True)
        )

    def __hash__(self) -> int:
        leaves, treedef = jax.tree_util.tree_flatten(self)
        # Adding 0.0 makes -0.0 and 0.0, which are equal, hash alike.
        return hash(
            (treedef, tuple((np.shape(a), (_value(a) + 0.0).tobytes()) for a in leaves))
        )

    def __str__(self) -> str:
        """The text that `parse` reads back as an equal objective."""
        return f"{text_name(type(self))}({', '.join(self._arguments(str))})"

    def __repr__(self) -> str:
        """Short and readable; arrays as their type and shape."""
        return f"{type(self).__name__}({', '.join(self._arguments(repr))})"

    def _arguments(self, form: Any) -> Iterator[str]:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
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
                text = format_literal(value)
            yield text if required else f"{field.name}={text}"


# ---- pytree plumbing -----------------------------------------------------------------------


def _split(cls: type) -> tuple[tuple[str, ...], tuple[str, ...]]:
    fields = dataclasses.fields(cls)
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    meta = tuple(f.name for f in fields if f.metadata.get("static"))
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


def _unflatten(cls: type, aux: tuple[Any, ...], values: Sequence[Any]) -> Any:
    # Without __init__: JAX unflattens with placeholders that no check would pass.
    objective = object.__new__(cls)
    data, meta = _split(cls)
    for name, value in zip(data + meta, (*values, *aux), strict=True):
        object.__setattr__(objective, name, value)
    return objective


def _holds_objectives(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(map(_is_objective, value))


def _value(leaf_: Any) -> np.ndarray:
    return np.asarray(leaf_, np.float64)


def _same(value: Any, default: Any) -> bool:
    if value is None or default is None:
        return value is default
    if isinstance(value, (np.ndarray, jax.Array)):
        return False
    return bool(value == default)


def _short(value: Any) -> str:
    if isinstance(value, (np.ndarray, jax.Array)):
        if value.size <= 8 and not _is_traced(value):
            return str(np.asarray(value).tolist())
        return f"<{value.dtype}{list(value.shape)}>"
    return repr(value)


def _check_rank(objective: Objective, field: dataclasses.Field[Any], value: Any) -> None:
    if value is None or not field.metadata.get("leaf"):
        return
    ndim, rank = field.metadata["ndim"], np.ndim(value)
    if ndim is None:
        fits, wanted = rank >= 1, "images first, (1, ...) or (n, ...)"
    else:
        fits, wanted = rank in (ndim, ndim + 1), f"rank {ndim}, or {ndim + 1} with images first"
    if not fits:
        raise ObjectiveError(
            f"{type(objective).__name__}.{field.name} must have {wanted}; "
            f"got shape {tuple(np.shape(value))}"
        )
    if not _is_traced(value) and not np.all(np.isfinite(np.asarray(value))):
        raise ObjectiveError(f"{type(objective).__name__}.{field.name} must be finite; got {value}")


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
    """A weight times an objective."""

    weight: ArrayLike = leaf(ndim=0)
    objective: Objective

    def __post_init__(self) -> None:
        super().__post_init__()
        inner = self.objective
        if isinstance(inner, Scaled):
            object.__setattr__(self, "weight", _canonical("weight", self.weight * inner.weight))  # type: ignore[operator]
            object.__setattr__(self, "objective", inner.objective)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Weighted scores (n,)."""
        return jnp.asarray(self.weight, jnp.float32) * self.objective(acts, image)

    def __str__(self) -> str:
        inner = str(self.objective)
        if isinstance(self.objective, Sum):
            inner = f"({inner})"
        if isinstance(self.weight, float) and self.weight == -1.0:
            return f"-{inner}"
        return f"{format_literal(self.weight)}*{inner}"

    def __repr__(self) -> str:
        inner = repr(self.objective)
        return f"{_short(self.weight)}*{f'({inner})' if isinstance(self.objective, Sum) else inner}"


class Sum(Objective):
    """The sum of two or more objectives."""

    objectives: tuple[Objective, ...]

    def __post_init__(self) -> None:
        flat: list[Objective] = []
        for term in self.objectives:
            if not _is_objective(term):
                raise ObjectiveError(f"a sum is of objectives; got {term!r}")
            flat.extend(term.terms)
        if len(flat) < 2:
            raise ObjectiveError(f"a sum is of two or more objectives; got {len(flat)}")
        object.__setattr__(self, "objectives", tuple(flat))

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
        texts = [form(term) for term in self.objectives]
        return texts[0] + "".join(
            f" - {text[1:]}" if text.startswith("-") and not _zero(term) else f" + {text}"
            for text, term in zip(texts[1:], self.objectives[1:], strict=True)
        )

    def __str__(self) -> str:
        return self._joined(str)

    def __repr__(self) -> str:
        return self._joined(repr)


class OnImages(Objective):
    """An objective for some images of the batch; the others get 0 from it."""

    objective: Objective
    images: tuple[int, ...] = static()

    def __post_init__(self) -> None:
        images = self.images
        if not images or not all(isinstance(i, (int, np.integer)) and i >= 0 for i in images):
            raise ObjectiveError(f"images must be positions in the batch, 0 or more; got {images}")
        if len(set(images)) != len(images):
            raise ObjectiveError(f"images must be named once each; got {images}")
        object.__setattr__(self, "images", tuple(int(i) for i in images))
        inner = self.objective.batch_size
        if inner is not None and inner != len(images):
            raise ObjectiveError(
                f"{self.objective!r} is made for {inner} images; on() names {len(images)}"
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

    def _independent_nodes(self) -> Iterator[Objective]:
        yield self

    def _arguments(self, form: Any) -> Iterator[str]:
        raise AssertionError  # both printed forms are written out below

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


def _zero(term: Objective) -> bool:
    return isinstance(term, Scaled) and not isinstance(term.weight, (float, int))


def _weight(value: Any) -> Any:
    """A number or one weight an image as a leaf; None for what is neither."""
    if isinstance(value, (bool, str)) or value is None:
        return None
    if isinstance(value, (int, float, np.integer, np.floating)):
        if not math.isfinite(value):
            raise ObjectiveError(f"a weight must be finite; got {value}")
        return float(value)
    if _is_traced(value) or isinstance(value, (np.ndarray, jax.Array, list, tuple)):
        array = value if _is_traced(value) else np.asarray(_canonical("a weight", value), np.float32)
        if array.ndim > 1:
            raise ObjectiveError(
                f"a weight is a number or one weight an image, (n,); got shape {array.shape}"
            )
        return array if array.ndim or _is_traced(value) else float(array)
    return None


def _negated(value: Any) -> Any:
    weight = _weight(value)
    return value if weight is None else -weight


def _add(a: Any, b: Any) -> Any:
    terms = []
    for value in (a, b):
        if not _is_objective(value):
            weight = _weight(value)
            if weight is None:
                return NotImplemented
            value = Constant(weight)
        terms.append(value)
    return Sum(tuple(terms))


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


def signature(objective: Objective) -> tuple[Any, ...]:
    """Equal for objectives that `stack` puts in one batch, and so in one compiled program."""
    leaves, treedef = jax.tree_util.tree_flatten(objective)
    parts: list[Any] = [treedef]
    for value, field in zip(leaves, _leaf_fields(objective), strict=True):
        if field is None:
            parts.append((np.shape(value), _value(value).tobytes()))
        elif field.metadata["ndim"] is None:
            parts.append(np.shape(value)[1:])
        else:
            shape = np.shape(value)
            parts.append(shape[len(shape) - field.metadata["ndim"] :])
    if any(node.couples_images or isinstance(node, OnImages) for node in objective.walk()):
        parts.append(objective)
    return tuple(parts)


def stack(objectives: Sequence[Objective]) -> Objective:
    """Several objectives of one kind as one objective with an image for each.

    `stack([Channel("block8", 3), Channel("block8", 7)])` is `Channel("block8", [3, 7])`.

    Args:
        objectives: at least one; of the same structure, layers and options.

    Raises:
        ObjectiveError: none given, or of different kinds.
    """
    if not objectives:
        raise ObjectiveError("stack needs at least one objective")
    first = objectives[0]
    if len(objectives) == 1:
        return first
    if any(signature(other) != signature(first) for other in objectives[1:]):
        raise ObjectiveError(f"only objectives of one kind stack; got {', '.join(map(repr, objectives))}")
    if any(node.couples_images or isinstance(node, OnImages) for node in first.walk()):
        raise ObjectiveError(f"{first!r} looks at the whole batch and cannot be stacked")
    counts = [objective.batch_size or 1 for objective in objectives]
    leaves, treedef = jax.tree_util.tree_flatten(first)
    columns = zip(*(jax.tree_util.tree_leaves(o) for o in objectives), strict=True)
    stacked = []
    for values, field in zip(columns, _leaf_fields(first), strict=True):
        if field is None:
            stacked.append(values[0])
            continue
        ndim = field.metadata["ndim"]
        rows = []
        for value, count in zip(values, counts, strict=True):
            array = np.asarray(value)
            shape = array.shape[1:] if ndim is None else array.shape[array.ndim - ndim :]
            rows.append(np.broadcast_to(array, (count, *shape)))
        stacked.append(_canonical("leaf", np.concatenate(rows)))
    del leaves
    return jax.tree_util.tree_unflatten(treedef, stacked)
