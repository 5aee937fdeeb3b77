"""Writing into a folder that others write into too, and reading what may be no file at all."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import networks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import featvis as fv
from featvis import files
from featvis.errors import printable
from featvis.files import open_file, output_path, shorten_name, write_file

# Names that are taken are what most of this is about; what is said of them is tested with `save`.
pytestmark = pytest.mark.filterwarnings("ignore::featvis.NameTakenWarning")


def result_of(number):
    """A result of one image whose picture and manifest both say its number."""
    image = np.full((1, 4, 4, 3), number / 255, np.float32)
    return fv.Result(
        images=image,
        scores=np.zeros((1, 1)),
        clean_scores=np.array([number], np.float32),
        transformed_scores=np.zeros(1),
        params=image,
        sensitivity=np.ones((1, 4, 4)),
        snapshots={1: image, 2: image},
        runs=networks.done(f"unit:{number}"),
        steps=np.ones(1, int),
        stopped=("steps",),
        failures=(None,),
        silent=(None,),
        seconds=1.0,
    )


def numbers_of(path):
    """What the picture, the manifest in it and the JSON beside it say."""
    with Image.open(path) as picture:
        inside = json.loads(picture.text["featvis"])
        level = int(np.asarray(picture)[0, 0, 0])
    beside = json.loads(path.with_suffix(".json").read_text())
    objectives = [int(one["runs"][0]["objective"][5:]) for one in (inside, beside)]
    return level, *objectives, beside["result"]["clean_score"][0]


def check_folder(folder, count):
    """Every picture is whole, belongs to its JSON, and none is missing."""
    found = [numbers_of(path) for path in sorted(folder.glob("*.png"))]
    assert all(len({*numbers}) == 1 for numbers in found)
    assert sorted(numbers[0] for numbers in found) == list(range(count))
    assert len(list(folder.iterdir())) == 2 * count  # and nothing else


# ---- several at once -----------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_threads_save_into_one_folder(tmp_path, same):
    paths = {}

    def save(thread):
        for k in range(10):
            number = 10 * thread + k
            name = "unit.png" if same else f"{thread}_{k}.png"
            paths[number] = result_of(number).save(tmp_path / name)

    threads = [threading.Thread(target=save, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_folder(tmp_path, 80)
    assert all(numbers_of(path)[0] == number for number, path in paths.items())


def test_threads_that_write_over_one_name_leave_a_picture_and_its_own_json(tmp_path):
    threads = [
        threading.Thread(target=result_of(i).save, args=(tmp_path / "a.png",), kwargs={"force": 1})
        for i in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*numbers_of(tmp_path / "a.png")}) == 1
    assert len(list(tmp_path.iterdir())) == 2


WRITER = """
import sys
from pathlib import Path
from featvis.files import write_file
folder, first = Path(sys.argv[1]), int(sys.argv[2])
for k in range(first, first + 25):
    print(write_file(folder / "a.png", b"%d" % k, beside={".json": b"%d" % k}), k)
"""


@pytest.mark.thorough
def test_processes_that_save_under_one_name(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(25 * i)], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    lines = [line for one in running for line in one.communicate()[0].splitlines()]
    assert [one.returncode for one in running] == [0, 0]
    written = {Path(path): int(k) for path, k in map(str.split, lines)}
    assert sorted(written.values()) == list(range(50))
    for path, k in written.items():
        assert path.read_text() == path.with_suffix(".json").read_text() == str(k)
    assert len(list(tmp_path.iterdir())) == 100


def test_somebody_who_keeps_the_folder_locked_does_not_stop_us(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(files, "_PATIENCE", 0.05)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert write_file(tmp_path / "a.png", b"a").read_bytes() == b"a"
    finally:
        os.close(handle)


# ---- what is there already -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.json"])
@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard", "folder", "pipe"])
@pytest.mark.parametrize("force", [False, True])
def test_what_waits_under_a_name_is_not_written_through(tmp_path, name, kind, force):
    folder, victim = tmp_path / "shared", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("mine")
    link = folder / name
    if kind == "hard":
        link.hardlink_to(victim)
    elif kind == "folder":
        link.mkdir()
    elif kind == "pipe":
        os.mkfifo(link)
    else:
        link.symlink_to(victim if kind == "symlink" else tmp_path / "none")
    if kind == "folder" and (force or name == "a.png"):
        with pytest.raises(fv.OutputError, match="folder"):
            result_of(7).save(folder / "a.png", force=force)
        assert [*folder.iterdir()] == [link]
        return
    path = result_of(7).save(folder / "a.png", force=force)
    assert path.name == ("a.png" if force else "a-1.png")
    assert numbers_of(path) == (7, 7, 7, 7)
    assert victim.read_text() == "mine"
    assert not (tmp_path / "none").exists()
    assert len(list(folder.iterdir())) == (2 if force else 3)


def test_a_suffix_in_capitals_keeps_the_json_that_is_there(tmp_path):
    first = result_of(1).save(tmp_path / "a.png")
    second = result_of(2).save(tmp_path / "a.PNG")
    assert (first.name, second.name) == ("a.png", "a-1.PNG")
    assert numbers_of(first) == (1, 1, 1, 1)
    assert numbers_of(second) == (2, 2, 2, 2)
    assert result_of(3).save_animation(tmp_path / "film.GIF").name == "film.GIF"


def test_films_are_kept_too(tmp_path):
    paths = [result_of(i).save_animation(tmp_path / "film.webp") for i in range(3)]
    assert [path.name for path in paths] == ["film.webp", "film-1.webp", "film-2.webp"]


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*names, **options):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert result_of(1).save(tmp_path / "a.png").name == "a.png"
    assert result_of(2).save(tmp_path / "a.png").name == "a-1.png"
    assert result_of(3).save(tmp_path / "a.png", force=True).name == "a.png"
    assert numbers_of(tmp_path / "a.png") == (3, 3, 3, 3)
    assert numbers_of(tmp_path / "a-1.png") == (2, 2, 2, 2)
    assert len(list(tmp_path.iterdir())) == 4


# ---- what goes wrong -----------------------------------------------------------------------

STEPS = ["open", "fsync", "link", "replace"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", range(4))
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("force", [False, True])
def test_all_files_or_none(tmp_path, monkeypatch, failure, call, step, force):
    """A full disk or a Ctrl-C at any call: what was there is there, and nothing half."""
    result_of(1).save(tmp_path / "a.png")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real, calls = getattr(os, step), []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call + 1:
            raise failure
        return real(*arguments, **options)

    expected = fv.OutputError if isinstance(failure, OSError) else KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(os, step, failing)
        try:
            result_of(2).save(tmp_path / "a.png", force=force)
        except expected:
            assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
            return
    # Fewer calls than that, or one that another way was found for.
    assert numbers_of(tmp_path / ("a.png" if force else "a-1.png")) == (2, 2, 2, 2)
    assert len(list(tmp_path.iterdir())) == (2 if force else 4)


@pytest.fixture
def pressable():
    """Ctrl-C as in a terminal: a shell's jobs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("presses", [1, 2])
