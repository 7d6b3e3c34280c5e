"""Files of a run that was never trained, for the tests of its report.

folder = make_run(tmp_path / "plain", classes=("sky", "road"), steps=100)
"""

import json
import math
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.tiny import tiny_run


def make_run(
    folder: Path,
    *,
    classes: tuple[str, ...] = ("sky", "road"),
    steps: int = 100,
    seconds: float | None = 2.0,
    dataset: str = "streets: 3 images",
    **changes: Any,
) -> Path:
    """Write config.yaml, metrics.jsonl, report.json and, unless `seconds` is None, timing.jsonl.

    The loss at a step is 9 / step. Four validations score 0.2, 0.4, 0.6 and 0.8; class k is k points below that.
    """
    folder.mkdir(parents=True)
    config = tiny_run(folder, steps=steps, eval_every=steps // 4, **changes)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    records: list[dict[str, Any]] = []
    times: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        records.append({"step": step, "loss": 9 / step, "class_1": 9 / step, "lr": 0.1, "gradient_norm": 1.0})
        times.append({"step": step, "seconds": seconds})
        if step % config.eval_every == 0:
            score = 0.2 * (step // config.eval_every)
            iou = {name: score - k / 100 for k, name in enumerate(classes)}
            records.append({"step": step, "miou": score, "overall_accuracy": score, "iou": iou})
            times.append({"step": step, "validation_seconds": 60.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    if seconds is not None:
        (folder / "timing.jsonl").write_text("".join(json.dumps(record) + "\n" for record in times), encoding="utf-8")
    last = list(records[-1]["iou"].values())
    scores = {
        "images": 3,
        "classes": list(classes),
        **dict.fromkeys(("iou", "accuracy", "dice", "boundary_iou"), last),
        **dict.fromkeys(("miou", "mean_accuracy", "mean_dice", "mean_boundary_iou"), math.fsum(last) / len(last)),
        "labelled": [1 / len(classes)] * len(classes),
    }
    validation = {
        "name": "The weights",
        "scores": scores,
        "protocol": {"mode": "whole"},
        "palette": [[40 * k, 99, 200] for k in range(len(classes))],
        "confusion": [[9 if row == column else 1 for column in range(len(classes))] for row in range(len(classes))],
        "best": [],
        "worst": [],
    }
    facts = {"about": {"dataset": dataset}, "environment": {"device": "cpu"}, "validation": validation}
    (folder / "report.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder
