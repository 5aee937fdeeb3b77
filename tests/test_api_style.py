"""The public names: all listed, in order, and each documented."""

from __future__ import annotations

import importlib
import inspect
import types
from typing import Any

import pytest

import objectives


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
