"""Results, their files, their manifests, and making a picture again."""

import base64
import json
import re
import struct
import zlib

import numpy as np
import optax
import pytest
from networks import TOY_SIZE
from PIL import Image

import featvis as fv
from featvis import pictures
from featvis.results import format, reading

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def run(model, objective="conv:1", **options):
    options = {"steps": 6, "transform": "affine", "progress": False, **options}
    parameterization = options.pop("parameterization", fv.Fourier(TOY_SIZE))
    return fv.synthesize(model, objective, parameterization, **options)


@pytest.fixture(scope="module")
def one(toy, quick_to_compile):
    return run(toy, snapshots=3)


@pytest.fixture(scope="module")
def three(toy, quick_to_compile):
    return run(toy, "conv:[1, 2, 3] - 0.1*tv", snapshots=3)


def changed(result, **change):
    """The manifest of a result of one run, with other fields."""
    (run,) = result.manifest["runs"]
    return {**result.manifest, "runs": [{**run, **change}]}


def replayed(source, toy, **options):
    return fv.replay(source, model=toy, progress=False, **options)


# ---- replay --------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seed": [4, 5]},
        {"objective": "conv:[1, 3] - 0.1*tv", "snapshots": [2]},
        {"objective": fv.FeatureMatch("conv", np.ones((1, *TOY_SIZE, 6))), "transform": "none"},
        {"init": np.random.default_rng(0).uniform(size=(*TOY_SIZE, 3)).astype(np.float32)},
        {"parameterization": fv.Pixels(TOY_SIZE, sd=0.2), "transform": "Jitter(2)"},
    ],
    ids=lambda options: ",".join(options) or "plain",
)
def test_replay_from_the_file_is_the_same_to_the_bit(toy, tmp_path, options):
    result = run(toy, **options)
    path = result.save(tmp_path / "picture")
    for source in (path, path.with_suffix(".json"), result.manifest):
        again = replayed(source, toy)
        np.testing.assert_array_equal(again.images, result.images)
        np.testing.assert_array_equal(again.scores, result.scores)
    assert again.save(tmp_path / "again.png").read_bytes() == path.read_bytes()


def test_replay_of_a_continued_run(toy, one, tmp_path):
    continued = run(toy, init=one.params)
    np.testing.assert_array_equal(replayed(continued.manifest, toy).images, continued.images)


@pytest.mark.thorough
def test_replay_of_one_image_of_a_batch(toy, three):
    again = replayed(three[1].manifest, toy)
    assert len(again) == 1
    np.testing.assert_array_equal(again.images, three.images[1:2])
    assert again.manifest == three[1].manifest


@pytest.mark.thorough
def test_replay_of_a_plateau_takes_as_many_steps(toy):
    result = run(toy, steps=200, patience=5, optimizer="sgd(1e-9)")
    assert result.stopped == ("plateau",)
    np.testing.assert_array_equal(replayed(result.manifest, toy).images, result.images)


def test_replay_says_when_versions_differ(toy, one):
    old = changed(one, versions={**format.last_run(one.manifest)["versions"], "jax": "0.1"})
    with pytest.warns(fv.VersionWarning, match=r"jax: 0\.1 then"):
        again = replayed(old, toy)
    np.testing.assert_array_equal(again.images, one.images)


@pytest.mark.thorough
def test_an_optimizer_without_text_must_be_given_again(toy):
    optimizer = optax.sgd(0.1)
    result = run(toy, optimizer=optimizer)
    with pytest.raises(fv.InputError, match="pass optimizer="):
        replayed(result.manifest, toy)
    again = replayed(result.manifest, toy, optimizer=optimizer)
    np.testing.assert_array_equal(again.images, result.images)


def test_an_optimizer_that_is_in_the_manifest_is_not_given_again(toy, one):
    with pytest.raises(fv.InputError, match="the manifest has its optimizer"):
        replayed(one.manifest, toy, optimizer=optax.sgd(0.1))


@pytest.mark.thorough
def test_numbers_of_numpy_are_plain_in_the_manifest(toy):
    four = np.int64(4)
    result = run(toy, steps=four, draws=four, patience=four, batch=np.int64(1), seed=four)
    assert json.loads(json.dumps(result.manifest)) == result.manifest


def test_other_weights_are_refused(toy, one):
    named = format.last_run(one.manifest)["model"]
    other = changed(one, model={**named, "digest": "f" * 64})
    with pytest.raises(fv.InputError, match="made with toy of the digest ffffffffffff"):
        replayed(other, toy)
    with pytest.raises(fv.UnknownModel):
        fv.replay(one.manifest, progress=False)


