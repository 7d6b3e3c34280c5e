"""Draw the pictures of docs/app.md: the page with one photo, and with several.

    segvit app runs/people/best.safetensors --port 7860 --examples photos &
    python docs/tools/app_picture.py http://127.0.0.1:7860 photo.jpg other.jpg more.jpg      # into docs/images

The photos of the repository's pictures are docs/images/photo.jpg and two crops of it. Needs playwright and Chromium.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

WIDTH = 1280
"""Pixels of the window: the legend is beside the photo."""
COLORS = 256
"""Colours of a picture. With all colours, the file is three times as large."""
PATIENCE = 600_000
"""Milliseconds to wait for the labels of a photo on a busy machine."""


def main() -> None:
    """Send the photos to the page, and write the two pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.browser, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        page.goto(given.address)
        page.set_input_files("#photo input[type=file]", given.photos[0])
        page.frame_locator("#result iframe").locator(".viewer[data-ready]").wait_for()
        _save(page, given.output / "app.png")
        page.get_by_role("tab", name="Many photos").click()
        page.set_input_files("#photos input[type=file]", given.photos)
        page.locator("#table a.zip").wait_for()
        _save(page, given.output / "app_batch.png")
        browser.close()


def _save(page: Page, path: Path) -> None:
    """Write what the page shows, down to the end of its content, in few colours."""
    page.wait_for_timeout(2000)  # thumbnails and the first drawing of the viewer
    height = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.panel, .batch, #aside, .limits')]"
        ".map(part => part.getBoundingClientRect().bottom)) + 24"
    )
    picture = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLORS).save(path, optimize=True)


if __name__ == "__main__":
    main()
