"""The text form of objectives: what it says, what it refuses, and where it marks the fault."""

from __future__ import annotations

import ast
import os
import re
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import objectives as ob
from objectives.expressions import Evaluator
from objectives.literals import array, format_literal
from objectives.text import _vocabulary

fuzzed = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=200,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("block8:3", ob.Channel("block8", 3)),
        ("  block8:3\n", ob.Channel("block8", 3)),
        ("block8 : 3", ob.Channel("block8", 3)),
        ("block8:[0, 5]", ob.Channel("block8", [0, 5])),
        ("block8:3@7,9", ob.Neuron("block8", 3, (7, 9))),
        ("block8:3 @ 7 , 9", ob.Neuron("block8", 3, (7, 9))),
        ("block8:3@center", ob.Neuron("block8", 3)),
        ("block8:[0, 5]@7,9", ob.Neuron("block8", [0, 5], (7, 9))),
        ("block7/expand:3", ob.Channel("block7/expand", 3)),
        ("features.0.conv:3", ob.Channel("features.0.conv", 3)),
        ("layer:3", ob.Channel("layer", 3)),
        ("logits:285", ob.Logit(285)),
        ("logits:[1,2]", ob.Logit([1, 2])),
        ("logits:1@center", ob.Neuron("logits", 1)),
        ("block8", ob.Layer("block8")),
        ("block7/expand", ob.Layer("block7/expand")),
        ("mixed3a/1x1", ob.Layer("mixed3a/1x1")),
        ("relu.1", ob.Layer("relu.1")),
        ("blocks_0/relu.1 - tv", ob.Layer("blocks_0/relu.1") - ob.TotalVariation()),
        ("relu.1.on([0])", ob.Layer("relu.1").on([0])),
        ("mixed3a/1x1/2b", ob.Layer("mixed3a/1x1/2b")),
        ("mixed3a/1x1:3", ob.Channel("mixed3a/1x1", 3)),
        ("block8 / 2", ob.Layer("block8") / 2),
        ("block8/2.5", ob.Layer("block8") / 2.5),
        ("a/b/2.5", ob.Layer("a/b") / 2.5),
        ("tv/2", ob.TotalVariation() / 2),
        ("layers/0/conv", ob.Layer("layers/0/conv")),
        ("layers/0:3", ob.Channel("layers/0", 3)),
        ("2block8:3", ob.Channel("2block8", 3)),
        ("0.5*0_down_0:1", 0.5 * ob.Channel("0_down_0", 1)),
        ("'+sa':1", ob.Channel("+sa", 1)),
        ("2*'a b':[0, 1]@1,2 - tv", 2 * ob.Neuron("a b", [0, 1], (1, 2)) - ob.TotalVariation()),
        # Ranges have both ends and no spaces.
        ("block5:0-3", ob.Channel("block5", [0, 1, 2, 3])),
        ("block5: 2-2", ob.Channel("block5", [2])),
        ("block5:[0-2, 7]", ob.Channel("block5", [0, 1, 2, 7])),
        ("block5:0-1@7,7", ob.Neuron("block5", [0, 1], (7, 7))),
        ("logits:3-5", ob.Logit([3, 4, 5])),
        ("2*block5:0-1 - 0.1*tv", 2 * ob.Channel("block5", [0, 1]) - 0.1 * ob.TotalVariation()),
        ("block5:0 - 3*tv", ob.Channel("block5", 0) - 3 * ob.TotalVariation()),
        ("block5:0 -3*tv", ob.Channel("block5", 0) - 3 * ob.TotalVariation()),
        ("block5:0-0.1*tv", ob.Channel("block5", 0) - 0.1 * ob.TotalVariation()),
        ("block5:0-1e2*tv", ob.Channel("block5", 0) - 100 * ob.TotalVariation()),
        ("block5:0-tv", ob.Channel("block5", 0) - ob.TotalVariation()),
        ("block3:5@7", ob.Neuron("block3", 5, (7,))),
        ("block3:5@0 - tv", ob.Neuron("block3", 5, (0,)) - ob.TotalVariation()),
        ("channel('block3', 5, skip=1)", ob.Channel("block3", 5, skip=1)),
        ("layer('block 7')", ob.Layer("block 7")),
        ("tv", ob.TotalVariation()),
        ("tv()", ob.TotalVariation()),
        ("tv(1)", ob.TotalVariation(1)),
        ("total_variation(beta=1.5)", ob.TotalVariation(1.5)),
        ("min_distance", ob.MinDistance()),
        ("min_distance('block8')", ob.MinDistance("block8")),
        ("l1(center=0)", ob.L1(0)),
        ("neuron('block8', 3)", ob.Neuron("block8", 3)),
        ("neuron('block8', 3, (1, 2))", ob.Neuron("block8", 3, (1, 2))),
        ("probability(3)", ob.Probability(3)),
        ("alpha_norm(3.0, joint=False)", ob.AlphaNorm(3.0, joint=False)),
        ("caricature('a', [[1, 2]], positive=True)", ob.Caricature("a", [[1, 2]], positive=True)),
        ("feature_match('a', [[1]], metric='log')", ob.FeatureMatch("a", [[1]], metric="log")),
        ("change(tv, [[[[0.5]]]])", ob.Change(ob.TotalVariation(), [[[[0.5]]]])),
        ("tone([0.5, 0.25], [0, 1])", ob.Tone([0.5, 0.25], [0, 1])),
        (
            "feature_match('a', [[1]], metric='norm', images=[[[[0.5]]]])",
            ob.FeatureMatch("a", [[1]], metric="norm", images=[[[[0.5]]]]),
        ),
        ("direction('a', [1, 2])", ob.Direction("a", [1, 2])),
        ("direction('a', 2*[1, 2])", ob.Direction("a", [2, 4])),
        ("direction('a', [1, 2], power=2*2)", ob.Direction("a", [1, 2], power=4)),
        ("block8:3 - 0.1*tv", ob.Channel("block8", 3) - 0.1 * ob.TotalVariation()),
        ("2*channel('block8', 3) + stem", 2 * ob.Channel("block8", 3) + ob.Layer("stem")),
        ("-block8:3", -ob.Channel("block8", 3)),
        ("+3*block8:3/2", 3 * ob.Channel("block8", 3) / 2),
        ("block8:3 - (tv - constant(1))", ob.Channel("block8", 3) - (ob.TotalVariation() - 1)),
        ("[1, 0.5]*block8:3", [1, 0.5] * ob.Channel("block8", 3)),
        ("block8:3/[1, 2]", ob.Channel("block8", 3) / [1, 2]),
        ("constant(1) - block8:3", 1 - ob.Channel("block8", 3)),
        ("block8:3\n  + block8:4\t- tv", ob.parse("block8:3 + block8:4 - tv")),
        ("sum([block8:3, tv, l2])", ob.Channel("block8", 3) + ob.TotalVariation() + ob.L2()),
        ("block8:[0, 1].on([2, 0])", ob.Channel("block8", [0, 1]).on([2, 0])),
        ("(block8:3 + tv).on(1)", (ob.Channel("block8", 3) + ob.TotalVariation()).on(1)),
        ("tv.on([0]).on([0, 1])", ob.TotalVariation().on(0).on([0, 1])),
        ("channel('block8:3 + tv', 3)", ob.Channel("block8:3 + tv", 3)),
        ("layer('(')", ob.Layer("(")),
        ('layer("it\'s #1")', ob.Layer("it's #1")),
        (r"layer('\'\\\n')", ob.Layer("'\\\n")),
        ("layer('blöck') + block8:3", ob.Layer("blöck") + ob.Channel("block8", 3)),
        ("layer('a' 'b')", ob.Layer("ab")),
        ("(block8:3)", ob.Channel("block8", 3)),
        ("1e-3*tv", 1e-3 * ob.TotalVariation()),
    ],
)
def test_what_a_text_says(text: str, objective: ob.Objective) -> None:
    found = ob.parse(text)
    assert found == objective
    assert hash(found) == hash(objective)
    assert ob.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 0, "an empty text is no objective"),
        (" \n\t", 0, "an empty text"),
        ("3", 0, "int is not an objective; name a unit such as block8:3"),
        ("'block8'", 0, "str is not an objective"),
        ("1 + 2", 0, "int is not an objective"),
        ("[block8:3]", 0, "list is not an objective"),
        ("None", 0, "NoneType is not an objective"),
        ("sum([])", 0, "int is not an objective"),
        # Malformed.
        ("block8:3 +", 10, "it ends too early"),
        ("  block8:3 +  ", 12, "it ends too early"),
        ("block8:3 + *", 11, "invalid syntax"),
        ("(block8:3", 0, "'(' was never closed"),
        ("2*(block8:3 + tv", 2, "'(' was never closed"),
        ("block8:3)", 8, "unmatched ')'"),
        ("block8:3 block8:4", 9, "invalid syntax"),
        ("block8:3 + 'abc", 11, "this string has no end"),
        ("layer('a\nb')", 6, "this string has no end"),
        ("2:3", 1, "a colon follows a layer's name"),
        # What looks like something else than it is, with what was probably meant.
        ("block5:0 - 3", 11, "a range of units is block5:0-3, without spaces; a constant is con"),
        ("block5:0- 3", 10, "a range of units is block5:0-3"),
        ("block8 - 3", 9, "a unit of the layer is block8:3; a constant is constant(3)"),
        ("block8:3 + 1", 11, "a number alone is no term"),
        ("1 - block8:3", 4, "a constant is constant(1)"),
        ("tv + [1, 2]", 5, "a constant is constant([1.0, 2.0])"),
        ("sum([block8:3, 1])", 0, "a number alone is no term"),
        ("block5:0-3*tv", 7, "a difference has spaces: block5:0 - 3*"),
        ("block5:0-3 / 2", 7, "0-3 is a range of units"),
        ("block5:3-0", 7, "a range goes up, from its first unit to its last: 0-3"),
        ("block5:0-9999", 7, "10000 units, an image each; at most 4096"),
        (
            "block5:0\u20133",
            8,
            "a range of units has a plain hyphen, and both of its ends are in it: b",
        ),
        ("block5:0\u22123", 8, "block5:0-3"),
        ("block5:0:3", 8, "block5:0-3"),
        ("block5:0..3", 8, "block5:0-3"),
        ("block5:1,2", 0, "several units are a list, block8:[0, 3]"),
        ("block5:3.0", 7, "block5:3?"),
        ("block5:1e2", 7, "block5:100?"),
        ("block5:03", 7, "no zeros in front: 3, not 03"),
        ("block5:[0, 03]", 7, "no zeros in front: 3, not 03"),
        ("block5:3@07,1", 7, "no zeros in front: 7, not 07"),
        ("block5:*", 7, "name a range, as block5:0-3, or say which network"),
        ("block5:*0.5", 7, "a unit's index is a whole number"),
        ("tv - block2/3", 5, "write layer('block2/3'), or block2 / 3 with spaces"),
        ("block8/2E1", 0, "block8 divided by 2E1"),
        ("block8/2_0", 0, "block8 divided by 2_0"),
        # Units.
        ("block8:", 7, "a unit's index is a whole number"),
        ("block8:x", 7, "a unit's index is a whole number"),
        ("block8:3.5", 7, "a unit's index is a whole number"),
        ("block8:3x", 7, "a unit's index is a whole number"),
        ("block8:+3", 7, "a unit's index is a whole number"),
        ("block8:1_0", 7, "a unit's index is a whole number"),
        ("block8:1e3", 7, "a unit's index is a whole number"),
        ("block8:[0, 1", 7, "a unit's index is a whole number"),
        ("block8:" + 5000 * "9", 7, "a unit's index is a whole number"),
        ("tv + block8:-3", 5, "whole number of 0 or more; got -3"),
        ("tv + block8:99999999999", 5, "must fit into 32 bits"),
        ("block8:[]", 0, "a list of units is of whole numbers"),
        ("block8:[0 1]", 0, "a list of units is of whole numbers"),
        ("block8:[0, -1]", 0, "whole number of 0 or more"),
        ("block8:3@7,-1", 9, "a position is y,x or a token"),
        ("block8:3@-1,2", 9, "a position is y,x"),
        ("block8:3@(1,2)", 9, "a position is y,x"),
        ("block8:3@1.5,2", 9, "a position is y,x"),
        ("block8:3@1,2.5", 9, "a position is y,x"),
        ("block8:3@middle", 9, "a position is y,x"),
        (": 3", 0, "a colon follows a layer's name"),
        ("tv() + (1):3", 10, "a colon follows a layer's name"),
        # Arguments.
        (
            "channel(block8, 3)",
            0,
            "a layer is a name in quotes, such as 'block8'; got Layer('block",
        ),
        ("tv + channel(block7/expand, 3)", 5, "a layer is a name in quotes"),
        ("channel('', 3)", 0, "a layer is a name in quotes"),
        ("channel('a', -3)", 0, "whole number of 0 or more; got -3"),
        ("channel('a', 1.5)", 0, "whole number of 0 or more; got 1.5"),
        ("channel('a', True)", 0, "whole number of 0 or more; got True"),
        ("channel('a', 'b')", 0, "must be a number"),
        ("channel('a', tv)", 0, "must be a number"),
        ("1 + channel('a')", 4, "channel needs index; it takes layer, index"),
        ("channel()", 0, "channel needs layer, index; it takes layer, index"),
        ("channel", 0, "channel needs layer, index; a layer of that name is layer('channel')"),
        ("sum", 0, "sum needs terms"),
        ("sum(1)", 0, "sum takes a list of objectives"),
        ("sum(['a'])", 0, "unsupported operand"),
        ("tv(gamma=1)", 0, "tv has no argument 'gamma'; it takes beta"),
        ("tv(1, 2)", 0, "tv takes beta; got 2 arguments"),
        ("tv(1, beta=2)", 0, "multiple values for argument 'beta'"),
        ("tv(beta=1, beta=2)", 11, "tv is given beta twice"),
        ("tv('a')", 0, "beta must be a number; got 'a'"),
        ("tv(0)", 0, "beta must be above 0; got 0"),
        ("blur(1e9)", 0, "sigma must be above 0 and at most 1000"),
        ("direction('a', [[1], [2, 3]])", 0, "must be a number or an array of numbers"),
        ("direction('a', array('float32', [2], 'AAAA'))", 15, "needs 8 bytes; got 3"),
        ("direction('a', array('object', [2], 'AAAA'))", 15, "array of 'object'"),
        ("direction('a', array('float32', [-2], 'AAAA'))", 15, "a list of lengths"),
        ("direction('a', array('float32', [1], '!!!!'))", 15, "not base64"),
        ("direction('a', array('float32', [1], 3))", 15, "not base64"),
        ("tv.on()", 0, "on needs images; it takes images"),
        ("tv.on([0, 0])", 0, "once each"),
        ("tv.on(tv)", 0, "positions in the batch"),
        ("tv + foo(1)", 5, "unknown objective 'foo'; known: alignment, alpha_norm"),
        ("tv + chanel('a', 1)", 5, "unknown objective 'chanel'; nearest: channel"),
        ("scaled(1, tv)", 0, "unknown objective 'scaled'"),
        # Arithmetic.
        ("block8:3 / tv", 11, "not by each other"),
        ("2/block8:3", 2, "nothing divides by an objective"),
        ("tv/0", 3, "cannot be divided by zero"),
        ("tv*(1/0)", 6, "division by zero"),
        ("tv*1e300", 3, "finite"),
        ("tv*1e999", 3, "inf is not allowed"),
        ("tv*(1e308*10)", 4, "finite"),
        ("tv*([1]/0)", 4, "finite"),
        ("tv*[1e300]", 3, "finite"),
        ("tv**2", 4, "the operator ** is not allowed"),
        ("tv % 2", 5, "the operator % is not allowed"),
        ("tv // 2", 6, "the operator // is not allowed"),
        ("(tv) @ 2", 7, "the operator @ is not allowed"),
        ("~tv", 0, "this operator is not allowed"),
        ("tv + 'a'", 5, "'a' is not allowed in arithmetic"),
        ("tv + None", 5, "None is not allowed in arithmetic"),
        ("tv * True", 5, "True is not allowed in arithmetic"),
        ("tv * (1, 2)", 5, "(1, 2) is not allowed in arithmetic"),
        ("tv * [tv]", 5, "a list in arithmetic must be of numbers"),
        ("tv * [[1, 2]]", 5, "one weight an image"),
        # Hostile.
        ("tv.__class__", 0, "an attribute is not allowed"),
        ("tv.__class__()", 0, ".__class__ (only .on()) is not allowed"),
        ("tv.check(1, 2)", 0, ".check (only .on()) is not allowed"),
        ("().__class__.__bases__[0].__subclasses__()", 0, "__subclasses__ (only .on())"),
        ("tv.on.__globals__", 0, "an attribute is not allowed"),
        ("'{0.__class__}'.format(tv)", 0, ".format (only .on()) is not allowed"),
        ("'%s' % tv", 0, "'%s' is not allowed in arithmetic"),
        ("__import__('os').system('true')", 0, ".system (only .on())"),
        ("__import__('os')", 0, "unknown objective '__import__'"),
        ("eval('1')", 0, "unknown objective 'eval'"),
        ("tv()()", 0, "calling a call is not allowed"),
        ("lambda: tv", 7, "a unit's index"),
        ("lambda x: 0", 11, "it ends too early"),
        ("[x for x in (1, 2)]", 0, "a comprehension is not allowed"),
        ("sum(x for x in [tv])", 3, "a comprehension is not allowed"),
        ("f'{tv}'", 0, "an f-string is not allowed"),
        ("b'tv'", 0, "b'tv' is not allowed"),
        ("(x := tv)", 4, "a unit's index"),
        ("tv[0]", 0, "indexing with [ ] is not allowed"),
        ("tv[1:2]", 4, "a colon follows a layer's name"),
        ("{1: 2}", 2, "a colon follows a layer's name"),
        ("{tv}", 0, "a set is not allowed"),
        ("channel(*['a', 1])", 8, "* is not allowed"),
        ("tv(**tv)", 5, "** is not allowed"),
        ("tv if 1 else tv", 0, "a conditional is not allowed"),
        ("tv and tv", 0, "and/or is not allowed"),
        ("tv == tv", 0, "a comparison is not allowed"),
        ("tv; tv", 2, "invalid syntax"),
        ("x = tv", 2, "invalid syntax"),
        ("import os", 0, "invalid syntax"),
        ("tv # comment", 3, "a comment is not allowed"),
        ("layer('''a''')", 6, "triple quotes are not allowed"),
        ("tv + \\\n tv", 6, "unexpected character after line continuation"),
        (r"layer('\d')", 6, "invalid escape sequence"),
        ("tv\0", 2, r"'\x00' is not allowed"),
        ("tv + ｔｖ", 5, "'ｔ' is not allowed"),
        ("tv\u00a0+ 1j", 5, "1j is not allowed"),
        ("tv + ...", 5, "Ellipsis is not allowed"),
        ("tv + " + 30 * "9", 5, "an integer of more than 63 bits"),
        ("tv + " + 5000 * "9", None, "a number has too many digits"),
        (300 * "(" + "tv" + 300 * ")", 200, "too many nested parentheses"),
        (20000 * "-" + "tv", 0, "nested too deeply"),
        (5000 * "tv.on(" + "0", None, "malformed objective"),
        ("tv" + 20000 * ".on(0)", 0, "nested too deeply"),
        ("tv" + 20000 * " + tv", 0, "nested too deeply"),
        ("layer('\ud800')", 0, "malformed objective"),
    ],
)
def test_refused_with_the_place_marked(text: str, column: int | None, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ob.ParseError) as caught:
        ob.parse(text)
    assert time.perf_counter() - start < 10
    said, shown, marked = str(caught.value).split("\n")
    assert message in said
    assert marked.strip() == "^"
    str(caught.value).encode()
    if column is None:
        return
    at = marked.index("^")
    assert column == (at - 2 if "…" not in shown else column)
    around = "".join(c if c.isprintable() else " " for c in text[column : column + 20])
    assert shown[at:].startswith(around[:20])


