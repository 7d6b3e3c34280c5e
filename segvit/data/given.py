"""Find the dataset in what users have: the name of a known one, a file that describes it, or a file of settings.

    data = data_of("people.yaml")       # a spec, or settings with the section `data`
    data = data_of("shapes")

A spec's folders are relative to the folder of its file.
"""

from pathlib import Path

from segvit.config import DataConfig, TrainConfig
from segvit.config_files import find_config
from segvit.data.annotations.tools.yolo_yaml import is_yolo, with_masks
from segvit.data.spec import shipped_specs
from segvit.data.yaml_values import parse_yaml
from segvit.errors import UserError
from segvit.utils.files import expanded

DESCRIBES_CLASSES = ("classes", "splits")
"""Keys of a spec that no file of settings has."""
YAML_SUFFIXES = (".yaml", ".yml")


def data_of(source: DataConfig | str | Path) -> DataConfig:
    """Return the dataset that a user names.

    Args:
        source: name of a shipped dataset, YAML file that describes one, YAML file of settings or shipped recipe, or the
            settings themselves.

    Raises:
        UserError: it is none of these, or a file of settings without a dataset.
    """
    if isinstance(source, DataConfig):
        return source
    if (data := described_alone(source)) is not None:
        return data
    data = TrainConfig.load(Path(expanded(source))).data
    if data == DataConfig():
        raise UserError(f"{source}: no dataset in this file of settings: add a section `data`")
    return data


def described_alone(source: str | Path) -> DataConfig | None:
    """Return the dataset of a source that describes a dataset and nothing else, or None if it has other settings too.

    Raises:
        UserError: no such file or name, a folder, or a file of another program.
    """
    path, name = Path(expanded(source)), str(source)
    if path.is_dir():
        data = f'segvit.DataConfig(images="{name}", labels="masks", classes=("sky", "road"))'
        raise UserError(f"{name} is a folder: write {data}")
    if not path.is_file():
        if name in shipped_specs():
            return DataConfig(spec=name)
        find_config(source)  # a recipe, or an error that lists them
        return None
    if path.suffix.lower() not in YAML_SUFFIXES:
        raise UserError(f"{name} is not a YAML file: give one that describes a dataset or holds settings")
    content = parse_yaml(path, name)
    if is_yolo(content):
        return DataConfig(spec=str(path), root=path.parent)
    if "names" in content and "classes" not in content:
        raise UserError(f"{name} describes a dataset of another program. {with_masks(content)}")
    if any(key in content for key in DESCRIBES_CLASSES):
        return DataConfig(spec=str(path), root=path.parent)
    return TrainConfig.load(path).data if set(content) == {"data"} else None
