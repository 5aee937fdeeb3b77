"""The command line on the real network, in small: 32 to 64 pixels, a few steps."""

import hashlib
import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featvis as fv
from featvis import loading
from featvis.cli import app
from featvis.methods import visualizing
from featvis.results import result
from featvis.results.format import last_run
from featvis.results.reading import read_manifest
from featvis.weights.layouts import source_of
from featvis.zoo.architecture import _expected

pytestmark = pytest.mark.usefixtures("quick_to_compile")

#: With the default transform.
WHOLE = ["--size", "32", "--steps", "3", "--quiet"]
SMALL = [*WHOLE, "--transform", "none"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featvis.cli.output.enable_cache", lambda: None)


def call(capsys, *arguments):
    """Exit code, output lines, error text."""
    code = app.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_models_and_layers(capsys):
    code, lines, _ = call(capsys, "models", "--json")
    assert code == 0
    facts = {entry["name"]: entry for entry in map(json.loads, lines)}
    assert facts["efficientnet_lite0"]["available"] is True
    assert facts["resnet18"]["sources"][0].endswith("resnet18-f37072fd.pth")
    code, lines, _ = call(capsys, "models")
    (line,) = [line for line in lines if line.startswith("efficientnet_lite0 ")]
    assert "4.7M" in line
    assert "top-1 75.1%  here" in line
    code, lines, _ = call(capsys, "layers", "efficientnet_lite0", "--size", "64x96", "--json")
    found = {entry["layer"]: entry["shape"] for entry in map(json.loads, lines)}
    assert found["block8"] == [4, 6, 112]
    assert found["logits"] == [1000]
    code, lines, _ = call(capsys, "layers", "efficientnet_lite0")
    assert any("block8:0 to block8:111" in line for line in lines)


@pytest.mark.thorough
def test_render_then_replay_is_the_same_picture(capsys, tmp_path):
    code, lines, errors = call(
        capsys, "render", "efficientnet_lite0", "block2:3", "-o", "a.png", *WHOLE, "--json"
    )
    assert (code, errors) == (0, "")
    (record,) = map(json.loads, lines)
    wanted = {"objective", "image", "score", "clean_score", "seconds", "steps", "seed"}
    assert wanted <= set(record)
    assert record["objective"] == "block2:3"
    assert record["steps"] == 3
    with Image.open(record["image"]) as picture:
        assert picture.size == (32, 32)
    code, lines, _ = call(capsys, "replay", "a.png", "-o", "b.png", "--json", "--quiet")
    again = json.loads(lines[0])
    assert code == 0
    assert again["identical"] is True
    assert again["clean_score"] == record["clean_score"]
    code, lines, _ = call(capsys, "replay", "a.json", "-o", "c.png", "--quiet")
    assert "identical to the original" in lines
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


@pytest.mark.thorough
def test_several_objectives_give_a_picture_each_and_a_labelled_grid(capsys, own, tmp_path):
    options = ["--steps", "3", "--quiet", "--transform", "none"]
    code, lines, _ = call(
        capsys, "render", own, "map:3", "map", "map:4", "-o", "sheet.png", *options, "--json"
    )
    assert code == 0
    records = {r["objective"]: r for r in map(json.loads, lines)}
    assert set(records) == {"map:3", "map", "map:4"}
    assert {os.path.basename(r["image"]) for r in records.values()} == {
        "sheet-map-3.png",
        "sheet-layer-map.png",
        "sheet-map-4.png",
    }
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 2 * 12
    code, _, _ = call(capsys, "render", own, "map:3", "map:4", "-o", "folder/", *options)
    assert code == 0
    assert (tmp_path / "folder" / f"{own.replace(':', '-')}_grid.png").is_file()


@pytest.mark.thorough
def test_evidence_seeds_and_animation(capsys, tmp_path):
    natural = tmp_path / "natural"
    natural.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
            natural / f"{i}.png"
        )
    code, lines, _ = call(
        capsys,
        "render",
        "efficientnet_lite0",
        "block2:3",
        "-o",
        "a.png",
        *SMALL,
        "--evidence",
        "natural",
        "--seeds",
        "2",
        "--animate",
        "a.webp",
        "--json",
    )
    record = json.loads(lines[0])
    assert code == 0
    assert 0 <= record["percentile"] <= 100
    assert record["seed_std"] >= 0
    with Image.open(tmp_path / "a.webp") as film:
        assert film.n_frames > 1
    beside = json.loads((tmp_path / "a.json").read_text())
    assert beside["result"]["evidence"]["percentile"] == [record["percentile"]]
    assert not (tmp_path / "a-1.png").exists()


