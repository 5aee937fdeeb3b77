"""Classes whose methods are others for as long as a network is traced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import flax.linen
from flax import nnx

from featvis.jaxprs.taps import is_recording, join, note

#: Held while classes are changed.
_CLASSES = threading.RLock()

Around = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
"""(method, its object, arguments, keywords) to what the call gives."""


@contextmanager
def patched(methods: Mapping[tuple[type, str], Around]) -> Iterator[None]:
    """Puts something around methods of classes, as their own and inherited ones.

    The classes themselves are changed: an object must keep its class, which the network may ask
    for. A call by another thread, or after the network was traced, is left as it is.

    Args:
        methods: what goes around each method, by class and name.
    """
    with _CLASSES:
        before = {key: vars(key[0]).get(key[1]) for key in methods}
        calls = {key: _around(getattr(*key), around) for key, around in methods.items()}
        try:
            for (cls, name), call in calls.items():
                setattr(cls, name, call)
            yield
        finally:
            for (cls, name), own in before.items():
                if own is None:
                    delattr(cls, name)
                else:
                    setattr(cls, name, own)


def _around(method: Callable[..., Any], around: Around) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_recording():
            return method(self, *args, **kwargs)
        return around(method, self, args, kwargs)

    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__dict__"):
        if hasattr(method, name) and name != "__dict__":
            setattr(call, name, getattr(method, name))
    call.__wrapped__ = method  # type: ignore[attr-defined]
    return call


def methods_of(cls: type, base: type, library: str) -> list[str]:
    """The methods that a network's class has for others to call: what they give are layers.

    Those of the class itself and of those above it up to `base`, but not the library's own.

    Args:
        cls: a class of modules.
        base: the library's class of modules.
        library: the package whose classes have no such methods.
    """
    found: dict[str, None] = {}
    for one in cls.__mro__:
        if one is base:
            break
        if one.__module__.split(".")[0] != library:
            found |= {
                name: None
                for name, value in vars(one).items()
                if not name.startswith("_")
                and not isinstance(value, (staticmethod, classmethod))
                and isinstance(getattr(one, name), FunctionType)
            }
    return [name for name in found if not hasattr(base, name)]


def noted(
    path_of: Callable[[Any], str | None], entry: str, above: list[str] | None = None
) -> Callable[[str], Around]:
    """What goes around a method of modules, so that what it gives is noted.

    Args:
        path_of: gives a module's path; None for one that is none of the network's.
        entry: the method that the network itself is called by, whose result is its own business.
        above: gets the paths of the modules that run, innermost last.
    """
    running: list[tuple[int, str]] = []
    above = [] if above is None else above

    def around(name: str) -> Around:
        def call(method: Any, part: Any, args: Any, kwargs: Any) -> Any:
            path, key = path_of(part), (id(part), name)
            # A call of the base class by the module's own is no second one.
            if path is None or key in running or (not path and name in (entry, "__call__")):
                return method(part, *args, **kwargs)
            running.append(key)
            above.append(path)
            try:
                if name == "__call__":
                    note_input(part, args, kwargs, path)
                result = method(part, *args, **kwargs)
            finally:
                running.remove(key)
                above.pop()
            note(result, path if name == "__call__" else join(path, name))
            return result

        return call

    return around


def note_input(module: Any, args: Any, kwargs: Any, path: str) -> None:
    """Notes the input of a batch norm as `path/input`.

    Its running statistics are of its input, which no submodule's output need be.
    """
    if isinstance(module, (nnx.BatchNorm, flax.linen.BatchNorm)):
        if args:
            note(args[0], f"{path}/input")
        elif "x" in kwargs:
            note(kwargs["x"], f"{path}/input")
