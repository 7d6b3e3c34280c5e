"""Count the pages or frames of a picture file, of which segvit reads one.

    with open_picture(path, "an image") as opened:
        count_frames(opened)        # 1 for nearly all files

Pages of a TIFF are different pictures, so a TIFF of several is refused. An animation begins with a picture of the same
scene, so its first frame is read and reported.
"""

from PIL import Image

from segvit.data.member import File
from segvit.errors import UserError

PAGED = "TIFF"
"""Pillow's name of the file format whose pages are independent pictures."""
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
"""Pillow's names of the file formats whose frames are an animation. Those of JPEG and HEIF files are previews."""
LOSSY = ("JPEG", "MPO")
"""Pillow's names of the file formats whose compression changes values."""
SUBFILE_TYPE = 254
"""TIFF tag that marks a page as a smaller copy (bit 0) or as the transparency (bit 2) of another one."""
NO_PICTURE = 1 | 4
"""Bits of pages that are no pictures of their own."""
SPLIT_PAGES = (
    "from PIL import Image, ImageSequence; [page.save(f'page_{number}.png') for number, page in "
    "enumerate(ImageSequence.Iterator(Image.open(FILE)))]"
)
"""Python that saves each page as a file."""
JOIN_PAGES = (
    "import numpy as np; from PIL import Image, ImageSequence; pages = [np.asarray(page) for page in "
    "ImageSequence.Iterator(Image.open(FILE))]; Image.fromarray(np.argmax(pages, axis=0).astype(np.uint8))"
    ".save(FILE_AS_PNG)"
)
"""Python that makes one label map of pages that are one class each."""


def count_frames(opened: Image.Image) -> int:
    """Return the number of pages or frames of an open picture that show something of their own."""
    count = int(getattr(opened, "n_frames", 1))
    if count == 1 or opened.format in ANIMATED:
        return count
    if opened.format != PAGED:
        return 1
    place, pictures = opened.tell(), 0
    for number in range(count):
        opened.seek(number)
        kind = opened.tag_v2.get(SUBFILE_TYPE, 0)  # type: ignore[attr-defined]
        pictures += not kind & NO_PICTURE
    opened.seek(place)
    return max(pictures, 1)


def check_image(opened: Image.Image, name: str) -> int:
    """Return the number of frames of an open image, of which the first is read.

    Raises:
        UserError: the image is a TIFF of several pages.
    """
    count = count_frames(opened)
    if opened.format == PAGED:
        check_pages(count, name)
    return count


def check_pages(count: int, name: str) -> None:
    """Check that an image in a TIFF file has one page.

    Raises:
        UserError: it has several.
    """
    if count > 1:
        raise UserError(
            f"{name}: the TIFF has {count} pages, but one image is needed; save each page as a file of its own, in "
            f"Python: `{SPLIT_PAGES}`"
        )


def check_labels(opened: Image.Image, path: File) -> None:
    """Check that an open label map has one page, and kept its values when it was saved.

    Raises:
        UserError: it has several pages or frames, or is a JPEG file, whatever its suffix.
    """
    if opened.format in LOSSY:
        raise UserError(
            f"{path}: the label map is a JPEG file, whose compression changes values; export it as PNG from its source"
        )
    count = count_frames(opened)
    if count > 1:
        raise UserError(
            f"{path}: the label map has {count} pages, but one number per pixel is needed; if each page is a class, "
            f"join them in Python, so that the first becomes value 0: `{JOIN_PAGES}`"
        )
