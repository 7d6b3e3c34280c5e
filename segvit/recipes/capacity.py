"""Fit the settings of a run to its machine: precision, loading processes, and parts of a batch that fit the memory.

choose_machine(draft)
choose_memory(draft, estimated_memory)
"""

from collections.abc import Callable

import torch

from segvit.config import TrainConfig
from segvit.models.create import create_model
from segvit.profiling.plan import memory_of
from segvit.recipes.draft import Draft, build
from segvit.recipes.facts import GIBIBYTE

USABLE = {"cpu": 0.6, "mps": 0.6, "cuda": 0.85}
"""Share of the memory that a step may take, by device."""
Memory = Callable[[TrainConfig, int, int], float]
"""Estimate the peak memory in GiB of a step in each process, given the numbers of classes and of processes."""


def estimated_memory(config: TrainConfig, num_classes: int, processes: int) -> float:
    """Return the estimated peak memory in GiB of a step in each process, as `segvit info --plan` does."""
    with torch.device("meta"):
        model = create_model(config=config.model.without_weights(), num_classes=num_classes)
    images = max(config.batch_size // (processes * config.accumulate), 1)
    return memory_of(model, config, images=images, gpus=processes).peak / GIBIBYTE


def choose_machine(draft: Draft) -> None:
    """Choose the precision and the loading processes."""
    machine = draft.facts.machine
    kind = "full" if machine.precision == "fp32" else "mixed"
    draft.choose("precision", machine.precision, f"{kind} precision: {machine.precision_reason}")
    cores = machine.cores // machine.processes
    if machine.device == "cpu":
        workers = min(cores // 4, 2)
        why = "loading processes" if workers else "a loading process would take a core from the training"
    else:
        workers = max(min(cores // 2, 8), 1)
        why = f"loading processes, for {machine.cores} cores"
    draft.choose("data.workers", workers, why)


def choose_memory(draft: Draft, memory: Memory) -> None:
    """Split the batch into as many parts as the memory demands."""
    if "accumulate" in draft.given:
        return
    machine = draft.facts.machine
    share = machine.memory if machine.device == "cuda" else machine.memory / machine.processes
    usable = USABLE[machine.device] * share
    batch = max(draft.settings["batch_size"] // machine.processes, 1)
    for accumulate in (part for part in range(1, batch + 1) if batch % part == 0):
        config = build(draft.settings | {"accumulate": accumulate, "device": machine.device})
        needed = memory(config, len(draft.facts.images.classes), machine.processes)
        if needed <= usable:
            break
    too_much = ": that may be too much; give a smaller crop or backbone" if needed > usable else ""
    takes = f"takes about {needed:.1f} of {share:.0f} GB{too_much}"
    draft.choose("accumulate", accumulate, f"a step {takes}" if accumulate == 1 else f"parts of a batch, each {takes}")
