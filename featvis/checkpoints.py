"""Files of weights: read once, without running what they contain, and fitted to a network.

A training script writes more than a state dict, and a wrapper of the network adds a prefix to every
name. `fit` finds the part of a file and the prefix that give a network all of its parameters; where
several do, the user names one after a `#`, as in `run.pth#ema`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from featvis import formats
from featvis.errors import CheckpointError
from featvis.formats import Arrays, Part

__all__ = [
    "Fit",
    "Layout",
    "Rule",
    "WeightsFile",
    "assemble",
    "convert",
    "describe_differences",
    "file_digest",
    "fit",
    "from_oihw",
    "read_checkpoint",
    "read_file",
    "read_weights",
    "split_part",
]

#: Lines of a list of differences that are shown, keys of a file, and characters of its own text.
_LINES_SHOWN = 30
_KEYS_SHOWN = 10
_LONGEST_SHOWN = 200


def _plain(text: object) -> str:
    """Text that a file may have made up, as part of a message of one line."""
    shown = str(text)
    shown = shown if shown.isprintable() else ascii(shown)[1:-1]
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"


def _listed(keys: Iterable[str]) -> str:
    shown = [_plain(key) if key else "the file itself" for key in keys]
    more = f" and {len(shown) - _KEYS_SHOWN} more" if shown[_KEYS_SHOWN:] else ""
    return ", ".join(shown[:_KEYS_SHOWN]) + more


# ---- reading -------------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights as it was read.

    Attributes:
        path: Of the file.
        digest: The SHA-256 of the bytes that were read; of several files that an index names, of
            the index and their digests.
        parts: Its state dicts, at least one.
        asked: The part that a user named; "" where none was named.
    """

    path: Path
    digest: str
    parts: tuple[Part, ...]
    asked: str = ""

    def meant(self) -> tuple[Part, ...]:
        """The parts that may be meant: all, or what a user named.

        Raises:
            CheckpointError: The file has no such part; the message says what it has.
        """
        return _asked(self.path, self.parts, self.asked)

    def __str__(self) -> str:
        return f"{self.path}#{self.asked}" if self.asked else str(self.path)


def read_file(path: str | Path, sha256: str | None = None) -> WeightsFile:
    """Reads a file of weights, once: what is hashed is what is read.

    Args:
        path: `.safetensors`, `.npz`, Flax's `.msgpack`, an index of several files
            (`.index.json`), or a PyTorch checkpoint by any other suffix. After a `#` may stand
            which part of it is meant: the keys of its dictionaries with slashes between, or what
            the names of the part begin with. A file whose whole name is this is taken as it is.
        sha256: That the file must have, or the first digits of it; None: not known.

    Raises:
        CheckpointError: The file cannot be read, is another one, is truncated, is not what its
            suffix says, or has no such part.
    """
    path, asked = split_part(path)
    if path.name.lower().endswith(".index.json"):
        digest, parts = _read_index(path)
    else:
        data = _bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if sha256 is not None and not digest.startswith(sha256):
            raise CheckpointError(
                f"{_plain(path)}: damaged or another file: its SHA-256 is {digest[: len(sha256)]}, "
                f"expected {sha256}"
            )
        parts = _parts(path, data)
    file = WeightsFile(path, digest, tuple(parts), asked)
    file.meant()  # so that a mistake is told here
    return file


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file of weights: see `read_file` for its formats, and for the `#`.

    Of several parts it is the one under a usual key (state_dict, model and the like), averages
    (ema) and what belongs to an optimizer set aside. An archive that would unpack to more than
    16 MiB and 20 times its own size is refused.

    Returns:
        Read-only arrays by name, in the file's order; bfloat16 is widened to float32.

    Raises:
        CheckpointError: The file cannot be read, is truncated, is not what its suffix says, has a
            tensor that reaches outside its storage, or several parts none of which is the usual.
    """
    return _arrays(read_file(path))


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a PyTorch checkpoint, whatever its suffix; else as `read_weights`."""
    path, asked = split_part(path)
    return _arrays(WeightsFile(path, "", tuple(_parts(path, _bytes(path), ".pth")), asked))


def _arrays(file: WeightsFile) -> dict[str, np.ndarray]:
    part = _choose(file, {part.key: part for part in file.meant()})
    with _named(file):
        return dict(part.arrays)


