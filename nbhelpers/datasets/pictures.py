"""Pictures on disk, any of which may come from a stranger.

A file is opened only if it is a regular one, decoded only by the formats that photographs and
drawings come in, and refused by name, in one sentence, where it can't be used.
"""

import io
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from nbhelpers.errors import quoted

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # EPS would run Ghostscript
Picture: TypeAlias = UInt8[np.ndarray, "h w 3"] | Image.Image | str | os.PathLike
MAX_PIXELS = 89_478_485  # where Pillow starts to warn of a decompression bomb; here it is an error

BLANK = b"\xef\xbb\xbf \t\r\n"  # what may stand before a text: a byte order mark, spaces
# What files with a picture's name often are instead, by their first bytes (in lower case).
STRANGERS = {
    b"<!doctype html": "a web page; the download failed or the link leads to a page",
    b"<html": "a web page; the download failed or the link leads to a page",
    b"<?xml": "XML or SVG, not pixels; export it as PNG",
    b"<svg": "SVG, not pixels; export it as PNG",
    b"%!ps": "PostScript, not pixels; export it as PNG",
    b"%pdf": "PDF, not pixels; export the page as PNG",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the picture with 'git lfs pull'",
    b"pk\x03\x04": "a zip archive; unpack it first",
}

# EXIF's orientation tag: how the stored pixels are to be turned to stand upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
INVERSE = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # the rest undo themselves


@contextmanager
def open_regular(path: Any) -> Iterator[io.BufferedReader]:
    """Opens a file for reading if it is one: a pipe or device would block or never end."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"a path must be a str or a pathlib.Path; got {type(text).__name__}")
    name = quoted(text)
    if not text or "\0" in text:
        raise ValueError(f"{name} can't be the name of a file; give the path of a picture")
    try:
        mode = os.stat(text).st_mode
        regular = stat.S_ISREG(mode)  # to open a pipe would be to wait for whoever writes to it
        file = os.open(text, os.O_RDONLY | getattr(os, "O_BINARY", 0)) if regular else None
    except FileNotFoundError:
        where = "" if os.path.isabs(text) else f" (looked from the folder {quoted(os.getcwd())})"
        raise FileNotFoundError(f"{name} doesn't exist{where}; check the path") from None
    except UnicodeEncodeError:
        raise ValueError(f"{name} can't be the name of a file on this machine") from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise type(error)(f"{name} can't be opened: {reason}") from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{name} is a folder; give the path of one picture in it")
    if file is None:
        raise ValueError(
            f"{name} is a pipe or a device, not a file; save the picture to a file first"
        )
    with os.fdopen(file, "rb") as opened:
        yield opened


def inside(folder: Path, name: str) -> Path:
    """Returns the path of a file in or below a folder, every link followed; it needn't be there.

    Raises:
        ValueError: The name leads out of the folder, by itself or by a link.

    Example:
        >>> inside(Path("images"), "../secret.png")
        Traceback (most recent call last):
        ValueError: '../secret.png' leads out of the folder 'images'; put the file into it
    """
    try:
        root = folder.resolve()
        path = (root / name).resolve()
        stays = path.is_relative_to(root)
    except (ValueError, OSError, RuntimeError):  # a zero byte, a name too long, links in a circle
        stays = False
    if not stays:
        raise ValueError(
            f"{quoted(name)} leads out of the folder {quoted(folder)}; put the file into it"
        )
    return path


def load_image(path: str | os.PathLike, *, rotate: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a picture from disk as red, green and blue bytes, writable and contiguous.

    Whatever the file holds becomes 8-bit RGB: 16-bit channels keep their high byte (scaled, not
    clipped), transparent pixels are laid on white, CMYK and palettes are converted, gray is
    repeated. Of an animation or a file of several pages the first is taken, with a warning.
    Color profiles are not applied.

    Args:
        path: The file: PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF, whatever its name says.
        rotate: Stand the picture upright as EXIF says, which is right for your own photographs.
            False keeps the stored pixels: COCO's masks are drawn on those.

    Raises:
        OSError: There is nothing to read; FileNotFoundError and the like say why.
        ValueError: It isn't a picture, is damaged, has more than 89,478,485 pixels (in the zone
            where Pillow only warns, its warning may stand beside this error), or has 32-bit
            channels.
        TypeError: The path isn't one.
    """
    name = quoted(path)
    with open_regular(path) as file:
        picture = identify(file, name)
        w, h = picture.size
        kind = f"{picture.format} of {h} x {w} pixels"
        if h * w > MAX_PIXELS:
            raise ValueError(_too_large(name, kind))
        try:
            stored = picture.format == "TIFF" and picture.getexif().get(ExifTags.Base.Orientation)
            several = picture.format != "MPO" and getattr(picture, "is_animated", False)
            picture.load()
        except Exception as error:  # damaged files raise a dozen types, KeyError among them
            raise ValueError(
                f"{name} is a {kind}, but its pixels can't be read "
                f"({quoted(error)}): it is cut short or damaged; get the file again"
            ) from error
        turn = UPRIGHT.get(_orientation(picture))
        if stored and not rotate:  # Pillow turns a TIFF while it loads: turn it back
            turn = INVERSE.get(stored, UPRIGHT.get(stored))
        picture = to_rgb(picture, name)
    if several:
        found = f"holds several pictures ({kind.split()[0]})"
        warnings.warn(f"{name} {found}; the first is used", stacklevel=2)
    if turn is not None and (rotate or stored):
        picture = picture.transpose(turn)
    return np.array(picture)


