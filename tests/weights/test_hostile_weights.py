"""Files made to crash, to read foreign memory, to fill the memory, or to poison a process."""

import io
import pickle
import pickletools
import random
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import flax.serialization
import jax
import numpy as np
import pytest
import safetensors.numpy

from featvis.errors import CheckpointError
from featvis.weights.files import read_checkpoint, read_weights

VALUES = np.arange(1, 7, dtype="<f4")
RAW = VALUES.tobytes()


# ---- a small assembler of pickles ----------------------------------------------------------


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return (b"\x8a" + bytes([len(data)]) if len(data) < 256 else b"\x8b" + len4(data)) + data


def len4(data):
    return struct.pack("<I", len(data))


def group(*items):
    return b"(" + b"".join(items) + b"t"


def numbers(values):
    return group(*map(number, values))


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *arguments):
    return function + group(*arguments) + b"R"


def mapping(items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(key="0", count=6, kind="FloatStorage", extra=()):
    pid = (text("storage"), name("torch", kind), text(key), text("cpu"), number(count), *extra)
    return group(*pid) + b"Q"


HOOKS = call(name("collections", "OrderedDict"))


def tensor(stored=None, size=(2, 3), stride=(3, 1), offset=0, function="_rebuild_tensor_v2"):
    place = [stored or storage(), number(offset), numbers(size), numbers(stride)]
    return call(name("torch._utils", function), *place, b"\x89", HOOKS)


def zip_file(body, raw=RAW):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("archive/data/0", raw)
    return buffer.getvalue()


def legacy_file(body, raw=RAW):
    start = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(item, 2) for item in start)
    data = struct.pack("<q", len(raw) // 4) + raw if raw else b""
    return head + b"\x80\x02" + body + b"." + pickle.dumps(["0"] if raw else [], 2) + data


FORMATS = {"zip": zip_file, "legacy": legacy_file}


@pytest.fixture(params=FORMATS)
def write(request, tmp_path):
    def write(body, **options):
        path = tmp_path / "weights.pth"
        path.write_bytes(FORMATS[request.param](body, **options))
        return path

    return write


# ---- what a program may not do to a stand-in -----------------------------------------------


STATE = mapping(
    {"offset": number(-(2**40)), "__class__": name("builtins", "int"), "code": text("i4")}
)
TENSOR = tensor()
TARGETS = {
    "a tensor": TENSOR,
    "a storage": storage(),
    "a storage's type": name("torch", "FloatStorage"),
    "a function": name("torch._utils", "_rebuild_tensor_v2"),
    "a class": name("collections", "OrderedDict"),
    "a tuple": numbers((1, 2)),
    "a list": b"]",
    "a number": number(3),
}
CHANGES = {
    "BUILD": lambda target: target + STATE + b"b",
    # As pickle sets the slots of an object: (state, slots).
    "BUILD of slots": lambda target: target + b"N" + STATE + b"\x86b",
    # The fields of a tensor, in their order.
    "BUILD of fields": lambda target: (
        target + group(storage(), number(0), numbers((2, 3)), numbers((-(2**34), 1))) + b"b"
    ),
    "SETITEM": lambda target: target + text("stride") + numbers((2**40, 1)) + b"s",
    "SETITEMS": lambda target: target + b"(" + text("stride") + numbers((2**40, 1)) + b"u",
    "APPEND": lambda target: target + number(1) + b"a",
    "ADDITEMS": lambda target: target + b"(" + number(1) + b"\x90",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_was_checked_can_be_changed(target, change, write):
    if target == "a list" and change in ("APPEND", "ADDITEMS"):
        return
    changed = CHANGES[change](TARGETS[target])
    path = write(mapping({"a": TENSOR, "b": changed}))
    with pytest.raises(CheckpointError, match="pickle instruction"):
        read_checkpoint(path)
    # Nor for the file after it.
    found = read_checkpoint(write(mapping({"a": TENSOR})))
    np.testing.assert_array_equal(found["a"], VALUES.reshape(2, 3))


def test_the_state_of_a_dictionary_is_passed_over(write):
    # PyTorch keeps its state dict's version there.
    body = HOOKS + b"(" + text("a") + TENSOR + b"u" + mapping({"_metadata": STATE}) + b"b"
    np.testing.assert_array_equal(read_checkpoint(write(body))["a"], VALUES.reshape(2, 3))


def test_a_file_that_was_refused_leaves_no_trace(tmp_path):
    poison, good = tmp_path / "poison.pth", tmp_path / "good.pth"
    change = name("torch", "FloatStorage") + group(text("i4")) + b"b"
    poison.write_bytes(zip_file(change + b"0" + mapping({"a": TENSOR})))
    good.write_bytes(zip_file(mapping({"a": TENSOR})))
    with pytest.raises(CheckpointError, match="BUILD"):
        read_checkpoint(poison)
    np.testing.assert_array_equal(read_checkpoint(good)["a"], VALUES.reshape(2, 3))


ODD = {
    "true": True,
    "negative": -1,
    "beyond 64 bits": 2**64,
    "just beyond 63 bits": 2**63,
    "a product beyond 64 bits": 2**33,
    "huge": 2**4000,
}


@pytest.mark.parametrize("where", ["offset", "size", "stride", "size and stride"])
@pytest.mark.parametrize("odd", ODD)
def test_geometry(odd, where, write):
    value, place = ODD[odd], {"offset": 0, "size": (2, 3), "stride": (3, 1)}
    for one in where.split(" and "):
        place[one] = value if one == "offset" else (value, *place[one][1:])
    with pytest.raises(CheckpointError, match=r"weights\.pth: 'a': "):
        read_checkpoint(
            write(mapping({"a": tensor(None, place["size"], place["stride"], place["offset"])}))
        )


@pytest.mark.parametrize(
    "place",
    [
        [text("0"), numbers((6,)), numbers((1,))],
        [b"G" + struct.pack(">d", 0), numbers((6,)), numbers((1,))],
        [number(0), b"](" + number(6) + b"e", numbers((1,))],
        [number(0), number(6), numbers((1,))],
        [number(0), group(group(number(6))), numbers((1,))],
        [number(0), group(b"N"), numbers((1,))],
        [number(0), numbers((6,)), group(TENSOR)],
    ],
)
def test_geometry_of_other_types(place, write):
    body = call(name("torch._utils", "_rebuild_tensor_v2"), storage(), *place)
    with pytest.raises(CheckpointError, match="whole numbers"):
        read_checkpoint(write(mapping({"a": body})))


def test_a_stride_that_is_not_used_may_be_any(write):
    found = read_checkpoint(write(mapping({"a": tensor(None, (1, 6, 1), (2**61, 1, 2**61))})))
    np.testing.assert_array_equal(found["a"], VALUES.reshape(1, 6, 1))


@pytest.mark.parametrize(
    "pid",
    [
        text("storage"),
        b"N",
        group(),
        b"](" + text("storage") + b"e",
        group(text("storage"), text("FloatStorage"), text("0"), text("cpu"), number(6)),
        group(text("storage"), name("torch", "FloatStorage"), number(0), text("cpu"), number(6)),
        group(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), b"\x88"),
        group(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(-1)),
        group(
            text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(2**70)
        ),
        group(text("storage"), name("builtins", "dict"), text("0"), text("cpu"), number(6)),
        group(text("storage"), TENSOR, text("0"), text("cpu"), number(6)),
        group(TENSOR, *[number(1)] * 4),
        TENSOR,
    ],
)
def test_odd_persistent_identities(pid, write):
    with pytest.raises(CheckpointError, match="BINPERSID"):
        read_checkpoint(write(mapping({"a": tensor(pid + b"Q")})))


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\x01",  # EXT1, of the registry of extensions
        b"\x83\x01\x00",
        b"\x84\x01\x00\x00\x00",
        b"P0\n",  # a persistent identity as text
        b"\x97",  # a buffer from outside
        b"}\x98",
        b"(" + text("a") + b"icollections\nOrderedDict\n",
        b"(" + name("collections", "OrderedDict") + b"o",
        b"N2",
        number(3) + b")R",
        text("a") + b")\x81",
        name("collections", "OrderedDict") + number(3) + b"R",
        name("collections", "OrderedDict") + b"]\x81",
        call(name("collections", "OrderedDict"), number(3)),
        call(name("collections", "OrderedDict"), b"](" + number(3) + b"e"),
        b"](" + number(1) + b"u",
        b"}(" + number(1) + b"u",
        b"(" + number(1) + b"d",
        b"h\x07",
        b"g-1\n",
        b"}p-1\n",
        b"}p99999999999999999999\n",
        b"}p" + b"9" * 5000 + b"\n",
        b"L" + b"9" * 5000 + b"L\n",
        b"\x8b\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
        b"\x8d" + b"\xff" * 8 + b"a",
        b"B\xff\xff\xff\xffa",
        b"t",
        b"(((t",
    ],
)
def test_instructions_that_are_no_file_s(body, write):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(write(body))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def levels(count, ways):
    """Dictionaries each of which holds the one before under several keys: ways**count paths."""
    keys = [text(str(i)) for i in range(ways)]
    body = b"}q\x00"
    for i in range(count):
        body += b"0}q%c(" % (i + 1) + b"".join(key + b"h%c" % i for key in keys) + b"u"
    return body


