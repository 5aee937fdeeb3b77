import contextlib
import io
import os
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

import featvis as fv
from featvis.images import ConversionWarning, image_files, read_batches, read_images


def save(tmp_path, array, mode=None, name="a.png", **options):
    path = tmp_path / name
    picture = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    picture.save(path, **options)
    return path


RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_rgb_is_scaled_to_one(tmp_path):
    image = fv.read_image(save(tmp_path, RGB))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, RGB / 255, atol=1e-6)


def test_transparency_is_laid_over_grey(tmp_path):
    rgba = np.dstack([RGB, np.zeros((6, 8), np.uint8)])
    with pytest.warns(ConversionWarning, match=r"a\.png: transparency laid over mid-grey$"):
        image = fv.read_image(save(tmp_path, rgba))
    np.testing.assert_allclose(image, 128 / 255, atol=1e-6)


def test_sixteen_bits_keep_their_range(tmp_path):
    levels = np.array([[0, 32768, 65535]], np.uint16)
    np.testing.assert_allclose(
        fv.read_image(save(tmp_path, levels))[0, :, 0], [0, 0.5, 1], atol=1 / 255
    )


def chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def deep_png(kind, channels, *more):
    """Three pixels of 16 bits, which Pillow does not write in colour: black, half and full."""
    levels = np.array([0, 32768, 65535], ">u2")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, 16, kind, 0, 0, 0))
        + b"".join(more)
        + chunk(b"IDAT", zlib.compress(b"\0" + np.repeat(levels, channels).tobytes()))
        + chunk(b"IEND", b"")
    )


LEVELS = np.array([0, 32768, 65535], ">u2")
COLOURS = np.repeat(LEVELS, 3)


@pytest.mark.parametrize(
    ("name", "data", "lossy"),
    [
        ("rgb.png", deep_png(2, 3), True),
        ("rgb.ppm", b"P6 3 1 65535\n" + COLOURS.tobytes(), True),
        ("plain.ppm", b"P3 3 1 65535 " + " ".join(map(str, COLOURS)).encode(), True),
        ("few.ppm", b"P6 3 1 100\n" + np.uint8(COLOURS / 655.35).tobytes(), False),
        ("grey.png", deep_png(0, 1), False),
        ("grey.pgm", b"P5 3 1 65535\n" + LEVELS.tobytes(), False),
        ("other.pgm", b"P5 3 1 1000\n" + np.array([0, 500, 1000], ">u2").tobytes(), False),
    ],
)
def test_sixteen_bit_files_as_others_write_them(tmp_path, name, data, lossy):
    (tmp_path / name).write_bytes(data)
    for channels in (1, 3):
        with expect_warning(rf"{name}: 16 bits of colour read as 8$" if lossy else None):
            image = fv.read_image(tmp_path / name, channels=channels)
        expected = np.repeat([[[0], [0.5], [1]]], channels, -1)
        np.testing.assert_allclose(image, expected, atol=1 / 255)


def test_sixteen_bits_of_a_tiff(tmp_path):
    # Uncompressed, little-endian: the ten entries that colour needs.
    pixels = COLOURS.astype("<u2").tobytes()
    entries = [
        (256, 3, 3), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 2),
        (273, 4, 8), (277, 3, 3), (278, 3, 1), (279, 4, len(pixels)),
    ]  # fmt: skip
    depths = struct.pack("<HHH", 16, 16, 16)
    at = 8 + len(pixels)
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        count, value = (3, at) if tag == 258 else (1, value)
        directory += struct.pack("<HHII", tag, kind, count, value)
    head = struct.pack("<2sHI", b"II", 42, at + len(depths))
    path = tmp_path / "a.tif"
    path.write_bytes(head + pixels + depths + directory + bytes(4))
    with pytest.warns(ConversionWarning, match="16 bits of colour read as 8$"):
        image = fv.read_image(path)
    np.testing.assert_allclose(image[0, :, 0], [0, 0.5, 1], atol=1 / 255)


