"""What a picture carries: small, whole, readable by others, and no danger to who reads it."""

import importlib
import json
import shutil
import tracemalloc
import zlib

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import featvis as fv
from featvis.cli import app
from featvis.results import checks, format, reading

pytestmark = [
    pytest.mark.usefixtures("quick_to_compile"),
    pytest.mark.filterwarnings("ignore::featvis.NameTakenWarning"),
]

SIDE = 4
PIXELS = fv.Pixels((SIDE, SIDE))
OPTIONS = {"steps": 1, "transform": "none", "optimizer": "sgd(1.0)", "progress": False}


def _apply(params, image):
    return {"mean": image.mean((1, 2)) * params["scale"]}


@pytest.fixture(scope="module")
def model(quick_to_compile):
    return fv.from_function(
        _apply, {"scale": np.ones(3, np.float32)}, input=fv.Input(size=(SIDE, SIDE))
    )


def photographs(count):
    levels = np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3))
    return levels.astype(np.float32) / 255


def inverted(model, count):
    target = fv.target(model, "mean", photographs(count))
    return fv.synthesize(model, fv.FeatureMatch("mean", target), PIXELS, batch=count, **OPTIONS)


@pytest.fixture(scope="module")
def thousand(model):
    return inverted(model, 1000)


def same(source, result, model):
    again = fv.replay(source, model=model, progress=False)
    np.testing.assert_array_equal(again.images, result.images)
    np.testing.assert_array_equal(again.scores, result.scores)
    assert again.manifest == result.manifest


# ---- what is shared ------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_thousand_photographs_are_beside_the_picture(model, thousand, tmp_path):
    path = thousand.save(tmp_path / "sheet")
    with Image.open(path) as picture:
        picture.load()
        record = json.loads(picture.text["featvis"])
    assert len(json.dumps(record)) < 2**16
    shared = tmp_path / f"featvis-{record['shared'][:32]}.safetensors"
    assert sorted(tmp_path.iterdir()) == sorted([path, path.with_suffix(".json"), shared])
    # Other programs read it: the digest's array is the photographs, in levels.
    (digest,) = thousand.manifest["arrays"]
    (levels,) = safetensors.numpy.load_file(shared).values()
    np.testing.assert_array_equal(levels, np.round(photographs(1000) * 255))
    assert record["runs"][0]["targets"] == {"target": {"layer": "mean", "images": digest}}
    same(path, thousand, model)
    same(path.with_suffix(".json"), thousand, model)


@pytest.mark.thorough
def test_pictures_do_not_grow_with_their_number(model, thousand, tmp_path):
    def size(result):
        folder = tmp_path / str(len(result))
        folder.mkdir()
        for i in range(4):
            result[i].save(folder / f"{i}.png")
        assert len(list(folder.glob("*.safetensors"))) == 1
        return sum(
            path.stat().st_size for path in folder.iterdir() if path.suffix != ".safetensors"
        )

    assert size(thousand) < size(inverted(model, 4)) + 4 * 20
    path = tmp_path / "1000" / "3.png"
    same(path, thousand[3], model)


@pytest.mark.thorough
def test_runs_that_are_long_are_shared_too(model, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(4500, 3)).astype(np.float32)
    result = fv.synthesize(model, fv.Direction("mean", vectors), PIXELS, **OPTIONS)
    assert len(json.dumps(result.manifest)) > 2**16
    for i in (7, 4499):
        path = result[i].save(tmp_path / f"{i}")
        assert path.stat().st_size + path.with_suffix(".json").stat().st_size < 3000
        assert reading.read_manifest(path) == result[i].manifest
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    same(path, result[4499], model)
    (shared,) = tmp_path.glob("*.safetensors")
    shared.unlink()
    with pytest.raises(fv.InputError, match=rf"goes on in {shared.name}: put that into its folder"):
        fv.replay(path, model=model)


def test_a_picture_that_was_moved_alone_says_what_is_missing(model, tmp_path):
    result = inverted(model, 4)
    path = result.save(tmp_path / "a.png")
    (shared,) = tmp_path.glob("*.safetensors")
    other = tmp_path / "other"
    other.mkdir()
    for one in (path, path.with_suffix(".json")):
        moved = other / one.name
        shutil.copy(one, moved)
        assert format.last_run(reading.read_manifest(moved))["batch"] == 4
        with pytest.raises(fv.InputError, match=f"put {shared.name} into the folder"):
            fv.replay(moved, model=model)
    shutil.copy(shared, other)
    same(other / "a.png", result, model)


@pytest.mark.parametrize("kind", ["short", "other", "empty", "table", "link"])
def test_a_damaged_shared_file_is_as_good_as_none(model, tmp_path, kind):
    result = inverted(model, 4)
    path = result.save(tmp_path / "a.png")
    (shared,) = tmp_path.glob("*.safetensors")
    raw = shared.read_bytes()
    shared.unlink()
    if kind == "link":
        shared.symlink_to("/dev/zero")
    else:
        table = b"\xff\xff\xff\xff\xff\0\0\0" + raw[8:]
        turned = raw[:-1] + bytes([raw[-1] ^ 1])
        shared.write_bytes({"short": raw[:-1], "other": turned, "empty": b"", "table": table}[kind])
    with pytest.raises(fv.InputError, match="is not there: put"):
        fv.replay(path, model=model)
    if kind == "other":  # only its reader looks at what is in it
        return
    # What lies there is kept, and the arrays go beside it.
    again = result.save(tmp_path / "b.png")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    same(again, result, model)
    same(path, result, model)


