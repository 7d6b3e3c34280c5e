"""Train from what users have: two folders, a file that describes a dataset, a file of settings, or settings.

    run = segvit.train(images="photos", labels="masks", classes=["sky", "road", "car"])
    run = segvit.train("people.yaml", steps=300)
    run = segvit.train(segvit.TrainConfig.load("shapes/demo"))

The loop is in segvit/training/train.py. This module finds the settings of a run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from segvit.config import DataConfig, ModelConfig, TrainConfig, under_preset
from segvit.config_files import RUN_CONFIG, plain, read_yaml
from segvit.data.given import described_alone
from segvit.data.sample import Samples
from segvit.errors import UserError
from segvit.losses import Criterion
from segvit.models.segvit import SegViT
from segvit.recipes.choose import recipe
from segvit.recipes.draft import parse_settings
from segvit.training import train as training
from segvit.training.run_folder.names import name_of, run_to_resume
from segvit.training.settings import flat
from segvit.utils.files import expanded
from segvit.utils.keywords import refuse_others
from segvit.utils.launcher import first_process
from segvit.weights.finetune import network_of


def train(
    config: TrainConfig | DataConfig | str | Path | None = None,
    model: SegViT | Mapping[str, Any] | ModelConfig | None = None,
    datasets: Mapping[str, Samples] | None = None,
    criterion: Criterion | None = None,
    *,
    transform: Callable[..., Any] | None = None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    classes: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    accept_changed_data: bool = False,
    on_step: training.OnStep | None = None,
    **settings: Any,
) -> training.Run:
    """Train a model, validate it, and write it to the folder `output`.

    Examples:
        >>> import segvit
        >>> run = segvit.train("people.yaml", steps=2, output="runs/short")
        >>> run.path.as_posix()
        'runs/short/best.safetensors'
        >>> 0 <= run.miou <= 1
        True

    If you give a dataset alone, segvit chooses all other settings for this machine and your images, and prints the
    reason of each, as `segvit train` does.

    Args:
        config: a dataset: settings, the name of a shipped one, or a YAML file that describes one; or the settings of
            the whole run: in Python, in a YAML file with more than the section `data`, or a shipped recipe.
        model: your own, trained in place. Its settings replace the model section of the config, which must not
            contradict them. A mapping is the model section, such as `{"image_size": 280}`.
        datasets: your own, `{"train": ..., "val": ...}`: any objects with the attributes of
            `segvit.data.sample.Samples`.
        criterion: your own, called as `segvit.criterion` is; it returns `segvit.Losses`.
        transform: your own, as the last step of the augmentation of a crop: a pipeline of torchvision's v2, of
            Albumentations, or any function `transform(image, mask)` that returns both (docs/training.md).
        images: folder of photos, in place of `config`.
        labels: folder of their masks, of the same names.
        classes: class names in order, or `name=VALUE` if the mask values are not 0, 1, 2, ...
        resume: continue from the checkpoint in `output`. Without a config, that run's own settings are taken.
        overwrite: replace the run that the folder `output` holds.
        accept_changed_data: continue although the dataset has changed since the run was started.
        on_step: called after every step with its number and losses.
        settings: settings of `TrainConfig` by name, such as `steps=300` or `optim={"lr": 1e-4}`; they override
            `config`. Of a section object such as `OptimConfig`, those that differ from the defaults do.

    Raises:
        UserError: no dataset, settings or data that cannot be trained on, a config that contradicts a part of your own,
            a folder that holds another run, a dataset that has changed, a loss that is not finite (with the step, the
            layer and the files of its batch), a full disk, or a loader process that died.
        Interrupted: SIGTERM or SIGINT arrived; the checkpoint of the last step is written.
    """
    if isinstance(model, Mapping | ModelConfig):
        model, settings = None, settings | {"model": model}
    given = _given(settings)
    _check(config, model)
    folders = _folders(images, labels, classes)
    if folders is not None and config is not None:
        raise UserError("give a config, or images, labels and classes: not both")
    source = config if folders is None else folders
    if resume and not isinstance(source, TrainConfig | str | Path):
        source, given = _begun(source, given)
    if source is None:
        raise UserError(
            'nothing to train on: write segvit.train(images="photos", labels="masks", classes=["sky", "road"]), or '
            'segvit.train("people.yaml")'
        )
    parts = {"model": model, "datasets": datasets, "criterion": criterion}  # those that need settings of the run
    own = [name for name, part in parts.items() if part is not None]
    resolved = _resolve(source, given, own)
    return training.train(
        resolved,
        model,
        datasets,
        criterion,
        transform=transform,
        resume=resume,
        overwrite=overwrite,
        accept_changed_data=accept_changed_data,
        on_step=on_step,
    )


def _begun(source: DataConfig | None, given: dict[str, Any]) -> tuple[DataConfig | Path | None, dict[str, Any]]:
    """Return the settings file of the run to resume, if there is one, and the settings that override it.

    Args:
        source: the dataset, perhaps in another place than when the run began. None: as then.
        given: settings by dotted name.
    """
    output = Path(expanded(given.get("output", TrainConfig().output)))
    folder = run_to_resume(output, name=None if source is None else name_of(source))
    if not (folder / RUN_CONFIG).is_file():
        return source, given
    moved = {} if source is None else {f"data.{name}": str(getattr(source, name)) for name in ("images", "labels")}
    return folder / RUN_CONFIG, {**moved, **given, "output": str(folder)}


def _resolve(source: TrainConfig | DataConfig | str | Path, given: dict[str, Any], own: list[str]) -> TrainConfig:
    """Return the settings of a run: chosen for a dataset alone, else those of the source with the given ones over it.

    Args:
        source: as `config` of `train`.
        given: settings by dotted name.
        own: names of the parts that are handed in.

    Raises:
        UserError: the source or a setting is wrong, or a part of your own comes with a dataset alone.
    """
    data = source if isinstance(source, DataConfig) else None
    if isinstance(source, str | Path):
        data = described_alone(source)
    if data is not None:
        if own:
            raise UserError(
                f"your own {' and '.join(own)} needs the settings of the run: write segvit.train(segvit.TrainConfig("
                f"data=segvit.DataConfig(...), steps=300), {own[0]}=...); to start from a saved model, "
                'init="best.safetensors"'
            )
        found = recipe(data, given)
        if first_process():
            print(found.text, flush=True)
        return found.config
    config = source if isinstance(source, TrainConfig) else load_settings(Path(expanded(str(source))), given)
    if not given:
        return config
    return parse_settings(dict(flat(config.to_dict())) | under_preset(given))


def load_settings(path: Path, given: Mapping[str, Any]) -> TrainConfig:
    """Read a file of settings. If it fine-tunes or extends a model, that model decides the network.

    A resolved config describes its whole network, so its model is not opened.

    Args:
        path: a YAML file, or the name of a shipped recipe.
        given: settings by dotted name that override the file; only `init` and `extend` are read.

    Raises:
        UserError: the file or the model cannot be read.
    """
    content, _ = read_yaml(path, TrainConfig)
    whole = content.get("model", {}).keys() >= {field.name for field in fields(ModelConfig)}
    own = content.get("init") or content.get("extend")
    name = given.get("init") or given.get("extend") or own
    if name is None or (whole and name == own):
        return TrainConfig.load(path)
    return TrainConfig.load(path, network=network_of(name))


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted name, as plain values.

    Raises:
        UserError: an unknown setting, or a section that is not a mapping.
    """
    names = [field.name for field in fields(TrainConfig)]
    rows: dict[str, Any] = {}
    for name, value in settings.items():
        section = name.partition(".")[0]
        if section not in names:
            refuse_others("segvit.train", train, {name: value}, settings=names)
        default = getattr(TrainConfig(), section)
        if is_dataclass(default) and section == name:
            if type(value) is type(default):
                value = {key: each for key, each in vars(value).items() if each != getattr(default, key)}
            if not isinstance(value, Mapping):
                raise UserError(
                    f"segvit.train: {name}={value!r}: `{name}` is a section of settings: write {_example(name, value)}"
                )
        rows |= dict(flat({name: plain(value)}))
    return rows


