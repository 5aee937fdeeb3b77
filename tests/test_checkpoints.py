import io
import json
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featvis.checkpoints import Layout, Rule, assemble, read_checkpoint, read_weights
from featvis.errors import CheckpointError

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
    }
    found = read_checkpoint(write(mapping(content), STORED))
    assert list(found) == list(content)
    np.testing.assert_array_equal(found["rows"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(found["columns"], VALUES.reshape(2, 3).T)
    np.testing.assert_array_equal(found["tail"], [4, 5])
    assert found["scalar"].shape == ()
    assert found["scalar"] == 5
    assert found["empty"].shape == (0, 3)
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
def test_tuples_that_share_their_parts_are_refused(share, write):
    # Hashing them would take 2^45 steps: that the test ends is half of what it says.
    path = write(shared_tuples(45, SHARES[share]))
    with pytest.raises(CheckpointError, match=r"share their parts|instruction DUP"):
        read_checkpoint(path)


@pytest.mark.parametrize("nested", [b")" + b"\x85" * 10**5, b"(" * 10**5 + b"t" * 10**5])
def test_deeply_nested_tuples_are_refused(nested, write):
    with pytest.raises(CheckpointError, match="nested too deeply"):
        read_checkpoint(write(b"}" + nested + b"Ns"))


def test_nested_lists_are_not_shown(tmp_path):
    lists = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(40))
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
    zeros = bytes(4 * 10**6)
    body = mapping({"a": tensor(storage("0", 10**6), (10**6,), (1,))})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", program(body))
        archive.writestr("a/data/0", zeros)
    with pytest.raises(CheckpointError, match="larger than the archive"):
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
    found, wrong = assemble(tensors, EXPECTED, Layout("test", RULES, ignore=r".*\.step"))
    assert wrong == []
    assert {path: array.shape for path, array in found.items()} == EXPECTED


def test_assemble_lists_every_difference():
    tensors = {"fc.weight": np.ones((3, 2)), "foo": np.zeros(3)}
    assert assemble(tensors, EXPECTED, Layout("test", RULES))[1] == [
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
