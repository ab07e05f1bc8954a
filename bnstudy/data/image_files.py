"""A file of one image as 8-bit pixels, as a viewer shows it; or the reason why not, with the file's name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from bnstudy.validation import ConfigError, printable

# Those of torchvision's IMG_EXTENSIONS, and GIF under another name. Pillow would run Ghostscript for an EPS file.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_TIFF_BITS, _TIFF_WHITE_IS_ZERO = 258, 262  # tags
_WHITE = (255, 255, 255)
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # from the levels of 2 and 4 bits to those of 8


class UnreadableImageError(Exception):
    """Why an image cannot be shown: completes the sentence "FILE ..."."""


def read_image(path: str, channels: Literal[1, 3], size: int | None = None) -> np.ndarray:
    """The image as uint8 [C, H, W], turned as its EXIF orientation says and on white where it is transparent.

    Colour profiles are ignored. Inside `warnings_as_errors`, what Pillow warns about is refused, too.

    size: scale to size x size pixels; null to keep the size.

    Raises:
        ConfigError: the file is damaged, or its pixels have no one meaning in 8 bits.
    """
    try:
        # By an open file: Pillow maps a file that it opens itself, and then misreads a TIFF that is to be turned.
        with open(path, "rb") as stream, Image.open(stream, formats=_FORMATS) as file:
            image = _as_shown(file).convert("L" if channels == 1 else "RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = Image.MAX_IMAGE_PIXELS or 0
        raise ConfigError(f"{show_path(path)} has more than {most:,} pixels: scale it down.") from None
    except UnreadableImageError as error:
        raise ConfigError(f"{show_path(path)} {error}.") from None
    except UnidentifiedImageError:
        raise ConfigError(f"{show_path(path)} is damaged, no image of a known format; delete or replace it.") from None
    except Exception as error:  # Pillow fails in many ways; the remedy is always the same
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{show_path(path)} is damaged ({reason}); delete or replace it.") from None
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    """Let Pillow's warnings, which name no file, be errors; for all threads, so that they cannot be set in each."""
    with warnings.catch_warnings():
        for category in (UserWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("error", category)
        warnings.filterwarnings("ignore", "Corrupt EXIF data")  # the pixels are intact
        yield


def show_path(path: str | os.PathLike[str]) -> str:
    """A path for a message, in one line."""
    return printable(os.fspath(path), keep="")


def _as_shown(file: Image.Image) -> Image.Image:
    """The image in one of Pillow's modes that `convert` brings to "L" and "RGB" without loss of meaning."""
    # The further frames of an MPO file, a JPEG of a phone, are previews and depth maps.
    if file.format != "MPO" and (frames := getattr(file, "n_frames", 1)) > 1:
        raise UnreadableImageError(f"has {frames} frames or pages: save each as an image of its own")
    key = _transparent_grey(file)
    file.load()
    with suppress(Exception):  # a viewer shows an image with damaged EXIF data as it is
        ImageOps.exif_transpose(file, in_place=True)
    if key is not None or file.mode.startswith("I"):
        return _scale_grey(file, key)
    if file.mode in ("F", "LAB"):
        pixels = "floating-point pixels" if file.mode == "F" else "pixels in the colour space Lab"
        raise UnreadableImageError(f"has {pixels}, without a fixed black and white: save it with 8 bits a channel")
    if not file.has_transparency_data:
        return file
    colour_key = file.info.get("transparency")
    if isinstance(colour_key, tuple) and max(colour_key) > 255:
        raise UnreadableImageError("has 16 bits a channel and a transparent colour: save it with 8 bits a channel")
    shown = Image.new("RGBA", file.size, _WHITE)
    # "La" has levels that are multiplied by alpha; Pillow converts it only to "LA".
    shown.alpha_composite((file.convert("LA") if file.mode == "La" else file).convert("RGBA"))
    return shown


def _transparent_grey(file: Image.Image) -> int | None:
    """The grey level that a PNG declares transparent, in the levels of its decoded pixels."""
    key = file.info.get("transparency")
    if not isinstance(key, int) or file.mode not in ("L", "I;16"):
        return None
    coding = file.tile[0].args if isinstance(file, ImageFile.ImageFile) else None
    return key * _GREY_STEPS.get(str(coding), 1)


def _scale_grey(file: Image.Image, key: int | None) -> Image.Image:
    """Grey levels of 16 bits (of fewer where a TIFF says so) or 8 bits, as 8 bits; the level `key` becomes white."""
    tags = getattr(file, "tag_v2", {})
    if file.mode == "I" and file.format != "PPM":  # a PPM's levels are scaled to 16 bits by Pillow
        raise UnreadableImageError("has integer pixels, signed or of 32 bits: save it with 8 bits a channel")
    most = 255 if file.mode == "L" else 2 ** tags.get(_TIFF_BITS, (16,))[0] - 1
    levels = np.asarray(file)
    scaled = np.rint(levels * (255 / most)).astype(np.uint8)
    if file.mode != "L" and tags.get(_TIFF_WHITE_IS_ZERO) == 0:
        scaled = 255 - scaled
    if key is not None:
        scaled[levels == key] = 255
    return Image.fromarray(scaled)
