import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import featvis as fv


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
    np.testing.assert_allclose(fv.read_image(save(tmp_path, rgba)), 128 / 255, atol=1e-6)


def test_sixteen_bits_keep_their_range(tmp_path):
    levels = np.array([[0, 32768, 65535]], np.uint16)
    np.testing.assert_allclose(
        fv.read_image(save(tmp_path, levels))[0, :, 0], [0, 0.5, 1], atol=1 / 255
    )


def chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def test_sixteen_bit_files_as_others_write_them(tmp_path):
    # Pillow writes no colours of 16 bits.
    levels = np.array([0, 32768, 65535], ">u2")
    header = struct.pack(">IIBBBBB", 3, 1, 16, 2, 0, 0, 0)
    colours = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + np.repeat(levels, 3).tobytes()))
        + chunk(b"IEND", b"")
    )
    files = {
        "rgb.png": colours,
        "grey.pgm": b"P5 3 1 65535\n" + levels.tobytes(),
        "other.pgm": b"P5 3 1 1000\n" + np.array([0, 500, 1000], ">u2").tobytes(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        for channels in (1, 3):
            image = fv.read_image(tmp_path / name, channels=channels)
            for channel in range(channels):
                np.testing.assert_allclose(image[0, :, channel], [0, 0.5, 1], atol=1 / 255)
    # A dark picture is not stretched.
    dark = fv.read_image(save(tmp_path, np.full((2, 2), 655, np.uint16)))
    np.testing.assert_allclose(dark, 0.01, atol=1 / 255)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_have_no_range(kind, tmp_path):
    path = save(tmp_path, np.array([[0, 1]], kind), name="a.tif")
    with pytest.raises(fv.InputError, match="32 bits a channel") as caught:
        fv.read_image(path)
    assert "\n" not in str(caught.value)


def test_palette_and_cmyk_and_grey(tmp_path):
    flat = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    for mode, name in [("P", "p.png"), ("CMYK", "c.tif"), ("RGB", "r.png")]:
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
    assert fv.read_image(save(tmp_path, wide), (16, 20)).shape == (16, 20, 3)


def test_what_is_no_picture_is_an_input_error(tmp_path):
    with pytest.raises(fv.InputError, match="there is no file"):
        fv.read_image(tmp_path / "none.png")
    (tmp_path / "a.png").write_bytes(b"hello")
    with pytest.raises(fv.InputError, match="not a picture"):
        fv.read_image(tmp_path / "a.png")
    path = save(tmp_path, RGB, name="b.png")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(fv.InputError, match="not a picture"):
        fv.read_image(path)
    with pytest.raises(fv.InputError, match="1 or 3 channels"):
        fv.read_image(path, channels=2)