@pytest.mark.thorough
def test_replay_onto_the_original_compares_with_what_was_there(capsys, tmp_path):
    call(capsys, *RENDER, "block2:3", "-o", "a.png", *SMALL)
    red = Image.new("RGB", (32, 32), "red")
    red.save(tmp_path / "red.png")
    manifest = (tmp_path / "a.json").read_bytes()
    (tmp_path / "red.json").write_bytes(manifest)
    code, lines, _ = call(capsys, "replay", "red.json", "-o", "red.png", "--force", "--json")
    assert json.loads(lines[0])["identical"] is False
    assert code == 1
    _, lines, _ = call(capsys, "replay", "a.png", "-o", "a.png", "--force", "--json")
    assert json.loads(lines[0])["identical"] is True


@pytest.mark.thorough
def test_a_nan_in_one_objective_costs_the_others_nothing(capsys, driven, tmp_path):
    code, lines, errors = call(
        capsys, "render", *driven, "map:3", "3e38*layer('large')", "-o", "all/",
        "--transform", "none", "--json",
    )  # fmt: skip
    assert code == 2
    assert "NaN or infinity at step 0" in errors
    assert len(lines) == 2
    good, bad = map(json.loads, lines)
    assert good["stopped"] == "steps"
    assert bad["stopped"] == "non-finite"
    with Image.open(good["image"]) as picture:
        assert picture.size == (12, 8)


@pytest.mark.thorough
def test_names_that_would_collide_are_told_apart(capsys, tmp_path):
    code, lines, _ = call(
        capsys, *RENDER, "block2:3", "block2:3", "block2:[3, 1]", "-o", "all/", *SMALL, "--json"
    )
    assert code == 0
    assert len({json.loads(line)["image"] for line in lines}) == 3


TAKEN = pytest.mark.filterwarnings("always::featvis.NameTakenWarning")


@TAKEN
def test_an_existing_file_is_kept(capsys, tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    render = [*RENDER, "block2:3", "-o", "a.png", *SMALL, "--json"]
    _, lines, errors = call(capsys, *render)
    assert json.loads(lines[0])["image"] == "a-1.png"
    assert errors == "warning: a.png was there already and is kept; this one is a-1.png\n"
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    _, lines, errors = call(capsys, *render, "--force")
    assert json.loads(lines[0])["image"] == "a.png"
    assert not errors


@pytest.mark.thorough
def test_a_folder_is_one_in_every_command(capsys, own, driven):
    quick = ["--steps", "1", "--transform", "none", "--quiet", "--json"]
    driven = driven[:3]
    for number, arguments in enumerate(
        [
            ["render", own, "map:1", "--animate", "films/"],
            ["invert", "map", "a.png", *driven],
            ["class-model", "dog", *driven, "--animate", "films/"],
            ["accentuate", "map:1", "a.png", "--layer", "map", *driven],
        ]
    ):
        code, lines, errors = call(capsys, *arguments, *quick, "-o", "made/of.it/")
        assert (code, errors) == (0, "")
        image = json.loads(lines[0])["image"]
        assert os.path.dirname(image) == "made/of.it"
        made = [name for name in os.listdir("made/of.it") if name.endswith(".png")]
        assert len(made) == number + 1
        model = arguments[1:2] if number == 0 else driven[1:2]
        again = ["replay", image, "--model", *model, "--quiet", "--json", "-o", f"again/{number}/"]
        _, lines, _ = call(capsys, *again)
        stem = os.path.basename(image).removesuffix(".png")
        assert json.loads(lines[0])["image"] == f"again/{number}/{stem}-replay.png"
    films = sorted(name.rpartition("_")[2] for name in os.listdir("films"))
    assert films == ["class-dog.webp", "map-1.webp"]


RENDER = ["render", "efficientnet_lite0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "efficientnet", "block8:3"], "nearest: efficientnet_lite"),
        ([*RENDER, "blck8:3"], "nearest: block8"),
        ([*RENDER, "block8:112"], "block8 has units 0 to 111"),
        ([*RENDER, "block8:3@14,0"], "14 high and 14 wide"),
        ([*RENDER, "block8:3 -"], "malformed objective"),
        ([*RENDER, "block8:3 - 0.1*tvv(2)"], "nearest"),
        ([*RENDER, "block8:3", "--size", "16"], "at least 32x32"),
        ([*RENDER, "block8:3", "--size", "big"], "--size must be HEIGHTxWIDTH"),
        ([*RENDER, "block8:3", "--steps", "-3"], "steps must be an integer of at least 1; got -3"),
        ([*RENDER, "block8:3", "--seed", "-3"], "seed must be"),
        ([*RENDER, "block8:3", "--seed", str(2**63)], "seed must be"),
        ([*RENDER, "block8:3", "--batch", "-1"], "batch must be"),
        ([*RENDER, "block8:3", "blck8:3", "-o", "newfolder"], "nearest: block8"),
        ([*RENDER, "tv", "--evidence", "."], "nothing to compare"),
        ([*RENDER, "block8:3", "--param", "furier"], "nearest: fourier"),
        ([*RENDER, "block8:3", "--transform", "standrd"], "nearest: standard"),
        ([*RENDER, "block8:3", "--optimizer", "adm(1)"], "nearest: adam"),
        ([*RENDER, "block8:3", "--evidence", "nowhere"], "there is no folder nowhere"),
        ([*RENDER, "block8:3", "--seeds", "1"], "--seeds must be 2 or more"),
        ([*RENDER, "block8:3", "-o", "no/such/a.png"], "there is no folder no/such"),
        ([*RENDER, "block8:3", "-o", "a.jpg"], "should end in .png"),
        ([*RENDER, "block8:3", "--animate", "a.mp4"], "should end in .webp or .gif"),
        (["layers", "efficientnet_lite0", "--size", "8"], "at least 32x32"),
        (["replay", "none.png"], "cannot read none.png"),
    ],
)
def test_a_mistake_is_one_clear_error_and_exit_code_2(capsys, tmp_path, arguments, message):
    code, lines, errors = call(capsys, *arguments)
    assert code == 2
    assert not lines
    assert errors.startswith("error: ")
    assert message in errors
    assert "Traceback" not in errors
    # One line, or three where the place is marked.
    assert len(errors.splitlines()) in (1, 3)
    assert not list(tmp_path.iterdir())


