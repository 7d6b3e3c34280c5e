"""Fill in settings that no flag gives: from the file of --config, from the model of --init, from a run to resume."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import cyclopts
from cyclopts import App

from segvit.config import ModelConfig, TrainConfig
from segvit.config_files import by_source, over_network, plain, read_yaml, with_older_defaults
from segvit.errors import UserError

CONFIG = "config.yaml"
"""Name of the file in the folder of a run that holds its settings."""
GIVEN = "--given"
"""Hidden parameter of a command that gets the names of the settings that flags give."""


def from_config_file(app: App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Fill in the settings that no flag gives from the YAML file of --config.

    `check-data` and `evaluate` use only its data section. For `train` and `lr-find`, the model of `init` then fills in
    what is still open in the model section. If no file is given, `train --resume` takes the settings of the run itself,
    and `evaluate` the config.yaml beside the model unless flags name a dataset.
    """
    _note_given(arguments)
    file, init = _typed(arguments, "--config"), _typed(arguments, "--init")
    if commands == ("evaluate",) and file is None and (beside := _beside_model(arguments)):
        arguments["--config"].append(cyclopts.Token(keyword="--config", value=beside, source="beside the model"))
        file = beside
    path = file or _run_to_resume(arguments)
    content, layers = ({}, []) if path is None else read_yaml(path, TrainConfig)
    if path and not file:  # perhaps of an older version, which the run continues
        content["model"] = with_older_defaults(content.get("model", {}))
    if commands in (("check-data",), ("evaluate",)):
        content = {"data": content.get("data", {})}
    elif commands in (("train",), ("lr-find",)):
        content = _over_init(content, init)
    for source, said in by_source(content, layers, source=path or str(init)):
        for command in reversed(commands):  # else cyclopts drops the section `data`, which is also a command
            said = {command: said}
        cyclopts.config.Dict(said, source=source)(app, commands, arguments)


def _over_init(content: dict[str, Any], flag: str | None) -> dict[str, Any]:
    """Return the settings with the network of the initial model filled in below them.

    The flag --init names that model, or else the setting `init`; without either, the settings are returned unchanged. A
    resolved config describes its whole network, so its model is not opened: a run can be resumed without that file.
    """
    whole = content.get("model", {}).keys() >= {field.name for field in fields(ModelConfig)}
    name = flag or content.get("init")
    if name is None or (whole and name == content.get("init")):
        return content
    from segvit.weights.finetune import network_of

    return over_network(content, plain(asdict(network_of(name))), replaces=flag is not None)


def _typed(arguments: cyclopts.ArgumentCollection, flag: str) -> str | None:
    """Return the value of a flag as typed, or None if the command lacks it or it was not given."""
    argument = arguments.get(flag, default=None)
    return argument.tokens[0].value if argument is not None and argument.tokens else None


def _note_given(arguments: cyclopts.ArgumentCollection) -> None:
    """Pass the names of the settings that flags give to a command that has a parameter for them.

    Raises:
        UserError: the flag of that parameter was typed.
    """
    noted = arguments.get(GIVEN, default=None)
    if noted is None:
        return
    if noted.tokens:
        raise UserError(f"unknown option {GIVEN}")
    known = {field.name for field in fields(TrainConfig)}
    names = [argument.name.removeprefix("--").replace("-", "_") for argument in arguments if argument.tokens]
    for index, name in enumerate(name for name in names if name.partition(".")[0] in known):
        noted.append(cyclopts.Token(keyword=GIVEN, value=name, source="flags", index=index))


def _beside_model(arguments: cyclopts.ArgumentCollection) -> str | None:
    """Return the config.yaml of the run that a model file belongs to, unless flags name another dataset."""
    model = _typed(arguments, "--model")
    if model is None or any(_typed(arguments, f"--data.{name}") for name in ("spec", "images", "labels")):
        return None
    file = Path(model).parent / CONFIG
    return str(file) if Path(model).is_file() and file.is_file() else None


def _run_to_resume(arguments: cyclopts.ArgumentCollection) -> str | None:
    """Return the settings file of the run that --resume names by its output folder, if there is one."""
    if arguments.get("--resume", default=None) is None or not arguments["--resume"].tokens:
        return None
    file = Path(_typed(arguments, "--output") or TrainConfig().output) / CONFIG
    return str(file) if file.is_file() else None
