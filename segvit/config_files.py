"""Config files: YAML over a base, shipped recipes by name, the source of each setting, and hints for typos."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path, PureWindowsPath
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import cyclopts

from segvit.errors import UserError
from segvit.utils.files import expanded
from segvit.utils.other_names import hint
from segvit.utils.yaml_text import load_yaml

T = TypeVar("T")

CONFIG_DIRS = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")
"""Folders of the shipped recipes: inside the installed package, or beside it in a checkout."""
RUN_CONFIG = "config.yaml"
"""Name of the file in the folder of a run that holds its settings."""
MERGING = ("merge_threshold", "merge_shares", "merge_at")
"""Settings of the token merging, which has no weights."""
OF_THE_TRAINING = ("image_size", "drop_path", "drop_path_branches", "head_dropout", "init_std", *MERGING)
"""Settings of the model section that may differ from those of the model `init`. All others describe its network."""


Layers = list[tuple[Path, dict[str, Any]]]
"""Settings in a file itself and in each of its bases, the file first."""


def read_yaml(path: str | Path, schema: Any) -> tuple[dict[str, Any], Layers]:
    """Read the settings in a YAML file or a shipped recipe, as a mapping of sections, and which file holds which
    setting.

    `base: NAME` in the file names another file beside it, or a shipped recipe; the file then holds differences from it.
    An `init` or `extend` in the file decides the network: network settings of its base are dropped.

    Args:
        path: the file, or the name of the recipe.
        schema: the dataclass whose fields are the settings.

    Raises:
        UserError: no such file, not a mapping, an unknown setting, or bases in a circle.
    """
    layers = _read_layers(find_config(path), schema)
    settings: dict[str, Any] = {}
    for _, content in reversed(layers):
        if content.get("init") or content.get("extend"):
            settings["model"] = _without_network(settings.get("model", {}))
        for key, value in content.items():
            settings[key] = settings.get(key, {}) | value if isinstance(value, dict) else value
    return settings, layers


def by_source(settings: Mapping[str, Any], layers: Layers, *, source: str) -> list[tuple[str, dict[str, Any]]]:
    """Group settings by the file that holds them, so that an error can name the file with the mistake.

    Args:
        settings: with sections, as `read_yaml` returns them, or over the network of an `init`.
        layers: of the same `read_yaml`.
        source: name for the settings that no layer holds.
    """
    parts: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        if not isinstance(value, dict):
            sources = (str(file) for file, content in layers if key in content)
            parts.setdefault(next(sources, source), {})[key] = value
            continue
        for inner, setting in value.items():
            sources = (str(file) for file, content in layers if inner in content.get(key, {}))
            parts.setdefault(next(sources, source), {}).setdefault(key, {})[inner] = setting
    return list(parts.items())


def parse_settings(
    schema: type[T], parts: Sequence[tuple[str, dict[str, Any]]], overrides: Sequence[str], *, source: str
) -> T:
    """Parse settings over the defaults of a dataclass.

    Args:
        schema: the dataclass.
        parts: settings, each with its source (see `by_source`).
        overrides: flags as on the command line.
        source: name in an error about none of the parts.

    Raises:
        UserError: an unknown key or a bad value.
    """
    parser = cyclopts.App(result_action="return_value", help_flags=[], version_flags=[])

    @parser.default
    def read(*, settings: Annotated[schema, cyclopts.Parameter(name="*")] = schema()) -> T:  # type: ignore[valid-type]
        return settings

    parser.config = [cyclopts.config.Dict(content, source=place) for place, content in parts]
    try:
        parsed: T = parser(list(overrides), exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        token = getattr(error, "token", None)  # the wrong value, which knows its source
        place = source if token is None or token.source == "cli" else token.source
        raise UserError(f"{place}: {error}") from error
    return parsed


def over_network(settings: Mapping[str, Any], network: Mapping[str, Any], *, replaces: bool) -> dict[str, Any]:
    """Put the model section of settings over the network of a model that is given as `init`.

    Args:
        settings: as `read_yaml` returns them.
        network: the model section of the model that is given as `init`.
        replaces: `init` comes from a flag: network settings in `settings` are dropped.
    """
    own = settings.get("model", {})
    return {**settings, "model": {**network, **(_without_network(own) if replaces else own)}}


def _without_network(model: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the network settings of a model section; an `init` decides them."""
    return {key: value for key, value in model.items() if key in OF_THE_TRAINING}


def with_older_defaults(model: Mapping[str, Any]) -> dict[str, Any]:
    """Add settings that an older file lacks and whose defaults have changed since.

    Before `position_grid` was a setting, positions had the grid of the crop. Before `upsampling` was one, the structure
    shrunk had the paper's.
    """
    older = {"position_grid": "crop"} | ({"upsampling": "paper"} if model.get("structure") == "shrunk" else {})
    return older | dict(model)