def test_a_text_about_a_network_that_is_known() -> None:
    asked = []

    def layers() -> dict[str, tuple[int, ...]]:
        asked.append(1)
        return {"block5": (4, 4, 6), "block2/conv": (4, 4, 3), "layers/0": (2,), "logits": (3,)}

    for text, wanted in [
        ("block5:*", ob.Channel("block5", range(6))),
        ("2*block2/conv:*@1,2", 2 * ob.Neuron("block2/conv", range(3), (1, 2))),
        ("logits:*", ob.Logit(range(3))),
        ("layers/0", ob.Layer("layers/0")),
    ]:
        found = ob.parse(text, layers)
        assert found == wanted
        assert ob.parse(str(found)) == found
    for text, message in [
        ("blok5:*", "unknown layer 'blok5'; nearest: block5"),
        ("block2/3", "no such layer, nearest: block2/conv"),
    ]:
        with pytest.raises(ob.ParseError, match=message):
            ob.parse(text, layers)
    asked.clear()
    assert ob.parse("block5:0-2 - tv/3", layers) == ob.parse("block5:0-2 - tv/3")
    assert not asked


@pytest.mark.parametrize("value", [None, 3, b"tv", ["tv"], ob.TotalVariation()])
def test_text_is_text(value) -> None:
    with pytest.raises(ob.ParseError, match="must be a string"):
        ob.parse(value)


