import argparse
import collections
import datetime
import functools
import hashlib
import io
import json
import os
import pathlib
import pickle
import tracemalloc
import zipfile

import flax.serialization
import jax.numpy as jnp
import msgpack
import msgpack.fallback
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from featvis.errors import CheckpointError
from featvis.weights.files import read_checkpoint, read_file, read_weights
from featvis.weights.layouts import KeyLayout, Rule, assemble, describe_differences, fit

# Files are written instruction by instruction: neither torch nor a pickler of ours is trusted.


def text(value):
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def whole(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def group(*items):
    return b"(" + b"".join(items) + b"t"


def call(function, *arguments):
    return function + group(*arguments) + b"R"


def mapping(items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def program(body):
    return b"\x80\x02" + body + b"."


def storage(key, count, kind="FloatStorage", view=()):
    pid = group(text("storage"), name("torch", kind), text(key), text("cpu"), whole(count), *view)
    return pid + b"Q"


def tensor(stored, size, stride, offset=0):
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        stored,
        whole(offset),
        group(*map(whole, size)),
        group(*map(whole, stride)),
        b"\x89",
        call(name("collections", "OrderedDict")),
    )


def zip_file(body, storages=(), order=b"little", prefix="archive/"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(prefix + "data.pkl", program(body))
        if order is not None:
            archive.writestr(prefix + "byteorder", order)
        for key, data in dict(storages).items():
            archive.writestr(f"{prefix}data/{key}", data)
    return buffer.getvalue()


def legacy_file(body, storages=(), itemsize=4):
    storages = dict(storages)
    start = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(
        [pickle.dumps(item, 2) for item in start]
        + [program(body), pickle.dumps(list(storages), 2)]
        + [(len(d) // itemsize).to_bytes(8, "little") + d for d in storages.values()]
    )


FORMATS = {"zip": zip_file, "legacy": legacy_file}
VALUES = np.arange(6, dtype="<f4")
STORED = {"0": VALUES.tobytes()}


@pytest.fixture(params=FORMATS)
def write(request, tmp_path):
    def write(*args, **options):
        path = tmp_path / "weights.pth"
        path.write_bytes(FORMATS[request.param](*args, **options))
        return path

    return write


def small_file(kind):
    whole_tensor = tensor(storage("0", 6, view=[b"N"] * (kind == "legacy")), (2, 3), (3, 1))
    return FORMATS[kind](mapping({"a": whole_tensor}), STORED)


def test_strided_views_share_a_storage(write):
    content = {
        "rows": tensor(storage("0", 6), (2, 3), (3, 1)),
        "columns": tensor(storage("0", 6), (3, 2), (1, 3)),
        "tail": tensor(storage("0", 6), (2,), (1,), offset=4),
        "scalar": tensor(storage("0", 6), (), (), offset=5),
        "empty": tensor(storage("0", 6), (0, 3), (3, 1)),
        "expanded": tensor(storage("0", 6), (4, 6), (0, 1)),
        "windows": tensor(storage("0", 6), (4, 3), (1, 1)),
    }
    found = read_checkpoint(write(mapping(content), STORED))
    assert list(found) == list(content)
    np.testing.assert_array_equal(found["rows"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(found["columns"], VALUES.reshape(2, 3).T)
    np.testing.assert_array_equal(found["tail"], [4, 5])
    assert found["scalar"].shape == ()
    assert found["scalar"] == 5
    assert found["empty"].shape == (0, 3)
    np.testing.assert_array_equal(found["expanded"], np.tile(VALUES, (4, 1)))
    np.testing.assert_array_equal(found["windows"], sliding_window_view(VALUES, 3))
    assert all(a.dtype == np.float32 for a in found.values())


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("FloatStorage", np.float32([1.5, -2]), np.float32([1.5, -2])),
        ("DoubleStorage", np.float64([1.5, -2]), np.float64([1.5, -2])),
        ("HalfStorage", np.float16([1.5, -2]), np.float16([1.5, -2])),
        ("BFloat16Storage", np.uint16([0x3FC0, 0xC000]), np.float32([1.5, -2])),
        ("LongStorage", np.int64([1, -2]), np.int64([1, -2])),
        ("IntStorage", np.int32([1, -2]), np.int32([1, -2])),
        ("ShortStorage", np.int16([1, -2]), np.int16([1, -2])),
        ("CharStorage", np.int8([1, -2]), np.int8([1, -2])),
        ("ByteStorage", np.uint8([1, 255]), np.uint8([1, 255])),
        ("BoolStorage", np.uint8([0, 3]), np.array([False, True])),
    ],
)
def test_every_type_in_both_formats_and_byte_orders(kind, data, expected, tmp_path):
    body = mapping({"a": tensor(storage("0", 2, kind), (2,), (1,))})
    little = {"0": data.astype(data.dtype.newbyteorder("<")).tobytes()}
    big = {"0": data.astype(data.dtype.newbyteorder(">")).tobytes()}
    files = {
        "zip": zip_file(body, little),
        "no byteorder": zip_file(body, little, order=None, prefix=""),
        "big-endian": zip_file(body, big, order=b"big", prefix="model_v3/"),
        "legacy": legacy_file(body, little, data.itemsize),
    }
    for content in files.values():
        path = tmp_path / "a.pth"
        path.write_bytes(content)
        found = read_checkpoint(path)["a"]
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_state_dict_inside_a_training_checkpoint(write):
    inner = mapping({"a": tensor(storage("0", 6), (6,), (1,))})
    path = write(mapping({"epoch": whole(3), "state_dict": inner}), STORED)
    assert list(read_checkpoint(path)) == ["a"]


def test_oldest_files_have_views_of_storages(tmp_path):
    view = group(text("v"), whole(2), whole(3))
    body = mapping({"a": tensor(storage("0", 6, view=[view]), (3,), (1,))})
    path = tmp_path / "old.pth"
    path.write_bytes(legacy_file(body, STORED))
    np.testing.assert_array_equal(read_checkpoint(path)["a"], [2, 3, 4])


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"hello", b"<html>", b"{}"])
def test_what_holds_no_weights_is_told_what_does(content, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    known = r"no file of weights: these are .safetensors, .npz, .msgpack, and PyTorch's"
    with pytest.raises(CheckpointError, match=known):
        read_checkpoint(path)


def hostile(marker):
    """Programs that make the file `marker`, or come near to running something."""
    touch = text(f"touch '{marker}'")
    python = text(f"__import__('pathlib').Path({str(marker)!r}).touch()")
    run = call(name("os", "system"), touch)
    a = tensor(storage("0", 6), (6,), (1,))
    return {
        "system": run,
        "posix": call(name("posix", "system"), touch),
        "eval": call(name("builtins", "eval"), python),
        "exec, the old name": call(name("__builtin__", "exec"), python),
        "among tensors": mapping({"a": a, "b": run}),
        "in a key": b"}(" + run + a + b"u",
        "in a tensor's size": call(
            name("torch._utils", "_rebuild_tensor_v2"), storage("0", 6), whole(0), run, run
        ),
        "in a storage": group(text("storage"), run, text("0"), text("cpu"), whole(6)) + b"Q",
        "in the state of a dict": call(name("collections", "OrderedDict"))
        + mapping({"_metadata": run})
        + b"b",
        "getattr": call(
            call(
                name("builtins", "getattr"),
                call(name("builtins", "__import__"), text("os")),
                text("system"),
            ),
            touch,
        ),
        "a dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x1cOrderedDict.__init__.__globals__\x93",
        "a method": b"\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93",
        "torch's own loader": call(name("torch", "load"), touch),
        "an unlisted storage": storage("0", 6, "QInt8Storage"),
        "INST": b"(" + touch + b"ios\nsystem\n",
        "OBJ": b"(" + name("os", "system") + touch + b"o",
        "NEWOBJ": name("subprocess", "Popen") + group(touch) + b"\x81",
        "overwriting a method": name("torch._utils", "_rebuild_tensor_v2")
        + b"N"
        + mapping({"__call__": name("os", "system")})
        + b"\x86b",
        "a setstate": name("collections", "OrderedDict")
        + mapping({"__setstate__": name("os", "system")})
        + b"b"
        + touch
        + b"b",
    }


@pytest.mark.parametrize("attack", hostile(""))
def test_hostile_pickle_is_refused_and_does_not_run(attack, write, tmp_path):
    marker = tmp_path / "marker"
    path = write(hostile(marker)[attack], STORED)
    with pytest.raises(CheckpointError, match=r"weights\.pth: ") as caught:
        read_checkpoint(path)
    assert not marker.exists()
    assert "\n" not in str(caught.value)


def test_the_attacks_would_work_on_pickle(tmp_path):
    marker = tmp_path / "marker"
    for attack in ("system", "posix", "getattr", "exec, the old name"):
        pickle.loads(program(hostile(marker)[attack]))
        assert marker.exists(), attack
        marker.unlink()


def test_forbidden_global_is_named(write):
    with pytest.raises(CheckpointError, match=r"os\.system"):
        read_checkpoint(write(call(name("os", "system"), text("true"))))


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((2, 2), (3, 3), 0),
        ((2,), (2**61,), 0),
        ((1,), (1,), 2**61),
        ((2**40,), (0,), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 3),
        ((2,), (1,), -1),
        ((2, 3), (1,), 0),
        ((0, 2**61, 2**61), (1, 1, 1), 0),
        ((1,) * 40, (1,) * 40, 0),
    ],
)
def test_tensors_outside_their_storage_are_refused(size, stride, offset, write):
    body = mapping({"a": tensor(storage("0", 6), size, stride, offset)})
    with pytest.raises(CheckpointError):
        read_checkpoint(write(body, STORED))


@pytest.mark.parametrize("size", [(2**40,), (2**22, 6), (2**61, 2**61)])
def test_few_elements_do_not_pose_as_many(size, write):
    strides = (0,) * (len(size) - 1) + (1 if size[-1] == 6 else 0,)
    body = mapping({"a": tensor(storage("0", 6), size, strides)})
    with pytest.raises(CheckpointError, match=r"repeats the 6 elements.*\.contiguous\(\)"):
        read_checkpoint(write(body, STORED))


@pytest.mark.parametrize("count", [5, 7, 2**50, -1])
def test_storage_of_another_length_is_refused(count, write):
    body = mapping({"a": tensor(storage("0", count), (1,), (1,))})
    with pytest.raises(CheckpointError):
        read_checkpoint(write(body, STORED))


def shared_tuples(nesting, share):
    """A key t = (t, t), over and over: few bytes, and a hash of 2**nesting steps."""
    return b"})" + b"".join(share(i) + b"\x86" for i in range(nesting)) + b"Ns"


SHARES = {
    # Stored and fetched; the same with something between the tuple and its storing; doubled.
    "memo": lambda i: b"q%ch%c" % (i, i),
    "memo, in disguise": lambda i: b"N0q%ch%c" % (i, i),
    "numbered memo": lambda i: b"\x94h%c" % i,
    "text memo": lambda i: b"p%d\ng%d\n" % (i, i),
    "wide": lambda i: b"q%c(" % i + b"h%c" % i * 9 + b"t",
    "dup": lambda i: b"2",
}


@pytest.mark.parametrize("share", SHARES)
def test_tuples_that_share_their_parts_cost_nothing(share, write):
    # Hashing them would take 2^45 steps: that the test ends is half of what it says.
    path = write(shared_tuples(45, SHARES[share]))
    with pytest.raises(CheckpointError, match=r"no mapping of names|instruction DUP"):
        read_checkpoint(path)


@pytest.mark.parametrize("nested", [b")" + b"\x85" * 10**5, b"(" * 10**5 + b"t" * 10**5])
def test_deeply_nested_tuples_cost_nothing(nested, write):
    with pytest.raises(CheckpointError, match="no mapping of names"):
        read_checkpoint(write(b"}" + nested + b"Ns"))


def test_nested_lists_are_not_shown(tmp_path):
    lists = b"]" + b"".join(b"q%c0](h%ch%ce" % (i, i, i) for i in range(40))
    path = tmp_path / "lists.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + program(lists))
    with pytest.raises(CheckpointError, match="format version"):
        read_checkpoint(path)


def test_a_tuple_may_be_shared_a_few_times(write):
    # As Python's pickler does with the constants of a training script.
    extra = {"betas": group(whole(1), whole(2)) + b"q\x07", "same": b"h\x07"}
    inner = mapping({"a": tensor(storage("0", 6), (6,), (1,))})
    path = write(mapping({**extra, "state_dict": inner}), STORED)
    assert list(read_checkpoint(path)) == ["a"]


@pytest.mark.parametrize(
    "body", [b"0", b"(0", b"q\x00", b"}(q\x00", b"R", b"u", b"}u", b"(u", b"t"]
)
def test_instructions_without_operands_are_refused(body, write):
    with pytest.raises(CheckpointError):
        read_checkpoint(write(body))


def test_memory_bombs_are_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    memo = b"}r\xff\xff\xff\x7f"
    for content in (zip_file(memo), legacy_file(memo)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="memo"):
            read_checkpoint(path)
    zeros = bytes(2**25)
    body = mapping({"a": tensor(storage("0", 2**23), (2**23,), (1,))})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", program(body))
        archive.writestr("a/data/0", zeros)
    with pytest.raises(CheckpointError, match="unpacks to 335"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_any_truncation_is_an_error(kind, tmp_path):
    content, path = small_file(kind), tmp_path / "cut.pth"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "file.pth"


@pytest.mark.parametrize("kind", FORMATS)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
def test_damage_is_an_error_or_an_array(kind, changes, scratch):
    content = bytearray(small_file(kind))
    for position, byte in changes:
        content[position % len(content)] = byte
    scratch.write_bytes(content)
    try:
        found = read_checkpoint(scratch)
    except CheckpointError:
        return
    assert all(isinstance(a, np.ndarray) and a.copy().size <= 6 for a in found.values())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"hello",
        pickle.dumps({"a": 1}),
        pickle.dumps([1, 2]),
        zip_file(whole(3)),
        zip_file(whole(3) + whole(4)),
        zip_file(mapping({"a": whole(3)})),
        zip_file(b"}(" + whole(1) + whole(2) + b"u"),
        zip_file(mapping({"a": tensor(storage("9", 6), (6,), (1,))}), STORED),
        zip_file(mapping({}), order=b"middle"),
        legacy_file(mapping({"a": tensor(storage("9", 6), (6,), (1,))}), STORED),
    ],
)
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.bin"):
        read_checkpoint(path)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path)