def test_usage_mistakes_exit_with_2_too(capsys):
    for arguments in (["render"], ["rendr"], [*RENDER, "block8:3", "--steps", "many"]):
        code, _, errors = call(capsys, *arguments)
        assert code == 2
        assert "Traceback" not in errors


def test_of_an_option_given_twice_none_is_lost(capsys):
    twice = ["sample", "mnist_ppgn", "--class", "7", "--class", "8", "--quiet", "--quiet"]
    code, lines, errors = call(capsys, *twice)
    assert (code, lines) == (2, [])
    assert "--class is given 2 times; it takes one value" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sample", "mnist_ppgn", "--class", "7,"), "--class takes .* got '7,'; did you mean 7?"),
        (("sample", "mnist_ppgn", "--class", "1,,2"), "got '1,,2'; did you mean 1,2?"),
        (("sample", "mnist_ppgn", "--class", " ,3+5"), "did you mean 3+5?"),
        (("sample", "mnist_ppgn", "--class", ","), "with commas between; got ','\n"),
        (("atlas", "export", "a", "b", "--invariances", "c,"), "--invariances takes one or sev"),
    ],
)
def test_of_a_list_with_commas_nothing_is_lost(capsys, words, message):
    code, lines, errors = call(capsys, *words)
    assert (code, lines) == (2, [])
    assert all(part in errors for part in message.split(" .* "))


def test_a_write_that_fails_after_all_goes_to_a_spare_place(capsys, tmp_path, monkeypatch):
    wrote = result.write_file

    def failing(path, content, **options):
        if path.parent.name != "spare" and not str(path).startswith(str(tmp_path / "spare")):
            raise fv.OutputError(f"cannot write {path}: No space left on device")
        return wrote(path, content, **options)

    (tmp_path / "spare").mkdir()
    monkeypatch.setattr(result, "write_file", failing)
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(tmp_path / "spare"))
    code, lines, errors = call(capsys, *RENDER, "block2:3", "-o", "a.png", *SMALL, "--json")
    assert code == 0
    assert "No space left" in errors
    assert (tmp_path / "spare" / "a.png").is_file()
    assert json.loads(lines[0])["image"] == str(tmp_path / "spare" / "a.png")


OWN = """
import numpy as np
import featvis as fv
from featvis import loading

def apply(params, image):
    kernel = params["kernel"]
    tokens = image.reshape(len(image), -1, 3) @ kernel
    return {"map": image @ kernel, "tokens": tokens, "logits": tokens.mean(1)}

def factory(weights=None):
    seed = 0 if weights is None else int(np.load(weights)["seed"])
    kernel = np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32)
    return fv.from_function(apply, {"kernel": kernel}, input=fv.Input(size=(8, 12)))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A network of one's own in the folder that one is in, under a new name for each test."""
    place = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{place}.py").write_text(OWN)
    np.savez(tmp_path / "weights.npz", seed=3)
    return f"{place}:factory"