@pytest.mark.thorough
def test_runs_that_go_on_from_each_other(model, tmp_path):
    # Of 600 as of 30, which take less time.
    result = fv.synthesize(model, "mean:1", PIXELS, **OPTIONS)
    (first,) = result.manifest["runs"]
    long = {**result.manifest, "runs": [first, *({"seed": k} for k in range(1, 30))]}
    (tmp_path / "long.json").write_text(json.dumps(long))
    made = fv.replay(tmp_path / "long.json", model=model, progress=False)
    assert made.steps.tolist() == [30]
    path = made.save(tmp_path / "long.png")
    assert reading.read_manifest(path) == made.manifest
    assert [run["seed"] for run in format.runs_of(made.manifest)] == [*range(30)]


# ---- what is hostile -----------------------------------------------------------------------

FORGED = "x\nidentical to the original\x1b[2K\r\x07\u202e\u2066\x9b"


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    result = fv.synthesize(model, "mean:1", PIXELS, snapshots=1, **OPTIONS)
    return result.save(folder / "a.png")


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": FORGED}},
        {"model": {"origin": FORGED, "digest": FORGED}},
        {"model": {"name": FORGED + ":x"}},
        {"versions": {FORGED: FORGED}},
        {"objective": FORGED},
        {"objective": f"'{FORGED}'"},
        {"objective": f"layer({FORGED!r})"},
        {"objective": f"mean:1 - 0*sum([{FORGED!r}])"},
        {"optimizer": FORGED},
        {"transform": FORGED},
        {"parameterization": FORGED},
        {"seed": FORGED},
        {"steps": FORGED},
        {"member": FORGED},
        {FORGED: 1},
        {"targets": {FORGED: {"values": "0" * 64}}},
        {"init": {FORGED: FORGED}},
    ],
    ids=lambda change: next(iter(change))[:10],
)
def test_nothing_of_a_manifest_reaches_the_terminal_raw(
    capsys, model, saved, tmp_path, monkeypatch, change
):
    monkeypatch.setattr("featvis.cli.output.enable_cache", lambda: None)
    monkeypatch.setattr("featvis.loading.load", lambda *names: model)
    record = json.loads(saved.with_suffix(".json").read_text())
    (run,) = record["runs"]
    for name, value in change.items():
        run[name] = {**run[name], **value} if name == "model" else value
    (tmp_path / "a.json").write_text(json.dumps(record))
    for more in ([], ["--model", "x.y:z"]):
        code = app.main(["replay", str(tmp_path / "a.json"), "--quiet", *more])
        assert code or not change.keys() - {"versions", "model"}
        said = capsys.readouterr()
        for line in (said.out + said.err).split("\n"):
            assert line.isprintable()
            assert not line.startswith("identical")


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


def _places(value, path=()):
    """Where the parts of plain data are."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _places(one, (*path, key))


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::featvis.VersionWarning")
@given(st.data())
@settings(
    max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_part_of_a_manifest_can_be_anything(model, saved, tmp_path, monkeypatch, data):
    """Whatever stands anywhere, reading and checking it raises only errors of ours."""
    record = json.loads(saved.with_suffix(".json").read_text())
    path = data.draw(st.sampled_from([place for place in _places(record) if place]))
    inside = record
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = data.draw(_VALUES)
    (tmp_path / "a.json").write_text(json.dumps(record))
    replaying = importlib.import_module("featvis.replay")
    monkeypatch.setattr(replaying, "again", lambda *given, **options: _stop())
    said = ""
    try:
        fv.replay(tmp_path / "a.json", model=model, progress=False)
    except (fv.FeatvisError, fv.ObjectiveError, _Stopped) as error:
        said = str(error)
    assert all(line.isprintable() for line in said.split("\n"))


class _Stopped(Exception):
    pass


def _stop():
    raise _Stopped


@given(st.data())
@settings(
    max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_bytes_of_a_manifest_are_errors_of_ours(saved, tmp_path, data):
    source = data.draw(st.sampled_from([saved, saved.with_suffix(".json")]))
    raw = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a").write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if raw[0] % 2 else raw)
    said = ""
    try:
        checks.check_manifest(reading.read_manifest(tmp_path / "a"))
    except fv.InputError as error:
        said = str(error)
    assert said.isprintable()


def _packed(text):
    body = b"featvis\0\1\0\0\0" + zlib.compress(text, 9)
    kind = b"iTXt" + body
    length = len(body).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + length + kind + zlib.crc32(kind).to_bytes(4, "big")


@pytest.mark.parametrize(
    "content",
    [
        _packed(b'{"format": 3, "runs": [' + b"[]," * 50_000 + b"0]}"),
        _packed(b'{"format": 3, "runs": [' + b"{}," * 10**7 + b"0]}"),
        b'{"format": 3, "runs": [' + b"[]," * 50_000 + b"0]}",
        b'{"format": 3, "runs": [' + b"[]," * 5 * 10**6 + b"0]}",
        b'{"format": 3, "runs": ["' + b"x" * (2**23 - 50) + b'"]}',
        b'{"format": 3, "runs": ' + b'{"a":' * 20 + b"1" + b"}" * 20 + b"}",
    ],
    ids=["chunk", "bomb", "lists", "more lists", "text", "nested"],
)
def test_a_manifest_takes_no_more_than_the_stated_memory(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(fv.InputError):
            checks.check_manifest(reading.read_manifest(tmp_path / "a"))
        assert tracemalloc.get_traced_memory()[1] < 100 * 10**6
    finally:
        tracemalloc.stop()