def chunk(kind, body):
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


PNG = b"\x89PNG\r\n\x1a\n"
BOMB = b"featvis\0\1\0\0\0" + zlib.compress(bytes(20 * 2**20), 9)
#: Lists of 12 MB in a few kB, as if they were a manifest.
LISTS = b"featvis\0\1\0\0\0" + zlib.compress(
    b'{"format": 3, "runs": [' + b"[]," * (4 * 2**20) + b"0]}", 9
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no featvis manifest"),
        (b"\xff\xfe", "holds no featvis manifest"),
        (b"[1, 2]", "holds no featvis manifest"),
        (b'{"runs": [{}]}', "holds no featvis manifest"),
        (b'{"runs": [{}], "format": 99}', "format 99"),
        (b'{"objective": "conv:1", "format": 2}', "format 2; expected 3"),
        (b'{"runs": [{}], "format": 3.0}', "damaged: format is 3, not 3.0"),
        (b'{"runs": [{}], "format": 3}', "damaged: it lacks model"),
        (b'{"runs": [], "format": 3}', "damaged: runs is a list of runs, not []"),
        (b'{"format": 3}', "damaged: runs is a list of runs, not None"),
        (b'{"format": 3, "runs": [NaN]}', "NaN is no finite number"),
        (b'{"format": 3, "runs": [1e999]}', "1e999 is no finite number"),
        (b'{"format": 3, "runs": [' + b"9" * 5000 + b"]}", "holds no featvis manifest"),
        (b'{"format": 3, "runs": ' + b"[" * 10**5, "nested too deeply"),
        (b'{"format": 3, "runs": [' + b"0," * 10**6, "too many parts"),
        (b'{"format": 3, "runs": "' + b"\\\\" * (2**22 - 50), "too many parts"),
        (b" " * (2**23 + 1), "larger than"),
        (PNG, "without a featvis manifest"),
        (PNG + b"\0\0\xff\xffiTXtfeatvis\0", "checksum"),
        (PNG + chunk(b"iTXt", b"featvis\0\1\0\0\0garbage"), "damaged"),
        (PNG + chunk(b"iTXt", b"featvis\0"), "damaged"),
        (PNG + chunk(b"iTXt", BOMB), "larger than"),
        (PNG + chunk(b"iTXt", LISTS), "larger than"),
        (PNG + chunk(b"iTXt", b"featvis\0\0\0\0\0" + bytes(2**20)), "larger than"),
    ],
    ids=lambda value: str(value[:40]),
)
def test_a_file_that_is_no_manifest_is_an_input_error(toy, tmp_path, content, message):
    path = tmp_path / "file.png"
    path.write_bytes(content)
    with pytest.raises(fv.InputError, match=re.escape(message)) as caught:
        replayed(path, toy)
    assert str(caught.value).isprintable()


HUGE = (True, -1, 0.5, 10**9, 2**63, 10**400, 1e300, float("nan"), "1", None, [], {}, [[]])


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "__import__('os').system('x')"},
        {"objective": "-" * 10**5 + "conv:1"},
        {"objective": "conv:1" + ".on([0])" * 10**4},
        {"objective": " + ".join(["conv:1"] * 10**5)},
        {"objective": r"'\'" * 10**4},
        {"objective": "conv:99999999999999"},
        {"optimizer": "adam(open('x'))"},
        {"optimizer": "lbfgs(1, 10**9)"},
        {"optimizer": "scale_by_lbfgs(100000000)"},
        {"parameterization": "os.system('x')"},
        {"parameterization": "Fourier(size=(100000, 100000))"},
        {"parameterization": "Fourier(size=(9223372036854775807, 1))"},
        {"parameterization": "Pixels(size=(12, 16), channels=1000000000)"},
        {"parameterization": "Pyramid(size=(12, 16), levels=100000000)"},
        {"parameterization": "CPPN(size=(12, 16), layers=100000000)"},
        {"parameterization": "CPPN(size=(12, 16), hidden=100000000)"},
        {"transform": "exec('x')"},
        {"transform": "Pad(1000000000)"},
        {"transform": "Pad(100000)"},
        {"transform": "RandomCrop((1000000000, 1000000000))"},
        {"transform": "Blur(1.0, 1000000000)"},
        {"transform": "Jitter(1000000000)"},
        {"model": None},
        {"targets": {"a": {"values": "0" * 64}}},
        {"init": {"image": {"shape": [1], "float32": "!"}}},
        {"init": {"image": "0" * 64}},
        {"init": {"params": {"a": 1}}},
        {"init": {"params": {"a": "0" * 64}}},
        {"init": 3},
        {"versions": {"jax": 3}},
        {"member": 1},
        {"more": 1},
        *({"seed": value} for value in HUGE if value != 10**9),
        *(
            {name: value}
            for name in ("batch", "steps", "draws", "patience", "snapshots")
            for value in HUGE
            if (name, value) not in [("patience", None), ("patience", 10**9), ("snapshots", [])]
        ),
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_changed_manifest_is_an_error_of_ours(toy, one, change):
    with pytest.raises((fv.FeatvisError, fv.ObjectiveError)) as caught:
        replayed(changed(one, **change), toy)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [{"member": 9}, {"member": True}, {"arrays": 3}, {"shared": "../x"}, {"x": 1}],
    ids=str,
)
def test_a_manifest_of_another_outline_is_an_input_error(toy, one, change):
    with pytest.raises(fv.InputError, match="damaged"):
        replayed({**one.manifest, **change}, toy)


