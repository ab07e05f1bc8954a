"""The same image in each form that a file can have: equal pixels, or a sentence with the file's name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bnstudy.data.image_files import read_image, show_path, warnings_as_errors
from bnstudy.validation import ConfigError

LEVELS = np.random.default_rng(0).integers(0, 256, (5, 4), dtype=np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)
OPAQUE = np.random.default_rng(2).integers(0, 256, (5, 4), dtype=np.uint8)
GREY, COLOUR = Image.fromarray(LEVELS), Image.fromarray(COLOURS)

Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """A function that saves an image and returns the path."""

    def write(image: Image.Image, suffix: str = "png", **options: Any) -> str:
        path = str(tmp_path / f"image.{suffix}")
        image.save(path, **options)
        return path

    return write


def grey(path: str) -> np.ndarray:
    """The image in grey [H, W], where it is the same in both numbers of channels."""
    in_grey, in_colour = read_image(path, 1)[0], read_image(path, 3)
    assert all(np.array_equal(channel, in_grey) for channel in in_colour)
    return in_grey


def colours(path: str) -> np.ndarray:
    return read_image(path, 3).transpose(1, 2, 0)


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What is left of `pixels` and of a white background, added in floating point."""
    share = alpha.astype(float).reshape(alpha.shape + (1,) * (pixels.ndim - alpha.ndim)) / 255
    return share * pixels + (1 - share) * 255


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "pgm"])
def test_eight_bit_grey_is_read_exactly(save, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(grey(save(GREY, suffix, **options)), LEVELS)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm"])
def test_eight_bit_colours_are_read_exactly(save, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(colours(save(COLOUR, suffix, **options)), COLOURS)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_by_its_depth(save, suffix):
    deep = Image.fromarray(LEVELS.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert np.array_equal(grey(save(deep, suffix)), LEVELS)


def test_sixteen_bit_levels_between_those_of_eight_bits_are_rounded(save):
    levels = np.array([[0, 128, 129, 65_535]], dtype=np.uint16)
    assert grey(save(Image.fromarray(levels))).tolist() == [[0, 0, 1, 255]]


def test_big_endian_tiffs_of_sixteen_bits_are_scaled(tmp_path):
    path = write_tiff(tmp_path, LEVELS.astype(">u2") * 257, bits=16)
    assert np.array_equal(grey(path), LEVELS)


def test_a_tiff_whose_zero_is_white_is_inverted_also_in_sixteen_bits(tmp_path):
    path = write_tiff(tmp_path, LEVELS.astype("<u2") * 257, bits=16, white_is_zero=True)
    assert np.array_equal(grey(path), 255 - LEVELS)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_compressed_tiffs_of_sixteen_bits_are_scaled_and_turned(save, compression):
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(LEVELS.astype(np.uint16) * 257)
    assert np.array_equal(grey(save(deep, "tif", compression=compression, exif=exif)), TURNED[6])


def test_a_tiff_whose_levels_are_multiplied_by_alpha_is_composited_on_white(tmp_path):
    # Half of white, half of black, and nothing.
    pixels = np.array([[[128, 128], [0, 128], [0, 0]]], dtype=np.uint8)
    path = write_tiff(tmp_path, pixels, bits=8, size=(3, 1), alpha=True)
    assert grey(path).tolist() == [[255, 127, 255]]


def test_a_tiff_of_twelve_bits_is_scaled_by_4095(tmp_path):
    # Two levels in three bytes.
    levels = np.array([[0, 4095, 2048, 16]])
    packed = b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in levels.reshape(-1, 2).tolist())
    path = write_tiff(tmp_path, packed, bits=12, size=(4, 1))
    assert grey(path).tolist() == [[0, 255, 128, 1]]


def write_tiff(
    folder: Path,
    pixels: np.ndarray | bytes,
    bits: int,
    white_is_zero: bool = False,
    size: tuple[int, int] = (4, 5),
    alpha: bool = False,
) -> str:
    """An uncompressed grey TIFF, in the byte order of the pixels; `alpha`: with levels that it has multiplied."""
    order = ">" if isinstance(pixels, np.ndarray) and pixels.dtype.byteorder == ">" else "<"
    content = pixels.tobytes() if isinstance(pixels, np.ndarray) else pixels
    width, height = size
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 8, 277: 1 + alpha}
    tags |= {278: height, 279: len(content)} | ({338: 1} if alpha else {})
    if alpha:
        tags[258] = bits << 16 | bits
    directory = struct.pack(f"{order}H", len(tags))
    for tag, value in tags.items():
        kind, count = (3, 2) if tag == 258 and alpha else (4, 1)
        directory += struct.pack(f"{order}HHII", tag, kind, count, value)
    header = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8 + len(content))
    path = folder / "image.tif"
    path.write_bytes(header + content + directory + struct.pack(f"{order}I", 0))
    return str(path)