def _example(section: str, value: object) -> str:
    """Return what to write for a section that got a value."""
    if section == "data":
        return f"segvit.train({str(value)!r})"
    key = next(field.name for field in fields(getattr(TrainConfig(), section)))
    return f"{section}={{{key!r}: {value!r}}}"


def _check(config: object, model: object) -> None:
    """Refuse a source or a model of another type.

    Raises:
        UserError: as above.
    """
    if isinstance(config, SegViT):
        raise UserError(
            'to train further from a model, write segvit.train(images="photos", labels="masks", classes=["sky", '
            '"road"], init="best.safetensors")'
        )
    if isinstance(config, Mapping):
        raise UserError("settings in a mapping: write segvit.train(**settings), or give a YAML file")
    if isinstance(config, str | Path) and isinstance(model, str | Path) and Path(expanded(config)).is_dir():
        raise UserError(
            f'for two folders, write segvit.train(images="{config}", labels="{model}", classes=["sky", "road"])'
        )
    if isinstance(model, str | Path):
        raise UserError(f'write model={{"backbone": "{model}"}}, or init="{model}" for a model of segvit')
    if not isinstance(config, TrainConfig | DataConfig | str | Path | None):
        raise UserError(
            f"segvit.train cannot start from a {type(config).__name__}: give a YAML file, segvit.TrainConfig, or "
            'images="photos", labels="masks", classes=["sky", "road"]'
        )


def _folders(images: str | Path | None, labels: str | Path | None, classes: Sequence[str]) -> DataConfig | None:
    """Return the dataset of two folders, or None if none is given.

    Raises:
        UserError: one of the folders is missing.
    """
    if images is None and labels is None:
        if classes:
            raise UserError('classes without data: write images="photos", labels="masks" too')
        return None
    if images is None or labels is None:
        raise UserError('give both images="photos" and labels="masks"')
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    return DataConfig(images=Path(expanded(images)), labels=Path(expanded(labels)), classes=names)
