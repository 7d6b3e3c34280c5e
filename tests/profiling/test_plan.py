"""The expected memory and cost of a run, against formulas, and against what steps on this CPU take."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from segvit.cli.main import app
from segvit.config import ModelConfig, OptimConfig, TrainConfig
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.profiling.benchmark import CLEAR_REFS
from segvit.profiling.multiply_adds import profile
from segvit.profiling.plan import CHECKPOINTED, Plan, plan as work_out

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plan.py"
CONFIG = TrainConfig(
    model=ModelConfig(backbone="vit_tiny_patch16_224", image_size=64, depth=3, head_num_layers=1),
    batch_size=8,
    steps=100,
    device="cpu",
)
MANY = replace(CONFIG, batch_size=64)
HALF = replace(MANY, precision="bf16")
CLASSES = 5
EMA = replace(CONFIG, ema_decay=0.99)


@cache
def plan(config: TrainConfig, *, num_classes: int, gpus: int = 1, tflops: float | None = None) -> Plan:
    """Each plan is worked out once."""
    return work_out(config, num_classes=num_classes, gpus=gpus, tflops=tflops)


def num_parameters(config: TrainConfig) -> int:
    return sum(parameter.numel() for parameter in create_model(config=config.model, num_classes=CLASSES).parameters())


def test_what_stands_is_counted_to_the_byte() -> None:
    memory = plan(EMA, num_classes=CLASSES).memory["data"]
    size = 4 * num_parameters(CONFIG)
    assert memory.parameters == memory.gradients == memory.average == size
    assert memory.optimizer == 2 * size
    assert memory.exchange == 0
    assert memory.peak >= 4 * size + memory.activations


@pytest.mark.slow
def test_activations_grow_with_the_images() -> None:
    half, full = (plan(replace(CONFIG, batch_size=batch), num_classes=CLASSES).memory["data"] for batch in (4, 8))
    assert 1.8 * half.activations < full.activations <= 2 * half.activations
    assert half.parameters == full.parameters


@pytest.mark.slow
def test_ways_to_save_save() -> None:
    alone = plan(CONFIG, num_classes=CLASSES).memory
    assert alone["data" + CHECKPOINTED].activations < 0.8 * alone["data"].activations
    assert alone["data" + CHECKPOINTED].peak < alone["data"].peak
    parts = plan(replace(CONFIG, accumulate=4), num_classes=CLASSES).memory["data"]
    assert parts.activations < 0.3 * alone["data"].activations
    frozen = plan(replace(CONFIG, optim=OptimConfig(freeze="backbone")), num_classes=CLASSES).memory["data"]
    assert frozen.gradients < alone["data"].gradients and frozen.activations < 0.5 * alone["data"].activations
    many, half = (plan(config, num_classes=CLASSES).memory["data"] for config in (MANY, HALF))
    assert half.activations < 0.8 * many.activations


def test_tokens_that_merge_by_a_threshold_are_planned_as_if_none_did() -> None:
    merging = replace(CONFIG, model=replace(CONFIG.model, merge_threshold=0.8))
    assert plan(merging, num_classes=CLASSES) == plan(CONFIG, num_classes=CLASSES)


@pytest.mark.slow
def test_several_devices_share_images_and_what_fsdp_shares() -> None:
    seen = plan(replace(CONFIG, parallel="fsdp"), num_classes=CLASSES, gpus=4)
    one = plan(CONFIG, num_classes=CLASSES).memory["data"]
    data, fsdp = seen.memory["data"], seen.memory["fsdp"]
    assert seen.images == 2 and seen.chosen == "fsdp"
    assert data.parameters == one.parameters and data.exchange == one.gradients
    assert fsdp.parameters == one.parameters // 4 and fsdp.optimizer == one.optimizer // 4
    assert data.activations == fsdp.activations < 0.5 * one.activations


@pytest.mark.slow
def test_an_accelerator_keeps_no_attention_weights_and_works_on_larger_chunks() -> None:
    cpu = plan(MANY, num_classes=CLASSES).memory["data"]
    accelerator = plan(replace(MANY, device="auto"), num_classes=CLASSES).memory["data"]
    assert accelerator.activations < cpu.activations
    assert accelerator.peak - accelerator.activations > cpu.peak - cpu.activations


@pytest.mark.slow
def test_multiply_adds_are_thrice_the_forward_pass() -> None:
    seen = plan(CONFIG, num_classes=CLASSES, gpus=2, tflops=0.5)
    costs = profile(create_model(config=CONFIG.model, num_classes=CLASSES), (64, 64))
    forward = costs.multiply_adds - costs.parts[-1].multiply_adds  # the scores are for inference
    assert seen.multiply_adds == pytest.approx(3 * 8 * forward, rel=0.05)
    assert seen.step_seconds == pytest.approx(2 * seen.multiply_adds / (2 * 0.5e12))
    assert seen.to_dict()["run_seconds"] == pytest.approx(100 * seen.step_seconds)
    again = plan(replace(CONFIG, grad_checkpointing=True), num_classes=CLASSES)
    assert 1.1 * seen.multiply_adds < again.multiply_adds < 4 / 3 * seen.multiply_adds


@pytest.mark.parametrize(
    "gpus, tflops, told", [(3, None, "batch_size 8"), (0, None, "batch_size 8"), (1, 0.0, "--tflops 0")]
)
def test_plans_that_cannot_be_are_refused(gpus: int, tflops: float | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        plan(CONFIG, num_classes=CLASSES, gpus=gpus, tflops=tflops)


ON_LINUX = pytest.mark.skipif(not CLEAR_REFS.exists(), reason="the peak of a process is told by Linux alone")


def run(*words: str) -> str:
    """What the benchmark prints."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}  # freed tensors go back to the system at once
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@ON_LINUX
def test_the_peak_is_what_is_measured() -> None:
    model = ModelConfig(backbone="vit_small_patch16_384", image_size=256)
    expected = plan(TrainConfig(model=model, batch_size=2, device="cpu"), num_classes=150).memory["data"].peak
    assert expected == pytest.approx(int(run("--batch", "2", "--measure", "plain")), rel=0.1)


@pytest.mark.slow
@ON_LINUX
def test_every_kind_of_run_is_within_a_fifth() -> None:
    rows = re.findall(r"^│ (\w.*?)\s*│\s*(\d+)\s*│\s*(\d+)\s*│", run("--batch", "4"), re.MULTILINE)
    found = {name: int(expected) / int(peak) for name, expected, peak in rows}
    assert len(found) == 6
    assert found == pytest.approx(dict.fromkeys(found, 1), abs=0.2)


@pytest.mark.slow
def test_info_tells_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    app(["info", "--plan", "shapes/demo", "--gpus", "2", "--tflops", "0.05"])
    said = capsys.readouterr().out
    for told in ("Memory of each of 2 devices", "AdamW's moments", "fsdp", "for 1,400 steps at 0.05 TFLOP/s"):
        assert told in said.replace("\n", " ")


@pytest.mark.parametrize(
    "words, told",
    [
        (["info", "--gpus", "2"], "name one, or type --plan CONFIG"),
        (["info", "shapes/demo", "--gpus", "2"], "type segvit info --plan shapes/demo"),
        (["info", "shapes/demo", "--plan", "shapes/demo"], "leave out a name"),
        (["info", "--plan", "shapes/demo", "--structure", "shrunk"], "leave out --structure"),
    ],
)
def test_info_refuses_what_contradicts_itself(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        app(words)