@pytest.mark.parametrize(
    "key", ["model", "objective", "targets", "seed", "steps", "draws", "batch", "optimizer"]
)
def test_a_manifest_that_lacks_something_is_an_input_error(toy, one, key):
    (run,) = one.manifest["runs"]
    left = {name: value for name, value in run.items() if name != key}
    with pytest.raises(fv.InputError, match=f"the manifest is damaged: it lacks {key}"):
        replayed({**one.manifest, "runs": [left]}, toy)


def test_a_missing_file_is_an_input_error(toy, tmp_path):
    with pytest.raises(fv.InputError, match="cannot read"):
        replayed(tmp_path / "none.png", toy)


# ---- files ---------------------------------------------------------------------------------


def test_png_holds_the_picture_and_the_manifest(one, tmp_path):
    path = one.save(tmp_path / "a.png")
    with Image.open(path) as picture:
        levels = np.asarray(picture)
    np.testing.assert_array_equal(levels, np.round(one.images[0] * 255).astype(np.uint8))
    assert reading.read_manifest(path) == json.loads(json.dumps(dict(one.manifest)))
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside["result"]["clean_score"] == one.clean_scores.tolist()
    assert beside["runs"][0]["versions"]["jax"]


def test_an_existing_file_is_kept_unless_forced(one, tmp_path):
    first = one.save(tmp_path / "a.png")
    before = first.read_bytes()
    with pytest.warns(fv.NameTakenWarning, match=r"a\.png was there already .*a-1\.png$"):
        second = one.save(tmp_path / "a.png")
    assert second.name == "a-1.png"
    (tmp_path / "b.json").write_text("mine")
    with pytest.warns(fv.NameTakenWarning, match=r"b-1\.png$"):
        assert one.save(tmp_path / "b.png").name == "b-1.png"
    assert (tmp_path / "b.json").read_text() == "mine"
    first.write_bytes(b"old")
    assert one.save(tmp_path / "a.png", force=True) == first
    assert first.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_folder_is_made_and_the_picture_named_after_its_unit(one, tmp_path):
    made = one.save(f"{tmp_path}/made/of.it/")
    assert made.parent == tmp_path / "made" / "of.it"
    assert made.stem.startswith("toy_")
    assert one.save(tmp_path / "made", force=True).parent == tmp_path / "made"
    film = one.save_animation(f"{tmp_path}/films/")
    assert film == tmp_path / "films" / f"{made.stem}.webp"
    (tmp_path / "file").touch()
    with pytest.raises(fv.OutputError, match=r"cannot make the folder .*file"):
        one.save(f"{tmp_path}/file/")
    with pytest.raises(fv.OutputError, match="cannot make the folder"):
        one.save(f"{tmp_path}/{'a' * 300}/")