def as_image(image: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of a picture in any of the forms that a reader has it in.

    Args:
        image: uint8 ``(h, w, 3)``, which is taken as it is; a Pillow picture, whose pixels are
            converted as `load_image` does and not turned by EXIF, so that a mask fits them; or a
            path, which `load_image` reads and turns upright.

    Raises:
        OSError: It is a path with nothing to read.
        ValueError: It is none of these, or can't be read; the message says what it is.
    """
    if isinstance(image, str | os.PathLike):
        return load_image(image)
    if isinstance(image, Image.Image):
        h, w = image.height, image.width
        if not 0 < h * w <= MAX_PIXELS:
            raise ValueError(_too_large("the picture", f"Pillow picture of {h} x {w} pixels"))
        try:
            return np.array(to_rgb(image, "the picture"))
        except (OSError, SyntaxError) as error:
            raise ValueError(f"the Pillow picture can't be read: {quoted(error)}") from error
    wanted = "a picture is a uint8 array (h, w, 3), as load_image gives, a Pillow one or a path"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{wanted}; got {type(image).__name__}")
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return image
    advice = ""
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        advice = ": channels come last, image.transpose(1, 2, 0)"
    elif image.ndim == 3 and image.shape[2] == 4:
        advice = ": load it with load_image, which lays transparent pixels on white"
    elif image.dtype.kind == "f":
        advice = ": of values in [0, 1] make (255 * image).round().astype(np.uint8)"
    elif image.ndim == 2:
        advice = ": repeat gray, np.stack([image] * 3, axis=-1)"
    raise ValueError(f"{wanted}; got {image.dtype} {image.shape}{advice}")


def identify(file: BinaryIO, name: str) -> Image.Image:
    """Opens a picture without decoding it, or says what the file is instead."""
    start = file.read(512)
    if not start:
        raise ValueError(f"{name} is empty (0 bytes); get the picture again")
    try:
        return Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(_too_large(name, "picture")) from error
    except Exception as error:  # as above: headers fail in as many ways as pixels
        known = stranger(start)
        if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1"):
            known = "HEIC, as phones save it; export it as JPEG"
        if known:
            raise ValueError(f"{name} is not a picture but {known}") from error
        raise ValueError(
            f"{name} is not a picture that can be read (it starts with {start[:8]!r}); wanted "
            f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}: convert it, or get it again if damaged"
        ) from error


def stranger(start: bytes) -> str | None:
    """Names what a file is by its first bytes, if it is one of `STRANGERS`."""
    text = start.lstrip(BLANK).lower()
    return next((what for mark, what in STRANGERS.items() if text.startswith(mark)), None)


def to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Converts a decoded picture of any mode to 8-bit RGB, transparency on white."""
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and picture.format == "PPM"):
        deep = np.asarray(picture)  # convert("RGB") would clip all above 255 to white
        clear = picture.info.get("transparency")
        gray = (deep >> 8).astype(np.uint8)
        if clear is not None:
            gray[deep == clear] = 255
        return Image.fromarray(gray).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(
            f"{name} has 32 bits a pixel (mode {mode}), whose black and white no rule fixes; "
            "wanted 8 or 16 bits a channel: scale it and save it as PNG"
        )
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _orientation(picture: Image.Image) -> int:
    """Returns EXIF's orientation, 1 (as stored) where there is none or it can't be read."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, OSError, KeyError, IndexError, TypeError, struct.error):
        return 1  # the pixels are good: a broken note beside them is no reason to refuse them


def _too_large(name: str, kind: str) -> str:
    """Words the refusal of a picture that may be a decompression bomb."""
    return (
        f"{name} is a {kind}, more than the {MAX_PIXELS:,} pixels read here "
        "(it may be a decompression bomb); shrink it first"
    )
