"""Invariance reports of units whose invariances are known, their pages and their tables."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import stimuli
from PIL import Image
from stimuli import DEAD, ENERGY, LINEAR, PIXEL, RANDOM

import featvis as fv
from featvis.cli.app import main
from featvis.methods.invariance import dimension_of, windows_of
from featvis.natural.receptive import receptive_field
from featvis.pages import table_page

pytestmark = pytest.mark.usefixtures("quick_to_compile")
QUICK = {"contrast": stimuli.CONTRAST, "progress": False, "steps": 200}


@pytest.fixture(scope="module")
def units():
    return stimuli.units()


@pytest.fixture(scope="module")
def energy(units):
    waves = [stimuli.gabor(phase)[..., None] for phase in np.linspace(0, np.pi, 6)]
    natural = np.clip(0.5 + np.stack(waves), 0, 1)
    return fv.invariance(units, f"units:{ENERGY}", n=6, keep=0.95, natural=natural, **QUICK)


def indices(made):
    return {one.name: one for one in made.indices}


@pytest.mark.thorough
def test_a_quadrature_pair_has_one_invariant_dimension(energy):
    phase = indices(energy)["phase"]
    assert phase.value > 0.95
    assert phase.chance < 0.35  # 1/π, of a linear unit that is never below 0
    assert phase.beyond_chance
    assert phase.natural > 0.95
    assert len(energy.natural) == 4
    assert energy.diverse.evidence["activation"].min() > 0.94
    assert energy.diverse.evidence["nearest"].min() > 0.97
    assert energy.dimension == pytest.approx(1, abs=0.4)
    assert round(energy.dimension) == 1
    assert energy.walks[0].angle > 2 * 25
    assert energy.flat == 1
    assert any("phase" in note for note in energy.notes)


@pytest.mark.thorough
def test_a_random_network_is_at_chance_and_the_report_says_so(units):
    made = fv.invariance(units, f"units:{RANDOM}", n=6, **QUICK)
    for one in made.indices:
        if one.name != "contrast":
            assert one.value == pytest.approx(one.chance, abs=0.2)
    assert not indices(made)["phase"].beyond_chance
    assert not indices(made)["rotation"].beyond_chance


def test_the_dimension_of_points_on_circles_and_spheres():
    def images(points):
        return 0.5 + 0.1 * np.asarray(points, float)[..., None, None]

    turn = 2 * np.pi * np.arange(6) / 6
    circle = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    assert dimension_of(images(circle))[0] == pytest.approx(1)
    assert dimension_of(images(np.eye(5)))[0] == pytest.approx(4)
    value, error = dimension_of(images(np.ones((4, 3))))
    assert value == pytest.approx(0)
    assert error == pytest.approx(0)


@pytest.mark.thorough
def test_a_report_has_its_pictures_and_its_manifest(energy, tmp_path):
    page = fv.invariance_page(energy, tmp_path / "report", seed=0)
    text = page.read_text()
    for part in ("known", "texture", "flattest", "dimensions", "different"):
        assert part in text.lower()
    manifest = json.loads((page.parent / "manifest.json").read_text())
    assert manifest["facts"]["keep"] == 0.95
    names = [row[0] for row in manifest["tables"][0]["rows"]]
    assert names == [one.name for one in energy.indices]
    pictures = {path.stem for path in page.parent.glob("*.png")}
    assert {"diverse", "best", "texture", "walk-1", "curves"} <= pictures
    assert (page.parent / "diverse.json").exists()


@pytest.mark.thorough
def test_a_table_goes_on_where_it_was_left_and_a_unit_is_the_same_alone(units, tmp_path):
    chosen = [LINEAR, ENERGY, DEAD, RANDOM]
    options = {"steps": 120, "at_a_time": 2, "n": 2}
    folder = tmp_path / "table"

    def leave(done, count):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fv.invariance_table(units, "units", chosen, folder=folder, tell=leave, **options)
    told = []
    with open(folder / "units.csv") as file:
        first = list(csv.DictReader(file))
    assert [row["unit"] for row in first] == [str(LINEAR), str(ENERGY)]
    rows = fv.invariance_table(
        units, "units", chosen, folder=folder, tell=lambda *reached: told.append(reached), **options
    )
    assert told == [(2, 4), (4, 4)]
    assert [row["unit"] for row in rows] == chosen
    by_unit = {row["unit"]: row for row in rows}
    assert by_unit[ENERGY]["phase"] > 0.95
    assert by_unit[LINEAR]["phase"] < 0.1
    assert by_unit[DEAD]["alive"] is False
    assert "phase" not in by_unit[DEAD] or by_unit[DEAD]["phase"] is None
    (alone,) = fv.invariance_table(units, "units", [RANDOM], **{**options, "at_a_time": 2})
    assert alone["phase"] == pytest.approx(by_unit[RANDOM]["phase"], abs=1e-3)
    with pytest.raises(fv.InputError, match="has a table with steps 120, and 60 is asked for"):
        fv.invariance_table(units, "units", chosen, folder=folder, **{**options, "steps": 60})
    (folder / "units.csv").write_text("unit,alive\nx,y\n")
    with pytest.raises(fv.InputError, match="cannot be read"):
        fv.invariance_table(units, "units", chosen, folder=folder, **options)


@pytest.fixture(scope="module")
def photographs(units, tmp_path_factory):
    """An index of patches of many phases, of some with another direction, and of noise."""
    pytest.importorskip("zarr")
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    waves = [stimuli.gabor(phase) for phase in np.linspace(0, 2 * np.pi, 12, endpoint=False)]
    waves += [stimuli.gabor(0.0, angle) for angle in (0.8, 1.6, 2.4)]
    waves += [wave / np.linalg.norm(wave) for wave in rng.normal(size=(5, 16, 16))]
    for number, wave in enumerate(waves):
        levels = np.clip(255 * (0.5 + wave), 0, 255).round().astype(np.uint8)
        Image.fromarray(levels).save(folder / f"{number:02}.png")
    out = tmp_path_factory.mktemp("index") / "store"
    return fv.index(units, folder, layers="units", out=out, progress=False)


@pytest.fixture(scope="module")
def with_crops(units, photographs, tmp_path_factory):
    """Rows of a linear unit, a quadrature pair and a dead unit, their folder, and the options."""
    folder = tmp_path_factory.mktemp("table")
    options = {"steps": 120, "at_a_time": 2, "n": 2, "natural": photographs, "crops": 3}
    options |= {"units": [LINEAR, ENERGY, DEAD], "folder": folder}
    return fv.invariance_table(units, "units", **options), folder, options


@pytest.mark.thorough
def test_natural_crops_of_an_index_are_bands_of_a_table(units, with_crops):
    rows, folder, options = with_crops
    linear, energy, dead = rows
    # The patches of all phases excite the pair alike, and one of them the linear unit.
    assert energy["phase_natural"] > 0.95
    assert linear["phase_natural"] < 0.1
    assert 0 <= energy["phase_natural_spread"] < 0.05
    assert "phase_natural" not in dead
    again = fv.invariance_table(units, "units", **options)
    assert again[1]["phase_natural"] == pytest.approx(energy["phase_natural"], rel=1e-5)
    text = table_page(again, "units", "units", folder).read_text()
    assert "natural crops" in text
    assert "reaches the border of the 16 x 16 pixels" in text
    with pytest.raises(fv.InputError, match="has a table with natural"):
        fv.invariance_table(units, "units", **options | {"natural": None})


@pytest.mark.thorough
def test_a_table_is_also_written_as_parquet(with_crops):
    rows, folder, _ = with_crops
    parquet = pytest.importorskip("pyarrow.parquet")
    found = parquet.read_table(folder / "units.parquet").to_pylist()
    with open(folder / "units.csv", newline="") as file:
        columns = next(csv.reader(file))
    assert [[*one] for one in found] == [columns] * len(rows)
    # Of a dead unit nothing is known: null, and no number.
    known = [
        [{k: v for k, v in one.items() if v is not None} for one in some] for some in (found, rows)
    ]
    assert known[0] == known[1]


def test_crops_of_an_index_are_of_its_network_and_large_enough(units, photographs):
    other = dataclasses.replace(units, digest="2" * 64)
    with pytest.raises(fv.InputError, match="the network is units with"):
        fv.invariance_table(other, "units", [ENERGY], natural=photographs)
    field = receptive_field(units, fv.Channel("units", ENERGY), (16, 16))
    for unit, message in [
        (fv.Channel("early", 0), "unknown layer 'early'"),
        (fv.Direction("units", np.ones(7)), "nothing of direction"),
    ]:
        with pytest.raises((fv.InputError, fv.UnknownLayer), match=message):
            windows_of(photographs, units, unit, (16, 16), field, 2)
    wide = field._replace(window=(0, 0, 16, 17))
    with pytest.raises(fv.InputError, match="sees 16 x 17 pixels, and the images of the index"):
        windows_of(photographs, units, fv.Channel("units", ENERGY), (16, 17), wide, 2)
    crops = windows_of(photographs, units, fv.Channel("units", ENERGY), (16, 16), field, 2)
    highest = photographs.responses(f"units:{ENERGY}").highest(8)
    for crop, place in zip(crops, highest, strict=True):
        np.testing.assert_array_equal(crop, photographs.image(place))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: fv.invariance(m, f"units:{LINEAR}", n=1), "got n=1"),
        (lambda m: fv.invariance(m, f"units:{PIXEL}"), "sees 1 x 1 pixels"),
        (lambda m: fv.invariance(m, f"units:{DEAD}"), "dead, or reads nothing"),
        (lambda m: fv.invariance(m, f"units:{LINEAR}", keep=0), "keep must be above 0"),
        (lambda m: fv.invariance_table(m, "units", [99]), "units 0 to 6; got 99"),
        (lambda m: fv.invariance_table(m, "unit"), "nearest: units"),
        (lambda m: fv.invariance_table(m, "units", []), "got none"),
        (lambda m: fv.invariance_table(m, "units", 3), "list of their numbers; got 3"),
        (lambda m: fv.invariance_table(m, "units", [0.5]), r"list of their numbers; got \[0.5\]"),
        (lambda m: fv.invariance_table(m, "units", n=1), "got n=1"),
        (lambda m: fv.invariance_table(m, "units", seed="a"), "seed is an integer of at least 0"),
        (lambda m: fv.invariance_table(m, "units", seed=2.5), "seed is an integer .* not 2.5"),
        (lambda m: fv.invariance_table(m, "units", size=16), r"\(height, width\), two positive"),
        (lambda m: fv.invariance_table(m, "units", folder=3), "folder is a path, not 3"),
        (lambda m: fv.invariance_table(m, "units", natural=3), "its folder is a path, not 3"),
        (lambda m: fv.invariance(m, "units"), "units is a whole layer: name one of its units"),
        (lambda m: fv.invariance_table(m, "units", at_a_time=0), "at_a_time is an integer of at"),
        (lambda m: fv.invariance_table(m, "units", natural="nowhere"), "is no index"),
    ],
)
def test_what_there_is_no_report_of(units, make, message):
    with pytest.raises((fv.InputError, fv.ObjectiveError, fv.UnknownLayer), match=message):
        make(units)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("invariance", "invariance takes MODEL UNIT|LAYER, as in:"),
        ("diverse efficientnet_lite0", "diverse takes MODEL UNIT, as in:"),
        ("diverse efficientnet_lite0 block2:5 --sweep --keep 0.9", "leave out --keep"),
        (
            "diverse efficientnet_lite0 block2:5 --sweep --preset gram",
            "--sweep is of the preset cad",
        ),
        ("diverse efficientnet_lite0 block2:5 --sweep -o taken", "taken is a file: a report goes"),
        ("invariance efficientnet_lite0 block2:5 -o taken", "taken is a file: a report goes into"),
        ("diverse efficientnet_lite0 block2:5 -n 1", "got n=1"),
        ("diverse efficientnet_lite0 block2:5 --layer block3", "block3 comes after block2"),
        ("invariance efficientnet_lite0 block2 --natural .", "is no index: `featvis index"),
    ],
)
def test_mistakes_on_the_command_line(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    assert main(line.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.thorough
def test_both_commands_write_what_they_say(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    place = "--model stimuli:units --quiet"
    unit = f"units:{ENERGY}"
    # As the fixture's, of the same program.
    written = f"FixedNorm(contrast={stimuli.CONTRAST},window=(0,0,16,16),decay=1.0)"
    asked = f"-n 6 --steps 200 --keep 0.95 --param {written} -o set.png --json"
    main(f"diverse {place} {unit} {asked}".split())
    assert json.loads(capsys.readouterr().out)["image"] == "set.png"
    main(f"invariance {place} units:0-1 -n 2 --steps 120 -o table".split())
    assert "2 units, 0 dead" in capsys.readouterr().out
    assert (tmp_path / "table" / "index.html").exists()
