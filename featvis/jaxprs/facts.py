"""What can be said of the values in a traced program without computing any.

Which axis of a value is its channels', and whether it depends on the image or on random numbers:
told by the program itself, from its inputs on. So a map is turned round because a convolution says
that its channels are first, and not because it has four axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from featvis.jaxprs.evaluate import evaluate, program_inside, scan_counts
from featvis.jaxprs.taps import REMATS, Taps, Traced, add_steps, is_mark, marks_inside


class Fact(NamedTuple):
    """What is known of a value.

    Attributes:
        shape: of the array.
        dtype: of the array.
        channels: its axis of channels; None where that is not known.
        image: whether it depends on the image.
        random: whether it depends on random numbers.
    """

    shape: tuple[int, ...] = ()
    dtype: Any = None
    channels: int | None = None
    image: bool = False
    random: bool = False


def facts_of(traced: Traced, inputs: Sequence[Fact]) -> Taps:
    """What is known of the values that are marked in a program.

    Args:
        traced: the program.
        inputs: what is known of its arguments, leaf by leaf.

    Raises:
        InputError: a value that was asked for is where none can be taken out.
    """
    taps = Taps(left_out=list(traced.left_out))
    program = traced.program
    _walk(program.jaxpr, [_plain(value) for value in program.consts], inputs, taps)
    return taps


def _plain(value: Any) -> Fact:
    return (
        value if isinstance(value, Fact) else Fact(np.shape(value), getattr(value, "dtype", None))
    )


def _walk(jaxpr: Any, consts: Sequence[Any], args: Sequence[Fact], taps: Taps) -> list[Fact]:
    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Fact]:
        known = [_plain(value) for value in inputs]
        if is_mark(eqn):
            taps.add(eqn.params["name"], eqn.params["kind"], known[0])
            return known
        name = eqn.primitive.name
        if name == "scan":
            return _scan(eqn, known, taps)
        inner, kept = program_inside(eqn), taps if name in ("jit", *REMATS) else Taps()
        marks_inside(eqn)
        if inner is not None and len(inner[0].invars) == len(known):
            return _walk(inner[0], inner[1], known, kept)
        channels = _channels(eqn, known)
        image = any(fact.image for fact in known)
        random = any(fact.random for fact in known)
        return [
            Fact(
                tuple(getattr(out.aval, "shape", ())), getattr(out.aval, "dtype", None),
                channels, image, random,
            )
            for out in eqn.outvars
        ]  # fmt: skip

    return [_plain(value) for value in evaluate(jaxpr, consts, args, rule)]


def _scan(eqn: Any, inputs: Sequence[Fact], taps: Taps) -> list[Fact]:
    params = eqn.params
    consts, count = scan_counts(eqn)
    fixed, carry, rest = inputs[:consts], inputs[consts : consts + count], inputs[consts + count :]
    steps = [
        f._replace(shape=f.shape[1:], channels=f.channels - 1 if f.channels else None) for f in rest
    ]
    inner = params["jaxpr"]
    # What a step depends on the next one does; each turn adds something, or is the last.
    while True:
        inside = Taps()
        outputs = _walk(inner.jaxpr, inner.consts, [*fixed, *carry, *steps], inside)
        merged = [_merged(a, b) for a, b in zip(carry, outputs[:count], strict=True)]
        if merged == list(carry):
            break
        carry = merged
    add_steps(taps, inside, params, lambda fact, step: fact)
    stacked = [
        f._replace(
            shape=(params["length"], *f.shape),
            channels=None if f.channels is None else f.channels + 1,
        )
        for f in outputs[count:]
    ]
    through = [
        inputs[consts + i]
        # What goes through unchanged stays the same object; what is as known as before does not.
        if inner.jaxpr.outvars[i] is inner.jaxpr.invars[consts + i]
        else fact._replace()
        for i, fact in enumerate(carry)
    ]
    return [*through, *stacked]


def _merged(a: Fact, b: Fact) -> Fact:
    channels = a.channels if a.channels == b.channels else None
    if a.channels is None and not a.image:
        channels = b.channels  # zeros, as a loop begins with
    return Fact(a.shape, a.dtype, channels, a.image or b.image, a.random or b.random)


def _channels(eqn: Any, inputs: Sequence[Fact]) -> int | None:
    """The axis of channels of what an equation gives; None where that is not known."""
    params, name = eqn.params, eqn.primitive.name
    if not inputs:
        return None
    out = tuple(getattr(eqn.outvars[0].aval, "shape", ()))
    if name == "conv_general_dilated":
        return int(params["dimension_numbers"].out_spec[1])
    if name == "dot_general":
        return _of_product(params["dimension_numbers"], inputs)
    first = inputs[0]
    axis = first.channels
    if name in ("transpose", "broadcast_in_dim", "squeeze", "reshape", "gather"):
        if axis is None:
            return None
        if name == "transpose":
            return [int(a) for a in params["permutation"]].index(axis)
        if name == "broadcast_in_dim":
            return int(params["broadcast_dimensions"][axis])
        if name == "squeeze":
            return _without(axis, params["dimensions"], len(first.shape))
        if name == "gather":
            return _of_gather(params, first)
        return _of_reshape(first.shape, out, axis)
    if name.startswith(("reduce_", "arg")) and "axes" in params:
        return None if axis is None else _without(axis, params["axes"], len(first.shape))
    if name in ("while", "cond"):
        return None
    return _of_all(inputs, out)


def _without(axis: int, dropped: Sequence[int], count: int) -> int | None:
    dropped = [int(a) % count for a in dropped]
    return None if axis in dropped else axis - sum(a < axis for a in dropped)


def _of_all(inputs: Sequence[Fact], out: tuple[int, ...]) -> int | None:
    """What keeps the axes in their places: those of all inputs of so many axes, if they agree."""
    found = {f.channels for f in inputs if len(f.shape) == len(out) and f.channels is not None}
    return found.pop() if len(found) == 1 else None


def _of_reshape(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    """Where an axis is after a reshape; None where it is cut or joined with others."""
    ahead, length = math.prod(before[:axis]), before[axis]
    places = [
        place
        for place, size in enumerate(after)
        if size == length and math.prod(after[:place]) == ahead
    ]
    if length > 1:
        return places[0] if places else None
    # Of axes of length 1 the one that is as far from the nearer end.
    same = [p for p in places if p == axis or len(after) - p == len(before) - axis]
    return same[0] if same else None


def _of_gather(params: Any, first: Fact) -> int | None:
    numbers, axis = params["dimension_numbers"], first.channels
    gone = (*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ()))
    if axis is None or axis in gone or params["slice_sizes"][axis] != first.shape[axis]:
        return None
    kept = [place for place in range(len(first.shape)) if place not in gone]
    return int(numbers.offset_dims[kept.index(axis)])


def _of_product(numbers: Any, inputs: Sequence[Fact]) -> int | None:
    (contracted, batch) = numbers
    free = [
        [a for a in range(len(f.shape)) if a not in contracted[i] and a not in batch[i]]
        for i, f in enumerate(inputs)
    ]
    count = len(batch[0])
    places = [
        {
            **{axis: place for place, axis in enumerate(batch[side])},
            **{axis: count + side * len(free[0]) + place for place, axis in enumerate(free[side])},
        }
        for side in (0, 1)
    ]
    found = set()
    for side, fact in enumerate(inputs):
        other, axis = inputs[1 - side], fact.channels
        if axis is None or not fact.image:
            continue
        if axis in places[side]:
            found.add(places[side][axis])
        elif not other.image and len(free[1 - side]) == 1:
            # Channels times a matrix of weights: its other axis is that of the new channels.
            found.add(places[1 - side][free[1 - side][0]])
    return found.pop() if len(found) == 1 else None