RULES = (
    Rule(r"(\w+)/kernel", r"\1.weight", np.transpose),
    Rule(r"(\w+)/bias", r"\1.bias"),
)
EXPECTED = {"fc/kernel": (3, 2), "fc/bias": (2,)}


def test_assemble_maps_and_transforms():
    tensors = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2), "fc.step": np.zeros(())}
    found, wrong = assemble(tensors, EXPECTED, KeyLayout("test", RULES, ignore=r".*\.step"))
    assert wrong == []
    assert {path: array.shape for path, array in found.items()} == EXPECTED


def test_assemble_lists_every_difference():
    tensors = {"fc.weight": np.ones((3, 2)), "foo": np.zeros(3)}
    assert assemble(tensors, EXPECTED, KeyLayout("test", RULES))[1] == [
        "- fc.weight for fc/kernel (3, 2)",
        "+ fc.weight (3, 2)",
        "- fc.bias for fc/bias (2,)",
        "+ foo (3,)",
    ]


# ---- the other formats ---------------------------------------------------------------------


def write_safetensors(path, tensors, cut=None, **changes):
    """A file by hand: `{name: (dtype, shape, bytes)}`, and what its header is to say instead."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for key, (kind, shape, raw) in tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": offsets, **changes}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes((len(text).to_bytes(8, "little") + text + data)[:cut])
    return path


def npy(shape, data=b"", descr="<f4", order=False):
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": order, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data


def write_npz(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, data in members.items():
            archive.writestr(key, data)
    return path


def test_safetensors(tmp_path):
    tensors = {
        "z": ("F32", [2, 3], VALUES.tobytes()),
        "half": ("F16", [6], VALUES.astype("<f2").tobytes()),
        # A bfloat16 is the upper half of a float32; small whole numbers lose nothing.
        "brain": ("BF16", [3, 2], VALUES.view("<u2")[1::2].tobytes()),
        "count": ("I64", [], (7).to_bytes(8, "little")),
        "mask": ("BOOL", [3], b"\x00\x01\x02"),
        "empty": ("F32", [0, 3], b""),
    }
    found = read_weights(write_safetensors(tmp_path / "w.safetensors", tensors))
    assert list(found) == list(tensors)
    np.testing.assert_array_equal(found["z"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(found["half"], VALUES)
    np.testing.assert_array_equal(found["brain"], VALUES.reshape(3, 2))
    assert found["brain"].dtype == np.float32
    assert found["count"].shape == ()
    assert found["count"] == 7
    np.testing.assert_array_equal(found["mask"], [False, True, True])
    assert found["empty"].shape == (0, 3)


def test_safetensors_as_its_library_writes_them(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    tensors = {f"layer{i}": VALUES * i for i in range(20)}
    numpy.save_file(tensors, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert {key: value.tolist() for key, value in found.items()} == {
        key: value.tolist() for key, value in tensors.items()
    }


@pytest.mark.parametrize("cut", [0, 4, 8, 40, -1])
def test_truncated_safetensors(tmp_path, cut):
    path = write_safetensors(tmp_path / "w.safetensors", {"a": ("F32", [6], STORED["0"])}, cut)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: .*truncated"):
        read_weights(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"data_offsets": [0, 2**40], "shape": [2**38]},
        {"data_offsets": [0, 24], "shape": [7]},
        {"data_offsets": [0, 24], "shape": [2**63]},
        {"data_offsets": [24, 0]},
        {"data_offsets": [-24, 0]},
        {"data_offsets": [4, 28]},
        {"dtype": "F128"},
        {"dtype": "C64", "shape": [3]},
        {"shape": [-6]},
    ],
)
def test_a_safetensors_header_that_is_not_true(tmp_path, changes):
    tensors = {"a": ("F32", [6], STORED["0"])}
    path = write_safetensors(tmp_path / "w.safetensors", tensors, **changes)
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        read_weights(path)


def test_a_header_of_safetensors_longer_than_the_file(tmp_path):
    path = tmp_path / "w.safetensors"
    for length in (2**20, 2**62, 2**64 - 1):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(CheckpointError, match=r"w\.safetensors"):
            read_weights(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    arrays = {
        "z": VALUES.reshape(2, 3),
        "columns": np.asfortranarray(VALUES.reshape(2, 3)),
        "big-endian": VALUES.astype(">f4"),
        "half": VALUES.astype("f2"),
        "count": np.int64(7),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }
    save(tmp_path / "w.npz", **arrays)
    found = read_weights(tmp_path / "w.npz")
    assert list(found) == list(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype.newbyteorder("=")


def test_an_npz_of_objects_is_not_unpickled(tmp_path):
    class Bad:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    np.savez(tmp_path / "w.npz", good=VALUES, bad=np.array([Bad()], object))
    with pytest.raises(CheckpointError, match=r"w\.npz.*bad has elements of type object"):
        read_weights(tmp_path / "w.npz")


def test_an_npz_that_unpacks_to_far_more_than_its_size(tmp_path):
    zeros = npy((2**23,), bytes(2**25))
    path = write_npz(tmp_path / "w.npz", {"a.npy": zeros}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(CheckpointError, match=f"unpacks to {len(zeros)} bytes, more than"):
        read_weights(path)


def test_an_npz_whose_members_are_small_but_many(tmp_path):
    members = {f"{i}.npy": npy((2**20,), bytes(2**22)) for i in range(5)}
    path = write_npz(tmp_path / "w.npz", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="unpacks to"):
        read_weights(path)


def test_an_npz_that_hides_its_size(tmp_path):
    zeros = npy((2**23,), bytes(2**25))
    path = write_npz(tmp_path / "w.npz", {"a.npy": zeros}, zipfile.ZIP_DEFLATED)
    size = len(zeros).to_bytes(4, "little")
    data = path.read_bytes()
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, (1000).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"w\.npz"):
        read_weights(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "member",
    [
        npy((2**40,), bytes(24)),
        npy((7,), bytes(24)),
        npy((-6,), bytes(24)),
        npy((2,), bytes(24), descr="<c8"),
        npy((3,), bytes(24), descr="|V8"),
        npy((6,), bytes(24), descr=[("a", "<f4")]),
        npy((6,), b""),
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x09\x00" + bytes(40),
        b"not an array",
        b"",
    ],
)
def test_a_damaged_array_in_an_npz(tmp_path, member):
    path = write_npz(tmp_path / "w.npz", {"a.npy": member})
    with pytest.raises(CheckpointError, match=r"w\.npz: not a readable \.npz file"):
        read_weights(path)


def test_a_truncated_npz(tmp_path):
    np.savez(tmp_path / "w.npz", a=VALUES)
    data = (tmp_path / "w.npz").read_bytes()
    for length in (0, 4, 100, len(data) - 1):
        (tmp_path / "w.npz").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"w\.npz"):
            read_weights(tmp_path / "w.npz")


def test_suffixes(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=VALUES)
    write_safetensors(tmp_path / "t.safetensors", {"a": ("F32", [6], STORED["0"])})
    (tmp_path / "p.pth").write_bytes(small_file("zip"))
    suffixes = (".npz", ".safetensors", ".pth")
    files = {suffix: next(tmp_path.glob(f"*{suffix}")) for suffix in suffixes}
    for kind, path in files.items():
        other = path.with_name("COPY" + kind.upper())
        other.write_bytes(path.read_bytes())
        assert read_weights(other)["a"].size == 6
        for wrong in files.keys() - {kind}:
            other = path.with_name("wrong" + wrong)
            other.write_bytes(path.read_bytes())
            with pytest.raises(CheckpointError, match="wrong"):
                read_weights(other)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".th"])
def test_missing_weights_and_directories(tmp_path, suffix):
    with pytest.raises(CheckpointError, match="No such file"):
        read_weights(tmp_path / f"nowhere{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / f"folder{suffix}")


# ---- as training scripts write them --------------------------------------------------------

NETWORK = {"conv.weight": np.arange(6.0).reshape(2, 3), "fc.bias": np.arange(3.0), "fc.step": 1.0}
LAYOUT = KeyLayout(
    "test",
    (Rule(r"conv/kernel", r"conv.weight", np.transpose), Rule(r"fc/bias", r"fc.bias")),
    ignore=r".*\.step",
)
SHAPES = {"conv/kernel": (3, 2), "fc/bias": (3,)}


def python(value):
    """The instructions that make an object, as Python's own pickler writes them."""
    return pickle.dumps(value, 2)[2:-1]


