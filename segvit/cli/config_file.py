"""Fill in settings that no flag gives: from the file of --config, from the model of --init, from a run to resume."""

from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import cyclopts
from cyclopts import App

from segvit.config import DataConfig, ModelConfig, TrainConfig
from segvit.config.augment import below_preset
from segvit.config_files import RUN_CONFIG, by_source, over_network, plain, read_yaml, with_older_defaults
from segvit.errors import UserError
from segvit.utils.files import expanded

ONE_SETTING = {"--model": "--model.backbone", "--data": "--data.spec"}
"""Settings that a section's flag alone sets."""
FOR_A_NUMBER = {"--optim": "lr", "--eval": "window"}
"""Settings that a number behind a section's flag probably means."""
GIVEN = "--given"
"""Hidden parameter of a command that gets the names of the settings that flags give."""


def from_config_file(app: App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Fill in the settings that no flag gives from the YAML file of --config.

    `evaluate` uses only its data section, and `check-data` those of data and augmentation. For `train` and `lr-find`,
    the model of `init` then fills in what is still open in the model section. If no file is given, `train --resume`
    takes the settings of the run itself, and `evaluate` the config.yaml beside the model unless flags name a dataset.
    """
    for argument in arguments:
        argument.tokens[:] = [token.evolve(value=expanded(token.value)) for token in argument.tokens]
    _name_settings_in_sections(arguments)
    _note_given(arguments)
    file = _typed(arguments, "--config")
    init = _typed(arguments, "--init") or _typed(arguments, "--extend")
    if commands == ("evaluate",) and file is None and (beside := _beside_model(arguments)):
        arguments["--config"].append(cyclopts.Token(keyword="--config", value=beside, source="beside the model"))
        file = beside
    path = file or _run_to_resume(arguments)
    content, layers = ({}, []) if path is None else read_yaml(path, TrainConfig)
    if path and not file:  # perhaps of an older version, which the run continues
        content["model"] = with_older_defaults(content.get("model", {}))
        content["output"] = str(Path(path).parent)  # where the run is now
    content = below_preset(content, _typed(arguments, "--augment.preset"))
    if commands in (("check-data",), ("evaluate",)):
        sections = ("data", "augment") if commands == ("check-data",) else ("data",)
        content = {section: content.get(section, {}) for section in sections}
    elif commands in (("train",), ("lr-find",)):
        content = _over_init(content, init)
    for source, said in by_source(content, layers, source=path or str(init)):
        for command in reversed(commands):  # else cyclopts drops the section `data`, which is also a command
            said = {command: said}
        cyclopts.config.Dict(said, source=source)(app, commands, arguments)


def _over_init(content: dict[str, Any], flag: str | None) -> dict[str, Any]:
    """Return the settings with the network of the initial model filled in below them.

    The flag --init or --extend names that model, or else the setting of that name; without any, the settings are
    returned unchanged. A resolved config describes its whole network, so its model is not opened: a run can be resumed
    without it.
    """
    whole = content.get("model", {}).keys() >= {field.name for field in fields(ModelConfig)}
    own = content.get("init") or content.get("extend")
    name = flag or own
    if name is None or (whole and name == own):
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
    if model is None or any(
        _typed(arguments, f"--data.{name}") for name in ("spec", "images", "labels", "hub", "shards")
    ):
        return None
    file = Path(model).parent / RUN_CONFIG
    return str(file) if Path(model).is_file() and file.is_file() else None


def _run_to_resume(arguments: cyclopts.ArgumentCollection) -> str | None:
    """Return the settings file of the run to resume, if there is one.

    --output names its folder. Otherwise it is the only one in runs that has a checkpoint, and the name of the photos if
    they are given.
    """
    if arguments.get("--resume", default=None) is None or not arguments["--resume"].tokens:
        return None
    if _typed(arguments, "--replay"):  # refused with --resume
        return None
    from segvit.training.run_folder.names import name_of, run_to_resume

    images = _typed(arguments, "PHOTOS") or _typed(arguments, "--data.images")
    spec, hub, shards = (_typed(arguments, f"--data.{name}") for name in ("spec", "hub", "shards"))
    data = DataConfig(images=Path(images) if images else None, spec=spec, hub=hub, shards=shards)
    name = name_of(data, otherwise="") or None
    output = _typed(arguments, "--output")
    file = (Path(output) if output else run_to_resume(TrainConfig().output, name=name)) / RUN_CONFIG
    return str(file) if file.is_file() else None


def _name_settings_in_sections(arguments: cyclopts.ArgumentCollection) -> None:
    """Give the value of `--model NAME` and `--data NAME` to the setting that it means, and refuse other sections.

    Otherwise the parser would set the section's first setting, and reset all others to their defaults.

    Raises:
        UserError: a section has a value, and the setting is not clear.
    """
    for section in [argument for argument in arguments if is_dataclass(argument.hint)]:
        tokens = [token for token in section.tokens if not token.keys]
        if not tokens:
            continue
        flag = section.name
        setting = ONE_SETTING.get(flag)
        if setting is None or len(tokens) > 1 or (flag == "--data" and Path(tokens[0].value).is_dir()):
            raise UserError(_explain_section(section, [token.value for token in tokens]))
        if arguments[setting].tokens:
            raise UserError(f"{flag} {tokens[0].value} is short for {setting}, which is given as well: leave one out")
        section.tokens[:] = [token for token in section.tokens if token.keys]
        arguments[setting].append(tokens[0].evolve(keyword=setting))


def _explain_section(section: cyclopts.Argument, values: list[str]) -> str:
    """Return the error text for a section with a value, and the settings that may be meant."""
    flag, value = section.name, " ".join(values)
    if flag == "--data" and Path(values[0]).is_dir():
        return f"{flag} {value}: give the folders of photos and masks without a flag, as in `segvit train PHOTOS MASKS`"
    settings = {field.name: field.type for field in fields(section.hint)}
    meant = next((name for name, kind in settings.items() if value in get_args(kind)), None)
    if meant is None and (first := FOR_A_NUMBER.get(flag)) and _is_number(value):
        meant = first
    if meant:
        return f"{flag} is a section of settings: type {flag}.{meant.replace('_', '-')} {value}"
    names = ", ".join(f"{flag}.{name.replace('_', '-')}" for name in settings)
    return f"{flag} {value}: {flag} is a section of settings; give one of them: {names}"


def _is_number(text: str) -> bool:
    """True if a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
