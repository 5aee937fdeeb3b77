"""`explain`: what all methods have in common, and what it gives."""

import importlib
import json
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import pytest
from compiles import Compiled
from flax import nnx
from matplotlib import colormaps
from networks import TOY_SIZE
from PIL import Image

import featvis as fv
from featvis.attribution import Explained, Probed, method, overlay
from featvis.attribution.options import SET, Named, Range
from featvis.cli import app
from featvis.images import Images
from featvis.own_pictures import is_own

pytestmark = pytest.mark.usefixtures("quick_to_compile")
IMAGES = np.random.default_rng(3).uniform(size=(3, *TOY_SIZE, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_methods(monkeypatch):
    """Methods of one's own are there from where they are defined, and gone after the test."""
    registry = importlib.import_module("featvis.attribution.method")  # beside its function
    registry.methods()  # all files are loaded
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    @method("left_out", black_box=True)
    def left_out(given: Probed, *, grey: float = 0.5, base: Images | None = None):
        """What the score loses where a row is grey."""
        changed = np.repeat(given.image[None], TOY_SIZE[0], axis=0)
        changed[np.arange(TOY_SIZE[0]), np.arange(TOY_SIZE[0])] = grey if base is None else base[0]
        (plain,) = given.score(given.image[None])
        lost = plain - given.score(changed)
        return np.repeat(lost[:, None], TOY_SIZE[1], axis=1), {"plain": plain}

    @method("optional")
    def optional(
        given: Explained,
        *,
        factor: Annotated[float, Range(0, 2)] = 1.0,
        count: Annotated[int, Range(1)] = 2,
        start: Annotated[Images, Named("black", "white")] = "black",
        several: Annotated[Images, SET] | None = None,
        mode: Literal["plain", "other"] = "plain",
        switch: bool = False,
        limited: Annotated[int, Range(1, 9)] = 1,
        unlimited: float = 0.0,
    ):
        """A method with an option of each kind."""
        own = given.gradient(given.images).sum(-1) * factor / count
        if not isinstance(start, str):
            own = own * start[..., 0]
        return own if several is None else own + jnp.mean(several)


# ---- methods of one's own -------------------------------------------------------------------


def test_numbers_are_data_and_all_else_is_a_part_of_the_program(toy):
    fv.explain(toy, "logits:1", IMAGES, "optional", start=IMAGES)
    with Compiled() as compiled:
        found = fv.explain(toy, "logits:2", IMAGES, "optional", start=IMAGES / 2, factor=0.5)
    assert not compiled.names
    assert found.options == {
        "factor": 0.5, "count": 2, "start": found.options["start"], "several": None,
        "mode": "plain", "switch": False, "limited": 1, "unlimited": 0.0,
    }  # fmt: skip
    with Compiled() as compiled:
        fv.explain(toy, "logits:1", IMAGES, "optional", count=3, several=IMAGES[:2])
    assert compiled.count("explained") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factr": 1}, "no option 'factr'; nearest: factor; it has: factor, count, start"),
        ({"factor": "much"}, "factor is a number from 0 to 2, not 'much'"),
        ({"factor": 3.0}, "factor is a number from 0 to 2, not 3.0"),
        ({"factor": np.nan}, "factor is a number from 0 to 2, not nan"),
        ({"count": 1.5}, "count is an integer of at least 1, not 1.5"),
        ({"count": 2**31}, "count is at most 2147483647; got 2147483648"),
        ({"limited": 2**31}, "limited is an integer from 1 to 9, not 2147483648"),
        ({"unlimited": 1e40}, r"unlimited is at most 3\.40.*e\+38; got 1e\+40"),
        ({"count": True}, "count is an integer of at least 1, not True"),
        ({"mode": "others"}, "mode is one of plain, other, not 'others'"),
        ({"switch": 1}, "switch is True or False, not 1"),
        ({"start": "red"}, "start is of black, white .*, not 'red'"),
        ({"start": IMAGES[:, :4]}, r"where the images are \(3, 12, 16, 3\); got \(3, 4, 16, 3\)"),
        ({"start": IMAGES[:2]}, r"got \(2, 12, 16, 3\)"),
        ({"start": IMAGES + 1}, r"start must be in \[0, 1\]"),
        ({"several": 3}, "optional: several"),
    ],
)
def test_an_option_that_will_not_do_is_said(toy, options, said):
    with pytest.raises(fv.InputError, match=said):
        fv.explain(toy, "logits:1", IMAGES, "optional", **options)