class State:
    """A state dict in a file: names, and a factor that tells it from others."""

    def __init__(self, prefix="", factor=1.0, network=NETWORK):
        self.arrays = {
            f"{prefix}{k}": np.asarray(factor * np.asarray(v), np.float32)
            for k, v in network.items()
        }


class Script:
    """What a training script saves, as instructions and storages."""

    def __init__(self, content):
        self.storages = {}
        self.body = self.write(content)

    def write(self, content):
        if isinstance(content, State):
            return mapping({key: self.tensor(array) for key, array in content.arrays.items()})
        if isinstance(content, np.ndarray):
            return self.tensor(content)
        if isinstance(content, bytes):
            return content
        if isinstance(content, dict) and all(isinstance(key, str) for key in content):
            return mapping({key: self.write(value) for key, value in content.items()})
        return python(content)

    def tensor(self, array):
        key, array = str(len(self.storages)), np.float32(array)
        self.storages[key] = array.tobytes()
        strides = [step // 4 for step in array.strides]
        return tensor(storage(key, array.size), array.shape, strides)


@pytest.fixture(params=FORMATS)
def save(request, tmp_path):
    def save(content, name="run.pth"):
        script = Script(content)
        path = tmp_path / name
        path.write_bytes(FORMATS[request.param](script.body, script.storages))
        return path

    return save


def fitted(path):
    """What is found for the network: the part, and the factor of its arrays."""
    found = fit(read_file(path), [LAYOUT], lambda layout: SHAPES, "the network")
    np.testing.assert_array_equal(found.arrays["conv/kernel"] / found.arrays["fc/bias"][1], KERNEL)
    return found.part, float(found.arrays["fc/bias"][1])


KERNEL = np.arange(6.0).reshape(2, 3).T
NESTS = ["model", "net", "network", "module", "params", "state_dict", "model_state_dict", "weights"]
PREFIXES = ["module.", "_orig_mod.", "model.", "backbone.", "module.model.", "_orig_mod.module."]


@pytest.mark.parametrize("nest", ["", *NESTS, "ema", "state_dict_ema", "anything"])
@pytest.mark.parametrize("prefix", ["", *PREFIXES, "encoder.trunk.model."])
def test_nests_and_prefixes(nest, prefix, save):
    state = State(prefix)
    part = "/".join(filter(None, [nest, prefix.rstrip(".")]))
    assert fitted(save({nest: state, "epoch": 3} if nest else state)) == (part, 1)


@pytest.mark.parametrize("nest", NESTS)
def test_a_nest_within_a_nest(nest, save):
    assert fitted(save({"best": {nest: State("module.")}, "last": 3})) == (f"best/{nest}/module", 1)


@pytest.mark.parametrize(
    "names",
    [
        ("conv._orig_mod.weight", "fc.bias"),
        ("module.conv.module.weight", "module.fc.bias"),
        ("model.conv._fsdp_wrapped_module.weight", "model.fc._checkpoint_wrapped_module.bias"),
    ],
)
def test_wrappers_of_parts_of_a_network(names, save):
    state = State()
    state.arrays = dict(zip(names, (NETWORK["conv.weight"], NETWORK["fc.bias"]), strict=True))
    assert fitted(save({"state_dict": state}))[1] == 1


class Config:
    def __init__(self):
        self.rate = 0.1


UNRELATED = {
    "optimizer": {
        "state": {0: {"step": 1}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0, 1]}],
    },
    "scalar": np.float64(71.3),
    "array": python(np.arange(5)),
    "objects": python(np.array([None, {}], object)),
    "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("x")),
    "path": pathlib.PurePosixPath("runs/1"),
    "set": {1, 2},
    "frozen set": frozenset({"a"}),
    "history": collections.defaultdict(list, {"loss": [0.5, 0.25]}),
    "counter": collections.Counter("abc"),
    "deque": collections.deque([1, 2], 3),
    "date": datetime.datetime(2026, 7, 6, tzinfo=datetime.UTC),
    "complex": 1 + 2j,
    "range": range(3),
    "slice": slice(1, 2),
    "bytes": python(b"\x00\xff"),
    "big": 2**100,
    "config": Config(),
    "class": Config,
    "function": python,
    "method": State().__init__,
    "partial": functools.partial(sorted, reverse=True),
    "device": call(name("torch", "device"), text("cuda"), whole(0)),
    "dtype": name("torch", "float16"),
    "size": call(name("torch", "Size"), group(whole(2), whole(3))),
    "relu": name("torch.nn.functional", "relu"),
    "scheduler": call(name("torch.optim.lr_scheduler", "LambdaLR")) + b"}b",
    "module": name("torch.nn.modules.linear", "Linear")
    + b")\x81"
    + mapping({"training": b"\x88"})
    + b"b",
}