def test_sixteen_bit_pgm_is_scaled_by_its_maximum(tmp_path):
    path = tmp_path / "image.pgm"
    path.write_bytes(b"P5 4 1 1023\n" + np.array([0, 1023, 512, 4], dtype=">u2").tobytes())
    assert grey(str(path)).tolist() == [[0, 255, 128, 1]]


def write_png(path: Path, rows: np.ndarray, depth: int, colour_type: int, extra: bytes = b"") -> str:
    """A PNG of rows of bytes: Pillow does not write all that it reads."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    width = rows.shape[1] * 8 // (depth * samples)
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    transparency = chunk(b"tRNS", extra) if extra else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparency + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )
    return str(path)


def rows_16(pixels: np.ndarray) -> np.ndarray:
    """8-bit pixels as rows of a PNG with 16 bits."""
    return (pixels.astype(">u2") * 257).reshape(len(pixels), -1).view(np.uint8)


def test_sixteen_bit_colours_and_alpha_are_scaled(tmp_path):
    path = tmp_path / "image.png"
    assert np.array_equal(colours(write_png(path, rows_16(COLOURS), 16, 2)), COLOURS)
    for pixels, colour_type in ((LEVELS[..., None], 4), (COLOURS, 6)):
        both = np.concatenate([pixels, OPAQUE[..., None]], axis=2)
        shown = colours(write_png(path, rows_16(both), 16, colour_type))
        assert np.abs(shown - on_white(pixels, OPAQUE)).max() <= 1


def test_one_two_and_four_bits_fill_the_range_from_black_to_white(save, tmp_path):
    bits = LEVELS > 127
    assert np.array_equal(grey(save(Image.fromarray(bits))), bits * 255)
    path = tmp_path / "image.png"
    assert grey(write_png(path, np.array([[0b00011011]], dtype=np.uint8), 2, 0)).tolist() == [[0, 85, 170, 255]]
    assert grey(write_png(path, np.array([[0x0F]], dtype=np.uint8), 4, 0)).tolist() == [[0, 255]]


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_is_composited_on_white(save, suffix):
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    image = COLOUR.copy()
    image.putalpha(Image.fromarray(OPAQUE))
    assert np.abs(colours(save(image, suffix, **options)) - on_white(COLOURS, OPAQUE)).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_of_grey_images_is_composited_on_white(save, suffix):
    image = GREY.copy()
    image.putalpha(Image.fromarray(OPAQUE))
    assert image.mode == "LA"
    assert np.abs(grey(save(image, suffix)) - on_white(LEVELS, OPAQUE)).max() <= 1


def test_a_palette_is_looked_up_with_its_transparency(save):
    image = COLOUR.quantize(20)
    assert np.array_equal(colours(save(image)), COLOURS)
    alpha = bytes(range(0, 240, 12))
    expected = on_white(COLOURS, np.frombuffer(alpha, dtype=np.uint8)[np.asarray(image)])
    assert np.abs(colours(save(image, transparency=alpha)) - expected).max() <= 1
    one = int(np.asarray(image)[2, 1])
    shown = colours(save(image, transparency=one))
    assert shown[2, 1].tolist() == [255, 255, 255]
    assert (shown != COLOURS).any(axis=2).sum() == 1


def test_a_transparent_colour_becomes_white(save):
    shown = colours(save(COLOUR, transparency=tuple(COLOURS[1, 2].tolist())))
    assert shown[1, 2].tolist() == [255, 255, 255]
    assert (shown != COLOURS).any(axis=2).sum() == 1


def test_a_transparent_grey_becomes_white_in_every_depth(save, tmp_path):
    level = int(LEVELS[1, 2])
    expected = np.where(level == LEVELS, 255, LEVELS)
    assert np.array_equal(grey(save(GREY, transparency=level)), expected)
    deep = Image.fromarray(LEVELS.astype(np.uint16) * 257)
    assert np.array_equal(grey(save(deep, transparency=level * 257)), expected)
    path = tmp_path / "image.png"
    two_bits = np.array([[0b00011011]], dtype=np.uint8)
    assert grey(write_png(path, two_bits, 2, 0, struct.pack(">H", 1))).tolist() == [[0, 255, 170, 255]]
    assert grey(write_png(path, np.array([[0x0F]], dtype=np.uint8), 1, 0, b"\0\0")).tolist() == [[255] * 8]


TURNED = {
    1: LEVELS,
    2: LEVELS[:, ::-1],
    3: LEVELS[::-1, ::-1],
    4: LEVELS[::-1],
    5: LEVELS.T,
    6: np.rot90(LEVELS, -1),
    7: np.rot90(LEVELS, 2).T,
    8: np.rot90(LEVELS),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_the_exif_orientation_turns_the_image(save, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(grey(save(GREY, suffix, exif=exif, **options)), TURNED[orientation])


def test_the_exif_orientation_turns_a_jpeg_and_sixteen_bits(save):
    exif = Image.Exif()
    exif[0x0112] = 6
    block = Image.fromarray(np.kron(np.array([[0, 255]], dtype=np.uint8), np.ones((8, 8), dtype=np.uint8)))
    assert grey(save(block, "jpg", exif=exif, quality=100))[[0, 15], 0].tolist() == [0, 255]
    deep = Image.fromarray(LEVELS.astype(np.uint16) * 257)
    assert np.array_equal(grey(save(deep, exif=exif)), TURNED[6])


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01", b"Exif\0\0nonsense"], ids=["short", "nonsense"]
)
def test_an_image_with_damaged_exif_data_is_read_as_it_is(save, suffix, exif):
    path = save(Image.new("RGB", (5, 4), (200, 120, 40)), suffix, exif=exif)
    with warnings_as_errors():
        assert np.abs(colours(path) - np.array([200, 120, 40])).max() <= 3


def test_cmyk_and_ycbcr_are_converted(save):
    path = save(COLOUR.convert("CMYK"), "tif")
    assert np.abs(colours(path) - COLOURS.astype(int)).max() <= 1
    assert np.abs(read_image(path, 1)[0] - np.asarray(COLOUR.convert("L")).astype(int)).max() <= 1
    smooth = Image.fromarray(np.full((8, 8, 3), (200, 120, 40), dtype=np.uint8))
    for image in (smooth, smooth.convert("CMYK"), smooth.convert("YCbCr")):
        assert np.abs(colours(save(image, "jpg", quality=100)) - np.asarray(smooth).astype(int)).max() <= 3


def test_a_jpeg_with_a_preview_is_read_without_it(save):
    smooth = Image.new("RGB", (8, 8), (200, 120, 40))
    path = save(smooth, "jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=100)
    with Image.open(path) as file:
        assert file.format == "MPO"
    assert np.abs(colours(path) - np.asarray(smooth).astype(int)).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "gif"])
def test_several_frames_are_refused_by_name(save, suffix, tmp_path):
    path = save(COLOUR, suffix, save_all=True, append_images=[Image.new("RGB", (4, 5))])
    if suffix == "gif":
        path = str(Path(path).rename(tmp_path / "image.png"))
    with pytest.raises(ConfigError, match=r"image\.\w+ has 2 frames or pages: save each as an image of its own"):
        read_image(path, 3)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.fromarray(LEVELS.astype(np.float32)), "has floating-point pixels"),
        (Image.fromarray(LEVELS.astype(np.int32)), "has integer pixels, signed or of 32 bits"),
        (Image.new("LAB", (4, 5)), "has pixels in the colour space Lab"),
    ],
    ids=["float", "int32", "Lab"],
)
def test_pixels_without_a_fixed_white_are_refused_by_name(save, image, reason):
    with pytest.raises(ConfigError, match=rf"image\.tif {reason}.*: save it with 8 bits a channel"):
        read_image(save(image, "tif"), 3)


def test_a_transparent_colour_in_sixteen_bits_is_refused_by_name(tmp_path):
    path = write_png(tmp_path / "image.png", rows_16(COLOURS), 16, 2, struct.pack(">HHH", 5000, 0, 0))
    with pytest.raises(ConfigError, match=r"image\.png has 16 bits a channel and a transparent colour"):
        read_image(path, 3)


@pytest.mark.parametrize("pixels", [10_000 * 10_000, 20_000 * 10_000])
def test_a_decompression_bomb_is_refused_by_name(tmp_path, pixels):
    path = tmp_path / "bomb.png"
    Image.new("1", (10_000, pixels // 10_000)).save(path)
    with warnings_as_errors(), pytest.raises(ConfigError, match=r"bomb\.png has more than 89,478,485 pixels: scale it"):
        read_image(str(path), 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n",
        b"\x89PNG\r\n\x1a\n",
        b"BM" + bytes(60),
    ],
    ids=["empty", "html", "eps", "only a header", "zeros"],
)
def test_the_error_for_a_file_that_is_no_image_names_it_once(tmp_path, content):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"image\.png is damaged.+; delete or replace it") as error:
        read_image(str(path), 3)
    assert str(error.value).count(str(path)) == 1


def test_control_characters_of_a_path_are_escaped():
    assert show_path("/a/b c.png") == "/a/b c.png"
    assert show_path("/a/\x1b[2J.png") == r"/a/\x1b[2J.png"
