"""Draw the pictures of README and home page: a photo, its labels, and both with a legend.

    python docs/tools/front_picture.py runs/people/best.safetensors astronaut.png      # into docs/images

The model is that of docs/first-hour.md. The photo is astronaut.png of scikit-image:
Eileen Collins, by NASA, public domain.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import segvit
from segvit.pictures.legend import with_legend
from segvit.pictures.paint import shares

QUALITY = 88
"""Quality of the JPEG files."""
GAP = 8
"""Pixels between the photo and its labels."""


def main() -> None:
    """Predict, and write the three pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    given = parser.parse_args()

    result = segvit.predict(segvit.load_model(given.model), given.photo)
    photo, painted = result.image, np.asarray(result.overlay(legend=False))
    covered = shares(result.labels, len(result.classes))
    gap = np.full((photo.shape[0], GAP, 3), 255, dtype=np.uint8)
    both = Image.fromarray(np.concatenate([photo, gap, painted], axis=1))
    legend = with_legend(both, result.classes, result.palette, covered)
    pictures = {"photo.jpg": Image.fromarray(photo), "labels.jpg": Image.fromarray(painted), "start.jpg": legend}
    for name, picture in pictures.items():
        picture.save(given.output / name, quality=QUALITY, optimize=True)
    print({name: f"{share:.1%}" for name, share in result.shares().items()})


if __name__ == "__main__":
    main()
