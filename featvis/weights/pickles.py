"""Pickles read as data: no import, no call, no attribute that is set.

A pickle is a program for a machine with a stack. This one has the instructions that files of
weights use, and makes numbers, text, tuples, lists, and stand-ins of its own for everything else.
What a name stands for is never looked up, and no instruction changes a stand-in but by adding
entries to a `Thing`, which is all that it holds.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from featvis.errors import CheckpointError

#: Instructions in a pickle. A tensor takes some 35; one of 2 million leaves less than 400 MB.
_MOST_INSTRUCTIONS = 2**21

_VALUES = frozenset(
    """
    BININT BININT1 BININT2 INT LONG LONG1 LONG4 FLOAT BINFLOAT BINUNICODE SHORT_BINUNICODE
    BINUNICODE8 UNICODE BINSTRING SHORT_BINSTRING STRING BINBYTES SHORT_BINBYTES BINBYTES8
    """.split()  # noqa: SIM905
)

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_STORES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})

_FETCHES = frozenset({"GET", "BINGET", "LONG_BINGET"})

_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

#: No file of weights names these. Not what keeps us safe: nothing is run, whatever the name. But
#: who opens such a file wants to know.
_ATTACKS = frozenset(
    """
    os posix nt subprocess sys shutil socket importlib runpy pty ctypes webbrowser marshal pickle
    _pickle timeit pdb bdb cProfile
    """.split()  # noqa: SIM905
)

_ATTACKS_OF_BUILTINS = frozenset(
    "eval exec execfile compile __import__ open input breakpoint globals".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """Stands for a function or class that a pickle names.

    Attributes:
        text: Its module and its name, as `torch.FloatStorage`.
    """

    text: str


class Thing:
    """Stands for a dictionary, or for an object that a call would make.

    Its entries are pairs in the order of the file: their keys are not hashed, which a file can make
    slow without end.

    Attributes:
        of: What it is or what was called, as `dict`, `pathlib.PosixPath`.
        entries: What the pickle sets by key.
    """

    __slots__ = ("entries", "of")

    def __init__(self, of: str, entries: list[tuple[object, object]] | None = None) -> None:
        self.of = of
        self.entries = [] if entries is None else entries


class _Machine:
    def __init__(
        self, calls: Mapping[str, Callable[..., object]], persistent: Callable[[object], object]
    ) -> None:
        self.calls, self.persistent = calls, persistent
        self.stack: list[object] = []
        self.marks: list[int] = []  # places in the stack
        self.memo: dict[int, object] = {}

    def step(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _STORES:
            self.store(int(argument))
        elif name in _FETCHES:
            self.fetch(int(argument))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "TUPLE":
            self.stack.append(tuple(self.pop_to_mark()))
        elif name in _TUPLES:
            self.stack.append(tuple(self.pop(_TUPLES[name])))
        else:
            try:
                instruction = _OTHERS[name]
            except KeyError:
                raise CheckpointError("not one that files of weights have") from None
            instruction(self, argument)

    def pop(self, count: int) -> list[object]:
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise CheckpointError("without operands")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def pop_to_mark(self) -> list[object]:
        if not self.marks:
            raise CheckpointError("without a mark")
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def top(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise CheckpointError("without operands")
        return self.stack[-1]

    def store(self, index: int) -> None:
        # Picklers number what they store; numbers of any size could be made to collide as keys.
        if not 0 <= index <= _MOST_INSTRUCTIONS:
            raise CheckpointError("a memo index that no pickler would have come to")
        self.memo[index] = self.top()

    def fetch(self, index: int) -> None:
        if index not in self.memo:
            raise CheckpointError("of a memo index that nothing was stored at")
        self.stack.append(self.memo[index])

    def memoize(self, _: object) -> None:
        self.store(len(self.memo))

    def drop(self, _: object) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop(1)

    def drop_to_mark(self, _: object) -> None:
        self.pop_to_mark()

    def new_list(self, _: object) -> None:
        self.stack.append([])

    def list_of(self, _: object) -> None:
        self.stack.append(self.pop_to_mark())

    def append(self, _: object) -> None:
        self.extend(self.pop(1))

    def appends(self, _: object) -> None:
        self.extend(self.pop_to_mark())

    def extend(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is list:
            target += items
        elif type(target) is not Thing:  # of a deque or a set nothing is kept
            raise CheckpointError("on what is no list")

    def new_dict(self, _: object) -> None:
        self.stack.append(Thing("dict"))

    def dict_of(self, _: object) -> None:
        self.stack.append(Thing("dict", _pairs(self.pop_to_mark())))

    def set_item(self, _: object) -> None:
        self.set_all(self.pop(2))

    def set_items(self, _: object) -> None:
        self.set_all(self.pop_to_mark())

    def set_all(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not Thing:
            raise CheckpointError("on what is no dictionary")
        target.entries += _pairs(items)

    def new_set(self, _: object) -> None:
        self.stack.append(Thing("set"))

    def frozen_set(self, _: object) -> None:
        self.pop_to_mark()
        self.stack.append(Thing("frozenset"))

    def name(self, argument: str) -> None:
        # Both lines of the instruction with a space between.
        module, _, name = argument.partition(" ")
        self.stack.append(_named(module, name))

    def name_of_stack(self, _: object) -> None:
        module, name = self.pop(2)
        if type(module) is not str or type(name) is not str:
            raise CheckpointError("a name that is no text")
        self.stack.append(_named(module, name))

    def call(self, _: object) -> None:
        function, arguments = self.pop(2)
        if type(arguments) is not tuple:
            raise CheckpointError("with arguments that are no tuple")
        if type(function) is Name:
            known = self.calls.get(function.text)
            self.stack.append(known(*arguments) if known else Thing(function.text))
        elif type(function) is Thing:  # of something that was looked up or wrapped
            self.stack.append(Thing(function.of))
        else:
            raise CheckpointError("on what cannot be called")

    def call_with_keywords(self, argument: object) -> None:
        self.pop(1)
        self.call(argument)

    def build(self, _: object) -> None:
        # The attributes of an object, of which nothing is kept; nothing of ours has any.
        self.pop(1)
        if type(self.top()) is not Thing:
            raise CheckpointError("on what has no attributes")

    def load_persistent(self, _: object) -> None:
        self.stack.append(self.persistent(*self.pop(1)))

    def nothing(self, _: object) -> None:
        pass


_OTHERS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "STOP": _Machine.nothing,
    "MEMOIZE": _Machine.memoize,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_to_mark,
    "EMPTY_LIST": _Machine.new_list,
    "LIST": _Machine.list_of,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "EMPTY_DICT": _Machine.new_dict,
    "DICT": _Machine.dict_of,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "EMPTY_SET": _Machine.new_set,
    "ADDITEMS": _Machine.appends,
    "FROZENSET": _Machine.frozen_set,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_of_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.load_persistent,
}


def _pairs(items: list[object]) -> list[tuple[object, object]]:
    if len(items) % 2:
        raise CheckpointError("with a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))


def _named(module: str, name: str) -> Name:
    text = f"{module}.{name}"
    builtin = module in ("builtins", "__builtin__") and name in _ATTACKS_OF_BUILTINS
    if builtin or module.partition(".")[0] in _ATTACKS:
        raise CheckpointError(f"it would run {text!r:.100}, as no file of weights does; not loaded")
    return Name(text)


def read_pickle(
    stream: io.BytesIO,
    calls: Mapping[str, Callable[..., object]],
    persistent: Callable[[object], object],
) -> object:
    """Reads one pickle at the stream's position, leaving the stream behind it.

    Args:
        stream: The pickle, and what may follow.
        calls: What is made of a call, by the name of what is called; of any other, a `Thing`.
        persistent: What is made of a persistent identity.

    Returns:
        What the program leaves: numbers, text, bytes, tuples, lists, `Name`, `Thing`, and what
        `calls` and `persistent` return. A list or a thing may hold itself.

    Raises:
        CheckpointError: Not a pickle, or with an instruction that files of weights do not have; or
            one that plainly is an attack.
    """
    machine = _Machine(calls, persistent)
    steps = enumerate(pickletools.genops(stream))
    for count, (opcode, argument, position) in steps:
        if count == _MOST_INSTRUCTIONS:
            raise CheckpointError(f"a pickle of more than {_MOST_INSTRUCTIONS} instructions")
        try:
            machine.step(opcode.name, argument)
        except CheckpointError as error:
            raise CheckpointError(
                f"pickle instruction {opcode.name} at byte {position}: {error}"
            ) from error.__cause__
    if len(machine.stack) != 1 or machine.marks:
        raise CheckpointError("a pickle that leaves more than one value, or none")
    return machine.stack[0]
