"""A driver's options as those of a command: told in its docstring, typed in its signature."""

from __future__ import annotations

import inspect
import re
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from featvis import methods
from featvis import text as texts
from featvis.cli.command import option, run_options
from featvis.cli.network import see_working_folder, size_of
from featvis.errors import InputError, printable
from featvis.models import Model

#: Snapshots of an animation.
FRAMES = 24
#: What commands have options of their own for, or none.
_OTHERWISE = ("preset", "size", "parameterization", "progress", "init", "snapshots")


class Driver:
    """A function of a network and what is asked, whose options a command line has.

    Args:
        function: the driver. With `**options` it takes those of a run too.
        *left_out: its arguments that are no options.
        presets: the kind of its presets; None where it has none.
        animated: whether the way there can be kept.
        runs: the options of a run that it takes; None: all.
        group: of its own options in the help.
        **written: how an option is written, where not as `--name`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *left_out: str,
        presets: str | None = None,
        animated: bool = False,
        runs: Sequence[str] | None = None,
        group: str = "This command",
        **written: str,
    ) -> None:
        taken = inspect.signature(function, eval_str=True).parameters
        self.function, self.sequences = function, dict[str, str]()
        self.options: dict[str, inspect.Parameter] = {}
        for name, one in taken.items():
            kind = _kind(one.annotation)
            positional = one.default is one.empty and one.kind is not one.KEYWORD_ONLY
            if kind is None or positional or name in (*_OTHERWISE, *left_out):
                continue
            ways = written.get(name, f"--{name}" if kind is bool else "").split()
            if get_origin(one.annotation) is not Literal and "Sequence" in str(one.annotation):
                self.sequences[name] = ways[-1] if ways else f"--{name}"
            told = _told(function, name)
            if name in self.sequences:
                told = f"{told.removesuffix('.')}; several have commas between them."
            self.options |= option(name, kind, told, *ways, default=one.default, group=group)
        some = any(one.kind is one.VAR_KEYWORD for one in taken.values())
        self.of_runs = some and runs != ()
        if self.of_runs:
            of_run = run_options(presets, animated=animated)
            of_run = {name: one for name, one in of_run.items() if runs is None or name in runs}
            own = {name: one for name, one in self.options.items() if name not in of_run}
            self.options = own | of_run
        if presets is not None:
            self.options |= preset_options(presets)

    def arguments(self, given: Namespace, network: Model | None) -> dict[str, Any]:
        """Return what a command line says, in the words of Python: `size` and `progress` too."""
        found = {
            name: value
            for name in self.options
            if (value := getattr(given, name, None)) is not None
            and name not in ("param", "animate")
        }
        for name, written in self.sequences.items():
            if isinstance(found.get(name), str):
                found[name] = several(written, found[name])
        taken = inspect.signature(self.function).parameters
        size = None if network is None else size_of(given.size, network)
        if size is not None and (self.of_runs or "size" in taken):
            found["size"] = size
        if (way := getattr(given, "param", None)) is not None and self.of_runs:
            see_working_folder()  # for a generator of one's own
            found["parameterization"] = way
            if network is not None:  # before anything is computed
                takes = network.input
                at = size or takes.size
                texts.parameterization(way, at, takes.channels, fixed_size=size is not None)
        if "animate" in self.options and given.animate is not None:
            found["snapshots"] = min(found.get("steps") or FRAMES, FRAMES)
        if hasattr(given, "quiet") and (self.of_runs or "progress" in taken):
            found["progress"] = not given.quiet
        return found

    def __call__(self, given: Namespace, network: Model | None, *subject: Any, **more: Any) -> Any:
        """Call the driver with what a command line says."""
        subject = subject if network is None else (network, *subject)
        return self.function(*subject, **(self.arguments(given, network) | more))


def several(written: str, given: str) -> list[str]:
    """Return what an option lists, with commas between.

    Args:
        written: how the option is written.
        given: its text.

    Raises:
        InputError: there is nothing before, between or after commas.
    """
    found = [one.strip() for one in given.split(",")]
    if not all(found):
        meant = ",".join(filter(None, found))
        hint = f"; did you mean {printable(meant, 60)}?" if meant else ""
        got = printable(repr(given), 60)
        raise InputError(f"{written} takes one or several with commas between; got {got}{hint}")
    return found


def preset_options(kind: str) -> dict[str, inspect.Parameter]:
    """Return the options that presets of a kind have of their own, told in their docstrings."""
    known = methods.presets(kind)
    owners: dict[str, dict[str, inspect.Parameter]] = {}
    for preset, rule in known.items():
        for one in inspect.signature(rule, eval_str=True).parameters.values():
            if one.kind is one.KEYWORD_ONLY:
                owners.setdefault(one.name, {})[preset] = one
    found: dict[str, inspect.Parameter] = {}
    for name, those in owners.items():
        first, one = next(iter(those.items()))
        defaults = {preset: own.default for preset, own in those.items()}
        told = _told(known[first], name)
        found |= option_of(defaults, name, _kind(one.annotation) or str, told)
    return found


def option_of(
    defaults: Mapping[str, Any], name: str, kind: Any, told: str, **more: Any
) -> dict[str, inspect.Parameter]:
    """Make an option that some presets or methods have, told with whose default is what.

    Args:
        defaults: by the name of each that has it.
        name: as for `option`.
        kind: likewise.
        told: what it is.
        **more: as for `option`.
    """
    owners: dict[str, list[str]] = {}
    for owner, default in defaults.items():
        owners.setdefault("none" if default is None else str(default), []).append(owner)
    said = "; ".join(f"{', '.join(names)}: {default}" for default, names in owners.items())
    return option(name, kind, f"{told}  [{said}]", shown=False, **more)


def _kind(annotation: Any) -> type | None:
    """What an option's text is read as; None of what no text is."""
    if get_origin(annotation) is Literal:
        return str
    union = get_origin(annotation) in (Union, UnionType)
    some = get_args(annotation) if union else (annotation,)
    numbers = [kind for kind in (bool, int, float) if kind in some]
    return str if str in some else numbers[0] if len(numbers) == 1 else None


def _told(function: Callable[..., Any], name: str) -> str:
    """Return what a docstring says of an argument: its first sentence."""
    # Of "et al. 2015" the sentence goes on.
    end = r"\.(?=\s+[A-Z]|\s+\w+: |\s*\n\s*\n|\s*$)"
    said = re.search(rf"\n +{name}: (.*?{end})", function.__doc__ or "", re.DOTALL)
    told = " ".join(said[1].split()) if said else ""
    return capitalised(told)


def capitalised(told: str) -> str:
    """Return a sentence with a capital first; a Greek letter is a symbol and stays."""
    return told[:1].upper() + told[1:] if told[:1].isascii() else told