@pytest.mark.parametrize("name", UNRELATED)
def test_what_a_script_saves_beside_the_network(name, save):
    assert fitted(save({name: UNRELATED[name], "model": State()})) == ("model", 1)
    # Also where it stands among the tensors themselves.
    state = Script({**State().arrays, name: UNRELATED[name]})
    path = save({})
    path.write_bytes(zip_file(state.body, state.storages))
    assert fitted(path) == ("", 1)


def test_all_that_a_script_saves_at_once(save):
    momentum = {"state": {"conv.weight": State(network={"exp_avg": np.ones(3)})}}
    path = save({**UNRELATED, "optimizer": momentum, "epoch": 3, "net": State("module.", 2)})
    assert fitted(path) == ("net/module", 2)
    assert list(read_weights(path)) == [f"module.{key}" for key in NETWORK]


def test_a_parameter_is_a_tensor(save):
    stored = Script(State())
    rebuild = name("torch._utils", "_rebuild_parameter")
    body = mapping(
        {
            key: call(
                rebuild, stored.tensor(array), b"\x88", call(name("collections", "OrderedDict"))
            )
            for key, array in State().arrays.items()
        }
    )
    path = save({})
    path.write_bytes(zip_file(body, stored.storages))
    assert fitted(path) == ("", 1)