def _read_layers(file: Path, schema: Any) -> Layers:
    """Read `file` and its bases, each for itself."""
    layers: Layers = []
    while True:
        content = _read_mapping(file)
        base = content.pop("base", None)
        _check_settings(file, content, schema)
        layers.append((file, content))
        if base is None:
            return layers
        below = _find_base(file, base)
        if below.resolve() in [above.resolve() for above, _ in layers]:
            raise UserError(f"{file}: its base {base!r} is based on it in turn; end the circle")
        file = below


def _read_mapping(file: Path) -> dict[str, Any]:
    """Read a YAML file of settings."""
    try:
        content = load_yaml(file.read_text(encoding="utf-8"), source=str(file)) or {}
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected settings as `key: value`, found {type(content).__name__}")
    return content


def _find_base(file: Path, base: Any) -> Path:
    """Return the file that `base` in `file` names."""
    if not isinstance(base, str):
        raise UserError(f"{file}: `base` is a config file or the name of a shipped recipe; found {base!r}")
    if (beside := file.parent / expanded(base)).is_file():
        return beside
    try:
        return find_config(base)
    except UserError as error:
        raise UserError(f"{file}: its base: {error}") from error


def _check_settings(file: Path, content: Mapping[Any, Any], section: Any, prefix: str = "", root: Any = None) -> None:
    """Check a file for mistakes that the parser of flags would miss, or report without the file's name.

    Raises:
        UserError: an unknown key (the nearest is named), a section without settings, a fraction for a whole number,
            or too many or too few values.
    """
    known = {field.name: field.type for field in fields(section)}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if key not in known:
            raise UserError(f"{file}: unknown setting `{name}`{_nearest(name, root or section)}")
        union = get_origin(known[key]) in (Union, UnionType)
        kinds = get_args(known[key]) if union else (known[key],)
        lengths = [len(get_args(kind)) for kind in kinds if get_origin(kind) is tuple and ... not in get_args(kind)]
        if is_dataclass(known[key]):
            if not isinstance(value, dict):
                raise UserError(
                    f"{file}: `{name}` is a section: write its settings below it, indented; found {value!r}"
                )
            _check_settings(file, value, known[key], f"{name}.", root or section)
        elif isinstance(value, float) and int in kinds and not value.is_integer():
            raise UserError(f"{file}: `{name}` is a whole number; found {value}")
        elif value is not None and lengths and (not isinstance(value, list) or len(value) != lengths[0]):
            raise UserError(f"{file}: `{name}` takes {lengths[0]} values, as in [a, b]; found {value!r}")


def _nearest(name: str, schema: Any) -> str:
    """Return a hint at the settings that an unknown one may mean, or an empty text."""
    settings = asdict(schema())
    known = [key for key, value in settings.items() if not isinstance(value, dict)]
    sections = [key for key in settings if key not in known]
    known += [f"{section}.{key}" for section in sections for key in settings[section]]
    return hint(name, known + sections)


def find_config(path: str | Path) -> Path:
    """Find the file at `path`, or the shipped recipe of that name (with or without `configs/` and `.yaml`).

    Raises:
        UserError: neither exists. The shipped names are listed.
    """
    path = expanded(path)
    if Path(path).is_file():
        return Path(path)
    name = str(path).removeprefix("configs/").removesuffix(".yaml")
    for folder in CONFIG_DIRS:
        if (file := folder / f"{name}.yaml").is_file():
            return file
    shipped = sorted(f.relative_to(d).with_suffix("").as_posix() for d in CONFIG_DIRS for f in d.rglob("*.yaml"))
    raise UserError(f"no config file {str(path)!r}; give a YAML file or a shipped recipe: {', '.join(shipped)}")


def take_paths(settings: Any) -> None:
    """Turn text into paths in a frozen dataclass of settings, and replace `~` by the home folder in paths and names."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, str | Path):
            kind = Path if isinstance(value, Path) or Path in (each.type, *get_args(each.type)) else str
            object.__setattr__(settings, each.name, kind(expanded(value)))


def plain(value: Any) -> Any:
    """Return `value` with paths as strings and tuples as lists, for YAML and JSON."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def without_folders(value: Any) -> Any:
    """Return `value` as `plain` does, with only the last part of each path, for a file that may be published.

    A text counts as a path if it is absolute, or begins with `.` or `~`.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and (value.startswith(("/", "~", ".")) or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name  # it splits at / and at \
    return value.name if isinstance(value, Path) else value