@contextlib.contextmanager
def _named(file: WeightsFile) -> Iterator[None]:
    """Says in which file something is wrong."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{_plain(file)}: {error}") from error.__cause__


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split_part(path: str | Path) -> tuple[Path, str]:
    """A file, and the part of it that is named after a `#`."""
    text = os.fspath(path)
    if not os.path.exists(text):
        for at in reversed([match.start() for match in re.finditer("#", text)]):
            if os.path.exists(text[:at]) and not os.path.isdir(text[:at]):
                if not (asked := text[at + 1 :].strip("/")):
                    raise CheckpointError(f"{_plain(text)} names no part after the #")
                return Path(text[:at]), asked
    return Path(text), ""


#: A pipe that nobody writes to is opened at once.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_ORBAX = {"_CHECKPOINT_METADATA", "_METADATA", "_sharding", "manifest.ocdbt", "ocdbt.process_0"}


def _bytes(path: Path) -> bytes:
    shown = _plain(path)
    try:
        if not stat.S_ISREG(mode := os.stat(path).st_mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "no file")
            raise CheckpointError(f"{shown}: cannot be read: it is {kind}{_of_folder(path)}")
        with open(os.open(path, _READ), "rb") as file:
            # No more than there is now, and no device that has taken the file's place.
            status = os.fstat(file.fileno())
            data = file.read(status.st_size) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CheckpointError(f"{shown}: cannot be read ({reason})") from error
    except ValueError as error:  # a name that no file can have
        raise CheckpointError(f"{shown}: cannot be read ({error})") from error
    except (MemoryError, OverflowError) as error:
        raise CheckpointError(f"{shown}: does not fit into the memory") from error
    if not data:
        raise CheckpointError(f"{shown}: cannot be read: it is empty, or truncated to nothing")
    return data


def _of_folder(path: Path) -> str:
    names = set(os.listdir(path)) if os.path.isdir(path) else set()
    export = "and write its arrays with numpy.savez or safetensors"
    if names & _ORBAX:
        return f" of Orbax: restore it with orbax.checkpoint {export}"
    if "saved_model.pb" in names:
        return f" of TensorFlow: load it there {export}"
    return ", not a file of weights"


_READERS: Mapping[str, Callable[[bytes], list[Part]]] = {
    ".safetensors": formats.read_safetensors,
    ".npz": formats.read_npz,
    ".msgpack": formats.read_msgpack,
}


def _parts(path: Path, data: bytes, suffix: str | None = None) -> list[Part]:
    suffix, shown = path.suffix.lower() if suffix is None else suffix, _plain(path)
    if (what := formats.foreign(path.name.lower(), data[:16])) is not None:
        raise CheckpointError(f"{shown}: is {what}")
    try:
        return _READERS.get(suffix, formats.read_torch)(data)
    except CheckpointError as error:
        raise CheckpointError(f"{shown}: {_plain(error)}") from error.__cause__
    # A hostile or damaged file makes its reader raise nearly anything.
    except Exception as error:
        kind = f"{suffix} file" if suffix in _READERS else "PyTorch checkpoint"
        raise CheckpointError(
            f"{shown}: not a readable {kind}, or truncated "
            f"({type(error).__name__}: {_plain(error)})"
        ) from error


#: Of an index: beyond this it names no network's tensors.
_LARGEST_INDEX = 2**24
_MOST_FILES = 1000


def _read_index(path: Path) -> tuple[str, list[Part]]:
    """The tensors of several files, which an index beside them names."""
    data, shown = _bytes(path), _plain(path)
    try:
        if len(data) > _LARGEST_INDEX:
            raise ValueError(f"it has {len(data)} bytes, more than {_LARGEST_INDEX}")
        places = json.loads(data)["weight_map"]
        names = sorted({*places.values()})
        if not names or len(names) > _MOST_FILES:
            raise ValueError(f"it names {len(names)} files; expected 1 to {_MOST_FILES}")
        for name in names:
            if name in ("", ".", "..") or {*name} & {*"/\\"}:
                raise ValueError(f"{name!r:.80} is no file beside it")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{shown}: not a readable index of weights ({type(error).__name__}: {_plain(error)})"
        ) from error
    digest = hashlib.sha256(data)
    makers: dict[str, Callable[[], np.ndarray]] = {}
    for name in names:
        content = _bytes(path.with_name(name))
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
        found: dict[str, Mapping[str, np.ndarray]] = {}
        for part in _parts(path.with_name(name), content):
            found |= dict.fromkeys(part.arrays, part.arrays)
        for key in (key for key, place in places.items() if place == name):
            if key not in found:
                raise CheckpointError(f"{shown}: {_plain(key)} is not in {_plain(name)}")
            makers[key] = functools.partial(found[key].__getitem__, key)
    # In the index's order.
    return digest.hexdigest(), [Part("", Arrays({key: makers[key] for key in places}))]


# ---- which part of a file ------------------------------------------------------------------

#: Keys under which training scripts keep the network; of several others the user names one.
_USUAL = frozenset(
    "state_dict model_state_dict model net network module params weights".split()  # noqa: SIM905
)
_AVERAGED = re.compile(r"(?:^|[^a-z])ema(?:$|[^a-z])", re.IGNORECASE)
_OF_TRAINING = re.compile(r"optim|sched|scaler", re.IGNORECASE)
#: What wrappers of a part of a network put before its name, the compiler's and those of training.
_WRAPPERS = re.compile(
    r"(?<![^.])(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
#: Names that a prefix is made of.
_MOST_PREFIXES = 12

_HAIKU_HINT = "\n  the names are Haiku's: give rules for them, with featvis.convert"

_Found = TypeVar("_Found")


def _asked(path: Path, parts: Sequence[Part], asked: str) -> tuple[Part, ...]:
    """Those parts that a user named: of that key, within it, or whose names begin so."""
    if not asked:
        return tuple(parts)
    if exact := [part for part in parts if part.key == asked]:
        return tuple(exact)
    if within := [part for part in parts if part.key.startswith(f"{asked}/")]:
        return tuple(within)
    for part in sorted(parts, key=lambda part: -len(part.key)):
        if part.key and not asked.startswith(f"{part.key}/"):
            continue
        start = asked[len(part.key) + 1 :] if part.key else asked
        for separator in "./":
            if names := [name for name in part.arrays if name.startswith(start + separator)]:
                cut = len(start) + 1
                return (Part(asked, _renamed(part.arrays, {name[cut:]: name for name in names})),)
    raise CheckpointError(
        f"{_plain(path)}: has no part {_plain(asked)}; "
        f"it has: {_listed(part.key for part in parts)}"
    )


def _renamed(arrays: Mapping[str, np.ndarray], names: Mapping[str, str]) -> Arrays:
    """Arrays under other names, given the name that each has by the one that it gets."""
    return Arrays({new: functools.partial(arrays.__getitem__, old) for new, old in names.items()})


def _choose(file: WeightsFile, found: Mapping[str, _Found]) -> _Found:
    """The one that is meant, of several by the keys of their parts."""
    left = dict(found)
    if not file.asked:
        for aside in (_OF_TRAINING, _AVERAGED):
            left = {key: one for key, one in left.items() if not aside.search(key)} or left
    usual = [key for key in left if key and _USUAL.issuperset(re.split(r"[/.]", key))]
    if not usual and "" in left:
        usual = [""]
    for keys in (usual, list(left)):
        if len(keys) == 1:
            return left[keys[0]]
    example = next(key for key in left if key)
    raise CheckpointError(
        f"{_plain(file)}: several parts of it could be meant: {_listed(left)}; name one, as "
        f"{_plain(file.path.name)}#{_plain(example)}"
    )


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
class Layout:
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
    layout: Layout
    part: str
    differences: tuple[str, ...] = ()


class _View(NamedTuple):
    """Arrays of a part whose names have a prefix, without it."""

    key: str
    arrays: Mapping[str, np.ndarray]
    rest: Sequence[str]  # what else there is, a line each


def fit(
    file: WeightsFile,
    layouts: Sequence[Layout],
    expected: Callable[[Layout], Mapping[str, tuple[int, ...]]],
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
    with _named(file):
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
        return _choose(file, found)
    assert nearest is not None
    fitting, wrong = nearest
    if does is not None and does(fitting):
        return fitting
    place = f"{file.path}#{fitting.part}" if fitting.part else file.path
    raise CheckpointError(
        f"{_plain(place)}: {len(wrong)} differences from {network} in the layout of "
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
            if count > most and not _OF_TRAINING.search(part.key):
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
    return _View(key, _renamed(part.arrays, inside), rest)


def assemble(
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    layout: Layout,
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
        lines += [_plain(line) for line in sides[sign][:most]]
        if len(sides[sign]) > most:
            more.append(f"{len(sides[sign]) - most} more {what}")
    lines += [f"… and {', '.join(more)}"] if more else []
    return "(- expected, + in the checkpoint):\n  " + "\n  ".join(lines)


def from_oihw(kernel: np.ndarray) -> np.ndarray:
    """A convolution's kernel as PyTorch keeps it, (d, c, h, w), to (h, w, c, d)."""
    return kernel.transpose(2, 3, 1, 0)


def convert(path: str | Path, like: Any, rules: Sequence[Rule], *, ignore: str = r"(?!)") -> Any:
    """Reads the weights of one's own network from a checkpoint that was trained elsewhere.

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
    layout = Layout("these rules", tuple(rules), ignore)
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
