"""Examine a step whose numbers were not finite: name the first layer, and run the step again from a file.

    segvit train --replay runs/camvid/not-finite-step90000.pt [--device cpu]

The file holds the step of one process: images, labels, weights, config, and the seed of its dropout. Reading it runs no
code in it.

Letters: B images, K classes, H, W size of a crop.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segvit.config import TrainConfig
from segvit.config_files import with_older_defaults
from segvit.errors import UserError
from segvit.inference.precision import HALVES
from segvit.losses import CRITERIA, Criterion, Losses, Normalizers
from segvit.models.create import create_model
from segvit.models.modes import set_grad_checkpointing
from segvit.models.segvit import SegViT
from segvit.training.backbone.features import FrozenStart
from segvit.training.backbone.lora import add_lora
from segvit.training.loader_guard import going_on, written
from segvit.training.optim import freeze
from segvit.training.step import Context, StepInput, run_step, seed_dropout
from segvit.utils.device import resolve_device

NUM_NAMED = 3
"""Number of weights that a finding names."""
REPLAYED_PARTS = ("model", "criterion")
"""Parts of your own that a step needs to run again."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Device, process and files of a step."""

    files: list[str]
    """Files of its images."""
    scale: float
    """Factor on the loss, under fp16."""
    device: str
    """Kind of device, on which the dropout depends."""
    process: int | None
    """Number of the process; None if it was the only one."""
    own_parts: list[str]
    """Names of the parts that the caller of `train` handed in."""


KEYS = {field.name for kind in (StepInput, Circumstances) for field in fields(kind)}
KEYS |= {"config", "num_classes", "model"}
"""Entries of a file."""


def examine(
    model: nn.Module,
    inputs: StepInput,
    config: TrainConfig,
    *,
    criterion: Criterion,
    scale: float,
    autocast: Context,
    backward: bool = True,
) -> str | None:
    """Run a step again without changing weights, and name the first numbers that are not finite; None if all are
    finite.

    Args:
        model: in training mode, not wrapped, with whole weights.
        inputs: of the step, on the model's device.
        config: of the run.
        criterion: of the run.
        scale: factor on the loss, under fp16.
        autocast: makes the context of the forward pass.
        backward: check the gradients too, and drop them. Otherwise check only the losses.
    """
    model.zero_grad()
    seed_dropout(config.seed, inputs.number)

    def check(losses: Losses) -> None:
        if not torch.isfinite(losses.total):
            raise _NotFiniteHere(seen.get("layer") or _term(losses))

    def back(loss: Tensor) -> None:
        if backward:
            (loss * scale).backward()
            if "gradient" in seen:
                raise _NotFiniteHere(seen["gradient"])

    with _watching(model) as seen, torch.compiler.set_stance("force_eager"):
        try:
            run_step(model, inputs, config, criterion=criterion, backward=back, check=check, autocast=autocast)
        except _NotFiniteHere as found:
            return f"{found}{_weights(model)}"
    return None


class _NotFiniteHere(Exception):
    """Ends an examination at the first numbers that are not finite, which its text names."""