def test_a_place_that_cannot_be_written_is_an_output_error(one, tmp_path):
    with pytest.raises(fv.OutputError, match="there is no folder"):
        one.save(tmp_path / "none" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(fv.OutputError, match="it is a folder"):
        one.save(tmp_path / "folder.png")
    with pytest.raises(fv.InputError, match=r"should end in \.png"):
        one.save(tmp_path / "a.jpg")


def test_a_film_has_the_name_that_was_asked_for(one, tmp_path):
    one.save(tmp_path / "unit.png")
    assert one.save_animation(tmp_path / "unit.webp").name == "unit.webp"


def test_a_name_too_long_for_a_file_is_an_output_error(one, tmp_path):
    with pytest.raises(fv.OutputError, match="cannot write"):
        one.save(tmp_path / f"{'a' * 300}.png")


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_snapshots_become_an_animation(three, tmp_path, suffix):
    path = three.save_animation(tmp_path / f"film{suffix}")
    with Image.open(path) as film:
        assert film.n_frames == len(three.snapshots) == 3
        assert film.size == three.grid().size


def test_no_snapshots_no_animation(toy, one, tmp_path):
    with pytest.raises(fv.InputError, match="snapshots=24"):
        run(toy).save_animation(tmp_path / "a.gif")
    with pytest.raises(fv.InputError, match="seconds"):
        one.save_animation(tmp_path / "a.gif", seconds=0)


# ---- pictures ------------------------------------------------------------------------------


def test_grid_places_every_picture(three):
    sheet = np.asarray(three.grid(["a", "b", "a long label that does not fit"]))
    height, width = TOY_SIZE
    first = np.asarray(three.picture(0))
    np.testing.assert_array_equal(sheet[4 : 4 + height, 4 : 4 + width], first)
    second = sheet[4 : 4 + height, 8 + width : 8 + 2 * width]
    np.testing.assert_array_equal(second, np.asarray(three.picture(1)))
    with pytest.raises(fv.InputError, match="3 pictures have 1 labels"):
        three.grid(["a"])


GREY = Image.new("RGB", (160, 20), "grey")


def label(text, width=160):
    """What is drawn of a label under a picture."""
    sheet = np.asarray(pictures.grid([GREY.resize((width, 20))], [text]))
    return sheet[24:-4]


@pytest.mark.parametrize(
    "names",
    [
        ["猫.png", "犬.png", "cat.png"],
        ["a\nb", "ab", r"a\nb", "a b"],
        ["caf\udce9", "caf\xe9", r"caf\xe9", "caf?"],
        ["x" * 254 + "a", "x" * 254 + "b", "x" * 253],
        ["\u202egnp", "gnp", "png"],
        ["e\u0301", "\xe9", "e"],
        ["", " ."],
    ],
    ids=lambda names: ascii(names[0][:9]),
)
def test_two_labels_never_look_the_same(names):
    drawn = [label(name).tobytes() for name in names]
    assert len({*drawn}) == len(names)


def test_a_file_name_is_whole_under_its_picture():
    name = "".join(map(chr, range(33, 127))) * 3
    lines = label(name[:255]).shape[0] // 24
    # 16 pixels high, about 9 wide: nothing is beside the picture, so all of it is below.
    assert 255 * 6 / 160 < lines < 255 * 14 / 160
    assert label(name[:255]).min(axis=(0, 1)).max() < 60


def test_labels_break_between_words_and_words_that_do_not_fit_anywhere():
    line = label("cat").shape[0]
    for text, last in (("logits:285: Egyptian cat", "cat"), ("i " + "W" * 13, "WWW")):
        drawn = label(text)
        assert len(drawn) >= 2 * line
        np.testing.assert_array_equal(drawn[-line:], label(last))


def test_a_label_without_end_costs_nothing():
    assert label("x" * 20_000).shape == label("x" * 255).shape
    assert label("\n" * 20_000, 16).shape[1] == 24
    assert label("").shape[0] > 0


def test_rows_are_as_high_as_their_labels():
    sheet = pictures.grid([GREY] * 4, ["a", "x" * 100, "c", "d"], columns=2)
    high, line = label("x" * 100).shape[0], label("a").shape[0]
    assert high > 2 * line
    assert sheet.height == 4 + 20 + high + 4 + 20 + line + 4


def test_pictures_of_one_channel_are_grey_and_of_other_numbers_panels():
    assert pictures.to_picture(np.full((4, 5, 1), 0.5)).mode == "L"
    image = np.linspace(0, 1, 4 * 5 * 4).reshape(4, 5, 4)
    panels = pictures.to_picture(image)
    assert (panels.mode, panels.size) == ("L", (20, 4))
    for channel in range(4):
        panel = np.asarray(panels)[:, 5 * channel : 5 * channel + 5]
        np.testing.assert_array_equal(panel, np.round(255 * image[..., channel]))


def test_members_are_results_of_one_image(three):
    assert len(three) == 3
    parts = list(three)
    assert [part.manifest["member"] for part in parts] == [0, 1, 2]
    np.testing.assert_array_equal(parts[2].images, three.images[2:])
    assert three[2][0].manifest["member"] == 2
    with pytest.raises(IndexError):
        three[3]


def test_notebook_shows_pictures_and_figures(three):
    page = three.with_evidence(percentile=[1.0, 50.0, 99.5])._repr_html_()
    assert page.count("<img") == 3
    assert "percentile 99.5" in page
    assert f"{three.clean_scores[1]:.4g}" in page
    data = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert data.startswith(PNG)
    assert "conv:[1, 2, 3]" in page