def test_a_tensor_of_a_subclass(save):
    stored = Script(State())
    place = group(storage("0", 6), whole(0), group(whole(6)), group(whole(1)), b"\x89", b"}")
    rebuild = name("torch._tensor", "_rebuild_from_type_v2")
    kind = name("torch.nn.parameter", "Buffer")
    body = call(rebuild, name("torch._utils", "_rebuild_tensor_v2"), kind, place, b"}")
    path = save({})
    path.write_bytes(zip_file(mapping({"a": body}), stored.storages))
    np.testing.assert_array_equal(read_weights(path)["a"], VALUES)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"state_dict": State(), "state_dict_ema": State("", 2)}, "state_dict"),
        ({"ema": State("", 2), "model": State()}, "model"),
        ({"model_ema": State("", 2), "student": State()}, "student"),
        ({"optimizer": State("", 2), "anything": State()}, "anything"),
        ({"model": State(), "discriminator": State("", 2)}, "model"),
        (State("", 1).arrays | State("ema.", 2).arrays, ""),
        (State("model.", 1).arrays | State("model_ema.module.", 2).arrays, "model"),
        # Only one of them is a network of these names.
        ({"critic": State(network={"w": np.ones(2)}), "actor": State()}, "actor"),
        ({"model": State(network={"w": np.ones(2)}), "net": State()}, "net"),
        (State("actor.").arrays | {"critic.w": np.ones(2)}, "actor"),
    ],
)
def test_one_of_several(content, part, save):
    assert fitted(save(content)) == (part, 1)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"student": State(), "teacher": State()}, ["student", "teacher"]),
        ({"model": State(), "net": State()}, ["model", "net"]),
        (
            State("encoder_q.").arrays | State("encoder_k.").arrays,
            ["encoder_q", "encoder_k", r"run\.pth#encoder_q"],
        ),
    ],
)
def test_several_that_could_be_meant(content, named, save):
    path = save(content)
    for word in named:
        with pytest.raises(CheckpointError, match=f"several parts.*{word}"):
            fitted(path)
        part = word.rpartition("#")[2]
        assert fitted(f"{path}#{part}") == (part, 1)


