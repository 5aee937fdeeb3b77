"""Files: read without waiting, written whole or not at all, and never over somebody else's.

Several threads and processes may write into one folder, in which somebody may have put links. A
file is written under a name that nobody can foresee and then gets its own by one call of the
operating system, which follows no link and fails where there is a file already.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from featvis.errors import InputError, NameTakenWarning, OutputError, printable

#: Seconds to wait for others that write into the folder; names are taken safely without, too.
_PATIENCE = 10.0
#: Bytes of a file's name where the file system does not say.
_NAME_LIMIT = 255


def open_file(path: str | Path) -> BinaryIO:
    """Opens a file for reading; what is no file of bytes (a pipe, a device) is not waited for.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {printable(path)}: {_reason(error)}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"cannot read {printable(path)}: it is no regular file")
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _reason(error: Exception) -> str:
    return printable(getattr(error, "strerror", None) or error)


def is_folder(path: str | os.PathLike[str], suffixes: tuple[str, ...] = (".png",)) -> bool:
    """Return whether a path says a folder rather than a file with one of the suffixes.

    It ends in a slash, or there is a folder of its name, which is no such file's.
    """
    text = os.fspath(path)
    named_as_file = text.lower().endswith(suffixes)
    return text.endswith(("/", os.sep)) or (os.path.isdir(text) and not named_as_file)


def output_path(
    path: str | os.PathLike[str],
    suffixes: tuple[str, ...] = (".png",),
    *,
    name: str | None = None,
) -> Path:
    """Return a path that a file can be written to, as far as can be said before.

    Args:
        path: a file's, with one of the suffixes, in lower case or capitals, or with none to get the
            first; or a folder's: it ends in a slash and is made, or there is one of this name.
        suffixes: those that are fine.
        name: of the file in a folder, without suffix; None where a folder will not do.

    Raises:
        InputError: another suffix, or no path at all.
        OutputError: the folder is missing or cannot be written to, or the path is a folder's.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"a path is a text or a Path; got {printable(repr(path), 80)}")
    if not os.fspath(path):
        raise InputError("a path is a text or a Path; got an empty text")
    folder, path = is_folder(path, suffixes), Path(path)
    if folder and name is not None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            shown = printable(path)
            raise OutputError(f"cannot make the folder {shown}: {_reason(error)}") from error
        room = name_limit(path) - len("-9999") - max(map(len, (*suffixes, ".json")))
        path, folder = path / f"{shorten_name(name, room)}{suffixes[0]}", False
    if not folder and not path.suffix:
        path = path.with_name(path.name + suffixes[0])
    shown = printable(path)
    if not folder and path.suffix.lower() not in suffixes:
        raise InputError(f"{shown} should end in {' or '.join(suffixes)}")
    try:
        folder = folder or (path.lstat() and path.is_dir())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero in it
        raise OutputError(f"cannot write {shown}: {_reason(error)}") from error
    if folder:
        raise OutputError(f"cannot write {shown}: it is a folder")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {shown}: there is no folder {printable(path.parent)}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {shown}: permission denied")
    return path


def part_of_name(text: str) -> str:
    """A text as part of a file's name: letters and digits of any script, 60 of them."""
    kept = "".join(c if c.isalnum() or (c > "\x7f" and c.isprintable()) else "-" for c in text)
    return re.sub(r"-+", "-", kept).strip("-")[:60] or "objective"


def picture_name(model: str, what: str) -> str:
    """The name, without suffix, of a picture that is put into a folder.

    Args:
        model: a network's name; `mypackage.nets:factory` has no place in a file's name as it is.
        what: the picture shows, as part of a file's name.
    """
    return f"{re.sub(r'[^A-Za-z0-9._]+', '-', model).strip('-.') or 'model'}_{what}"