def test_nothing_runs(tmp_path) -> None:
    witness = tmp_path / "witness"
    for command in (
        f"__import__('os').mkdir({str(witness)!r})",
        f"tv(open({str(witness)!r}, 'w'))",
    ):
        with pytest.raises(ob.ParseError):
            ob.parse(command)
    assert os.listdir(tmp_path) == []


def test_a_sum_of_hundreds_of_terms() -> None:
    objective = sum(ob.Channel("block8", k) for k in range(600))
    assert ob.parse(str(objective)) == objective


def test_a_long_array_is_exact() -> None:
    for shape in ((300,), (3, 100)):
        vector = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        objective = ob.Direction("a", vector)
        assert np.array_equal(ob.parse(str(objective)).vector, vector)
        assert len(str(objective)) < 2000


# ---- arrays by name

ROW = np.array([[1.0, 2.0]], np.float32)


def test_a_named_array_is_written_by_its_name() -> None:
    row = ob.NamedArray(ROW, "seen")
    objective = ob.Channel("block8", 3) - 2 * ob.FeatureMatch("stem", row, metric="log")
    assert str(objective) == "block8:3 - 2.0*feature_match('stem', seen, metric='log')"
    assert "FeatureMatch('stem', seen, metric='log')" in repr(objective)
    again = ob.parse(str(objective), seen=row)
    assert again == objective
    assert again.objectives[1].objective.target is row
    assert ob.parse(str(objective), seen=ROW.tolist()) == objective
    assert ob.parse(str(objective), seen=ob.NamedArray(ROW, "other")) == objective
    # Another array of the same name is another objective.
    assert ob.parse(str(objective), seen=2 * ROW) != objective
    # Equal by value, whatever they are called.
    assert ob.FeatureMatch("stem", row) == ob.FeatureMatch("stem", ROW)
    assert hash(ob.FeatureMatch("stem", row)) == hash(ob.FeatureMatch("stem", ROW))


