"""The public names: all listed, in order, and each documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import objectives
from featvis.evidence import metrics


def exported(name: str) -> list[tuple[str, Any]]:
    module = importlib.import_module(name)
    return [(key, getattr(module, key)) for key in getattr(module, "__all__", [])]


MODULES = ("objectives", "featvis")
SYMBOLS = [
    pytest.param(value, id=f"{module}.{key}")
    for module in MODULES
    for key, value in exported(module)
]


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_complete(name: str) -> None:
    module = importlib.import_module(name)
    names = getattr(module, "__all__", None)
    if names is None:
        pytest.skip(f"{name} does not list its names yet")

    def order(key: str) -> tuple[int, str]:  # as ruff sorts: constants, classes, the rest
        return (0 if key.isupper() else 1 if key[0].isupper() else 2), key

    assert list(names) == sorted(set(names), key=order)
    public = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and not isinstance(value, types.ModuleType)
        and key != "annotations"
    }
    assert public <= set(names)
    assert module.__doc__


def described(value: Any) -> str:
    """The docstring of its own that a class or function has."""
    return (
        inspect.cleandoc(vars(value).get("__doc__") or "")
        if isinstance(value, type)
        else (inspect.getdoc(value) or "")
    )


@pytest.mark.parametrize("value", SYMBOLS)
def test_documented(value: Any) -> None:
    if not callable(value):
        return
    text = described(value)
    first = text.partition("\n")[0]
    assert len(text.split()) >= 4, "says too little"
    assert first.endswith((".", ":")), "the first line is a sentence"
    assert not text.startswith(f"{getattr(value, '__name__', '')}("), "not the generated one"
    if not isinstance(value, type):
        return
    for name, member in vars(value).items():
        plain = member.fget if isinstance(member, property) else member
        if name.startswith("_") and name != "__call__":
            continue
        if inspect.isfunction(plain) or isinstance(plain, classmethod):
            assert inspect.getdoc(plain), f"{name} has no docstring"


@pytest.mark.parametrize(
    "cls",
    [
        value
        for _, value in exported("objectives")
        if isinstance(value, type)
        and issubclass(value, objectives.Objective)
        and not inspect.isabstract(value)
    ],
)
def test_an_objective_documents_its_arguments_and_scores(cls: type) -> None:
    for method in (cls.__call__,):
        assert "(n,)" in (method.__doc__ or "")
    if cls in (objectives.Constant, objectives.Scaled, objectives.Sum, objectives.OnImages):
        return
    for name in inspect.signature(cls).parameters:
        assert f"\n    {name}: " in inspect.cleandoc(cls.__doc__ or ""), f"{name} is not documented"


# ---- signatures and what their documentation says -------------------------------------------


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions, and the public methods of the public classes, by name."""
    found = {id(value): (key, value) for name in MODULES for key, value in exported(name)}
    found |= {
        id(value): (f"metrics.{key}", value)
        for key, value in vars(metrics).items()
        if inspect.isfunction(value) and value.__module__ == metrics.__name__
    }
    for key, value in found.values():
        if inspect.isfunction(value) and not key.startswith("metrics._"):
            yield key, value
        elif isinstance(value, type):
            for name, member in vars(value).items():
                plain = getattr(member, "__func__", member)
                if inspect.isfunction(plain) and not name.startswith("_"):
                    yield f"{key}.{name}", plain


FUNCTIONS = dict(functions())
each = pytest.mark.parametrize("name", FUNCTIONS)


def takes(function: Callable[..., Any]) -> list[inspect.Parameter]:
    given = inspect.signature(function).parameters.values()
    return [p for p in given if p.name not in ("self", "cls")]


def overrides(name: str) -> bool:
    """Whether a method is a base's, whose documentation says what it takes and raises."""
    cls, _, method = name.rpartition(".")
    owner = getattr(importlib.import_module("featvis"), cls, None)
    return isinstance(owner, type) and any(method in vars(base) for base in owner.__mro__[1:])


@each
def test_a_key_comes_first_and_options_have_names(name: str) -> None:
    given = takes(FUNCTIONS[name])
    if any(p.name == "key" for p in given):
        assert given[0].name == "key"
    by_place = [p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD and p.default != p.empty]
    # The first may follow what it is about: `load("resnet18", "file.pth")`.
    assert len(by_place) < 2, f"{', '.join(by_place[1:])} should be keyword-only"


@each
def test_arguments_and_errors_are_documented(name: str) -> None:
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    if not overrides(name):
        for p in takes(function):
            assert re.search(rf"(^\s*\**|`){p.name}(: |`)", text, re.MULTILINE), p.name
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    raised = [
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    ]
    ours = [one for one in raised if one.endswith("Error") and one != "NotImplementedError"]
    assert not ours or "Raises:" in text, f"raises {ours[0]}"


@each
def test_arrays_have_shapes(name: str) -> None:
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    # The annotation as it is written, of arguments that are arrays for sure.
    arrays = [
        p.name
        for p in takes(function)
        if str(p.annotation) in ("ArrayLike", "jax.Array") and p.kind is not p.VAR_KEYWORD
    ]
    if set(arrays) - {"key"} and not overrides(name):
        said = re.search(r"\((n|h|height|c|\.\.\.|1)[^)]*\)|first axis", text)
        assert said, "no shape is said"
