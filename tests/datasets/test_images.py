"""Images as they come: each is read right or refused in one line."""
from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip import MEAN, STD
from datasets.files import DataError
from datasets.images import MAX_PIXELS, check_images, image_transform, read_image

GRADIENT = np.add.outer(np.arange(40) * 3, np.arange(60) * 2).astype(np.uint8)
"""A 60 x 40 grey picture, dark at the top left, bright at the bottom right."""


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def colour() -> Image.Image:
    bands = [GRADIENT, 255 - GRADIENT, np.full_like(GRADIENT, 90)]
    return Image.fromarray(np.stack(bands, axis=2))


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def close(path: Path, expected: np.ndarray, tolerance: int = 6) -> bool:
    found = pixels(path)
    return found.shape == expected.shape and np.abs(found - expected).max() <= tolerance


GREY = np.repeat(GRADIENT[:, :, None], 3, axis=2).astype(int)


def test_plain_and_grey_images(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a.tif", "a.ppm"):
        assert close(save(tmp_path / name, colour()), np.asarray(colour()).astype(int), 0)
    assert close(save(tmp_path / "a.jpg", colour(), quality=98, subsampling=0), np.asarray(colour()).astype(int))
    assert close(save(tmp_path / "grey.jpg", Image.fromarray(GRADIENT), quality=98), GREY)
    assert close(save(tmp_path / "bits.png", Image.fromarray(GRADIENT).convert("1", dither=0)), (GREY > 127) * 255, 0)


def test_cmyk(tmp_path: Path) -> None:
    path = save(tmp_path / "print.jpg", colour().convert("CMYK"), quality=98, subsampling=0)
    assert Image.open(path).mode == "CMYK" and close(path, np.asarray(colour()).astype(int))


def test_sixteen_bit_and_float_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = GRADIENT.astype(np.uint16) * 257
    assert close(save(tmp_path / "deep.png", Image.fromarray(deep)), GREY, 0)
    assert close(save(tmp_path / "deep.tif", Image.fromarray(deep)), GREY, 0)
    assert close(save(tmp_path / "int.tif", Image.fromarray(deep.astype(np.int32))), GREY, 0)
    assert close(save(tmp_path / "float.tif", Image.fromarray((GRADIENT / 255).astype(np.float32))), GREY, 0)
    dark = (GRADIENT.astype(np.uint16) // 2)  # 16-bit data that only fills the lowest byte is nearly black
    assert pixels(save(tmp_path / "dark.png", Image.fromarray(dark))).max() <= 1
    assert pixels(save(tmp_path / "dark.pgm", Image.fromarray(dark.astype(np.int32)))).max() <= 1


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    alpha = np.zeros((40, 60), np.uint8)
    alpha[:, 30:] = 255
    expected = np.asarray(colour()).astype(int)
    expected[:, :30] = 255
    rgba = colour()
    rgba.putalpha(Image.fromarray(alpha))
    assert close(save(tmp_path / "rgba.png", rgba), expected, 0)
    grey = Image.merge("LA", [Image.fromarray(GRADIENT), Image.fromarray(alpha)])
    assert close(save(tmp_path / "la.png", grey), np.where(alpha[:, :, None] == 255, GREY, 255), 0)
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert pixels(save(tmp_path / "half.png", half))[0, 0].tolist() == [127, 127, 127]

    palette = Image.fromarray((np.arange(2400).reshape(40, 60) % 2).astype(np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    checks = pixels(save(tmp_path / "palette.png", palette, transparency=1))
    assert checks[0, 0].tolist() == [255, 0, 0] and checks[0, 1].tolist() == [255, 255, 255]
    key = Image.new("RGB", (4, 4), (10, 20, 30))
    assert (pixels(save(tmp_path / "key.png", key, transparency=(10, 20, 30))) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    undo = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}[orientation]
    stored = colour() if undo is None else colour().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "phone.jpg", stored, exif=exif, quality=98, subsampling=0)
    assert close(path, np.asarray(colour()).astype(int))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_lose_the_picture(tmp_path: Path) -> None:
    for exif in (b"garbage", b"II*\x00\xff\xff\xff\x7f", b"MM\x00*\x00\x00\x00\x08\xff\xff"):
        path = save(tmp_path / "phone.jpg", colour(), exif=b"Exif\x00\x00" + exif, quality=98, subsampling=0)
        assert close(path, np.asarray(colour()).astype(int))


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue", "green")]
    for name in ("a.gif", "a.png", "a.tif", "a.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **options)
        assert pixels(path)[0, 0].tolist() == [255, 0, 0], name


def test_extension_and_name_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "übel 日本 (1).jpg"
    save(path, colour(), format="PNG")
    assert close(path, np.asarray(colour()).astype(int), 0)


def test_extreme_shapes(tmp_path: Path) -> None:
    transform = image_transform(32)
    assert transform(read_image(save(tmp_path / "dot.png", Image.new("RGB", (1, 1), "red")))).shape == (3, 32, 32)
    wide = save(tmp_path / "wide.jpg", Image.new("RGB", (20_000, 30), "red"))
    assert read_image(wide, min_side=128).size == (20_000, 30)
    assert transform(read_image(wide)).shape == (3, 32, 32)


def test_large_jpegs_are_decoded_at_reduced_scale(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    large = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
    path = save(tmp_path / "large.jpg", large, quality=95)
    transform = image_transform(64)
    small = read_image(path, transform.min_side)
    assert small.size == (400, 300)  # 1/4; 1/8 would fall below 4 x 64
    assert (transform(small) - transform(read_image(path))).abs().max() * 255 * max(STD) < 4
    assert read_image(path, 301).size == (800, 600) and read_image(path).size == (1600, 1200)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def encoded(file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    colour().save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("content", "words"), [
    (b"", "empty (0 bytes)"),
    (b"<html>404</html>", "not an image"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    (encoded("JPEG")[:-60], "damaged"),
    (encoded("PNG")[:-100], "damaged"),
    (encoded("GIF")[:-100], "damaged"),
    (encoded("JPEG")[:30], "damaged"),
    (png_header(9_500, 9_500), "over the limit"),
    (png_header(50_000, 50_000), "over the limit"),
    (png_header(2_000_000, 2_000_000), "over the limit"),
    (png_header(3_000, 3_000), "damaged"),
], ids=["empty", "html", "eps", "JPEG", "PNG", "GIF", "header", "large", "bomb", "big bomb", "short data"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files_are_named_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad one.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and words in message and "\n" not in message
    assert check_images([path]) == [(0, message)]


def test_missing_and_unreadable_paths(tmp_path: Path) -> None:
    cases = ((tmp_path / "no.jpg", "no such image"), (tmp_path, "cannot be read"), ("a\0b.jpg", "null byte"))
    for path, words in cases:
        with pytest.raises(DataError, match=words):
            read_image(path)


def test_the_limit_is_generous_to_photographs() -> None:
    assert MAX_PIXELS > 80_000_000 and 3 * MAX_PIXELS <= 256 * 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]), st.data())
def test_damage_anywhere_is_read_or_refused(folder: Path, file_format: str, data: st.DataObject) -> None:
    content = bytearray(encoded(file_format))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.img"
    path.write_bytes(content[:data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        assert read_image(path).mode == "RGB"
    except DataError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def test_check_images_keeps_the_order(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{index}.png", colour()) for index in range(40)]
    for index in (3, 17, 39):
        paths[index].write_bytes(b"")
    for workers in (1, 4):
        assert [index for index, _ in check_images(paths, workers)] == [3, 17, 39]


def test_squash_is_a_bicubic_resize_to_the_square(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 450, 3), dtype=np.uint8))
    tensor = image_transform(224)(image)
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    expected = (expected - np.array(MEAN)) / np.array(STD)
    assert tensor.shape == (3, 224, 224) and tensor.dtype == torch.float32
    assert np.abs(tensor.numpy().transpose(1, 2, 0) - expected).max() < 1e-5


@pytest.mark.parametrize(("size", "expected"), [
    ((450, 300), (304, 464)), ((448, 224), (224, 448)), ((1, 1), (16, 16)),
])
def test_native_rounds_both_sides_up(size: tuple, expected: tuple) -> None:
    transform = image_transform(16, "native")
    assert transform(Image.new("RGB", size)).shape == (3, *expected)
    assert "16" in repr(transform) and " at 0x" not in repr(transform)
    with pytest.raises(ValueError, match="squash"):
        image_transform(16, "crop")
