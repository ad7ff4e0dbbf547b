"""Pictures read from disk: good ones to the pixel, bad ones to the word."""

import inspect
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from nbhelpers.datasets import FORMATS, INVERSE, MAX_PIXELS, UPRIGHT, load_image, quoted

REAL = Path(__file__).parents[2] / "shared" / "data" / "real-images"
real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the photographs in ../shared/data")


def png(width, height, depth, color, rows=b"", extra=b""):
    """A PNG written byte by byte: color types and depths that Pillow itself won't write."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


@pytest.fixture
def scene():
    """No two pixels alike, no symmetry: any turn, flip or swapped axis shows."""
    h, w = 5, 7
    rows, columns = np.mgrid[:h, :w]
    return np.stack([rows * 40, columns * 30, 255 - rows * 7 - columns], -1).astype(np.uint8)


# Good pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_pixels_come_back_as_drawn(tmp_path, scene, form):
    options = {"lossless": True} if form == "WEBP" else {}
    path = saved(tmp_path / "scene.picture", Image.fromarray(scene), format=form, **options)
    image = load_image(path)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    assert np.array_equal(image, scene)
    assert np.array_equal(load_image(str(path)), scene)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_shapes(tmp_path, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.array_equal(load_image(saved(tmp_path / "thin.png", Image.fromarray(image))), image)


def test_gray_bits_and_palettes(tmp_path):
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    image = load_image(saved(tmp_path / "gray.png", Image.fromarray(gray)))
    assert np.array_equal(image, np.repeat(gray[..., None], 3, -1))
    bits = Image.fromarray(gray > 100)
    assert bits.mode == "1"
    image = load_image(saved(tmp_path / "bits.png", bits))
    assert np.array_equal(image[..., 0], np.where(gray > 100, 255, 0))
    palette = Image.fromarray(gray).convert("RGB").quantize(16)
    image = load_image(saved(tmp_path / "palette.png", palette))
    assert np.array_equal(image, np.array(palette.convert("RGB")))


def test_cmyk(tmp_path):
    solid = {
        (0, 0, 0, 0): (255, 255, 255),
        (0, 0, 0, 255): (0, 0, 0),
        (0, 255, 255, 0): (255, 0, 0),
    }
    for ink, light in solid.items():
        for form in ("JPEG", "TIFF"):
            path = saved(tmp_path / "print", Image.new("CMYK", (8, 8), ink), format=form)
            image = load_image(path)
            assert image.shape == (8, 8, 3)
            assert np.abs(image.astype(int) - light).max() <= 2, (form, ink)


DEEP = np.array([[0, 255, 256, 32896, 65535, 12345]], dtype=np.uint16)


@pytest.mark.parametrize(("channels", "color"), [(1, 0), (3, 2)])
def test_16_bits_are_scaled_not_clipped(tmp_path, channels, color):
    path = tmp_path / "deep.png"
    rows = b"\0" + np.repeat(DEEP.astype(">u2")[..., None], channels, -1).tobytes()
    path.write_bytes(png(6, 1, 16, color, rows))
    assert load_image(path)[0, :, 1].tolist() == [0, 0, 1, 128, 255, 48]


def test_16_bit_gray_in_other_files(tmp_path):
    (tmp_path / "deep.pgm").write_bytes(b"P5 6 1 65535\n" + DEEP.astype(">u2").tobytes())
    saved(tmp_path / "deep.tif", Image.fromarray(DEEP))
    for name in ("deep.pgm", "deep.tif"):
        assert load_image(tmp_path / name)[0, :, 2].tolist() == [0, 0, 1, 128, 255, 48], name


def test_16_bit_gray_with_a_transparent_value(tmp_path):
    clear = struct.pack(">I", 2) + b"tRNS" + struct.pack(">H", 256)
    clear += struct.pack(">I", zlib.crc32(clear[4:]))
    path = tmp_path / "clear.png"
    path.write_bytes(png(6, 1, 16, 0, b"\0" + DEEP.astype(">u2").tobytes(), clear))
    assert load_image(path)[0, :, 0].tolist() == [0, 0, 255, 128, 255, 48]


def test_transparency_is_laid_on_white(tmp_path):
    layer = np.zeros((1, 3, 4), dtype=np.uint8)
    layer[0, :, 0] = 200
    layer[0, :, 3] = [255, 0, 51]  # opaque, clear, one fifth
    expected = [[200, 0, 0], [255, 255, 255], [244, 204, 204]]
    assert load_image(saved(tmp_path / "rgba.png", Image.fromarray(layer)))[0].tolist() == expected
    gray = saved(tmp_path / "la.png", Image.fromarray(layer).convert("LA"))
    assert load_image(gray)[0, 1].tolist() == [255, 255, 255]
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    one = saved(tmp_path / "one.png", palette, transparency=1)
    assert load_image(one)[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    each = saved(tmp_path / "each.png", palette, transparency=b"\xff\x00\x00")
    assert load_image(each)[0].tolist() == [[10, 20, 30], [255, 255, 255], [255, 255, 255]]
    key = saved(tmp_path / "key.png", Image.new("RGB", (1, 1), (1, 2, 3)), transparency=(1, 2, 3))
    assert load_image(key)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, scene, orientation, form):
    """Stored pixels are the upright ones turned backwards, so that reading restores them."""
    upright = Image.fromarray(scene)
    turn = INVERSE.get(orientation, UPRIGHT.get(orientation))
    stored = upright.transpose(turn) if turn is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "photo", stored, format=form, exif=exif)
    assert np.array_equal(load_image(path), scene)
    assert np.array_equal(load_image(path, rotate=False), np.array(stored))


def test_exif_of_a_photograph(tmp_path):
    """Orientation 6, as a phone held upright writes it: the stored top is the right side."""
    stored = Image.new("RGB", (64, 32), "black")
    stored.paste("red", (0, 0, 64, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "phone.jpg", stored, exif=exif, quality=95)
    image = load_image(path)
    assert image.shape == (64, 32, 3)
    assert image[:, -1, 0].min() > 200
    assert image[:, 0, 0].max() < 60
    assert load_image(path, rotate=False).shape == (32, 64, 3)


def test_broken_exif_leaves_the_pixels(tmp_path):
    path = saved(tmp_path / "odd.png", Image.new("RGB", (3, 2), "red"), exif=b"Exif\0\0rubbish")
    assert load_image(path).tolist() == [[[255, 0, 0]] * 3] * 2


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_picture_and_says_so(tmp_path, form):
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue", "lime")]
    path = tmp_path / "moving"
    frames[0].save(path, format=form, save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=f"moving' holds several pictures .{form}.; the first"):
        image = load_image(path)
    assert image.shape == (3, 4, 3)
    assert np.abs(image.astype(int) - [255, 0, 0]).max() < 8


def test_the_second_picture_of_a_phone_is_no_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "phone.jpg")[0, 0, 0] > 240


@real
def test_photographs():
    cat = load_image(REAL / "ovam_cat" / "cat.jpg")
    skier = load_image(REAL / "coco-785" / "000000000785.jpg", rotate=False)
    assert skier.shape == (425, 640, 3)
    with Image.open(REAL / "ovam_cat" / "cat_annotation.png") as mask:
        assert cat.shape[:2] == mask.size[::-1]
    assert 40 < cat.mean() < 220
    assert 40 < skier.mean() < 240


# Bad pictures -----------------------------------------------------------------------------------


def refused(path, kind, *words):
    with pytest.raises(kind) as error:
        load_image(path)
    message = str(error.value)
    assert message.isprintable(), message
    assert len(message) < 500
    for word in words:
        assert word in message, message
    return message


def test_nothing_to_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("cat.jpg", FileNotFoundError, "'cat.jpg' doesn't exist", str(tmp_path)[-20:])
    refused(tmp_path / "cat.jpg", FileNotFoundError, "cat.jpg' doesn't exist; check the path")
    refused(tmp_path, IsADirectoryError, "is a folder", "one picture in it")
    refused("", ValueError, "'' can't be the name of a file")
    refused(f"{'x' * 300}.png", OSError, "xxx…xxx", "can't be opened: file name too long")
    refused(tmp_path / "cat.jpg" / "cat.jpg", FileNotFoundError, "doesn't exist")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file" / "cat.jpg", OSError, "not a directory")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused("loop", OSError, "symbolic links")


def test_names_that_are_no_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("cat\0.jpg", ValueError, r"'cat\x00.jpg' can't be the name of a file")
    refused("cat\n\x1b[31m.jpg", FileNotFoundError, r"'cat\n\x1b[31m.jpg' doesn't exist")
    refused("\ud800.jpg", ValueError, r"'\ud800.jpg' can't be the name")
    for path in (0, b"cat.jpg", None):
        with pytest.raises(TypeError, match=r"a path must be a str or a pathlib\.Path; got"):
            inspect.unwrap(load_image)(path)  # past the tests' own check of the signature


def test_odd_names_of_good_files(tmp_path, scene):
    for name in ("zwei Worte.png", "猫🐈.png", "a\nb.png", "café.png", "no-suffix", "wrong.jpg"):
        saved(tmp_path / name, Image.fromarray(scene), format="PNG")
        assert np.array_equal(load_image(tmp_path / name), scene), name


def test_pipes_and_devices_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    refused(tmp_path / "pipe.jpg", ValueError, "is a pipe or a device", "save the picture")
    refused("/dev/zero", ValueError, "'/dev/zero' is a pipe or a device")


def test_unreadable(tmp_path, scene, monkeypatch):
    """Root may read every file, so the refusal is the system's word, not its deed."""
    path = saved(tmp_path / "mine.png", Image.fromarray(scene))

    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", deny)
    refused(path, PermissionError, "mine.png' can't be opened: permission denied")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty (0 bytes)"]),
        (b"\n<!DOCTYPE html><html>404</html>", ["not a picture but a web page"]),
        (b"\xef\xbb\xbf<html>", ["not a picture but a web page"]),
        (b"<svg xmlns='x'/>", ["SVG", "export it as PNG"]),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ["PostScript", "PNG"]),
        (b"%PDF-1.7", ["PDF"]),
        (b"PK\x03\x04....", ["a zip archive"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS", "git lfs pull"]),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", ["HEIC", "JPEG"]),
        (b"just words", ["can be read (it starts with", "just wor", "wanted PNG, JPEG"]),
        (b"\x1b[31m" * 9, ["not a picture that can be read", r"\x1b[31m"]),
        (b"\x89PNG\r\n\x1a\n", ["not a picture that can be read", "wanted PNG"]),
        (bytes(100), ["not a picture that can be read"]),
    ],
)
def test_what_is_no_picture(tmp_path, content, words):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    refused(path, ValueError, "photo.jpg'", *words)


