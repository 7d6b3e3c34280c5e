"""The benchmark that waits for a GPU runs, on a CPU and at a small size."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu() -> None:
    small = "--backbones vit_tiny_patch16_224 --sizes 64 --batches 2 --precisions bf16 --compiled off --classes 5"
    words = [sys.executable, str(SCRIPT), "--device", "cpu", "--present", "2", "--repeats", "1", *small.split()]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("vit_tiny_patch16_224, 64 x 64, batch 2, bf16") == 2  # inference and training
    for name in ("bare backbone", "plain", "shrunk"):
        assert len(re.findall(rf"{name}\s+│ +[\d.]+\s*│ +[\d.]+\s*│", done.stdout)) == 2