def test_sixteen_bits_of_grey_lose_nothing(tmp_path):
    levels = np.arange(0, 65536, 257 // 3, dtype=np.uint16)[None]
    image = fv.read_image(save(tmp_path, levels))
    np.testing.assert_allclose(image[..., 1], levels / 65535, atol=1e-6)
    # A dark picture is not stretched, and a sharp edge does not overshoot.
    dark = fv.read_image(save(tmp_path, np.full((2, 2), 655, np.uint16)))
    np.testing.assert_allclose(dark, 655 / 65535, atol=1e-6)
    edge = np.repeat(np.array([[0] * 8 + [65535] * 8], np.uint16), 16, 0)
    small = fv.read_image(save(tmp_path, edge), (7, 7), channels=1)
    assert small.shape == (7, 7, 1)
    assert small.min() == 0
    assert small.max() == 1


def expect_warning(match):
    """Warnings that nobody expects are errors."""
    return pytest.warns(ConversionWarning, match=match) if match else contextlib.nullcontext()


def test_transparent_grey_of_sixteen_bits(tmp_path):
    (tmp_path / "a.png").write_bytes(deep_png(0, 1, chunk(b"tRNS", struct.pack(">H", 65535))))
    with pytest.warns(ConversionWarning, match="transparency laid over mid-grey$"):
        image = fv.read_image(tmp_path / "a.png", channels=1)
    np.testing.assert_allclose(image[0, :, 0], [0, 32768 / 65535, 128 / 255], atol=1e-6)


def test_everything_that_was_done_is_in_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(deep_png(6, 4))
    with pytest.warns(ConversionWarning) as caught:
        fv.read_image(tmp_path / "a.png", (8, 8))
    assert [str(one.message) for one in caught] == [
        f"{tmp_path / 'a.png'}: 16 bits of colour read as 8, transparency laid over mid-grey, "
        "enlarged from 1x3 to cover 8x8"
    ]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_have_no_range(kind, tmp_path):
    path = save(tmp_path, np.array([[0, 1]], kind), name="a.tif")
    with pytest.raises(fv.InputError, match="32 bits a channel") as caught:
        fv.read_image(path)
    assert "\n" not in str(caught.value)


def test_palette_and_cmyk_and_grey(tmp_path):
    flat = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    for mode, name in [("P", "p.png"), ("CMYK", "c.tif"), ("RGB", "r.png")]:
        with expect_warning(r"c\.tif: CMYK converted to RGB$" if mode == "CMYK" else None):
            image = fv.read_image(save(tmp_path, flat, mode, name))
        np.testing.assert_allclose(image[0, 0], np.array([200, 100, 50]) / 255, atol=0.05)
    grey = fv.read_image(save(tmp_path, flat, name="g.png"), channels=1)
    assert grey.shape == (4, 4, 1)
    np.testing.assert_allclose(grey, (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255, atol=0.01)


def test_exif_rotation_is_undone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    path = save(tmp_path, RGB, name="a.png", exif=exif)
    np.testing.assert_allclose(fv.read_image(path), np.rot90(RGB, -1) / 255, atol=1e-6)


def test_size_covers_and_crops_about_the_centre(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    image = fv.read_image(save(tmp_path, wide), (8, 8))
    assert image.shape == (8, 8, 3)
    np.testing.assert_allclose(image, 1.0)


@pytest.mark.parametrize(
    ("size", "warned"), [((6, 8), None), ((3, 8), None), ((7, 8), "7x8"), ((2, 9), "2x9")]
)
def test_a_picture_that_is_too_small_is_enlarged_with_a_warning(tmp_path, size, warned):
    with expect_warning(rf"a\.png: enlarged from 6x8 to cover {warned}$" if warned else None):
        assert fv.read_image(save(tmp_path, RGB), size).shape == (*size, 3)


def test_what_loses_nothing_goes_unsaid(tmp_path):
    # Any warning fails this test.
    opaque = np.dstack([RGB, np.full((6, 8), 255, np.uint8)])
    np.testing.assert_allclose(fv.read_image(save(tmp_path, opaque)), RGB / 255, atol=1e-6)
    two = np.full((6, 8), 7, np.uint8)
    for mode, array in [("P", RGB), ("L", two), ("1", two)]:
        fv.read_image(save(tmp_path, array, mode))
        fv.read_image(save(tmp_path, array, mode), channels=1)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.webp"])
def test_the_first_of_several_frames_is_read(tmp_path, name):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.warns(ConversionWarning, match="only the first of several frames read$"):
        np.testing.assert_allclose(fv.read_image(tmp_path / name), 1, atol=1e-6)


def test_a_photograph_with_a_preview_has_one_frame(tmp_path):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    np.testing.assert_allclose(fv.read_image(tmp_path / "a.jpg"), 1, atol=1e-6)


def test_what_is_no_picture_is_an_input_error(tmp_path):
    with pytest.raises(fv.InputError, match="there is no file"):
        fv.read_image(tmp_path / "none.png")
    with pytest.raises(fv.InputError, match="is a folder; expected a picture file"):
        fv.read_image(tmp_path)
    (tmp_path / "a.png").write_bytes(b"hello")
    with pytest.raises(fv.InputError, match="not a picture"):
        fv.read_image(tmp_path / "a.png")
    path = save(tmp_path, RGB, name="b.png")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(fv.InputError, match="not a picture"):
        fv.read_image(path)
    with pytest.raises(fv.InputError, match="1 or 3 channels"):
        fv.read_image(path, channels=2)


@pytest.mark.parametrize("size", [8, (8,), (8, 0), (8, 8.0), "88", (8, 8, 3)])
def test_what_is_no_size_is_an_input_error(tmp_path, size):
    with pytest.raises(fv.InputError, match=r"size is \(height, width\), two positive integers"):
        fv.read_image(save(tmp_path, RGB), size)


def test_several_files_are_stacked_in_order(tmp_path):
    paths = [save(tmp_path, 255 - RGB if i else RGB, name=f"{i}.png") for i in range(2)]
    images = read_images(paths)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, np.stack([RGB, 255 - RGB]) / 255, atol=1e-6)
    greys = read_images([str(path) for path in paths], (3, 5), channels=1)
    assert greys.shape == (2, 3, 5, 1)
    np.testing.assert_array_equal(greys[1], fv.read_image(paths[1], (3, 5), channels=1))


def test_several_files_fail_by_name(tmp_path):
    paths = [save(tmp_path, RGB, name="a.png"), save(tmp_path, RGB[:4], name="b.png")]
    with pytest.raises(fv.InputError, match=r"b\.png is 4x8 and .*a\.png is 6x8 .*; give size="):
        read_images(paths)
    assert read_images(paths, (4, 4)).shape == (2, 4, 4, 3)
    with pytest.raises(fv.InputError, match=r"there is no file .*none\.png"):
        read_images([paths[0], tmp_path / "none.png"])
    with pytest.raises(fv.InputError, match="there is no file to read"):
        read_images([])
    for one in (paths[0], str(paths[0])):
        with pytest.raises(
            fv.InputError, match=r"a list of files, not '.*a\.png'; read_image reads"
        ):
            read_images(one)


def test_several_files_warn_once(tmp_path):
    paths = [save(tmp_path, RGB[:height], name=f"{height}.png") for height in (6, 4, 5)]
    enlarged = r"4\.png: enlarged from 4x8 to cover 6x8$"
    with pytest.warns(ConversionWarning) as caught:
        read_images(paths, (6, 8))
    with pytest.warns(ConversionWarning) as batches:
        read = [(images.shape, files) for images, files in read_batches(paths, (6, 8), 3, 2)]
    assert read == [((2, 6, 8, 3), paths[:2]), ((1, 6, 8, 3), paths[2:])]
    for warned in (caught, batches):
        assert len(warned) == 1
        text = str(warned[0].message)
        assert re.search(r"^2 of 3 pictures were converted; the first is .*" + enlarged, text)
        assert warned[0].filename == __file__


def test_batches_leave_out_what_is_no_picture(tmp_path):
    paths = [save(tmp_path, RGB, name=f"{i}.png") for i in range(3)]
    paths[1].write_bytes(b"hello")
    with pytest.warns(UserWarning, match=r"left out: .*1\.png is not a picture") as caught:
        ((images, files),) = read_batches(paths, (6, 8), 3, 8)
    assert len(caught) == 1
    assert files == [paths[0], paths[2]]
    np.testing.assert_allclose(images, np.stack([RGB, RGB]) / 255, atol=1e-6)


@pytest.mark.parametrize("folder", [None, 3, "", b"pictures", ["pictures"]])
def test_what_is_no_folder_is_said(folder):
    with pytest.raises(fv.InputError, match="a folder of pictures is a path; got "):
        image_files(folder)


# ---- damaged files -------------------------------------------------------------------------


def insert(png, kind, body):
    """A PNG with another chunk after its header."""
    return png[:33] + chunk(kind, body) + png[33:]


def encoded(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "extra",
    [
        (b"eXIf", b"\x00\x08\x00\x02\x01\x12\x00\x03"),
        (b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        (b"eXIf", b""),
        (b"tEXt", b"Raw profile type exif\0\nexif\n  8\nzzzz"),
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation="9"'),
        (b"tIME", b"\xff"),
        (b"zzZz", b"\xff"),
    ],
    ids=str,
)
def test_bad_data_about_good_pixels_cost_nothing(tmp_path, extra):
    (tmp_path / "a.png").write_bytes(insert(encoded("PNG"), *extra))
    np.testing.assert_allclose(fv.read_image(tmp_path / "a.png"), RGB / 255, atol=1e-6)


def test_bad_exif_data_that_turn_a_picture_turn_it(tmp_path):
    # A quarter turn, and an entry of a type that there is not, far outside of the data.
    raw = b"II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHII", 0x0112, 3, 1, 6)
    raw += struct.pack("<HHII", 0x9999, 77, 2**31, 2**31) + bytes(4)
    (tmp_path / "a.png").write_bytes(insert(encoded("PNG"), b"eXIf", raw))
    np.testing.assert_allclose(
        fv.read_image(tmp_path / "a.png"), np.rot90(RGB, -1) / 255, atol=1e-6
    )


def test_a_broken_chunk_of_pixels_is_an_input_error(tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    path = save(tmp_path, large)
    raw = path.read_bytes()
    second = raw.index(b"IDAT", raw.index(b"IDAT") + 4)
    path.write_bytes(raw[:second] + b"\x8d\x03\x98\xa6" + raw[second + 4 :])
    with pytest.raises(fv.InputError, match="not a picture that can be read"):
        fv.read_image(path)


@pytest.mark.parametrize(
    "error",
    [
        SyntaxError("x"), struct.error("x"), IndexError("x"), RuntimeError("x"), MemoryError(),
        NotImplementedError("x"), Image.DecompressionBombError("x"), zlib.error("x"), OSError("x"),
        EOFError(), KeyError("x"), OverflowError("x"), ZeroDivisionError("x"), RecursionError("x"),
        AttributeError("x"), TypeError("x"), AssertionError(), UnicodeError("x\n\x1b[2J"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("place", ["PIL.Image.open", "PIL.ImageFile.ImageFile.load"])
def test_whatever_pillow_raises_is_one_error(tmp_path, monkeypatch, error, place):
    paths = [save(tmp_path, RGB, name=f"{name}.bmp") for name in "ab"]
    opened = Image.open

    def fail(*arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(
            fv.InputError, match=r"a\.bmp is not a picture that can be read: "
        ) as one:
            fv.read_image(paths[0])
        assert str(one.value).isprintable()
    # Of a folder the others are read.
    monkeypatch.setattr("PIL.Image.open", lambda path: fail() if path == paths[0] else opened(path))
    with pytest.warns(UserWarning, match=r"left out: .*a\.bmp"):
        ((images, _),) = read_batches(paths, (6, 8), 3, 8)
    np.testing.assert_allclose(images[0], RGB / 255, atol=1e-6)


def test_a_picture_that_unpacks_to_gigabytes_is_an_input_error(tmp_path):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(10**5)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data)
    with pytest.raises(fv.InputError, match="not a picture that can be read"):
        fv.read_image(tmp_path / "a.png")


SEEDS = {
    kind: encoded(kind, **options)
    for kind, options in {
        "PNG": {}, "JPEG": {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}, "GIF": {}, "WEBP": {},
        "TIFF": {"compression": "tiff_lzw"}, "BMP": {}, "PPM": {}, "ICO": {}, "TGA": {}, "MPO": {},
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("kind", SEEDS)
@pytest.mark.filterwarnings("default")  # Pillow warns of what it mends
def test_damaged_bytes_raise_nothing_else(tmp_path, kind):
    random = np.random.default_rng(sum(kind.encode()))
    path = tmp_path / "a"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            path.write_bytes(mutated(random, SEEDS[kind]))
            with contextlib.suppress(fv.InputError):
                assert fv.read_image(path, (4, 5)).shape == (4, 5, 3)


def mutated(random, raw):
    """Bytes with some of them changed, cut out, said twice, or made the largest."""
    raw = bytearray(raw)
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(len(raw)))
        end = at + int(random.integers(1, 9))
        match random.integers(5):
            case 0:
                raw[at] = random.integers(256)
            case 1:
                raw[at:end] = bytes([random.choice([0, 127, 128, 255])]) * (end - at)
            case 2 if len(raw) > 20:
                del raw[at:end]
            case 3:
                raw[at:at] = raw[at:end]
            case _:
                raw[at] ^= 1 << random.integers(8)
    return bytes(raw)


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"caf\xe9.png",
        "猫.png".encode(),
        b"a\n\x1b[2J.png",
        b"x" * 251 + b".png",
        b"\xff" * 251 + b".png",
    ],
    ids=lambda name: repr(name[:9]),
)
def test_files_of_any_name_are_found_and_read(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    Image.fromarray(RGB).save(path, "PNG")
    assert image_files(tmp_path) == [path]
    with pytest.warns(ConversionWarning) as caught:
        fv.read_image(path, (12, 16))
    with pytest.raises(fv.InputError) as raised:
        fv.read_image(f"{path}x")
    for said in (str(caught[0].message), str(raised.value)):
        assert said.isprintable()
        said.encode()