def test_postscript_would_have_been_opened(tmp_path):
    """The guard is the list of formats: without it Pillow takes the same bytes."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    assert Image.open(io.BytesIO(eps)).format == "EPS"
    assert "EPS" not in FORMATS


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated(tmp_path, form, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = saved(tmp_path / "cut", Image.fromarray(noise), format=form)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, ValueError, "cut' is", "damaged")


@pytest.mark.parametrize("kind", [b"pHYs", b"zTXt"])
def test_damage_that_pillow_has_other_errors_for(tmp_path, kind):
    """Not every decoder's complaint is an OSError: here ValueError and SyntaxError."""
    extra = struct.pack(">I", 4) + kind + b"a\0\1x"
    extra += struct.pack(">I", zlib.crc32(extra[4:]))
    content = png(4, 4, 8, 2, bytes(13 * 4))
    end = content.index(b"IEND") - 4
    path = tmp_path / "odd.png"
    path.write_bytes(content[:end] + extra + content[end:])
    refused(path, ValueError, "odd.png' is a PNG of 4 x 4 pixels", "damaged")


def test_bomb_by_header(tmp_path):
    side = int(MAX_PIXELS**0.5)
    for height, width in [
        (side, side + 2),
        (2 * side, side),
        (50_000, 50_000),
        (1, MAX_PIXELS + 1),
    ]:
        path = tmp_path / "bomb.png"
        path.write_bytes(png(width, height, 8, 2))
        refused(path, ValueError, "bomb.png' is a", "89,478,485", "shrink it first")


