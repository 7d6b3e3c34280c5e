"""Kill a training run without warning at random moments, resume it each time, and compare it with one left alone.

    python benchmarks/survive.py [--kills 20] [--seed 0] [--workers 1]

A tiny model on made-up scenes, validated and saved every few steps. The kills (SIGKILL) fall anywhere, while a
checkpoint is being written, and in a validation, by turns. At the end the losses of all steps, the scores and the
weights must be those of the uninterrupted run, to the bit. Exit code 1 where they are not.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from segvit.config import AugmentConfig, DataConfig, EvalConfig, ModelConfig, OptimConfig, TrainConfig
from segvit.data.shapes.scenes import write_shapes
from segvit.training.checkpoint import checkpoints

KINDS = ("anywhere", "checkpoint", "validation")
EVAL_EVERY = 5
TRAIN = "import torch; torch.set_num_threads(1); from segvit.cli.main import main; main()"


def tiny(folder: Path, options: argparse.Namespace) -> TrainConfig:
    """A run of many short steps, on scenes in `folder`."""
    write_shapes(folder / "scenes", train=12, val=6, size=64, seed=0)
    model = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=64, patch_size=8, embed_dim=64, depth=2, num_heads=2, drop_path=0.1
    )
    return TrainConfig(
        model=model,
        data=DataConfig(spec="shapes", root=folder / "scenes", workers=options.workers),
        augment=AugmentConfig(resize_long=None, scale=(0.8, 1.3)),
        optim=OptimConfig(lr=1e-3, warmup_steps=2),
        eval=EvalConfig(mode="whole"),
        ema_decay=0.9,
        steps=options.steps,
        batch_size=3,
        eval_every=EVAL_EVERY,
        save_every=2,
        loggers=(),
        device="cpu",
        output=folder / "whole",
    )


def records(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's log."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def start(config: Path, *, resume: bool) -> "subprocess.Popen[str]":
    """`segvit train` in a process of its own."""
    words = [sys.executable, "-c", TRAIN, "train", "--config", str(config), *(["--resume"] if resume else [])]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def moment(kind: str, folder: Path, process: "subprocess.Popen[str]", chance: random.Random) -> bool:
    """Wait for a moment of a kind; False where the run ends before it."""
    begun, waited = len(records(folder)), chance.randint(1, 6)
    while process.poll() is None:
        if kind == "checkpoint" and len(records(folder)) >= begun and list(folder.glob("checkpoint-*.partial")):
            return True
        if kind != "checkpoint" and len(records(folder)) >= begun + waited:
            last = records(folder)[-1]
            if kind == "anywhere" or (last["step"] % EVAL_EVERY == 0 and "loss" in last):
                time.sleep(chance.random() * 0.05)
                return True
        if kind == "checkpoint":
            continue  # it takes a few milliseconds
        time.sleep(0.001)
    return False


def ended(process: "subprocess.Popen[str]") -> str:
    """What a run that came to its end said.

    Raises:
        SystemExit: it failed.
    """
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run failed with {process.returncode}:\n{said}")
    return said


def same(ours: Path, theirs: Path) -> dict[str, bool]:
    """What of two runs is equal to the bit."""
    found = {"losses": [r for r in records(ours) if "loss" in r] == [r for r in records(theirs) if "loss" in r]}
    found["scores"] = [r for r in records(ours) if "miou" in r] == [r for r in records(theirs) if "miou" in r]
    for name in ("best", "last"):
        left, right = (load_file(folder / f"{name}.safetensors") for folder in (ours, theirs))
        found[f"{name} weights"] = all(torch.equal(left[key], right[key]) for key in right)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--workers", type=int, default=0, help="processes that load, which the kill leaves behind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, tally, half_written, afresh = random.Random(options.seed), Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = tiny(folder, options)
        killed = replace(whole, output=folder / "killed")
        whole.save(folder / "whole.yaml")
        killed.save(folder / "killed.yaml")
        ended(start(folder / "whole.yaml", resume=False))
        for number in range(options.kills):
            resume = bool(checkpoints(killed.output))
            afresh += not resume
            process = start(folder / "killed.yaml", resume=resume)
            kind = KINDS[number % len(KINDS)]
            if not moment(kind, killed.output, process, chance):
                ended(process)
                break
            process.kill()
            process.communicate()
            tally[kind] += 1
            half_written += bool(list(killed.output.glob("*.partial")))
        ended(start(folder / "killed.yaml", resume=bool(checkpoints(killed.output))))
        equal = same(killed.output, whole.output)
    table = Table("killed", "times", title=f"{options.steps} steps, seed {options.seed}")
    for kind in KINDS:
        table.add_row(kind, str(tally[kind]))
    table.add_row("of which with a file half written", str(half_written))
    table.add_row("of which before the first checkpoint", str(max(afresh - 1, 0)))
    for what, is_equal in equal.items():
        table.add_row(f"{what} equal to the bit", "yes" if is_equal else "NO")
    Console().print(table)
    if not all(equal.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