def test_a_named_array_is_a_copy_of_32_bits_and_what_is_computed_has_no_name() -> None:
    given = ROW.copy()
    row = ob.NamedArray(given, "seen")
    given[:] = 0
    np.testing.assert_array_equal(row, ROW)
    with pytest.raises(ValueError, match="read-only"):
        row[0, 0] = 3
    for values in (3, 3.0, [1, 2], np.arange(3), np.arange(3.0)):
        assert ob.NamedArray(values, "seen").dtype == np.float32
    for computed in (2 * row, row[:1], row.copy(), row.reshape(2)):
        assert getattr(computed, "name", None) is None
        assert "[1.0, 2.0]" in str(ob.FeatureMatch("a", row[:1]))


@pytest.mark.parametrize("name", ["text", "blur", "channel", "sum", "array", "block8", "_", "a1"])
def test_an_array_may_have_the_name_of_an_objective_a_layer_or_an_argument(name: str) -> None:
    row = ob.NamedArray(ROW, name)
    objective = ob.FeatureMatch("block8", row) + ob.Blur() + ob.Layer("block8")
    assert ob.parse(str(objective), **{name: row}) == objective


@pytest.mark.parametrize("name", ["", "A", "a b", "1a", "a.b", "é", "lambda", "in", 3, None])
def test_a_name_that_no_text_can_hold_is_refused(name) -> None:
    with pytest.raises(ob.ObjectiveError, match="an array's name is of lower case letters"):
        ob.NamedArray(ROW, name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.nan], "seen must be finite in float32"),
        ([1e300], "seen must be finite in float32"),
        (["a"], "seen must be a number or an array of numbers"),
        (None, "seen must be a number or an array of numbers; got None"),
        ([[1], [2, 3]], "seen must be a number or an array of numbers"),
    ],
)
def test_values_that_no_array_can_hold_are_refused(values, message: str) -> None:
    for build in (
        lambda: ob.NamedArray(values, "seen"),
        lambda: ob.parse("feature_match('a', seen)", seen=values),
    ):
        with pytest.raises(ob.ObjectiveError, match=message) as caught:
            build()
        assert "\n" not in str(caught.value)


