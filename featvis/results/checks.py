"""Manifests that come from files, checked field by field before they are used."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from featvis.errors import InputError, printable
from featvis.results.format import FORMAT, LARGEST, is_text, is_whole, parts_of, places_of, runs_of
from featvis.results.packing import array_of
from featvis.results.run import options_of_runs

MOST_TARGETS = 256

DIGEST = re.compile(r"[0-9a-f]{64}")


def check_manifest(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs of a manifest, each of them whole, after every field of them was checked.

    The last one's `member` is the manifest's.

    Raises:
        InputError: a field that is missing, unknown, of another kind or out of its range; an array
            that is not there.
    """
    check_outline(manifest)
    if "joined" in manifest:
        raise damaged("a part of a joined one", "one list of runs", manifest["joined"])
    runs = runs_of(manifest)
    if runs[-1].get("member") is not None:
        raise damaged("member of the last run", "none", runs[-1]["member"])
    if "member" in runs[-1]:
        runs[-1]["member"] = manifest.get("member")
    for run in runs:
        for name in sorted(set(run) - set(_FIELDS)):
            raise InputError(f"the manifest is damaged: it has a {printable(repr(name), 60)}")
        for name, (expected, fits) in _FIELDS.items():
            if name not in run:
                raise InputError(f"the manifest is damaged: it lacks {name}")
            if not fits(run[name]):
                raise damaged(name, expected, run[name])
        if any(step > run["steps"] for step in run["snapshots"]):
            raise damaged("snapshots", f"steps up to {run['steps']}", run["snapshots"])
        last = max(places_of(run["member"], 1))
        if last >= run["batch"]:
            raise InputError(f"the manifest is damaged: member is {last} of {run['batch']} images")
        for digest in named_digests(run):
            if digest not in manifest["arrays"]:
                array_of(manifest, digest)  # says what is missing
    return runs


def check_outline(manifest: Mapping[str, Any]) -> None:
    """Checks that there are runs and arrays, and nothing unknown.

    Raises:
        InputError: something else.
    """
    if "explanation" in manifest:
        raise InputError("this was explained, and replay makes no maps: `featvis explain` does")
    if "joined" in manifest:
        _check_joined(manifest)
        return
    outline: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "format": (str(FORMAT), lambda v: type(v) is int and v == FORMAT),
        "runs": ("a list of runs", _are_runs),
        "arrays": ("arrays by their digests", _is_dict),
        "member": ("the place of an image, or several", _is_member),
        "shared": ("a SHA-256", lambda v: v is None or is_digest(v)),
        "objective": ("a text", lambda v: v is None or is_text(v)),
    }
    for name in sorted(set(map(str, manifest)) - set(outline)):
        raise InputError(f"the manifest is damaged: it has a {printable(repr(name), 60)}")
    for name, (expected, fits) in outline.items():
        if not fits(manifest.get(name)):
            raise damaged(name, expected, manifest.get(name))


def _check_joined(manifest: Mapping[str, Any]) -> None:
    """Checks that what was joined are manifests, each of one list of runs."""
    some = manifest["joined"]
    known = {"format", "arrays", "shared", "joined"}
    for name in sorted(set(map(str, manifest)) - known):
        raise InputError(f"the manifest is damaged: it has a {printable(repr(name), 60)}")
    inner = {"runs", "member", "objective"}
    if not (
        isinstance(some, list)
        and 0 < len(some) <= LARGEST["batch"]
        and all(_is_dict(one) and set(one) <= inner for one in some)
    ):
        raise damaged("joined", "a list of runs and their members", some)
    for one in parts_of(manifest):
        check_outline(one)


def named_digests(run: Mapping[str, Any]) -> list[str]:
    """The digests of the arrays that a run names, as far as it is whole and right."""
    targets, init = run.get("targets"), run.get("init")
    found = [
        one.get("images", one.get("values"))
        for one in (targets.values() if isinstance(targets, Mapping) else ())
        if isinstance(one, Mapping)
    ]
    if isinstance(init, Mapping):
        params = init.get("params")
        found += params.values() if isinstance(params, Mapping) else [init.get("image")]
    return list(filter(is_digest, found))


def damaged(name: str, expected: str, value: Any) -> InputError:
    """The error of a field that holds something else than is expected."""
    shown = printable(reprlib.repr(value), 60)
    return InputError(f"the manifest is damaged: {name} is {expected}, not {shown}")


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _are_runs(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(_is_dict, value))


def is_digest(value: Any) -> bool:
    """Whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None


def _is_member(value: Any) -> bool:
    if isinstance(value, list):
        return (
            0 < len(value) == len({*map(str, value)}) <= LARGEST["batch"]
            and all(is_whole(one, 0, LARGEST["batch"]) for one in value)
        )  # fmt: skip
    return value is None or is_whole(value, 0, LARGEST["batch"])


def _is_model(value: Any) -> bool:
    if not isinstance(value, Mapping) or set(value) != {"name", "digest", "origin", "leak"}:
        return False
    named = all(map(is_text, (value["name"], value["digest"], value["origin"])))
    leak = value["leak"]
    if isinstance(leak, list):  # of one layer alone
        return named and len(leak) == 2 and _is_slope(leak[0]) and is_text(leak[1])
    return named and (leak is None or _is_slope(leak))


def _is_slope(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_target(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    if set(value) == {"values"}:
        return is_digest(value["values"])
    kept = set(value) == {"layer", "images"}
    return kept and is_text(value["layer"]) and is_digest(value["images"])


def _is_init(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping) or set(value) not in ({"image"}, {"params"}):
        return False
    if "image" in value:
        return is_digest(value["image"])
    return _is_dict(value["params"]) and all(map(is_digest, value["params"].values()))


#: What each field of a run is in words, and whether a value is that.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("a name, a digest, an origin and a leak", _is_model),
    "objective": ("a text", is_text),
    "targets": (
        f"at most {MOST_TARGETS} arrays by name",
        lambda v: _is_dict(v) and len(v) <= MOST_TARGETS and all(map(_is_target, v.values())),
    ),
    "parameterization": ("a text", is_text),
    **{
        name: field.metadata["kept"]
        for name, field in options_of_runs().items()
        if field.metadata["kept"] is not None
    },
    "init": ("an image or parameters, by digest", _is_init),
    "member": ("the place of an image, or several", _is_member),
    "versions": (
        "versions by name",
        lambda v: _is_dict(v) and len(v) <= 64 and all(map(is_text, v.values())),
    ),
}