def test_layers_say_how_their_units_are_written(capsys, own):
    code, lines, errors = call(capsys, "layers", "--model", own, "--json")
    assert (code, errors) == (0, "")
    assert [json.loads(line) for line in lines] == [
        {
            "layer": "map", "shape": [8, 12, 5], "kind": "map",
            "units": "map:0 to map:4", "neurons": "map:0@0,0 to map:4@7,11",
        },
        {
            "layer": "tokens", "shape": [96, 5], "kind": "tokens",
            "units": "tokens:0 to tokens:4", "neurons": "tokens:0@0 to tokens:4@95",
        },
        {"layer": "logits", "shape": [5], "kind": "vector", "units": "logits:0 to logits:4"},
    ]  # fmt: skip
    code, lines, _ = call(capsys, "layers", own, "--size", "4x6")
    assert lines[1].split() == [
        "tokens", "tokens", "24x5", "tokens:0", "to", "tokens:4,", "tokens:0@0", "to",
        "tokens:4@23",
    ]  # fmt: skip
    # Weights are not needed to know the layers.
    code, lines, _ = call(capsys, "layers", "vgg16")
    assert any(line.startswith("relu5_3 ") for line in lines)


@pytest.mark.thorough
def test_render_and_replay_of_ones_own_network(capsys, own):
    options = ["--steps", "2", "--quiet", "--transform", "none", "--json"]
    code, lines, errors = call(capsys, "render", "--model", own, "tokens:1@5", *options)
    assert (code, errors) == (0, "")
    first = json.loads(lines[0])
    assert first["model"] == own
    name = own.replace(":", "-")
    assert first["image"] == f"{name}_tokens-1-5.png"
    # The same with the place as the model's name, and other weights.
    code, lines, _ = call(
        capsys, "render", own, "map:1", "map:2", "--weights", "weights.npz", *options
    )
    assert [json.loads(line)["image"] for line in lines] == [f"{name}_map-{i}.png" for i in (1, 2)]
    code, _, errors = call(capsys, "replay", first["image"])
    assert code == 2
    assert f"--model {own}" in errors
    code, lines, _ = call(capsys, "replay", first["image"], "--model", own, "--json", "--quiet")
    assert json.loads(lines[0])["identical"] is True
    code, _, errors = call(capsys, "replay", f"{name}_map-1.png", "--model", own, "--quiet")
    assert code == 2
    assert "weights weights.npz); this one has" in errors
    code, lines, _ = call(
        capsys, "replay", f"{name}_map-1.png", "--model", own, "--weights", "weights.npz",
        "--json", "--quiet",
    )  # fmt: skip
    assert json.loads(lines[0])["identical"] is True


@pytest.mark.thorough
def test_a_zoo_network_from_a_file_of_weights(capsys, tmp_path):
    entry = loading.entry("darknet_tiny")
    (layout,) = entry.layouts
    rng = np.random.default_rng(0)
    tensors = {}
    for path, shape in _expected(entry.architecture(), layout).items():
        source, _ = source_of(path, layout.rules)
        tensors[source] = rng.uniform(0.01, 0.1, shape).astype(np.float32)
    averaged = {f"ema.{name}": 2 * array for name, array in tensors.items()}
    np.savez(tmp_path / "tiny.npz", **{f"model.{k}": a for k, a in tensors.items()}, **averaged)
    arguments = ["render", "darknet_tiny", "conv3:1", "--weights", "tiny.npz#ema", "--size", "32"]
    arguments += ["--steps", "2", "--transform", "none"]
    code, lines, errors = call(capsys, *arguments, "--quiet", "--json")
    assert (code, errors) == (0, "")
    record = json.loads(lines[0])
    manifest = last_run(read_manifest(record["image"]))
    assert manifest["model"]["origin"] == "file tiny.npz#ema"
    digest = hashlib.sha256((tmp_path / "tiny.npz").read_bytes()).hexdigest()
    assert manifest["model"]["digest"] == f"{digest}#ema"
    again = ["replay", record["image"], "--json", "--quiet", "--weights"]
    code, lines, _ = call(capsys, *again, "tiny.npz#ema")
    assert json.loads(lines[0])["identical"] is True
    code, _, errors = call(capsys, *again, "tiny.npz", "--force")
    assert code == 2
    assert "(file tiny.npz#ema); this one has" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render"], "render takes MODEL OBJECTIVE..."),
        (["layers"], "layers takes MODEL, as in: featvis layers efficientnet_lite0; got nothing"),
        (["render", "efficientnet_lite0"], "block8:3; got efficientnet_lite0"),
        (["render", "block8:3"], "render takes MODEL OBJECTIVE..., as in"),
        (["layers", "resnet18", "--model", "resnet50"], "takes nothing beside --model"),
        (["layers", "--model", "resnet81"], "nearest: resnet18"),
        (["layers", "--model", "no.such.place:factory"], "cannot import no.such.place"),
        (["fetch", "resnet81"], "nearest: resnet18"),
        (["render", "resnet18", "conv1:0", "--weights", "none.pth"], "none.pth: cannot be read"),
        (["render", "resnet18", "conv1:0", "--weights", "own.txt"], "own.txt: no file of weights"),
        (["render", "resnet18", "conv1:0", "--weights", "hf://timm"], "hf://"),
        (
            ["layers", "resnet18", "--weights", "/dev/zero"],
            "/dev/zero: cannot be read: it is a dev",
        ),
        (["layers", "resnet18", "--weights", "."], ".: cannot be read: it is a folder"),
        (["layers", "resnet18", "--weights", "pipe.pth"], "pipe.pth: cannot be read: it is a pipe"),
        (["layers", "resnet18", "--weights", "empty.npz"], "empty.npz: cannot be read: it is emp"),
        (["layers", "resnet18", "--weights", "own.txt#ema"], "own.txt: no file of weights"),
        (["layers", "resnet18", "--weights", "x\0.pth"], "embedded null"),
    ],
)
def test_mistakes_about_networks_are_one_line(capsys, arguments, message, tmp_path):
    (tmp_path / "own.txt").write_text("no weights")
    (tmp_path / "empty.npz").touch()
    os.mkfifo(tmp_path / "pipe.pth")
    code, _, errors = call(capsys, *arguments)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_fetch_of_what_is_here(capsys):
    code, lines, errors = call(capsys, "fetch", "efficientnet_lite0", "--json")
    assert (code, errors) == (0, "")
    assert json.loads(lines[0])["weights"].endswith("efficientnet-lite0-57934424.pth")