def test_an_array_is_no_objective_and_a_missing_one_is_marked() -> None:
    with pytest.raises(ob.ParseError, match="NamedArray is not an objective"):
        ob.parse("seen", seen=ROW)
    with pytest.raises(ob.ParseError, match="must be a number or an array of numbers; got Layer"):
        ob.parse("feature_match('a', seen)")


# ---- fuzzing

names = st.sampled_from(["block8", "stem", "logits", "block7/expand", "features.3.conv", "tv"]) | (
    st.text(min_size=1, max_size=8)
)
whole = st.integers(0, 2**31 - 1)
finite = st.floats(-1e10, 1e10, width=32)
positive = st.floats(0.015625, 512, width=32)


def arrays(elements: st.SearchStrategy, *shape: int) -> st.SearchStrategy:
    size = int(np.prod(shape))
    return st.lists(elements, min_size=size, max_size=size).map(
        lambda values: np.reshape(values, shape)
    )


targets = st.sampled_from([(1, 2), (3, 2), (1, 2, 2, 3), (3, 2, 2, 3)]).flatmap(
    lambda shape: arrays(finite, *shape).map(lambda a: np.where(a == 0, 1, a))
)
indices = whole | arrays(whole, 3)
positions = st.none() | arrays(whole, 2) | arrays(whole, 3, 2)
vectors = arrays(finite, 2) | arrays(finite, 3, 2) | arrays(finite, 100)
simple = st.builds(ob.Layer, names) | st.builds(lambda w, a: w * ob.Layer(a), finite, names)
CLASSES: dict[type[ob.Objective], st.SearchStrategy[ob.Objective]] = {
    ob.Channel: st.builds(ob.Channel, names, indices),
    ob.Neuron: st.builds(ob.Neuron, names, indices, positions),
    ob.Direction: st.builds(ob.Direction, names, vectors, power=positive),
    ob.Facet: st.builds(ob.Facet, names, vectors),
    ob.DirectionNeuron: st.builds(ob.DirectionNeuron, names, vectors, positions, positive),
    ob.Layer: st.builds(ob.Layer, names),
    ob.Logit: st.builds(ob.Logit, indices, st.just("logits") | names),
    ob.Probability: st.builds(ob.Probability, indices, layer=names),
    ob.LogProbability: st.builds(ob.LogProbability, indices),
    ob.DoubtedLogit: st.builds(ob.DoubtedLogit, indices),
    ob.FeatureMatch: st.builds(
        ob.FeatureMatch, names, targets, metric=st.sampled_from(["l2", "log", "cosine", "norm"])
    ),
    ob.Caricature: st.builds(ob.Caricature, names, targets.map(abs), positive, st.booleans()),
    ob.Style: st.builds(ob.Style, names, targets),
    ob.Diversity: st.builds(ob.Diversity, names),
    ob.MinDistance: st.builds(ob.MinDistance, st.none() | names),
    ob.Alignment: st.builds(ob.Alignment, st.none() | names, st.floats(1, 9)),
    ob.BatchStatistics: st.sampled_from([1, 3, 100]).flatmap(
        lambda c: st.builds(ob.BatchStatistics, names, arrays(finite, c), arrays(positive, c))
    ),
    ob.SortMatch: st.sampled_from([1, 3]).flatmap(
        lambda c: st.builds(
            ob.SortMatch, names, arrays(finite, 4, c).map(lambda a: np.sort(a, axis=0))
        )
    ),
    ob.TotalVariation: st.builds(ob.TotalVariation, positive),
    ob.AlphaNorm: st.builds(ob.AlphaNorm, st.floats(1, 9), finite, st.booleans()),
    ob.L1: st.builds(ob.L1, finite),
    ob.L2: st.builds(ob.L2, finite),
    ob.Blur: st.builds(ob.Blur, positive),
    ob.CenterBias: st.builds(ob.CenterBias, positive),
    ob.Constant: st.builds(ob.Constant, finite | arrays(finite, 3)),
    ob.Change: st.builds(
        ob.Change,
        st.builds(ob.L2, finite),
        arrays(positive, 1, 1, 2, 3) | arrays(finite, 3, 1, 1, 1),
    ),
    ob.Tone: st.builds(ob.Tone, arrays(finite, 2) | arrays(finite, 3, 2), arrays(positive, 2)),
    ob.Boundary: st.builds(ob.Boundary, st.integers(1, 99), positive),
    ob.WhitenedDirection: st.builds(
        ob.WhitenedDirection,
        names,
        arrays(finite, 2) | arrays(finite, 3, 2),
        arrays(finite, 2, 2) | arrays(finite, 3, 2, 2),
        positive,
    ),
    ob.SpatialDirection: st.builds(
        ob.SpatialDirection,
        names,
        arrays(finite, 1, 2, 3) | arrays(finite, 3, 1, 2, 3),
        st.none() | arrays(whole, 2) | arrays(whole, 3, 2),
        positive,
    ),
    ob.Window: st.builds(
        ob.Window, names, indices, arrays(positive, 2, 3) | arrays(positive, 3, 1, 2)
    ),
    ob.AtLeast: st.builds(ob.AtLeast, simple, finite | arrays(finite, 3)),
    ob.Level: st.builds(ob.Level, simple, finite | arrays(finite, 3)),
    ob.Softmax: st.builds(ob.Softmax, st.lists(simple, min_size=2, max_size=3), positive),
    ob.Softmin: st.builds(ob.Softmin, st.lists(simple, min_size=2, max_size=3), positive),
    ob.InGroups: st.builds(ob.InGroups, simple, st.integers(1, 9)),
}
weights = st.floats(-1e6, 1e6) | st.integers(-9, 9) | arrays(finite, 3) | arrays(finite, 100)


