"""Key layouts: where a file of weights keeps each parameter of a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from featvis.errors import CheckpointError
from featvis.weights.files import read_file
from featvis.weights.parts import (
    OF_TRAINING,
    Part,
    WeightsFile,
    choose_part,
    named_file,
    renamed,
    shown_key,
)

#: Lines of a list of differences that are shown, keys of a file, and characters of its own text.
_LINES_SHOWN = 30

#: What wrappers of a part of a network put before its name, the compiler's and those of training.
_WRAPPERS = re.compile(
    r"(?<![^.])(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)

#: Names that a prefix is made of.
_MOST_PREFIXES = 12

_HAIKU_HINT = "\n  the names are Haiku's: give rules for them, with featvis.convert"


class Rule(NamedTuple):
    r"""Where a checkpoint keeps the parameters whose path matches a pattern.

    Attributes:
        path: Regular expression for the whole of a parameter's path, as `block(\d+)/kernel`.
        source: Name in the checkpoint, with `\1` for the pattern's groups.
        transform: From the checkpoint's array to the parameter.
    """

    path: str
    source: str
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray


@dataclass(frozen=True)
class KeyLayout:
    """Where one publisher's checkpoints keep the parameters of an architecture.

    Attributes:
        name: The publisher: torchvision, timm, transformers.
        rules: Tried in turn for each parameter.
        ignore: Regular expression for names in the checkpoint that nothing needs.
        folded: Whether batch normalisation is folded into the kernels and biases already.
    """

    name: str
    rules: tuple[Rule, ...]
    ignore: str = r"(?!)"
    folded: bool = False


@dataclass(frozen=True)
class Fit:
    """What of a file gives a network its parameters.

    Attributes:
        arrays: By the parameters' paths.
        layout: The one that the file has.
        part: What was taken of the file, as it is named after a `#`: the key of a state dict, and
            the prefix of its names; "" where that is all of it.
        differences: What is missing or left over, a line each, where the network does with it.
    """

    arrays: Mapping[str, np.ndarray]
    layout: KeyLayout
    part: str
    differences: tuple[str, ...] = ()


class _View(NamedTuple):
    """Arrays of a part whose names have a prefix, without it."""

    key: str
    arrays: Mapping[str, np.ndarray]
    rest: Sequence[str]  # what else there is, a line each


def fit(
    file: WeightsFile,
    layouts: Sequence[KeyLayout],
    expected: Callable[[KeyLayout], Mapping[str, tuple[int, ...]]],
    network: str,
    does: Callable[[Fit], bool] | None = None,
) -> Fit:
    """Finds the part of a file, the prefix of its names and the layout that fit a network.

    A prefix is what a wrapper puts before every name: `module.`, `_orig_mod.`, `model.`,
    `backbone.` or any other, also several. What wrappers put into the middle of names is left out
    where these do not fit as they are. Names without the prefix are another network's.

    Args:
        file: As `read_file` returns it.
        layouts: Those that it may have.
        expected: Gives the shapes of the parameters by path, for a layout.
        network: What to call the network in an error.
        does: Whether the network does with the nearest, which differs from it.

    Raises:
        CheckpointError: Nothing fits, and the message lists what differs from the nearest; or
            several parts do, none of which is the usual, and it names them.
    """
    found: dict[str, Fit] = {}
    nearest: tuple[Fit, list[str]] | None = None
    with named_file(file):
        for layout in layouts:
            shapes = expected(layout)
            sources = {rule[0] for path in shapes if (rule := source_of(path, layout.rules))}
            for view in _views(file.meant(), sources):
                arrays, wrong = assemble(view.arrays, shapes, layout)
                if not wrong:
                    found.setdefault(view.key, Fit(arrays, layout, view.key))
                elif nearest is None or len(wrong) < len(nearest[1]):
                    nearest = Fit(arrays, layout, view.key, tuple(wrong)), [*wrong, *view.rest]
    if found:
        return choose_part(file, found)
    assert nearest is not None
    fitting, wrong = nearest
    if does is not None and does(fitting):
        return fitting
    place = f"{file.path}#{fitting.part}" if fitting.part else file.path
    raise CheckpointError(
        f"{shown_key(place)}: {len(wrong)} differences from {network} in the layout of "
        f"{fitting.layout.name} "
        + describe_differences(wrong)
        + (_HAIKU_HINT if any("/~/" in name for one in file.meant() for name in one.arrays) else "")
    )


def _views(parts: Sequence[Part], sources: set[str]) -> Iterator[_View]:
    """Every part behind every prefix that has all names; where there is none, the nearest."""
    nearest, most = None, -1
    whole = False
    for part in parts:
        plain = {name: name for name in part.arrays}
        unwrapped = {_WRAPPERS.sub("", name): name for name in part.arrays}
        for names in (plain, unwrapped) if len(unwrapped) == len(plain) else (plain,):
            prefixes = _prefixes(names, sources)
            full = [prefix for prefix, count in prefixes.items() if count == len(sources)]
            for prefix in full:
                yield _view(part, names, prefix, full)
            if full:
                whole = True
                break
            prefix, count = prefixes.most_common(1)[0] if prefixes else ("", 0)
            if count > most and not OF_TRAINING.search(part.key):
                nearest, most = (part, names, prefix), count
    if not whole:
        yield _view(*nearest) if nearest else _view(parts[0], {n: n for n in parts[0].arrays}, "")


def _prefixes(names: Iterable[str], sources: set[str]) -> Counter[str]:
    """How many of the names are one of the sources behind a prefix, by prefix."""
    counts: Counter[str] = Counter()
    for name in names:
        ends = [match.end() for match in re.finditer(r"[./]", name)][:_MOST_PREFIXES]
        counts.update(name[:end] for end in [0, *ends] if name[end:] in sources)
    return counts


def _view(part: Part, names: Mapping[str, str], prefix: str, prefixes: Sequence[str] = ()) -> _View:
    # Behind a longer prefix is another network.
    longer = tuple(one for one in prefixes if one != prefix and one.startswith(prefix))
    inside = {
        name[len(prefix) :]: old
        for name, old in names.items()
        if name.startswith(prefix) and not (longer and name.startswith(longer))
    }
    kept = {*inside.values()}
    rest = [] if prefixes else [f"+ {name}" for name in part.arrays if name not in kept]
    rest += [f"+ {name}, which cannot be read: {what}" for name, what in part.others.items()]
    key = "/".join(filter(None, [part.key, prefix.rstrip("./")]))
    return _View(key, renamed(part.arrays, inside), rest)


def assemble(
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    layout: KeyLayout,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Maps the tensors of a checkpoint to the parameters of an architecture.

    Args:
        tensors: What `read_weights` returned.
        expected: Shapes of the parameters by path.
        layout: Where the checkpoint keeps them.

    Returns:
        Arrays by path, in the order of `expected`; and one line per tensor that is missing (`-`)
        or not expected (`+`), of which one of a wrong shape is both. The arrays are good only
        where there is no such line.
    """
    wrong: list[str] = []
    found: dict[str, np.ndarray] = {}
    used: set[str] = set()
    for path, shape in expected.items():
        rule = source_of(path, layout.rules)
        if rule is None:
            wrong.append(f"- no rule says where {path} {shape} is")
            continue
        source, transform = rule
        if source not in tensors:
            wrong.append(f"- {source} for {path} {shape}")
            continue
        used.add(source)
        array = tensors[source]
        try:
            found[path] = transform(array)
        except (ValueError, IndexError):  # the transform is for another number of axes
            found[path] = array
        # A transform of the user's own may raise anything.
        except Exception as error:
            raise CheckpointError(
                f"the rule for {path} fails on {source} {array.shape}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if found[path].shape != shape:
            wrong += [f"- {source} for {path} {shape}", f"+ {source} {array.shape}"]
    return found, wrong + _unexpected(tensors, used, layout.ignore)


def describe_differences(wrong: Sequence[str]) -> str:
    """The differences that were found as the end of a message: a line each, of both sides.

    The first 30 are shown, of each side the first 15 or all.
    """
    sides = {sign: [line for line in wrong if line.startswith(sign)] for sign in "-+"}
    half = _LINES_SHOWN // 2
    lines, more = [], []
    for sign, other, what in (("-", "+", "expected"), ("+", "-", "in the checkpoint")):
        most = max(half, _LINES_SHOWN - len(sides[other]))
        lines += [shown_key(line) for line in sides[sign][:most]]
        if len(sides[sign]) > most:
            more.append(f"{len(sides[sign]) - most} more {what}")
    lines += [f"… and {', '.join(more)}"] if more else []
    return "(- expected, + in the checkpoint):\n  " + "\n  ".join(lines)


def from_oihw(kernel: np.ndarray) -> np.ndarray:
    """Turn a convolution's `kernel` as PyTorch keeps it, (d, c, h, w), into (h, w, c, d)."""
    return kernel.transpose(2, 3, 1, 0)


def convert(path: str | Path, like: Any, rules: Sequence[Rule], *, ignore: str = r"(?!)") -> Any:
    """Read the weights of one's own network from a checkpoint that was trained elsewhere.

    Args:
        path: A file that `read_file` reads, of PyTorch say; after a `#` its part, as in
            `run.pth#ema`. By default it is the part, and the prefix of names, that fit the rules.
        like: The parameters as the network has them, a pytree of arrays such as Linen's variables
            or `nnx.state(module)`; a parameter's path is its keys with slashes between them, as
            `blocks/0/conv1/kernel`.
        rules: Tried in turn for each parameter: where the checkpoint keeps it.
        ignore: Regular expression for names in the checkpoint that nothing needs.

    Returns:
        The same pytree with the checkpoint's values in the types of `like`.

    Raises:
        CheckpointError: The file cannot be read, a parameter has no rule, or tensors are missing,
            left over or of another shape: a -/+ list of them.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    paths = [_parameter_path(keys) for keys, _ in leaves]
    expected = {name: tuple(leaf.shape) for name, (_, leaf) in zip(paths, leaves, strict=True)}
    layout = KeyLayout("these rules", tuple(rules), ignore)
    found = fit(read_file(path), [layout], lambda _: expected, "the parameters").arrays
    arrays = [jnp.asarray(found[n], leaf.dtype) for n, (_, leaf) in zip(paths, leaves, strict=True)]
    return jax.tree.unflatten(tree, arrays)


def _parameter_path(keys: Sequence[Any]) -> str:
    last = keys[-1] if keys else None
    if isinstance(last, jax.tree_util.GetAttrKey) and last.name == "value":
        keys = keys[:-1]  # the value of a variable of Flax NNX, whose path is the variable's
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def source_of(
    path: str, rules: Iterable[Rule]
) -> tuple[str, Callable[[np.ndarray], np.ndarray]] | None:
    """Where the first rule that knows a parameter says it is, and what becomes of it."""
    for rule in rules:
        try:
            if match := re.fullmatch(rule.path, path):
                return match.expand(rule.source), rule.transform
        except (re.error, IndexError) as error:
            raise CheckpointError(
                f"the rule {rule.path!r} to {rule.source!r} is no regular expression: {error}"
            ) from error
    return None


def _unexpected(tensors: Mapping[str, np.ndarray], used: set[str], ignore: str) -> list[str]:
    return [
        f"+ {name} {array.shape}"
        for name, array in tensors.items()
        if name not in used and not re.fullmatch(ignore, name)
    ]
