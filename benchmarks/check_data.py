"""Speed and peak memory of `segvit check-data` on many small files.

    python benchmarks/check_data.py [--images 20000] [--size 64]

Writes pairs into a temporary folder and checks them in a fresh process. Cores: processor time over wall time. Peak is
the largest resident memory that the process reached, torch and all (VmHWM, Linux).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

CLASSES = 20
CHECK = """
import re, sys, time
from pathlib import Path
from segvit.config import DataConfig
from segvit.data.check.report import check_splits
root, classes = Path(sys.argv[1]), int(sys.argv[2])
names = tuple(f"class_{k}" for k in range(classes))
begun, spent = time.perf_counter(), time.process_time()
survey = check_splits(DataConfig(images=root / "images", labels=root / "labels", classes=names), ("train", "val"))
assert not survey.errors, survey.errors
print(time.perf_counter() - begun, time.process_time() - spent)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def write(root: Path, count: int, size: int) -> None:
    """Pairs of noise: JPEG photos and PNG label maps in blocks."""
    random = np.random.default_rng(0)
    for number in range(count):
        folder = f"{number // 1000:03}"
        for kind in ("images", "labels"):
            (root / kind / folder).mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR)
        photo.save(root / "images" / folder / f"{number:06}.jpg")
        labels = Image.fromarray(random.integers(0, CLASSES, (4, 4), dtype=np.uint8))
        labels.resize((size, size), Image.Resampling.NEAREST).save(root / "labels" / folder / f"{number:06}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.images, options.size)
        words = [sys.executable, "-c", CHECK, folder, str(CLASSES)]
        said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=os.environ).stdout
    seconds, spent, peak = map(float, said.split())
    table = Table("images/s", "seconds", "cores", "peak, MB", title=f"{options.images} pairs of {options.size} pixels")
    table.add_row(f"{options.images / seconds:.0f}", f"{seconds:.1f}", f"{spent / seconds:.2f}", f"{peak / 1024:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