def test_an_unknown_method_or_seed_is_said(toy):
    with pytest.raises(fv.InputError, match="unknown method 'salency'; nearest: saliency; known"):
        fv.explain(toy, "logits:1", IMAGES, "salency")
    with pytest.raises(fv.InputError, match=r"unknown method \['saliency'\]"):
        fv.explain(toy, "logits:1", IMAGES, ["saliency"])
    with pytest.raises(fv.InputError, match="saliency has no option 'steps'; it has: none"):
        fv.explain(toy, "logits:1", IMAGES, "saliency", steps=3)
    assert fv.explain(toy, "logits:1", IMAGES, "saliency", seed=np.int64(3)).seed == 3
    for seed in (-1, 2**32, 0.5, None):
        with pytest.raises(fv.InputError, match="seed is an integer from 0 to"):
            fv.explain(toy, "logits:1", IMAGES, "saliency", seed=seed)
    with pytest.raises(fv.InputError, match="unknown method 'GradCAM'; nearest: grad_cam; known"):
        fv.explain(toy, "logits:1", IMAGES, "GradCAM")
    with pytest.raises(fv.InputError, match="faithfulness is True or False, not 'yes'"):
        fv.explain(toy, "logits:1", IMAGES, "saliency", faithfulness="yes")
    with pytest.raises(fv.InputError, match="got 285: the class of this number is 'logits:285'"):
        fv.explain(toy, 285, IMAGES, "saliency")
    with pytest.raises(fv.InputError, match=r"images must be .*; got None"):
        fv.explain(toy, "logits:1", None, "saliency")
    with pytest.raises(fv.InputError, match="model is a Model, its name or a function; got 3"):
        fv.explain(3, "logits:1", IMAGES)

    with pytest.raises(fv.InputError, match=r"featvis\.from_nnx makes one of it"):
        fv.explain(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), "logits:1", IMAGES)

    with pytest.raises(fv.InputError, match="'needed' needs a default"):

        @method("bad")
        def bad(given, *, needed: int):
            """Has an option without a default."""

    with pytest.raises(fv.InputError, match="nothing is known of what"):

        @method("worse")
        def worse(given, *, what: dict | None = None):
            """Has an option of a kind that cannot be checked."""


# ---- scores alone ---------------------------------------------------------------------------


def test_a_method_that_asks_for_scores_works_on_a_network_and_on_any_function(toy):
    unit = fv.Logit([2, 0, 1])
    found = fv.explain(toy, unit, IMAGES, "left_out")
    np.testing.assert_allclose(found.metrics["plain"], found.scores, rtol=1e-5)
    with Compiled() as compiled:
        fv.explain(toy, fv.Logit([1, 1, 1]), IMAGES[::-1], "left_out", base=IMAGES)
    assert not compiled.names
    for place, number in enumerate((2, 0, 1)):

        def function(images, number=number):
            assert isinstance(images, np.ndarray)
            return toy(images)["logits"]

        one = fv.explain(function, number, IMAGES[place], "left_out")
        np.testing.assert_allclose(one.maps[0], found.maps[place], rtol=1e-3, atol=1e-5)
        assert one.manifest["model"]["digest"] is None

    def mean(images):
        images /= 2  # its own copy
        return 2 * images.mean((1, 2, 3))

    single = fv.explain(mean, None, IMAGES, "left_out", grey=0.0)
    np.testing.assert_allclose(single.maps[..., 0], IMAGES.mean((2, 3)) / 12, rtol=1e-3, atol=1e-6)


def test_a_function_that_will_not_do_is_said():
    def several(images):
        return images.mean((1, 2))

    def raises(images):
        raise ValueError("mine")

    with pytest.raises(fv.InputError, match=r"saliency needs a network, .*: .*left_out"):
        fv.explain(several, 0, IMAGES, "saliency")
    with pytest.raises(fv.InputError, match=r"\(1,\); it gives \(1, 3\); which of them"):
        fv.explain(several, None, IMAGES, "left_out")
    with pytest.raises(fv.InputError, match="there is no score 3"):
        fv.explain(several, 3, IMAGES, "left_out")
    with pytest.raises(fv.InputError, match="None or the number of a score; got 'logits:1'"):
        fv.explain(several, "logits:1", IMAGES, "left_out")
    with pytest.raises(fv.InputError, match=r"called on images \(1, 12, 16, 3\).*ValueError: mine"):
        fv.explain(raises, None, IMAGES, "left_out")
    with pytest.raises(fv.NonFiniteError):
        fv.explain(lambda images: np.full(len(images), np.nan), None, IMAGES, "left_out")


# ---- what it gives --------------------------------------------------------------------------


def test_a_map_is_kept_with_how_it_was_made(toy, tmp_path):
    found = fv.explain(toy, fv.Logit([2, 0, 1]), IMAGES, "optional", factor=0.5, several=IMAGES)
    assert len(found) == len(list(found)) == 3
    assert found[1].objective == fv.Logit(0)
    np.testing.assert_array_equal(found[-1].maps[0], found.maps[2])
    assert found[2].manifest["places"] == [2]
    path = found.with_metrics(area=np.arange(3.0)).save(tmp_path / "map")
    record = json.loads(path.with_suffix(".json").read_text())
    with Image.open(path) as picture:
        assert json.loads(picture.text["featvis"]) == json.loads(json.dumps(found.manifest))
    assert is_own(path)
    assert record["model"]["digest"] == toy.digest
    assert record["method"] == "optional"
    assert record["options"]["factor"] == 0.5
    assert record["options"]["several"].startswith("array ")
    assert len(set(record["images"])) == 3
    assert record["result"]["metrics"]["area"] == [0, 1, 2]
    assert record["result"]["score"] == pytest.approx(found.scores.tolist())
    assert found._repr_html_().count("<img") == 3
    with pytest.raises(fv.InputError, match=r"should end in \.png"):
        found.save(tmp_path / "map.jpg")
    with pytest.raises(fv.InputError, match="was explained, and replay makes no"):
        fv.replay(path)