@contextmanager
def _watching(model: nn.Module) -> Iterator[dict[str, str]]:
    """Record the first layer whose output, and the first parameter whose gradient, is not finite."""
    seen: dict[str, str] = {}

    def after_layer(name: str, layer: nn.Module, _: Any, output: Any) -> None:
        if "layer" not in seen and not all(map(_finite, _tensors(output))):
            seen["layer"] = f"the output of {name or 'the model'} ({type(layer).__name__}) in the forward pass"

    def after_gradient(name: str, parameter: Tensor) -> None:
        if "gradient" not in seen and parameter.grad is not None and not _finite(parameter.grad):
            seen["gradient"] = f"the gradient of {name} in the backward pass"

    hooks = [layer.register_forward_hook(partial(after_layer, name)) for name, layer in model.named_modules()]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hooks.append(parameter.register_post_accumulate_grad_hook(partial(after_gradient, name)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a layer's output."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def _term(losses: Losses) -> str:
    """Name the first term of the loss that is not finite, if all layers are."""
    name = next((name for name, term in losses.items() if not _finite(term)), "whole")
    return f"the {name} term of the loss, after layers that are all finite"


def _weights(model: nn.Module) -> str:
    """Name the weights that are not finite: if there are any, they are the cause."""
    names = [name for name, parameter in model.named_parameters() if not _finite(parameter)]
    more = ", ..." * (len(names) > NUM_NAMED)
    return f"; weights that are not finite: {', '.join(names[:NUM_NAMED])}{more}" if names else ""


def explain(
    found: str | None,
    inputs: StepInput,
    where: Circumstances,
    *,
    config: TrainConfig,
    num_classes: int,
    state: dict[str, Tensor],
    unexamined: bool,
) -> str:
    """Save a step that went wrong, and explain the first numbers that are not finite, on which images, and what to
    type.

    Args:
        found: the result of `examine`.
        inputs: of the step.
        where: device, process and files of the step.
        config: of the run.
        num_classes: of the model.
        state: its weights.
        unexamined: the step was not examined: the model is sharded, or the memory is too small.
    """
    mark = "" if where.process is None else f"-process{where.process}"
    path = config.output / f"not-finite-step{inputs.step}{mark}.pt"
    if found is None and where.process is not None and not unexamined:
        return "All numbers of this process are finite; see the error of another process"
    first = f"First not finite: {found}. " if found else ""
    if found is None and not unexamined:
        first = "Each output and gradient is finite; only their norm is not. "
    try:
        save_step(path, inputs, where, config=config, num_classes=num_classes, state=state)
        more = " and names the first layer" if unexamined else ""
        saved = f"{_command(path, where)} runs the step again{more}"
    except UserError as error:
        saved = f"the step could not be saved ({error})"
    return f"{first}Its images:\n{listing(where.files)}\n{saved}. Try a lower --optim.lr; {going_on(config.output)}"


def _command(path: Path, where: Circumstances) -> str:
    """Return the command that runs a saved step again."""
    parts = [name for name in where.own_parts if name in REPLAYED_PARTS]
    if not parts:
        return f"`segvit train --replay {path}`"
    settings = ", ".join(f"{name}={name}" for name in parts)
    return f'`segvit.training.replay.replay(Path("{path}"), {settings})`'


def save_step(
    path: Path,
    inputs: StepInput,
    where: Circumstances,
    *,
    config: TrainConfig,
    num_classes: int,
    state: dict[str, Tensor],
) -> None:
    """Write a step to a file, as tensors and plain values only.

    Args:
        path: of the file.
        inputs: of the step.
        where: device, process and files of the step.
        config: of the run.
        num_classes: of the model.
        state: its weights.

    Raises:
        UserError: the file cannot be written.
    """
    content: dict[str, Any] = {**vars(inputs), **vars(where), "divisors": vars(inputs.divisors)}
    content |= {"config": config.to_dict(), "num_classes": num_classes, "model": state}
    with written(path, run=config.output) as aside:
        try:
            torch.save(content, aside)
        except RuntimeError as error:  # by torch's writer, for a full disk
            raise OSError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """Result of a step that was run again."""

    finding: str | None
    """Name of the first numbers that are not finite; None if all are finite."""
    text: str
    """The finding as text, with the step and its images."""


def replay(
    path: Path, *, device: Any = "auto", model: SegViT | None = None, criterion: Criterion | None = None
) -> Replayed:
    """Run the step in a file again: forward, criterion and backward, with the same dropout.

    Args:
        path: of the file.
        device: to run on.
        model: your own, if the run had one; the weights in the file are loaded into it.
        criterion: your own, if the run had one.

    Raises:
        UserError: not a file of `save_step`, no such device, or a part of your own is missing.
    """
    content = _load(path)
    where = Circumstances(**{field.name: content[field.name] for field in fields(Circumstances)})
    given = {"model": model, "criterion": criterion}
    if missing := [name for name in where.own_parts if name in REPLAYED_PARTS and given[name] is None]:
        raise UserError(
            f"{path}: the run used your own {' and '.join(missing)}: pass the same again; in Python, run "
            f"{_command(path, where)}"
        )
    settings = content["config"] | {"model": with_older_defaults(content["config"]["model"])}
    config = TrainConfig.from_dict(settings, source=str(path))
    place = resolve_device(device)
    if model is None:
        network, count = config.model.without_weights(), content["num_classes"]
        model = create_model(config=network, num_classes=count, protocol=config.eval)
    if config.optim.lora_rank:
        add_lora(model, config.optim)
    model.load_state_dict(content["model"])
    model.to(place).train()
    set_grad_checkpointing(model.backbone, config.grad_checkpointing)
    freeze(model, config.optim.freeze)
    values = {field.name: _moved(content[field.name], place) for field in fields(StepInput)}
    values["divisors"] = Normalizers(**{key: _moved(value, place) for key, value in content["divisors"].items()})
    inputs = StepInput(**values)
    dtype = HALVES.get(config.precision)
    finding = examine(
        model if config.data.cache_features is None else FrozenStart(model),
        inputs,
        config,
        criterion=criterion or CRITERIA[config.model.head],
        scale=where.scale,
        autocast=lambda: torch.autocast(place.type, dtype=dtype, enabled=dtype is not None),
    )
    result = "all numbers are finite here" if finding is None else f"first not finite: {finding}"
    text = f"step {inputs.step} of {config.output}: {result}\nits images:\n" + listing(where.files)
    if where.device != place.type or config.compile:
        other = f"a {where.device} device" if where.device != place.type else "a compiled model"
        text += f"\nit went wrong on {other}, which draws other random numbers for dropout"
    return Replayed(finding=finding, text=text)


def listing(files: list[str]) -> str:
    """List the images of a step, one per line."""
    return "\n".join(f"  {file}" for file in files)


def _moved(value: Any, place: torch.device) -> Any:
    return value.to(place) if isinstance(value, Tensor) else value


def _load(path: Path) -> dict[str, Any]:
    """Load a file of `save_step`."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: give the not-finite-stepN.pt that a run has named")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = KEYS - content.keys()
    except Exception as error:  # torch raises many kinds for a broken or foreign file
        raise UserError(f"{path}: not a step that segvit saved, or cut short ({error})") from error
    if missing:
        raise UserError(f"{path}: not a step that segvit saved (no {', '.join(sorted(missing))})")
    return content