@pytest.mark.parametrize(
    "body",
    [
        b"}q\x00" + text("a") + b"h\x00s",
        b"]q\x00h\x00a",
        b"}q\x00(" + text("model") + b"}q\x01(" + text("model") + b"h\x00" + text("x") + b"h\x01uu",
        levels(60, 2),
        levels(6, 64),
        b"}" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"\x85Ns",
    ],
    ids=["in itself", "a list in itself", "in each other", "2^60 ways", "64^6 ways", "deep lists"],
)
def test_files_that_hold_themselves(body, write):
    with pytest.raises(CheckpointError, match=r"no mapping of names|within one another"):
        read_checkpoint(write(body, raw=b""))


def test_a_part_that_is_in_itself_is_found_once(write):
    inner = b"}q\x00(" + text("a") + TENSOR + text("again") + b"h\x00u"
    found = read_checkpoint(write(b"}" + text("state_dict") + inner + b"s"))
    np.testing.assert_array_equal(found["a"], VALUES.reshape(2, 3))


@pytest.mark.parametrize("key", [lambda i: number(i * (2**61 - 1)), lambda i: numbers((i, i))])
def test_keys_that_collide_cost_nothing(key, write):
    # Whole multiples of 2^61 - 1 hash to 0: in a dictionary each would be compared with all others.
    keys = b"".join(key(i) + b"N" for i in range(50_000))
    body = mapping({"state_dict": mapping({"a": TENSOR}), "other": b"}(" + keys + b"u"})
    np.testing.assert_array_equal(read_checkpoint(write(body))["a"], VALUES.reshape(2, 3))


