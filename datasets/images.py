"""From an image file to RGB pixels to the tensor that the encoder takes."""
from __future__ import annotations

import io
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterable, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from clip import MEAN, STD
from datasets.files import DataError, PathLike
from datasets.progress import bar

MAX_PIXELS = 89_478_485
"""Images with more pixels are refused: 256 MiB of RGB, the size at which Pillow suspects a decompression bomb."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""What is decoded, whatever the file's extension says. Pillow knows more, some of it through outside programs."""

_CONVERT = "convert it to JPEG or PNG, or restore it from the original"


def read_image(path: PathLike, min_side: Optional[int] = None) -> Image.Image:
    """Read an image as 8-bit RGB, upright.

    EXIF orientation is applied. Transparent pixels are laid over white (our choice: it is what a page does), grey
    and palette images are expanded, 16-bit and float ones are scaled to 8 bits, an animation gives its first frame.

    Args:
        path: the file; its extension does not matter, see `FORMATS`.
        min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep this many pixels.

    Raises:
        DataError: the file is missing, empty, damaged, of another format, or larger than `MAX_PIXELS`.
    """
    try:
        with _open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{path}: {width} x {height} pixels, over the limit of {MAX_PIXELS:,}; scale it down")
            if min_side is not None:
                image.draft(None, (min_side, min_side))
            image.load()
            return _to_rgb(_upright(image), image.format)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path}: over the limit of {MAX_PIXELS:,} pixels; scale it down") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except Exception as error:  # damaged files make Pillow's decoders raise nearly any type
        raise DataError(f"{path}: {_reason(path, error)}; {_CONVERT}") from None


_PNG_EXTRAS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def _open(path: PathLike) -> Image.Image:
    """Open an image; a PNG whose text or colour profile is too large for Pillow is opened without them."""
    try:
        return Image.open(path, formats=FORMATS)
    except ValueError as error:
        if "MAX_TEXT" not in str(error) and "too large" not in str(error):
            raise
    content = Path(path).read_bytes()
    kept, place = [content[:8]], 8
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place:place + 4], "big")
        if content[place + 4:place + 8] not in _PNG_EXTRAS:
            kept.append(content[place:end])
        place = end
    return Image.open(io.BytesIO(b"".join(kept)), formats=("PNG",))


def _reason(path: PathLike, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        if not empty and Path(path).suffix.lower() in (".heic", ".heif", ".avif"):
            return f"{Path(path).suffix.upper()[1:]}, which is not read here"
        return "the file is empty (0 bytes)" if empty else f"not an image in a known format ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"damaged image ({str(error) or type(error).__name__})"


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels, which are already decoded
        return image


def _to_rgb(image: Image.Image, file_format: Optional[str]) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        sixteen_bit = image.mode.startswith("I;16") or file_format in ("PNG", "PPM")  # these have no deeper pixels
        return Image.fromarray(_to_8_bit(np.asarray(image), sixteen_bit)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray, sixteen_bit: bool) -> np.ndarray:
    """Scale one deep channel to 0..255. Where the mode does not tell its range (I, F), the largest value does."""
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    peak = values.max()
    full_scale = 65535 if sixteen_bit or peak > 255 else 255 if peak > 1 else 1
    return (values * (255 / full_scale)).round().clip(0, 255).astype(np.uint8)


class ImageTransform(transforms.Compose):
    """A torchvision transform that also says how much of a large JPEG it needs (`read_image`'s `min_side`)."""

    def __init__(self, steps: Sequence[object], min_side: Optional[int] = None) -> None:
        super().__init__(list(steps))
        self.min_side = min_side


class _RoundUpSides:
    """Resize both sides up to the next multiple of `multiple`: an image nearly keeps its size and shape."""

    def __init__(self, multiple: int) -> None:
        self.multiple = multiple

    def __repr__(self) -> str:
        return f"RoundUpSides({self.multiple})"

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = (math.ceil(side / self.multiple) * self.multiple for side in image.size)
        return F.resize(image, [height, width], InterpolationMode.BICUBIC)


def image_transform(size: int, mode: str = "squash", mean: Sequence[float] = MEAN,
                    std: Sequence[float] = STD) -> ImageTransform:
    """PIL RGB image -> normalised float tensor (3, H, W).

    Args:
        size: 'squash': the side of the square that every image is squashed to, whatever its shape (224 in the
            paper); 'native': the patch, both sides are rounded up to a multiple of it (TagCLIP).
        mode: 'squash' or 'native'; bicubic in both.
        mean: to normalise with, of the three colours; CLIP's if nothing is said.
        std: the standard deviation, likewise.
    """
    if mode == "squash":
        resize = transforms.Resize((size, size), InterpolationMode.BICUBIC)
        min_side: Optional[int] = 4 * size  # a JPEG decoded at this size looks the same once resized
    elif mode == "native":
        resize, min_side = _RoundUpSides(size), None
    else:
        raise ValueError(f"mode {mode!r} is unknown; choose 'squash' or 'native'")
    return ImageTransform([resize, transforms.ToTensor(), transforms.Normalize(mean, std)], min_side)


def check_images(paths: Sequence[PathLike], workers: int = 4, progress: bool = False) -> List[Tuple[int, str]]:
    """Decode every image once, before the long work starts.

    Args:
        paths: the files.
        workers: threads; decoding runs outside the interpreter lock.
        progress: show a progress bar.

    Returns:
        `(index, reason)` of each file that `read_image` refuses, in order.
    """
    def reason(path: PathLike) -> Optional[str]:
        try:
            read_image(path, min_side=1)  # all of the file is parsed, at the smallest scale
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        reasons: Iterable[Optional[str]] = pool.map(reason, paths)
        if progress:
            reasons = bar("checking images", "image", len(paths), over=reasons)
        return [(index, text) for index, text in enumerate(reasons) if text is not None]