DRIVEN = """
import jax.numpy as jnp
import numpy as np
import featvis as fv
from featvis import loading

LABELS = ["tiger cat", "tabby cat", "dog", "fox", "crab"]

def apply(params, image):
    seen = jnp.tanh((image - 0.5) @ params["kernel"])
    return {
        "map": seen, "large": 1000 * seen, "logits": seen.mean((1, 2)), "levels": jnp.round(seen)
    }

def factory(weights=None):
    kernel = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    given = fv.Input(size=(8, 12), min_size=4)
    return fv.from_function(apply, {"kernel": kernel}, input=given, labels=LABELS)
"""


@pytest.fixture
def driven(tmp_path):
    """The options of a network of one's own with classes; pictures a.png and b.png are beside."""
    place = f"driven_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{place}.py").write_text(DRIVEN)
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        picture = rng.integers(64, 192, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    return ["--model", f"{place}:factory", "--quiet", "--steps", "3"]


NAMES = [
    "猫.png", "犬.png", "a:b.png", "a-b.png", "A-B.png", "caf\udce9.png", "x\n\x1b[2J.png",
    "e\u0301.png", "\xe9.png", f"{'y' * 250}1.png", f"{'y' * 250}2.png",
]  # fmt: skip


@pytest.mark.thorough
@TAKEN
def test_pictures_of_any_name_have_results_of_their_own(capsys, driven, tmp_path):
    (tmp_path / "in").mkdir()
    names = [os.path.join("in", name) for name in NAMES]
    for name in names:
        shutil.copy("a.png", name)
    command = ["invert", "map", *names, *driven, "--transform", "none", "-o", "out/"]
    code, lines, errors = call(capsys, *command, "--json", "--animate", "out.gif")
    assert (code, errors) == (0, "")
    records = [json.loads(line) for line in lines]
    assert [record["objective"] for record in records] == [f"invert map {name}" for name in names]
    written = [Path(record["image"]) for record in records]
    assert len({unicodedata.normalize("NFC", str(path)).casefold() for path in written}) == 11
    for name, path in zip(NAMES[:9], written, strict=False):
        assert Path(name).stem in path.stem
    for path in written:
        assert read_manifest(path) == read_manifest(path.with_suffix(".json"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    # A second command into the same folder keeps all of the first, and says what it wrote.
    code, lines, errors = call(capsys, *command, "--animate", "out.gif")
    assert code == 0
    assert len(errors.splitlines()) == 11 + 2
    assert all(" was there already and is kept" in line for line in errors.splitlines())
    assert all(line.isprintable() for line in [*lines, *errors.splitlines()])
    again = set((tmp_path / "out").iterdir()) - set(before)
    assert len(again) == 2 * 11 + 1
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (tmp_path / "out-1.gif").is_file()
    assert lines[-1].endswith("_grid-1.png")


@pytest.mark.thorough
@TAKEN
@pytest.mark.filterwarnings("always::featvis.SilenceWarning")
def test_a_silent_unit_exits_with_3_and_its_picture_is_written(capsys, driven, tmp_path):
    arguments = ["render", "map:1", "levels:1", *driven, "-o", "two/"]
    code, lines, errors = call(capsys, *arguments)
    assert code == 3
    assert "levels:1 gives no gradient: rounding (round)" in errors
    assert [", no gradient, " in line for line in lines[:2]] == [False, True]
    code, lines, _ = call(capsys, *arguments, "--json")
    records = [json.loads(line) for line in lines]
    assert code == 3
    assert records[0]["silent"] is None
    assert records[1]["silent"].startswith("rounding (round) gives no gradient")
    assert all((tmp_path / record["image"]).is_file() for record in records)
    code, lines, _ = call(
        capsys, "accentuate", "levels:1", "a.png", "--layer", "map", *driven, "-o", "c.png"
    )
    assert (code, len(lines), "no gradient" in lines[0]) == (3, 1, True)
    assert (tmp_path / "c.png").is_file()
    code, _, _ = call(capsys, "replay", "c.png", *driven[:2])
    assert code == 3
    assert "3 pictures were written" in " ".join(call(capsys, "--help")[1]).replace("  ", " ")


@pytest.mark.thorough
def test_invert_gives_a_picture_for_each_and_a_grid(capsys, driven, tmp_path):
    arguments = ["invert", "map", "a.png", "b.png", *driven, "-o", "inverse.png"]
    code, lines, errors = call(capsys, *arguments, "--json", "--animate", "way.webp")
    assert (code, errors) == (0, "")
    records = [json.loads(line) for line in lines]
    assert [record["image"] for record in records] == [
        "inverse-invert-map-a.png", "inverse-invert-map-b.png"
    ]  # fmt: skip
    for record, name in zip(records, ("a.png", "b.png"), strict=True):
        assert record["objective"] == f"invert map {name}"
        assert record["steps"] == 3
        assert record["stopped"] == "steps"
        assert {"relative_error", "psnr", "spearman", "same_class"} <= set(record)
        assert 0 < record["relative_error"] < 2
        with Image.open(record["image"]) as picture:
            assert picture.size == (12, 8)
    with Image.open(tmp_path / "inverse.png") as sheet:
        assert sheet.size[0] > 24
    with Image.open(tmp_path / "way.webp") as film:
        assert film.n_frames > 1
    # The same without --json: a line a picture, and one for the grid.
    code, lines, _ = call(capsys, *arguments, "--force")
    assert code == 0
    assert lines[0].startswith("invert map a.png  clean score ")
    assert "relative error" in lines[0]
    assert lines[-1] == "grid  inverse.png"
    # One of the two again, from what is in its picture.
    code, lines, _ = call(
        capsys, "replay", records[1]["image"], *driven[:2], "-o", "again.png", "--quiet"
    )
    assert code == 0
    assert "identical to the original" in lines


@pytest.mark.thorough
def test_stages_of_a_preset_replay_from_their_picture(capsys, driven):
    code, lines, errors = call(
        capsys, "invert", "map", "a.png", *driven, "--preset", "ijcv2016", "--animate", "a.gif",
        "-o", "first.png", "--json",
    )  # fmt: skip
    assert (code, errors) == (0, "")
    first = json.loads(lines[0])
    code, lines, _ = call(capsys, "replay", "first.png", *driven[:2], "--json", "--quiet")
    again = json.loads(lines[0])
    assert again["identical"] is True
    assert again["clean_score"] == first["clean_score"]


@pytest.mark.thorough
def test_parts_of_a_run_have_the_size_of_the_picture(capsys, driven):
    code, lines, errors = call(
        capsys, "invert", "map", "a.png", *driven, "--preset", "metamer", "--size", "6x7",
        "--param", "pixels", "--transform", "Roll(1)", "--draws", "2", "--optimizer", "adam(0.1)",
        "--patience", "2", "--seed", "4", "-o", "out.png", "--json",
    )  # fmt: skip
    assert (code, errors) == (0, "")
    assert json.loads(lines[0])["seed"] == 4
    manifest = last_run(read_manifest("out.png"))
    assert manifest["parameterization"].startswith("Pixels(size=(6, 7)")
    assert (manifest["transform"], manifest["draws"]) == ("Roll(shift=1)", 2)
    assert (manifest["optimizer"], manifest["patience"]) == ("adam(0.1)", 2)


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")
def test_a_conversion_is_said_once(capsys, driven, tmp_path):
    for name in ("small", "smaller"):
        Image.new("RGB", (5, 5), "teal").save(tmp_path / f"{name}.png")
    code, _, errors = call(
        capsys, "invert", "map", "small.png", "smaller.png", *driven, "--preset", "metamer"
    )
    assert code == 0
    assert errors.splitlines() == [
        "warning: 2 of 2 pictures were converted; the first is small.png: "
        "enlarged from 5x5 to cover 8x12"
    ]


@pytest.mark.thorough
def test_caricature_and_accentuate(capsys, driven):
    code, lines, errors = call(
        capsys, "caricature", "map", "a.png", *driven, "--transform", "none", "--strength", "2",
        "--json",
    )  # fmt: skip
    assert (code, errors) == (0, "")
    record = json.loads(lines[0])
    assert record["objective"] == "caricature map a.png"
    assert record["image"].endswith("_caricature-map-a.png")
    assert record["agreement"] == pytest.approx(record["projection"] * record["cosine"], rel=1e-5)
    # After the weight of the preset, which strength multiplies.
    assert last_run(read_manifest(record["image"]))["objective"].startswith("2.0*caricature(")
    code, lines, errors = call(
        capsys, "accentuate", "logits:1", "a.png", *driven, "--layer", "map", "--keep", "0.5",
        "--transform", "Roll(1)", "--draws", "2", "--json",
    )  # fmt: skip
    assert (code, errors) == (0, "")
    record = json.loads(lines[0])
    assert record["image"].endswith("_accentuate-logits-1-a.png")
    assert record["clean_score"] > record["original_score"]
    assert {"distance", "psnr", "same_class"} <= set(record)


@pytest.mark.thorough
def test_class_models_by_number_and_by_name(capsys, driven):
    quick = ["--preset", "simonyan2013", "--of", "probability", "--json"]
    code, lines, errors = call(
        capsys, "class-model", "2", "tabby cat", *driven, *quick, "-o", "classes/"
    )
    assert (code, errors) == (0, "")
    records = [json.loads(line) for line in lines]
    assert [record["objective"] for record in records] == ["class 2", "class tabby cat"]
    for record in records:
        assert 0 < record["probability"] < 1
        assert 1 <= record["rank"] <= 5
        assert os.path.exists(record["image"])
    first, second = (read_manifest(record["image"]) for record in records)
    assert last_run(first)["objective"].startswith("1.0*probability([2, 1]) ")
    assert (first.get("member", 0), second["member"]) == (0, 1)
    assert os.path.basename(records[1]["image"]).endswith("_class-tabby-cat.png")


@pytest.mark.thorough
def test_a_nan_of_a_driver_keeps_what_there_was(capsys, driven):
    code, lines, errors = call(
        capsys, "accentuate", "3e38*layer('large')", "a.png", *driven, "--layer", "map",
        "--transform", "Roll(1)", "--draws", "2", "--animate", "a.webp", "-o", "out.png", "--json",
    )  # fmt: skip
    assert code == 2
    assert "a.png: NaN or infinity at step 0" in errors
    assert json.loads(lines[0])["stopped"] == "non-finite"
    assert os.path.exists("out.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["invert", "map", "none.png"], "there is no file none.png"),
        (["invert", "map", "bad.png"], "bad.png is not a picture that can be read"),
        (["invert", "mop", "a.png"], "unknown layer 'mop'; nearest: map"),
        (["invert", "map"], "invert takes LAYER IMAGE... beside --model, as in"),
        (["invert"], "got nothing"),
        (["invert", "map", "a.png", "--preset", "plugin"], "nearest: plug_in; known: modern, "),
        (
            ["invert", "map", "a.png", "--steps", "0"],
            "steps must be an integer of at least 1; got 0",
        ),
        (["invert", "map", "a.png", "--size", "2"], "at least 4x4"),
        (["invert", "map", "a.png", "--size", "6x7", "--param", "Pixels((8, 8))"], "(6, 7)"),
        (["invert", "map", "a.png", "--param", "Pixels((6, 7))"], "has the size (6, 7)"),
        (["invert", "map", "a.png", "--param", "furier"], "nearest: fourier"),
        (["invert", "map", "a.png", "--draws", "0"], "draws must be an integer of at least 1"),
        (["invert", "map", "a.png", "-o", "no/such/a.png"], "there is no folder no/such"),
        (["invert", "map", "a.png", "--animate", "a.mp4"], "should end in .webp or .gif"),
        (["caricature", "map", "a.png", "--strength", "-1"], "strength must be a number of at"),
        (["caricature", "map", "a.png", "--preset", "cvpr2015"], "known: modern, ijcv2016"),
        (["class-model"], "class-model takes CLASS..."),
        (["class-model", "cat"], ":factory match 'cat'"),
        (["class-model", "5"], "has classes 0 to 4, not 5"),
        (["class-model", "dog", "--of", "odds"], "of must be one of score, probability"),
        (
            ["accentuate", "logits:1", "a.png"],
            "accentuate takes --layer too, as in",
        ),
        (["accentuate", "logits:1", "a.png", "--layer", "mop"], "nearest: map"),
        (["accentuate", "logits:7", "a.png", "--layer", "map"], "logits has units 0 to 4"),
        (["accentuate", "logits:1", "a.png", "--layer", "map", "--keep", "-1"], "at least 0"),
        (["accentuate", "a.png"], "accentuate takes OBJECTIVE IMAGE..."),
    ],
)
def test_a_mistake_with_a_driver_is_one_clear_error(capsys, driven, tmp_path, arguments, message):
    (tmp_path / "bad.png").write_text("no picture")
    before = set(tmp_path.iterdir())
    beside = driven[:3] if "--steps" in arguments else driven
    code, lines, errors = call(capsys, arguments[0], *beside, *arguments[1:])
    assert (code, lines) == (2, [])
    assert errors.startswith("error: ")
    assert message in errors
    # One line, or three where the place is marked.
    assert len(errors.splitlines()) in (1, 3)
    assert {p for p in tmp_path.iterdir() if p.name != "__pycache__"} == before


FACTORIES = (
    OWN
    + """
def leaves():
    raise SystemExit("no weights\\nhere")

def prints():
    print("made by hand")
    return factory()
"""
)


def test_what_ones_own_factory_does_is_no_end_and_no_line_of_ours(capsys, own, tmp_path):
    place = own.removesuffix(":factory")
    (tmp_path / f"{place}.py").write_text(FACTORIES)
    code, lines, errors = call(capsys, "layers", f"{place}:leaves")
    assert (code, lines) == (2, [])
    assert errors == f"error: {place}:leaves raised SystemExit: no weights here\n"
    code, lines, errors = call(capsys, "layers", f"{place}:prints", "--json")
    assert (code, errors) == (0, "made by hand\n")
    assert [json.loads(line)["layer"] for line in lines] == ["map", "tokens", "logits"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "9" * 5000], "--size is at most 65536 a side; got 999"),
        (["--size", "65537"], "--size is at most 65536 a side; got 65537"),
        (["--size", "60000"], "would fit"),
        (["--batch", "60000", "--size", "1000"], "would fit"),
        (["-o", "a" * 300 + ".png"], "File name too long"),
        (["-o", "a" * 300], "File name too long"),
        (["--evidence", "a" * 300], "there is no folder"),
        (["--optimizer", "adam("], "malformed optimizer"),
        (["--optimizer", "chain(" * 1000 + ")" * 1000], "nested"),
        (["--optimizer", "apply_every(99999999999)"], "cannot take a step"),
    ],
)
def test_no_number_or_name_is_too_long_for_one_line(
    capsys, own, monkeypatch, tmp_path, options, message
):
    monkeypatch.setattr("featvis.limits.available", lambda: 1e9)
    before = set(tmp_path.iterdir())
    code, lines, errors = call(capsys, "render", own, "map:1", *options)
    assert (code, lines) == (2, [])
    assert message in errors
    assert len(errors.splitlines()) in (1, 3)
    assert {p for p in tmp_path.iterdir() if p.name != "__pycache__"} == before