@pytest.mark.parametrize("instructions", [b"}", b"]", b"}\x94", b"]\x94", b"N\x85", b"("])
def test_memory_is_in_proportion_to_a_program(instructions, tmp_path):
    path, count = tmp_path / "bomb.pth", 2**15
    path.write_bytes(zip_file(instructions * (count // len(instructions))))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 200 * count
    finally:
        tracemalloc.stop()


@pytest.mark.thorough
def test_a_program_is_of_so_many_instructions(tmp_path):
    path = tmp_path / "long.pth"
    path.write_bytes(zip_file(b"(" * (2**21 + 1)))
    with pytest.raises(CheckpointError, match="more than 2097152 instructions"):
        read_checkpoint(path)


# ---- archives ------------------------------------------------------------------------------


def npy(shape=(6,), raw=RAW, descr="<f4"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + raw


#: Of a member's header in the place of its data: offset and size; in the directory it is 2 later.
FIELDS = {"flags": (6, "<H"), "method": (8, "<H"), "crc": (14, "<I"), "packed": (18, "<I")}
FIELDS["size"] = (22, "<I")


def patched(data, **fields):
    """An archive of one member with other fields in both of its headers."""
    data, central = bytearray(data), data.rindex(b"PK\x01\x02")
    for field, value in fields.items():
        at, kind = FIELDS[field]
        struct.pack_into(kind, data, at, value)
        struct.pack_into(kind, data, central + at + 2, value)
    return bytes(data)


def npz(members=None, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for member, data in (members or {"a.npy": npy()}).items():
            archive.writestr(member, data)
    return buffer.getvalue()


def overlapping():
    """A member within the stored bytes of another."""
    inner, buffer = npz({"b.npy": npy()}), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy((len(inner),), inner, "|u1"))
        with zipfile.ZipFile(io.BytesIO(inner)) as other:
            member = other.getinfo("b.npy")
        member.header_offset = buffer.getvalue().index(b"PK\x03\x04", 4)
        archive.filelist.append(member)
    return buffer.getvalue()


def twice():
    """The same bytes as two members of one name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy())
        archive.filelist.append(archive.filelist[0])
    return buffer.getvalue()


def beyond_32_bits():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy())
        archive.filelist[0].file_size = 2**40
    return buffer.getvalue()


ARCHIVES = {
    "bzip2": (lambda: npz(method=zipfile.ZIP_BZIP2), "packed by method 12"),
    "lzma": (lambda: npz(method=zipfile.ZIP_LZMA), "packed by method 14"),
    "unknown method": (lambda: patched(npz(), method=93), "packed by method 93"),
    "encrypted": (lambda: patched(npz(), flags=1), "is encrypted"),
    "another check sum": (lambda: patched(npz(), crc=0), "check sum"),
    "a stored size": (lambda: patched(npz(), size=2**20), "two sizes"),
    "a packed size": (lambda: patched(npz(), size=2**20, packed=2**20), "truncated"),
    "overlapping": (overlapping, "overlaps another"),
    "two of one name": (twice, "two members of one name"),
    "beyond 32 bits": (beyond_32_bits, "two sizes|unpacks to"),
    "another name in its place": (lambda: npz().replace(b"a.npy", b"b.npy", 1), "is not where"),
    "many": (lambda: npz({"a.npy": npy(raw=b"PK\x01\x02" * 100_001)}), "more than 100000"),
    "more than announced": (
        lambda: patched(npz({"a.npy": bytes(2**25)}, zipfile.ZIP_DEFLATED), size=2000),
        "not of the 2000 bytes",
    ),
    "less than announced": (
        lambda: patched(npz(method=zipfile.ZIP_DEFLATED), size=2**24),
        "not of the 16777216 bytes",
    ),
    "a shape of no end": (lambda: npz({"a.npy": npy((2**62,))}), "truncated"),
    "a shape of booleans": (lambda: npz({"a.npy": npy((True, 6))}), "shape"),
    "nested header": (lambda: npz({"a.npy": npy("(" * 4000)}), "not a readable"),
    "objects": (lambda: npz({"a.npy": npy((1,), descr="|O")}), "type object"),
    "a type within a type": (lambda: npz({"a.npy": npy((1,), descr=("<f4", (2**40,)))}), "w.npz"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_hold_what_they_announce(case, tmp_path):
    make, message = ARCHIVES[case]
    path = tmp_path / "w.npz"
    path.write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message):
            read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20 + 3 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_bfloat16_in_an_npz(tmp_path):
    values = jax.numpy.asarray([1.5, -2, 3e38], jax.numpy.bfloat16)
    np.savez(tmp_path / "w.npz", a=np.asarray(values), half=np.float16([1.5]))
    found = read_weights(tmp_path / "w.npz")
    assert found["a"].dtype == np.float32
    np.testing.assert_array_equal(found["a"], np.asarray(values, np.float32))


# ---- programs made at random ---------------------------------------------------------------

SEEDS = [
    mapping({"a": TENSOR, "b": tensor(None, (3, 2), (1, 3)), "c": tensor(None, (), (), 5)}),
    mapping({"epoch": number(3), "state_dict": mapping({"a": TENSOR}), "x": numbers((1, 2))}),
    HOOKS + b"(" + text("a") + TENSOR + b"u" + mapping({"_metadata": b"}"}) + b"b",
    mapping({"a": call(name("torch._utils", "_rebuild_parameter"), TENSOR, b"\x88", HOOKS)}),
    mapping({"model": mapping({"a": TENSOR}), "args": name("argparse", "Namespace") + b")\x81}b"}),
]
LARGE = [0, 1, 2, 5, 6, 7, 2**31 - 1, 2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64, 2**70]


def instructions_of(body):
    places = [place for _, _, place in pickletools.genops(b"\x80\x02" + body + b".")]
    whole = b"\x80\x02" + body + b"."
    return [whole[a:b] for a, b in zip(places, [*places[1:], len(whole)], strict=True)][1:-1]


def mutated(rng):
    """A program that is nearly one of a file of weights."""
    parts = instructions_of(rng.choice(SEEDS))
    others = instructions_of(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(parts) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            parts.insert(at, bytes([rng.randrange(256)]))
        elif kind == 1:
            parts.insert(at, rng.choice(others))
        elif kind == 2:
            parts.insert(at, number(rng.choice(LARGE) * rng.choice([1, -1])))
        elif kind == 3:
            parts.insert(
                at, rng.choice([b"b", b"s", b"u", b"R", b"\x81", b"a", b"Q", b"0", b"\x85"])
            )
        elif kind == 4:
            start = rng.randrange(len(others))
            parts[at:at] = others[start : start + rng.randint(1, 20)]
        elif kind == 5 and at < len(parts):
            del parts[at]
        elif kind == 6 and at < len(parts):
            replaced = bytearray(parts[at])
            replaced[rng.randrange(len(replaced))] = rng.randrange(256)
            parts[at] = bytes(replaced)
        elif at < len(parts) and parts[at][:1] == b"\x8a":
            parts[at] = number(rng.choice(LARGE) * rng.choice([1, -1]))
    return b"".join(parts)


def damaged(rng, data):
    """Bytes of a file changed, without heed of what they are."""
    data = bytearray(data)
    for _ in range(rng.randint(0, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def check_inside(array):
    """A read outside shows in the addresses before it shows in the values."""
    root = array
    bounds = None
    while root is not None:
        if isinstance(root, np.ndarray):
            bounds = np.lib.array_utils.byte_bounds(root)
        root = getattr(root, "base", None)
    low, high = np.lib.array_utils.byte_bounds(array)
    assert array.size == 0 or bounds[0] <= low <= high <= bounds[1]


def try_programs(count, seed, folder):
    """Reads so many programs in both formats; returns how many were refused, and the seconds."""
    rng, refused, slowest = random.Random(seed), 0, 0.0
    path, good = folder / "fuzz.pth", folder / "good.pth"
    good.write_bytes(zip_file(mapping({"a": TENSOR})))
    for i in range(count):
        body = mutated(rng)
        data = (zip_file, legacy_file)[i % 2](body)
        path.write_bytes(damaged(rng, data) if rng.random() < 0.3 else data)
        start, message = time.perf_counter(), ""
        try:
            found = read_weights(path)
        except CheckpointError as error:
            found, message = {}, str(error)
            refused += 1
        for array in found.values():
            check_inside(array)
            assert array.copy().nbytes <= 8 * len(RAW)
        assert "\n" not in message
        slowest = max(slowest, time.perf_counter() - start)
        if i % 50 == 49:
            np.testing.assert_array_equal(read_weights(good)["a"], VALUES.reshape(2, 3))
    return refused, slowest


def test_programs_made_at_random(tmp_path):
    refused, _ = try_programs(400, 0, tmp_path)
    # Some are to be read, or the programs would be too far from those of files.
    assert 0 < refused < 400


def other_formats(folder):
    arrays = {"a": VALUES.reshape(2, 3), "b": VALUES}
    np.savez(folder / "w.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    safetensors.numpy.save_file(arrays, folder / "w.safetensors")
    (folder / "w.msgpack").write_bytes(flax.serialization.to_bytes(arrays))
    return ["w.npz", "packed.npz", "w.safetensors", "w.msgpack"]


@pytest.mark.parametrize("number", range(4))
def test_damage_to_other_formats(number, tmp_path):
    path, rng = tmp_path / other_formats(tmp_path)[number], random.Random(number)
    content, refused = path.read_bytes(), 0
    for _ in range(200):
        path.write_bytes(damaged(rng, content))
        try:
            found = read_weights(path)
        except CheckpointError:
            refused += 1
            continue
        for array in found.values():
            check_inside(array)
            assert array.copy().size <= 6
    assert 0 < refused < 200


@pytest.mark.slow
def test_twenty_thousand_programs_made_at_random(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, slowest = try_programs(20_000, 1, tmp_path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{refused} of 20000 refused, the slowest in {slowest:.3f} s, {grown:.0f} MiB more memory"
    )
    assert grown < 100


@pytest.mark.slow
@pytest.mark.parametrize("instructions", [b"}", b"]", b"}\x94", b"]\x94", b"N\x85", b"("])
def test_the_longest_programs(instructions, tmp_path):
    path = tmp_path / "bomb.pth"
    path.write_bytes(zip_file(instructions * (2**22 // len(instructions))))
    code = f"""
import resource
from featvis.weights.files import read_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_weights({str(path)!r})
except Exception as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, _, message = done.stdout.partition(" ")
    print(f"{instructions!r}: {grown} MiB")
    assert "more than 2097152 instructions" in message
    assert int(grown) < 400
