"""Network Dissection against counts in NumPy, on the experiment's scenes with planted detectors."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")

QUANTILE = 0.05


@pytest.fixture(scope="module")
def study(experiment):
    return experiment("network_dissection")


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dissection")
    study.drawn(folder, 12, seed=0)
    return folder


@pytest.fixture(scope="module")
def found(study, folder):
    return fv.dissect(study.planted(), folder, quantile=QUANTILE, batch=5, progress=False)


@pytest.mark.thorough
def test_planted_units_detect_what_they_were_planted_for(found, study):
    best = found.best("planted")
    assert [one.concept for one in best[:3]] == list(study.COLOURS)
    assert all(one.iou > 0.4 and one.category == "color" for one in best[:3])
    assert found.detectors("planted")[0].iou == max(one.iou for one in best)
    counts = found.table()["planted"]
    assert counts["units"] == 4
    assert counts["concepts"] >= 3


def test_intersections_over_unions_are_counts_over_all_images(found, study, folder):
    weights = np.array(study.WEIGHTS).T
    rows = list(csv.DictReader((folder / "index.csv").read_text().splitlines()))

    def levels(name):
        return np.asarray(Image.open(folder / "images" / name)).astype(np.int64)

    maps = [np.maximum(levels(row["image"]) / 255 @ weights, 0) for row in rows]
    values = np.sort(np.concatenate([one.reshape(-1, 4) for one in maps]), 0)
    count = int(np.ceil(QUANTILE * len(values)))
    thresholds = values[-count - 1]
    np.testing.assert_allclose(found.thresholds["planted"], thresholds, atol=1e-5)
    both, either = np.zeros(6), np.zeros(6)
    for row, one in zip(rows, maps, strict=True):
        # Half of the pixels each way; the mean of four is the linear interpolation in the middle.
        on = one.reshape(32, 2, 32, 2, 4).mean((1, 3))[..., 0] > thresholds[0]
        for number in range(1, 7):
            mask = levels(row["color" if number < 4 else "shape"])[1::2, 1::2, 0] == number
            both[number - 1] += (on & mask).sum()
            either[number - 1] += (on | mask).sum()
    np.testing.assert_allclose(found.iou["planted"][0], both / either, atol=1e-3)


def test_whole_images_and_categories_nobody_looked_for(study, folder, tmp_path):
    (tmp_path / "images").mkdir()
    for name, level in (("a.png", 255), ("b.png", 0), ("c.png", 255)):
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "label.csv").write_text("number,name,category\n7,bright,scene(1)\n")
    # The third is bright too, but nobody has said of which scene it is.
    (tmp_path / "index.csv").write_text("image,scene\na.png,7\nb.png,0\nc.png,\n")
    model = fv.from_function(
        lambda _, x: {"grey": x.mean(-1, keepdims=True)}, {}, input=fv.Input(size=(8, 8)), name="g"
    )
    found = fv.dissect(model, tmp_path, quantile=0.7, progress=False)
    assert found.best("grey") == [(0, "bright", "scene", 1.0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": "logits"}, "no extent"),
        ({"quantile": 1.5}, "quantile is between 0 and 1"),
        ({"layers": "nothing"}, "unknown layer"),
        ({"layers": []}, "there is no layer to look at; these have an extent: maps"),
        ({"layers": 3}, "layers are names, or one; got 3"),
        ({"batch": 0}, "dissect: batch is an integer"),
        ({"folder": None}, "folder is a path; got None"),
        ({"folder": "nowhere"}, "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_dissected_is_said(change, message, study, folder):
    model = fv.from_function(
        lambda w, x: {"maps": x @ w, "logits": (x @ w).mean((1, 2))},
        jnp.ones((3, 2)), input=fv.Input(size=(64, 64)), name="flat",
    )  # fmt: skip
    with pytest.raises((fv.InputError, KeyError, ValueError), match=message):
        fv.dissect(model, **{"folder": folder, "progress": False, **change})


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("index.csv", "picture\na.png\n", "no column 'image'"),
        ("index.csv", "image,color\n00000.png,none.png\n", "line 2: there is no file images/none"),
        ("label.csv", "number,name,category\nx,a,b\n", "line 2: a concept's number"),
        ("label.csv", "number,name,category\n²,a,b\n", "line 2: a concept's number"),
        ("index.csv", "image,color\n00000.png,999\n", "line 2: label.csv has no concept .* 999"),
        ("index.csv", "image,color\n00000.png,5\n", "concept 5, .*, is of .* shape, and stands"),
        ("index.csv", "image,color\n00000.png,1,2\n", "line 2 has more cells than columns"),
        ("index.csv", "", "no column 'image'; its columns: none"),
        ("label.csv", "number,name,category\n1,a,b\n1,c,b\n", "line 3: the number 1 is that of"),
        (
            "label.csv",
            "number,name,category\n9,a,color\n",
            "_color_0.png: label.csv has no concept of",
        ),
        ("index.csv", "image,taste\n00000.png,0\n", "no image was looked at for a category"),
        ("index.csv", f"image,color\n00000.png,{'x' * 2**18}\n", "is no table"),
        ("images/00000_color_0.png", "text", "is no mask that can be read"),
        ("index.csv", None, "has no index.csv: a folder with Broden's layout has"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(file, text, message, study, tmp_path):
    study.drawn(tmp_path, 1, seed=0)
    if text is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(text)
    with pytest.raises(fv.InputError, match=message):
        fv.dissect(study.planted(), tmp_path, progress=False)
