"""Where the command line takes what its flags leave open: from the file of --config, and from the model of --init."""

from dataclasses import asdict, fields
from typing import Any

import cyclopts
from cyclopts import App

from segvit.config import ModelConfig, TrainConfig
from segvit.config_files import by_source, over_network, plain, read_yaml


def from_config_file(app: App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Take what the flags leave open from the YAML file of --config; check-data and evaluate take its data section.

    For `train` and `lr-find`, what both leave open of the model section is that of the model of `init`.
    """
    path, init = _typed(arguments, "--config"), _typed(arguments, "--init")
    content, layers = ({}, []) if path is None else read_yaml(path, TrainConfig)
    if commands in (("check-data",), ("evaluate",)):
        content = {"data": content.get("data", {})}
    elif commands in (("train",), ("lr-find",)):
        content = _over_init(content, init)
    for source, said in by_source(content, layers, source=path or str(init)):
        for command in reversed(commands):  # else cyclopts drops the section `data` for the verb of that name
            said = {command: said}
        cyclopts.config.Dict(said, source=source)(app, commands, arguments)


def _over_init(content: dict[str, Any], flag: str | None) -> dict[str, Any]:
    """Settings over the network of the model that --init names, else `init` in the settings; without one as they are.

    A resolved config says its network whole: its model is not opened, so that a run can be resumed without it.
    """
    whole = content.get("model", {}).keys() >= {field.name for field in fields(ModelConfig)}
    name = flag or content.get("init")
    if name is None or (whole and name == content.get("init")):
        return content
    from segvit.weights.finetune import network_of

    return over_network(content, plain(asdict(network_of(name))), replaces=flag is not None)


def _typed(arguments: cyclopts.ArgumentCollection, flag: str) -> str | None:
    """What follows a flag on the command line, if the verb has it and it was given."""
    argument = arguments.get(flag, default=None)
    return argument.tokens[0].value if argument is not None and argument.tokens else None