def test_bomb_where_pillow_only_warns(tmp_path):
    """Also when warnings are no errors, and Pillow's own limits stay as they were."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png(10_000, 10_000, 8, 2))
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.warns(Image.DecompressionBombWarning):
        refused(path, ValueError, "PNG of 10000 x 10000 pixels", "89,478,485")
    assert before == (Image.MAX_IMAGE_PIXELS, warnings.filters, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_bomb_limit_is_ours(tmp_path, monkeypatch):
    """A program that lifts Pillow's limit for its own ends doesn't lift this one."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "bomb.png"
    path.write_bytes(png(10_000, 10_000, 8, 2))
    refused(path, ValueError, "PNG of 10000 x 10000 pixels", "89,478,485")


def test_32_bits_have_no_white(tmp_path):
    for kind, mode in ((np.float32, "F"), (np.int32, "I")):
        path = saved(tmp_path / "deep.tif", Image.fromarray(DEEP.astype(kind)))
        refused(path, ValueError, f"deep.tif' has 32 bits a pixel (mode {mode})", "as PNG")


def test_other_color_spaces(tmp_path):
    """CIE Lab by its definition: half light, far red, neither yellow nor blue."""
    path = saved(tmp_path / "lab.tif", Image.new("LAB", (4, 4), (128, 255, 128)))
    assert load_image(path)[0, 0].tolist() == [255, 0, 127]


SAMPLES = {}
for _form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
    _buffer = io.BytesIO()
    Image.effect_mandelbrot((16, 12), (-2, -1, 1, 1), 20).convert("RGB").save(_buffer, _form)
    SAMPLES[_form] = _buffer.getvalue()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_any_damage_is_a_picture_or_an_error(tmp_path_factory, form, data):
    """Flipped bytes anywhere: either an (h, w, 3) picture or one of the documented errors."""
    content = bytearray(SAMPLES[form])
    for index in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[index] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            image = load_image(path)
        except ValueError as refusal:
            image, message = None, str(refusal)
    if image is None:
        assert "damaged'" in message
        assert message.isprintable()
    else:
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)


# Names in messages ------------------------------------------------------------------------------


@given(st.text(), st.integers(8, 90))
def test_quoted_is_short_and_printable(text, limit):
    shown = quoted(text, limit)
    assert shown.isprintable()
    if len(text) <= limit:
        assert shown == repr(text)
    else:
        assert "…" in shown
        assert len(shown) <= 10 * limit + 2


def test_quoted_keeps_both_ends():
    assert quoted("/very/" + "long/" * 40 + "cat.jpg").endswith("long/cat.jpg'")
    assert quoted("/very/" + "long/" * 40 + "cat.jpg").startswith("'/very/long/")
    assert len(quoted("x" * 500)) == 82
    assert quoted("x" * 80) == repr("x" * 80)
    assert quoted("\u202egnp.exe") == r"'\u202egnp.exe'"