def test_a_first_ctrl_c_waits_for_the_files(tmp_path, monkeypatch, pressable, presses):
    real, calls = os.fsync, []

    def slow(handle):
        calls.append(handle)
        if len(calls) == 1:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)
        real(handle)

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(KeyboardInterrupt):
        result_of(1).save(tmp_path / "a.png")
    assert len(list(tmp_path.iterdir())) == (2 if presses == 1 else 0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("place", ["none/a.png", "file/a.png", "a\0b.png", "a.jpg"])
def test_a_place_that_is_none(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises((fv.OutputError, fv.InputError)) as caught:
        result_of(1).save(f"{tmp_path}/{place}")
    assert str(caught.value).isprintable()


def test_what_is_no_path_is_said():
    with pytest.raises(fv.InputError, match="a path is a text or a Path; got None"):
        result_of(1).save(None)


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["a", "é", "猫", "\udcff", "\n", "🐈"])
@pytest.mark.parametrize("length", [240, 249, 250, 251])
def test_the_longest_names(tmp_path, letter, length):
    width = len(os.fsencode(letter))
    stem = letter * (length // width) + "b" * (length % width)
    name = f"{stem}.png"
    paths = [result_of(i).save(tmp_path / name) for i in range(12)]
    check_folder(tmp_path, 12)
    assert len({*paths}) == 12
    for path in paths:
        assert len(os.fsencode(path.name)) <= 255
        # Cut between characters.
        assert not set(path.stem) - set(stem) - set("-0123456789")
    if length <= 250:  # room for the longer .json
        assert paths[0].name == name


@given(st.text(st.characters(exclude_characters="\0/")), st.integers(1, 40))
def test_a_name_is_cut_between_characters(name, room):
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return
    short = shorten_name(name, room)
    assert name.startswith(short)
    assert len(os.fsencode(short)) <= room
    assert len(raw) <= room or len(os.fsencode(short)) > room - 4


# ---- reading -------------------------------------------------------------------------------


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero", tmp_path / "none", "a\0b"):
        with pytest.raises(fv.InputError, match="cannot read") as caught:
            open_file(path)
        assert str(caught.value).isprintable()
        with pytest.raises(fv.InputError, match="cannot read"):
            fv.replay(path)


# ---- what is shown -------------------------------------------------------------------------

CONTROL = "\x1b[2J\r\n\x07\x9b31m\u202e\u2066\u2028\ufeff\udcff\U000e0001"


@given(st.text())
@settings(max_examples=100)
def test_nothing_printable_moves_the_cursor(text):
    for shown in (printable(text), printable(CONTROL + text), printable(text, 9)):
        assert shown.isprintable()
        shown.encode()  # no lone surrogate
    assert len(printable(text, 9)) <= 9 * 10
    if text.isprintable() and len(text) < 400:
        assert printable(text) == text


def test_undecodable_bytes_are_shown_as_bytes():
    assert printable(os.fsdecode(b"caf\xe9\n.png")) == r"caf\xe9\n.png"
    assert "…" in printable(10**5000 if sys.get_int_max_str_digits() == 0 else "9" * 5000)
    assert printable(output_path("a").name) == "a.png"