def test_a_named_part(save):
    path = save(
        {
            "model": State(),
            "ema": {"shadow": State("module.", 2), "decay": 0.99},
            "all": State("a.", 3).arrays | State("b.c.", 4).arrays,
        }
    )
    assert fitted(path) == ("model", 1)
    assert fitted(f"{path}#model") == ("model", 1)
    for part in ("ema", "ema/shadow", "ema/shadow/module", "ema/"):
        assert fitted(f"{path}#{part}") == ("ema/shadow/module", 2)
    assert fitted(f"{path}#all/a") == ("all/a", 3)
    assert fitted(f"{path}#all/b") == ("all/b/c", 4)
    assert list(read_weights(f"{path}#all/b.c")) == list(NETWORK)
    with pytest.raises(CheckpointError, match=r"no part other; it has: model, ema/shadow, all"):
        read_weights(f"{path}#other")
    with pytest.raises(CheckpointError, match="names no part"):
        read_weights(f"{path}#")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_named_part_of_flat_files(tmp_path, suffix):
    arrays = State("model.").arrays | State("ema.", 2).arrays
    path = tmp_path / f"run{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        write_safetensors(path, {k: ("F32", list(a.shape), a.tobytes()) for k, a in arrays.items()})
    assert fitted(path) == ("model", 1)
    assert fitted(f"{path}#ema") == ("ema", 2)
    assert list(read_weights(f"{path}#ema")) == list(NETWORK)


def test_a_file_whose_name_has_the_sign(save, tmp_path):
    path = save({"ema": State("", 2)}, "run.pth#ema")
    assert fitted(path) == ("ema", 2)
    assert fitted(f"{path}#ema") == ("ema", 2)
    (tmp_path / "a#b").mkdir()
    inside = path.rename(tmp_path / "a#b" / "c#d.pth")
    assert fitted(inside) == ("ema", 2)
    assert fitted(f"{inside}#ema") == ("ema", 2)
    save({"ema": State("", 3)}, "run.pth")
    assert fitted(tmp_path / "run.pth#ema") == ("ema", 3)
    with pytest.raises(CheckpointError, match="No such file"):
        read_weights(tmp_path / "none.pth#ema")