def write_file(
    path: Path,
    content: bytes,
    *,
    beside: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> Path:
    """Writes a file, and those that belong to it, all of them whole or none at all.

    Where one of their names is taken, all get the same number before their suffix. A first Ctrl-C
    takes effect when they are written, a second one at once.

    Args:
        path: the file's.
        content: of the file.
        beside: contents of files of the same name, by their suffix.
        force: write over files of these names (and in place of links, never through them).

    Returns:
        The path that the file has: with a number where the name was taken, and shorter where it
        and the others' names would be too long.

    Raises:
        OutputError: it cannot be written.

    Warns:
        NameTakenWarning: the name was taken; says the one that the file has.
    """
    contents = {**(beside or {}), path.suffix: content}  # who sees the last, sees all
    folder = path.parent
    drafts = {suffix: _draft_name(folder) for suffix in contents}
    try:
        with _finished_first():
            for suffix, draft in drafts.items():
                _write(draft, contents[suffix])
            with _locked(folder):
                if force:
                    taken = _numbered(path, 0, contents)
                    _replace({taken.with_suffix(suffix): d for suffix, d in drafts.items()})
                    return taken
                number = 0
                while True:
                    taken = _numbered(path, number, contents)
                    if _take({taken.with_suffix(suffix): d for suffix, d in drafts.items()}):
                        break
                    number += 1
    except OSError as error:
        raise OutputError(f"cannot write {printable(path)}: {_reason(error)}") from error
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    if number:
        shown = printable(taken.with_name(path.name))
        said = f"{shown} was there already and is kept; this one is {printable(taken)}"
        warnings.warn(NameTakenWarning(said), stacklevel=3)
    return taken


def shorten_name(name: str, room: int) -> str:
    """The beginning of a file's name, `room` bytes of it at most, cut between characters."""
    raw = os.fsencode(name)
    cut = min(len(raw), room)
    # At most three bytes of UTF-8 go on a character; what is not UTF-8 is cut anywhere.
    for back in range(4):
        if cut == len(raw) or cut - back <= 0 or raw[cut - back] & 0xC0 != 0x80:
            return os.fsdecode(raw[: max(cut - back, 0)])
    return os.fsdecode(raw[:cut])


def name_limit(folder: Path) -> int:
    """Bytes that a file's name in a folder may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no such function
        return _NAME_LIMIT


def _numbered(path: Path, number: int, suffixes: Mapping[str, Any]) -> Path:
    """The path with a number, 0 for none, so short that each of the suffixes can follow."""
    tail = f"-{number}" if number else ""
    longest = max(len(os.fsencode(suffix)) for suffix in suffixes)
    stem = shorten_name(path.stem, name_limit(path.parent) - longest - len(tail))
    return path.with_name(f"{stem}{tail}{path.suffix}")


def _draft_name(folder: Path) -> Path:
    return folder / f".featvis-{secrets.token_hex(8)}.part"


def _write(draft: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(draft, flags, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a full disk says so here, before anything has a name


def _take(drafts: Mapping[Path, Path]) -> bool:
    """Gives drafts their names if all of these are free; whether they were."""
    if any(os.path.lexists(final) for final in drafts):
        return False
    taken: list[Path] = []
    try:
        for final, draft in drafts.items():
            _take_one(draft, final)
            taken.append(final)
    except BaseException as error:
        for final in taken:
            final.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def _take_one(draft: Path, final: Path) -> None:
    """Gives a draft its name.

    Raises:
        FileExistsError: there is something of that name.
    """
    try:
        os.link(draft, final)
        return
    except FileExistsError:
        raise
    except OSError:
        pass
    # A file system without links: the name is taken by an empty file, which the draft replaces.
    os.close(os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        os.replace(draft, final)
    except BaseException:
        final.unlink(missing_ok=True)
        raise


def _replace(drafts: Mapping[Path, Path]) -> None:
    """Puts drafts in the place of what there is, or leaves all as it was."""
    before: dict[Path, Path | None] = {}
    try:
        for final, draft in drafts.items():
            if final.is_dir() and not final.is_symlink():
                raise IsADirectoryError(0, f"{printable(final)} is a folder")
            spare = _draft_name(final.parent) if os.path.lexists(final) else None
            if spare is not None:
                try:
                    os.link(final, spare, follow_symlinks=False)
                except (OSError, NotImplementedError):
                    os.replace(final, spare)  # a file system without links
            before[final] = spare
            os.replace(draft, final)
    except BaseException:
        for final, spare in reversed(before.items()):
            if spare is None:
                final.unlink(missing_ok=True)
            else:
                os.replace(spare, final)
        raise
    finally:
        for spare in before.values():
            if spare is not None:
                with suppress(OSError):
                    spare.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One featvis at a time gives names in a folder, of all threads and processes.

    So that of two that write over the same files the picture and the manifest are of one. Where a
    folder cannot be locked, or somebody keeps it locked, names are taken without.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder to write to and not to list
        yield
        return
    try:
        last = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < last:
                    time.sleep(0.005)
                    continue
            except OSError:
                pass
            break
        yield
    finally:
        os.close(handle)


@contextmanager
def _finished_first() -> Iterator[None]:
    """Makes a first Ctrl-C wait until the block is done."""
    before: Callable[..., Any] | int | None = None
    if threading.current_thread() is threading.main_thread():
        before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield
        return
    pressed: list[tuple[Any, ...]] = []

    def press(*what: Any) -> None:
        pressed.append(what)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            before(*pressed[0])