def _algebra(inner: st.SearchStrategy) -> st.SearchStrategy:
    nonzero = st.floats(0.01, 1e6) | st.just(-1) | st.just(np.array([1.0, -2.0, 0.5]))
    some = st.lists(whole, min_size=1, max_size=4, unique=True)
    single = inner.filter(lambda o: _size(o) is None)
    return st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        st.builds(lambda w, a: w * a, st.floats(-10, 10) | st.integers(-9, 9), inner),
        st.builds(lambda w, a: w * a, weights, single),
        st.builds(lambda w, a: w - a, weights, inner),
        st.builds(lambda w, a: a / w, nonzero, single),
        st.builds(lambda a: -a, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(lambda a, images: a.on(images), single, some),
    )


def _size(objective: ob.Objective) -> int | str | None:
    try:
        return objective.batch_size
    except ob.ObjectiveError:
        return "several"


objectives = st.recursive(st.one_of(list(CLASSES.values())), _algebra, max_leaves=5)


def test_every_class_with_a_name_is_fuzzed() -> None:
    # Other tests define classes of their own: only those that the package exports count.
    vocabulary = set(_vocabulary().values())
    ours = {
        value
        for value in vars(ob).values()
        if isinstance(value, type) and issubclass(value, ob.Objective) and value in vocabulary
    }
    assert set(CLASSES) == ours