def test_both_sides_of_many_differences(save):
    many = {f"layer{i}.{k}": np.ones(3) for i in range(40) for k in ("weight", "bias")}
    with pytest.raises(CheckpointError) as caught:
        fitted(save({"model": State(network=many), "epoch": 3}))
    first, *lines = str(caught.value).split("\n  ")
    assert "82 differences from the network in the layout of test (- expected, + in the" in first
    assert lines[:3] == [
        "- conv.weight for conv/kernel (3, 2)",
        "- fc.bias for fc/bias (3,)",
        "+ layer0.weight (3,)",
    ]
    assert lines[-1] == "… and 52 more in the checkpoint"
    assert len(lines) == 31


def test_differences_where_both_sides_are_long():
    lines = describe_differences([f"- a{i}" for i in range(50)] + [f"+ b{i}" for i in range(50)])
    assert lines.count("\n  - ") == lines.count("\n  + ") == 15
    assert lines.endswith("\n  … and 35 more expected, 35 more in the checkpoint")


def test_differences_behind_a_prefix(save):
    # A backbone alone: what is missing is missing, and what else there is is told.
    other = {"conv.weight": NETWORK["conv.weight"]}
    content = State("backbone.", network=other).arrays | {"head.fc.bias": np.ones(5)}
    with pytest.raises(CheckpointError) as caught:
        fitted(save(content))
    lines = str(caught.value).split("\n  ")[1:]
    assert lines == ["- fc.bias for fc/bias (3,)", "+ head.fc.bias"]


def test_names_that_would_break_a_message(save):
    network = {"evil\x1b[31m\nname": np.ones(2)}
    with pytest.raises(CheckpointError) as caught:
        fitted(save({"a\nb": State(network=network)}))
    assert "\x1b" not in str(caught.value)
    assert r"evil\x1b[31m\nname" in str(caught.value)


def test_what_cannot_be_read_is_named(save):
    quantised = call(name("torch._utils", "_rebuild_qtensor"), storage("0", 6))
    with pytest.raises(CheckpointError, match=r"\+ fc\.bias, which cannot be read: torch\._utils"):
        fitted(save({"conv.weight": NETWORK["conv.weight"], "fc.bias": quantised}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "loss": 0.5}, "a dictionary with the keys 'epoch', 'loss'"),
        (Config(), r"an object of 'test_checkpoints\.Config': save its state_dict"),
        (3, "but int"),
    ],
)
def test_files_without_a_state_dict(content, message, save):
    with pytest.raises(CheckpointError, match=message):
        read_weights(save(content))


def test_a_list_of_a_model_and_an_optimizer(save):
    script = Script({})
    body = b"](" + whole(3) + script.write(State()) + python({"state": {}}) + b"e"
    path = save({})
    path.write_bytes(zip_file(body, script.storages))
    assert fitted(path) == ("1", 1)


# ---- several files, and other frameworks' --------------------------------------------------


def shards(folder, places, arrays=None):
    arrays = arrays or State().arrays
    for file in set(places.values()):
        inside = {
            k: ("F32", list(a.shape), a.tobytes()) for k, a in arrays.items() if places[k] == file
        }
        write_safetensors(folder / file, inside)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def test_an_index_of_several_files(tmp_path):
    places = {
        "conv.weight": "1.safetensors",
        "fc.bias": "2.safetensors",
        "fc.step": "1.safetensors",
    }
    path = shards(tmp_path, places)
    assert list(read_weights(path)) == list(places)
    assert fitted(path) == ("", 1)
    first = read_file(path).digest
    shards(tmp_path, places, State("", 2).arrays)
    assert fitted(path) == ("", 2)
    assert read_file(path).digest != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable index"),
        ("[]", "not a readable index"),
        ("{}", "not a readable index"),
        ('{"weight_map": {}}', "names 0 files"),
        ('{"weight_map": []}', "not a readable index"),
        ('{"weight_map": {"a": 1}}', "not a readable index"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "no file beside it"),
        ('{"weight_map": {"a": "/x.safetensors"}}', "no file beside it"),
        ('{"weight_map": {"a": ".."}}', "no file beside it"),
        (
            '{"weight_map": {"a": "none.safetensors"}}',
            r"none\.safetensors: cannot be read \(No such",
        ),
        ("[" * 100_000, "not a readable index"),
    ],
)
def test_an_index_that_is_damaged(text, message, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_weights(path)


def test_an_index_of_what_is_not_there(tmp_path):
    path = shards(tmp_path, dict.fromkeys(NETWORK, "1.safetensors"))
    content = json.loads(path.read_text())
    content["weight_map"]["more"] = "1.safetensors"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"more is not in 1\.safetensors"):
        read_weights(path)


