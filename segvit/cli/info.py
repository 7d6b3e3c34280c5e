"""The command `segvit info`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import CycloptsError, CycloptsPanel, MissingArgumentError, Parameter

from segvit.cli.flags import TERMINAL, BackboneFlags, JsonFile, check_json, check_paths, to_json, write_json
from segvit.config import TrainConfig
from segvit.errors import UserError

if TYPE_CHECKING:
    from segvit.profiling.plan import Plan


def _whole_numbers(_: Any, tokens: Sequence[Any]) -> tuple[int, ...]:
    """Parse the two whole numbers of --size; cyclopts itself would round 64.5 down to 64."""
    if not all(token.value.isdecimal() for token in tokens):
        given = " ".join(token.value for token in tokens)
        raise UserError(f"--size {given}: give height and width in whole pixels, such as --size 640 640")
    return tuple(int(token.value) for token in tokens)


def explain_size(error: CycloptsError) -> Any:
    """Return the error panel, with what to type if --size got only one number."""
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.argument.name == "--size":
        return CycloptsPanel(f"{error} Type --size HEIGHT WIDTH, such as --size 640 640.")
    return CycloptsPanel(error)


def info(
    name: str | None = None,
    *,
    plan: str | None = None,
    gpus: int = 1,
    tflops: float | None = None,
    size: Annotated[tuple[int, int] | None, Parameter(negative=(), converter=_whole_numbers)] = None,
    backbone: BackboneFlags = BackboneFlags(),
    json: JsonFile = None,
) -> None:
    """Print what a model consists of and costs: parts, parameters, multiply-adds, classes, test protocol.

    Without a model, it prints the versions and the devices of this machine, for reports of bugs.

    Parameters
    ----------
    name
        Model (file, user/repo, or a name from the zoo), config, or timm backbone.
    size
        Height and width in pixels of the image to count the cost for. Default: the training crop.
    plan
        Instead of a model: config (file or shipped recipe) to estimate the memory and time of training for.
    gpus
        With --plan: number of devices that share the batch.
    tflops
        With --plan: sustained training speed of a device in 10^12 floating-point operations per second, to estimate the
        time.
    json
        Also write everything to this JSON file; - prints JSON and nothing else.
    """
    check_json(json)
    check_paths(files=(None if json == TERMINAL else json,))
    from rich import print as rich_print

    from segvit.profiling.environment import environment
    from segvit.profiling.info import describe

    if plan:
        seen: Any = _plan_of(plan, name=name, gpus=gpus, tflops=tflops, size=size, backbone=backbone)
    elif name is None:
        if gpus != 1 or tflops is not None or size is not None or backbone != BackboneFlags():
            raise UserError("no model, config or backbone given: name one, or type --plan CONFIG")
        seen = environment()
    elif gpus != 1 or tflops is not None:
        raise UserError(f"--gpus and --tflops work only with --plan: type segvit info --plan {name}")
    else:
        seen = describe(name, size=size, **asdict(backbone))
    if json == TERMINAL:
        print(to_json(seen.to_dict()))
        return
    rich_print(seen.tables())
    if json:
        write_json(json, seen.to_dict())


def _plan_of(
    config: str,
    *,
    name: str | None,
    gpus: int,
    tflops: float | None,
    size: tuple[int, int] | None,
    backbone: BackboneFlags,
) -> "Plan":
    """Return the memory and time that training with a config takes.

    Raises:
        UserError: a flag repeats what the config decides, there is no such config, or the batch cannot be split evenly.
    """
    from segvit.profiling.info import ASSUMED_CLASSES, find_network
    from segvit.profiling.plan import plan

    others = {"a name": name, "--size": size, "--image-size": backbone.image_size}
    others |= {"--class-token": backbone.class_token, "--structure": backbone.structure}
    others |= {"--upsampling": backbone.upsampling}
    if said := [flag for flag, value in others.items() if value is not None]:
        raise UserError(f"the config decides what is trained: leave out {' and '.join(said)} with --plan {config}")
    settings = TrainConfig.load(config)
    network = find_network(config, num_classes=backbone.num_classes)
    return plan(settings, num_classes=network.num_classes or ASSUMED_CLASSES, gpus=gpus, tflops=tflops)