@pytest.mark.thorough
@fuzzed
@given(objectives)
def test_parse_reads_what_str_writes(objective: ob.Objective) -> None:
    text = str(objective)
    again = ob.parse(text)
    assert again == objective
    assert hash(again) == hash(objective)
    assert str(again) == text
    assert ob.parse(f" {text}\n") == objective
    assert ob.parse(f"({text})") == objective
    assert "\n" not in repr(objective)


def either_an_objective_or_a_parse_error(text: str) -> None:
    start = time.perf_counter()
    said = None
    try:
        found = ob.parse(text)
    except ob.ParseError as error:
        said = str(error)
    assert time.perf_counter() - start < 10
    if said is None:
        assert isinstance(found, ob.Objective)
        assert ob.parse(str(found)) == found
    else:
        said.encode()
        assert said.split("\n")[2].strip() == "^"


@fuzzed
@given(st.text() | st.text(st.characters()))
def test_any_text(text: str) -> None:
    either_an_objective_or_a_parse_error(text)


PIECES = r"""
    block8 tv l2 logits : 3 0 -1 1.5 1e9 1e400 @ , 7,7 center [ ] [0,1] ( ) { } + - * / ** . .on
    .on( .__class__ lambda if else for in not is := = == ' " 'a' "b" # \ \n \ud800 f' b' _ __ None
    True nan inf channel( channel('a',3) neuron direction('a',[1,2]) sum([ array( tv( beta= ; $ ? !
    ~ % & | ^ < > é ～ 99999999999999999999
"""
pieces = st.sampled_from([*PIECES.split(), *" \n\0\f\r\t\u2028", "  "])