@pytest.mark.parametrize(
    "unpack", [msgpack.unpackb, msgpack.fallback.unpackb], ids=["compiled", "python"]
)
def test_flax_s_messagepack(unpack, tmp_path, monkeypatch):
    # Where no compiled msgpack fits, it is Python, and gives a table's entries one by one.
    monkeypatch.setattr(msgpack, "unpackb", unpack)
    params = {
        "params": {"conv": {"kernel": jnp.arange(6.0).reshape(2, 3), "scale": jnp.bfloat16(1.5)}},
        "batch_stats": {"norm": {"mean": np.float64([1, 2]), "count": np.int32(3)}},
        "mask": np.array([True, False]),
        "step": 7,
    }
    path = tmp_path / "net.msgpack"
    path.write_bytes(flax.serialization.to_bytes(params))
    found = read_weights(path)
    assert list(found) == [
        "mask",
        "params/conv/kernel",
        "params/conv/scale",
        "batch_stats/norm/mean",
        "batch_stats/norm/count",
    ]
    np.testing.assert_array_equal(found["params/conv/kernel"], [[0, 1, 2], [3, 4, 5]])
    assert found["params/conv/scale"] == 1.5
    np.testing.assert_array_equal(found["mask"], [True, False])
    np.testing.assert_array_equal(found["batch_stats/norm/mean"], [1, 2])
    assert list(read_weights(f"{path}#params/conv")) == ["kernel", "scale"]
    for length in range(path.stat().st_size):
        cut = tmp_path / "cut.msgpack"
        cut.write_bytes(path.read_bytes()[:length])
        with pytest.raises(CheckpointError, match=r"cut\.msgpack"):
            read_weights(cut)


def extension(shape, kind, data):
    return msgpack.ExtType(1, msgpack.packb([shape, kind, data]))


@pytest.mark.parametrize(
    "content",
    [
        {"a": extension([2**40], "float32", bytes(24))},
        {"a": extension([-6], "float32", bytes(24))},
        {"a": extension([True], "float32", bytes(4))},
        {"a": extension([3], "O", bytes(24))},
        {"a": extension([3], "complex64", bytes(24))},
        {"a": extension([3], "f4,f4", bytes(24))},
        {"a": msgpack.ExtType(1, b"")},
        {"a": {str(i): {} for i in range(5000)}},
        [1, 2],
        {1: 2},
    ],
)
def test_a_messagepack_that_is_not_flax_s(content, tmp_path):
    path = tmp_path / "w.msgpack"
    path.write_bytes(msgpack.packb(content))
    with pytest.raises(CheckpointError, match=r"w\.msgpack: not a readable"):
        read_weights(path)


@pytest.mark.parametrize(
    ("file", "start", "message"),
    [
        ("net.h5", b"\x89HDF\r\n\x1a\n", "of Keras"),
        ("net.pth", b"\x89HDF\r\n\x1a\n", "of Keras"),
        ("net.weights.h5", b"x", "of Keras"),
        ("net.keras", b"PK\x03\x04", "of Keras"),
        ("net.onnx", b"x", "another framework"),
        ("net.tflite", b"x", "another framework"),
        ("net.npy", b"\x93NUMPY\x01\x00", "numpy.savez"),
    ],
)
def test_files_of_other_frameworks(file, start, message, tmp_path):
    path = tmp_path / file
    path.write_bytes(start + bytes(100))
    with pytest.raises(CheckpointError, match=rf"{file}: is .*{message}"):
        read_weights(path)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (["_CHECKPOINT_METADATA", "_METADATA"], "a folder of Orbax: restore it"),
        (["manifest.ocdbt"], "a folder of Orbax"),
        (["saved_model.pb"], "a folder of TensorFlow"),
        ([], "a folder, not a file"),
    ],
)
def test_folders(inside, message, tmp_path):
    for file in inside:
        (tmp_path / file).touch()
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path)


def test_names_of_haiku(tmp_path):
    path = tmp_path / "haiku.npz"
    np.savez(path, **{"net/~/conv/w": VALUES, "net/~/conv/b": VALUES})
    with pytest.raises(CheckpointError, match=r"the names are Haiku's: give rules for them"):
        fitted(path)
    path = tmp_path / "haiku.pkl"
    path.write_bytes(pickle.dumps({"net/~/conv": {"w": VALUES}}))
    with pytest.raises(CheckpointError, match=r"a pickle of Python's own .*numpy\.savez"):
        read_weights(path)


def test_a_program_of_torchscript(tmp_path):
    path = write_npz(tmp_path / "w.pt", {"a/data.pkl": b"\x80\x02}.", "a/code/__torch__.py": b"x"})
    with pytest.raises(CheckpointError, match="TorchScript program"):
        read_weights(path)


# ---- what is no file -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".pth", ".npz", ".safetensors", ".msgpack", ".index.json"])
def test_what_is_no_file(suffix, tmp_path):
    pipe, empty, link = (tmp_path / f"{kind}{suffix}" for kind in ("pipe", "empty", "link"))
    os.mkfifo(pipe)
    empty.touch()
    link.symlink_to("/dev/zero")
    cases = {
        str(pipe): "is a pipe",
        str(empty): "is empty",
        str(link): "is a device",
        str(tmp_path): "is a folder",
        f"{tmp_path}/nul\0{suffix}": "null",
        f"{tmp_path}/{'x' * 300}{suffix}": "too long",
        f"{empty}/x{suffix}": "Not a directory",
    }
    for path, message in cases.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            read_weights(path)
        assert str(caught.value).isprintable()


def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(small_file("zip"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(CheckpointError, match="Permission denied"):
        read_weights(path)


def test_what_is_hashed_is_what_is_read(save):
    path = save({"model": State()})
    file = read_file(path)
    path.write_bytes(b"another")
    assert file.digest != hashlib.sha256(b"another").hexdigest()
    found = fit(file, [LAYOUT], lambda layout: SHAPES, "the network")
    np.testing.assert_array_equal(found.arrays["conv/kernel"], KERNEL)
