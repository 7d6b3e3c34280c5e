"""Speed and peak memory of `segvit check-data` on many small files.

    python benchmarks/check_data.py [--images 20000] [--size 64] [--workers 2 0]

Writes pairs into a temporary folder and checks them, each time in a process of its own: with processes, and with
threads (0). Peak is the sum over the process and its children of what they alone hold and their share of the rest
(PSS), sampled ten times a second (Linux).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

CLASSES = 20
CHECK = """
import sys, time
from pathlib import Path
from segvit.config import DataConfig
from segvit.data.survey import check_splits
root, workers, classes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
names = tuple(f"class_{k}" for k in range(classes))
begun = time.perf_counter()
config = DataConfig(images=root / "images", labels=root / "labels", classes=names)
survey = check_splits(config, ["train", "val"], workers=workers)
assert not survey.errors, survey.errors
print(time.perf_counter() - begun)
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


def memory(process: int) -> int:
    """Bytes of a process and its children, pages that they share counted once."""
    total = 0
    family = [process]
    while family:
        member = family.pop()
        try:
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
            total += 1024 * sum(int(found) for found in re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE))
            for thread in Path(f"/proc/{member}/task").iterdir():
                family += map(int, (thread / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return total


def run(root: Path, workers: int) -> tuple[float, int]:
    """Seconds and peak bytes of a check."""
    words = [sys.executable, "-c", CHECK, str(root), str(workers), str(CLASSES)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stdout is not None
    said = process.stdout.read()
    watcher.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return float(said), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 0], help="processes; 0: threads")
    options = parser.parse_args()
    table = Table(
        "workers", "images/s", "seconds", "peak, MB", title=f"{options.images} pairs of {options.size} pixels"
    )
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.images, options.size)
        for workers in options.workers:
            seconds, peak = run(Path(folder), workers)
            name = f"{workers} processes" if workers else "threads"
            table.add_row(name, f"{options.images / seconds:.0f}", f"{seconds:.1f}", f"{peak / 1e6:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