@fuzzed
@given(st.lists(pieces, max_size=12).map("".join))
def test_any_heap_of_pieces(text: str) -> None:
    either_an_objective_or_a_parse_error(text)


@pytest.mark.thorough
@fuzzed
@given(objectives.map(str), st.data())
def test_valid_texts_with_a_fault(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 4)))
    put = data.draw(st.sampled_from(list("()[]'\",:@.+-*/ \n0a_#\\=")) | pieces | st.just(""))
    either_an_objective_or_a_parse_error(text[:start] + put + text[stop:])


# ---- the parts


literal = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text() | finite,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
)


@pytest.mark.thorough
@fuzzed
@given(literal)
def test_a_literal_reads_back_equal(value) -> None:
    assert Evaluator({}, "value").evaluate(format_literal(value)) == value


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32", "bool"])
@pytest.mark.parametrize("shape", [(3,), (2, 0), (100,), (4, 5, 6)])
def test_an_array_reads_back_equal(dtype: str, shape: tuple[int, ...]) -> None:
    value = np.random.default_rng(0).normal(size=shape).astype(dtype)
    again = Evaluator({"array": array}, "value").evaluate(format_literal(value))
    np.testing.assert_array_equal(np.asarray(again, dtype).reshape(shape), value)


def test_what_has_no_text_form() -> None:
    for value in (object(), {1: 2}, np.array(["a"]), np.array([1j]), np.zeros(3, np.float64)):
        with pytest.raises(ob.ObjectiveError, match="no text form"):
            format_literal(value)


def test_the_evaluator_speaks_of_what_it_reads() -> None:
    evaluator = Evaluator({"pad": lambda size: size}, "transform")
    assert evaluator.evaluate("pad(size=3)") == 3
    for text, message in [
        ("", "an empty text is no transform"),
        ("pad", "unknown transform 'pad'"),
        ("x.y()", ".y is not allowed in a transform"),
        ("pad(width=3)", "pad has no argument 'width'; it takes size"),
        ("pad()", "pad needs size; it takes size"),
        ("a.b", "an attribute is not allowed in a transform"),
    ]:
        with pytest.raises(ob.ParseError) as caught:
            evaluator.evaluate(text)
        assert message in str(caught.value)


# ---- classes by name -----------------------------------------------------------------------


_NAMES = {"tabby": 281, "tiger cat": 282, "n02123045": 281, "7": 3}


def _classes(name):
    if name not in _NAMES:
        raise ValueError(f"no class {name!r}; nearest: 281 'tabby'")
    return _NAMES[name]


def _shapes():
    return {"block8": (7, 7, 192), "logits": (1000,)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logits:tabby", ob.Logit(281)),
        ("logits: tabby - 0.1*tv", ob.Logit(281) - 0.1 * ob.TotalVariation()),
        ("logits:'tiger cat'", ob.Logit(282)),
        ('0.5*logits:"tiger cat".on([0])', 0.5 * ob.Logit(282).on([0])),
        ("logits:n02123045", ob.Logit(281)),
        ("logits:'7'", ob.Logit(3)),
        ("logits:7", ob.Logit(7)),
        ("logits:[tabby, 5, 'tiger cat', 7-8]", ob.Logit([281, 5, 282, 7, 8])),
    ],
)
def test_a_class_by_its_name_is_its_number(text, expected):
    found = ob.parse(text, _shapes, _classes)
    assert found == expected
    # The text form is of numbers, which need no network.
    assert ob.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logits:tbby", "no class 'tbby'; nearest: 281 'tabby'"),
        ("logits:[tabby, 'x,y']", "no class 'x,y'"),
        ("logits:tiger cat", "quotes: logits:'tiger cat'"),
        ("logits:German-shepherd - tv", "quotes: logits:'German-shepherd'"),
        ("block8:tabby", "names are of classes, as logits:tabby"),
        ("block8:[1, tabby]", "names are of classes"),
        ("logits:[tabby,]", "a list of units"),
    ],
)
def test_a_class_that_there_is_not(text, message):
    with pytest.raises(ob.ParseError, match=re.escape(message)):
        ob.parse(text, _shapes, _classes)


def test_a_name_needs_the_network():
    with pytest.raises(ob.ParseError, match="the network's to say"):
        ob.parse("logits:tabby")


def test_what_others_warn_of_while_a_text_is_read_stays_a_warning(monkeypatch) -> None:
    # Python's filters are of the whole process: a thread that saves a picture may warn meanwhile.
    raised, read = [], ast.parse

    def warn() -> None:
        try:
            warnings.warn("of another thread", UserWarning, stacklevel=1)
        except UserWarning as error:
            raised.append(error)

    def read_and_wait(*arguments: Any, **options: Any) -> ast.AST:
        thread = threading.Thread(target=warn)
        thread.start()
        thread.join()
        return read(*arguments, **options)

    monkeypatch.setattr(ast, "parse", read_and_wait)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ob.parse("a:1 + 2 * b:3")
    assert not raised