def test_pictures_before_the_memory_ran_out_are_there(capsys, own, monkeypatch):
    real = visualizing.synthesize_many

    def running_out(*args, **options):
        yield next(iter(real(*args, **options)))
        raise fv.TooLargeError("the memory ran out")

    monkeypatch.setattr(visualizing, "synthesize_many", running_out)
    arguments = ["map:1", "tokens:1", "-o", "all", "--steps", "1", "--transform", "none"]
    code, lines, errors = call(capsys, "render", own, *arguments, "--quiet", "--json")
    assert (code, errors) == (2, "error: the memory ran out\n")
    (record,) = map(json.loads, lines)
    assert os.path.exists(record["image"])


def test_no_device_is_one_line(capsys, monkeypatch):
    def none():
        raise RuntimeError("Unable to initialize backend 'cuda': there is\nnone")

    monkeypatch.setattr("jax.devices", none)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    code, _, errors = call(capsys, "layers", "efficientnet_lite0")
    assert code == 2
    assert "no device for JAX_PLATFORMS=cuda" in errors
    assert len(errors.splitlines()) == 1


def test_a_folder_that_was_deleted(capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, errors = call(capsys, "layers", "no_such_package_at_all:factory")
    assert code == 2
    assert errors.startswith("error: cannot import no_such_package_at_all")


@pytest.mark.thorough
def test_layers_that_are_drawn_say_so(capsys, tmp_path, monkeypatch):
    (tmp_path / "noisy_nets.py").write_text(
        "import jax, featvis as fv\n"
        "def apply(params, x, key):\n"
        "    return {'plain': x, 'noisy': x + jax.random.normal(key, x.shape)}\n"
        "def factory():\n"
        "    call = {2: jax.random.key(0)}\n"
        "    return fv.from_function(apply, None, input=fv.Input(size=(8, 8)), call=call)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, lines, _ = call(capsys, "layers", "--model", "noisy_nets:factory")
    assert code == 0
    assert [line.endswith("(drawn at a fixed seed)") for line in lines] == [False, True]
    _, lines, _ = call(capsys, "layers", "--model", "noisy_nets:factory", "--json")
    assert [json.loads(line).get("drawn") for line in lines] == [None, True]