def test_one_image_and_more_metrics_are_checked(toy):
    found = fv.explain(toy, "logits:1", IMAGES, "saliency")
    for index in (0.5, True, "a", slice(0, 1), [0]):
        with pytest.raises(fv.InputError, match=r"of one image, from 0 to 2; got"):
            found[index]
    for wrong in (np.ones(2), 3.0, ["x", "y", "z"]):
        with pytest.raises(fv.InputError, match="the metric area"):
            found.with_metrics(area=wrong)
    with pytest.raises(fv.InputError, match="was explained, and replay makes no maps"):
        fv.replay(found.manifest)
    with pytest.raises(fv.InputError, match="got an empty text"):
        found.save("")


def test_a_map_of_zeros_is_said():
    with pytest.warns(
        fv.SilenceWarning, match="of image 1 by left_out is 0 everywhere, and 1 more"
    ):
        found = fv.explain(
            lambda images: (np.asarray(images)[..., 0] - 0.5).clip(0).mean((1, 2)),
            None, np.stack([IMAGES[0], *np.zeros((2, *TOY_SIZE, 3), np.float32)]), "left_out",
            grey=0.0,
        )  # fmt: skip
    assert [bool(one.any()) for one in found.maps] == [True, False, False]


def test_colours_are_those_of_cividis():
    values = np.linspace(0, 1, 256)
    truth = colormaps["cividis"](values)[:, :3]
    assert np.abs(overlay.colours(values) - truth).max() < 11 / 255


def test_a_pixel_is_coloured_by_its_size():
    image = np.full((8, 8, 3), 0.25, np.float32)
    values = np.zeros((8, 8))
    values[0, 0], values[7, 7], values[3] = 1.0, -1.0, 0.5
    shown = overlay.overlay(image, values)
    np.testing.assert_allclose(shown[5], 0.25, atol=1e-6)
    np.testing.assert_allclose(shown[0, 0], overlay.colours(np.array(1.0)), atol=1e-6)
    np.testing.assert_allclose(shown[7, 7], overlay.colours(np.array(0.0)), atol=1e-6)
    np.testing.assert_allclose(overlay.overlay(image, np.zeros((8, 8))), 0.25, atol=1e-6)


# ---- the command line -----------------------------------------------------------------------


@pytest.mark.filterwarnings("always::featvis.SilenceWarning")
def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, image in enumerate(IMAGES[:2]):
        fv.pictures.to_picture(image).save(f"{place}.png")
    (tmp_path / "explained_nets.py").write_text(
        "import jax.numpy as jnp, featvis as fv\n"
        "from featvis.attribution import Explained, method\n"
        "@method('of_the_module')\n"
        "def of_the_module(given: Explained, *, unheard_of: float = 0.5):\n"
        "    'Where it is bright.'\n"
        "    return given.images.sum(-1)\n"
        "def make():\n"
        "    def net(weights, image):\n"
        "        return {'logits': (image * weights).sum((1, 2, 3))[:, None] * jnp.arange(3.0)}\n"
        "    return fv.from_function(net, jnp.ones((12, 16, 3)), input=fv.Input(size=(12, 16)))\n"
    )
    own = ["--model", "explained_nets:make"]
    command = ["explain", "logits:2", "0.png", "1.png", *own, "--method", "smooth_grad", "--json"]
    assert app.main([*command, "--samples", "2", "--seed", "3", "-o", "maps.png"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["image"], second["image"]) == ("0.png", "1.png")
    assert (tmp_path / "maps.png").exists()
    assert app.main(["explain", "logits:2", "0.png", *own, "--method", "of_the_module"]) == 0
    assert "of_the_module" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "maps.json").read_text())
    assert (manifest["seed"], manifest["options"]["samples"]) == (3, 2)
    for more, said in (
        (["--steps", "3"], "smooth_grad has no option --steps; it has: --samples, --noise"),
        (["--samples", "few"], "samples is an integer of at least 1, not 'few'"),
        (["--samples", "0"], "samples is an integer of at least 1, not 0"),
    ):
        assert app.main([*command, *more]) == 2
        assert said in capsys.readouterr().err
    assert app.main(["explain", "logits:0", "0.png", *own, "--method", "saliency"]) == 3
    assert "no gradient" in capsys.readouterr().out
    assert app.main(["explain", "0.png", "logits:0", *own]) == 2
    assert "0.png is a file: the objective comes before images" in capsys.readouterr().err
    assert app.main(["explain", "logits:0", ".", *own]) == 2
    assert ". is a folder; expected a picture file" in capsys.readouterr().err
    assert app.main(["explain", "logits:0", "0.png", *own, "--labels", "0.png"]) == 2
    assert "--labels" in capsys.readouterr().err
    assert app.main(["explain-pair", "0.png", *own]) == 2
    assert "takes IMAGE IMAGE beside --model" in capsys.readouterr().err
