"""Models in safetensors files: weights, and a header with the config, class names, palette and test protocol.

    model.save("model.safetensors")
    model = segvit.load_model("model.safetensors")

Nothing is unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from segvit.config import EvalConfig, ModelConfig
from segvit.config_files import with_older_defaults, without_folders
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.utils.files import cannot_write, whole_file
from segvit.weights.file_kind import PICKLE, ZIP, first_bytes, no_weights
from segvit.weights.names import is_exported

T = TypeVar("T", ModelConfig, EvalConfig)

HEADER_KEY = "segvit"
"""Key of our JSON in the file's header."""
FORMAT = {"format": "pt"}
"""Part of the metadata by which loaders of the Hub recognise tensors of PyTorch. Older files of ours lack it."""
REQUIRED = {"model", "num_classes", "protocol", "spec"}
"""Keys of that JSON which `load_model` needs."""
PARTS = "parts"
"""Key of the class names of parts of your own, by attribute. The key "model" is null then."""
KEYS = REQUIRED | {"version", PARTS, "image_size"}
"""Keys that `save_model` writes; all others are `SegViT.extra`."""


class Saved(Protocol):
    """A model that can be written: a SegViT."""

    config: ModelConfig | None
    num_classes: int
    image_size: int
    spec: DatasetSpec | None
    protocol: EvalConfig
    extra: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        """Return every tensor by name."""

    @property
    def parts(self) -> Mapping[str, str]:
        """Class names of backbone, up-sampling and head, by attribute."""


def save_model(model: Saved, path: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model to one file, whole or not at all.

    Args:
        model: model to write.
        path: path of the file; its folder is created if missing.
        extra: plain values for the header, such as the metrics and the config of the run, over `model.extra`.

    Raises:
        UserError: the file cannot be written, or `extra` holds a value that is not plain, or a key of the file.
    """
    path = Path(path)
    header = header_text(model, extra or {})
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.touch()
            mode = aside.stat().st_mode
            save_file(state, aside, metadata={HEADER_KEY: header, **FORMAT})
            _sort_metadata(aside)
            aside.chmod(mode)  # safetensors creates files that only their owner may read
    except (OSError, SafetensorError) as error:  # the latter for a full disk or a read-only folder
        raise cannot_write(path, error, "give another file") from error


def _sort_metadata(file: Path) -> None:
    """Sort the metadata of a safetensors file in place, because the library writes it in any order.

    The file begins with the length of its JSON, 8 bytes with the lowest first. Another order has the same length.
    """
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        content = json.loads(opened.read(length))
        content["__metadata__"] = dict(sorted(content["__metadata__"].items()))
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length
        opened.seek(8)
        opened.write(text.ljust(length))


def header_text(model: Saved, extra: Mapping[str, Any]) -> str:
    """Return the header of a model, for any kind of file, as JSON.

    Raises:
        UserError: a value in `extra` or `model.extra` is not plain, or its key is one of the file.
    """
    more = {**model.extra, **extra}
    if own := KEYS & more.keys():
        raise UserError(f"extra: {', '.join(sorted(own))} is a key of the file itself; choose another name")
    header: dict[str, Any] = {
        "version": version("segvit"),
        "model": None if model.config is None else without_folders(asdict(model.config)),
        "num_classes": model.num_classes,
        "protocol": asdict(model.protocol),
        "spec": _public_spec(model.spec) if model.spec else None,
    }
    if model.config is None:
        header[PARTS] = dict(model.parts)
        header["image_size"] = model.image_size
    return json.dumps(header | more, default=_path_text)


def _public_spec(spec: DatasetSpec) -> dict[str, Any]:
    """Return the plain form of a spec without the folders of the user's data. Names are unchanged."""
    content = spec.to_dict()
    return {key: value if key in ("name", "classes") else without_folders(value) for key, value in content.items()}


def _path_text(value: Any) -> str:
    """Return a path as text. It is the only plain value that JSON does not know."""
    if isinstance(value, Path):
        return str(value)
    raise UserError(
        f"extra: a {type(value).__name__} is not a plain value; give numbers, strings, lists and dicts of them "
        "(.tolist() of an array or a tensor)"
    )


def averaged(header: Mapping[str, Any]) -> str | None:
    """Describe averaged weights, from a file's header or a model's `extra`. None: they are those of one step."""
    if header.get("weights") != "ema":
        return None
    return f"the average over the run (EMA, decay {header['ema_decay']:g}) at step {header['step']}"


def read_header(path: str | Path) -> dict[str, Any]:
    """Read the header of a model's file.

    Raises:
        UserError: there is no such file, or it is not a safetensors file written by segvit.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no model file {path}: give a .safetensors file written by segvit")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: {no_weights(path) or _no_safetensors(path, error)}") from error
    return parse_header(metadata, f"{path}: a safetensors file")


def _no_safetensors(path: Path, error: Exception) -> str:
    """Explain what a file is that the safetensors library cannot read, and what to do."""
    if is_exported(path):
        return (
            "an exported model, which only segvit predict and segvit evaluate accept; give the .safetensors file that "
            "it was exported from"
        )
    if path.suffix.lower() == ".bin" and (graph := path.with_suffix(".xml")).is_file():
        return f"the weights of an exported model; give its other file, {graph}, to segvit predict or segvit evaluate"
    if first_bytes(path).startswith((ZIP, PICKLE)):
        return (
            "a file of torch.save, not of safetensors; to convert a checkpoint of a run or of the paper's authors, run "
            f"`segvit convert {path} {path.stem}-converted.safetensors`"
        )
    return f"not a complete safetensors file ({error}); was the download cut short, or is it another format?"


def parse_header(metadata: Mapping[str, str], source: str) -> dict[str, Any]:
    """Return the values of `header_text` from the metadata of a file.

    Raises:
        UserError: they are missing. The text begins with `source`, the file and its kind.
    """
    try:
        header: dict[str, Any] = json.loads(metadata.get(HEADER_KEY, "null"))
    except ValueError:
        header = {}
    if not isinstance(header, dict) or REQUIRED - header.keys():
        raise UserError(f"{source}, but not written by segvit (no {HEADER_KEY!r} in its header)")
    return header


def read_state(path: str | Path, *, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return every tensor of a file, by name."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def load_strictly(model: torch.nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy `state` into `model` if every tensor is there and fits.

    Raises:
        UserError: a tensor is missing, unexpected or mis-shaped; all are listed, and the model is unchanged.
    """
    own = model.state_dict()
    rows = [f"  missing     {name} {tuple(own[name].shape)}" for name in own if name not in state]
    rows += [f"  unexpected  {name} {tuple(state[name].shape)}" for name in state if name not in own]
    rows += [
        f"  mis-shaped  {name}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    if rows:
        raise UserError(f"{source}: the weights do not fit the model:\n" + "\n".join(rows))
    model.load_state_dict(state)


def network_settings(header: Mapping[str, Any], source: str | Path) -> ModelConfig:
    """Return the settings of the network in a header.

    Raises:
        UserError: the parts of the model are not `create_model`'s, or this version does not know a setting.
    """
    if header["model"] is None:
        parts = ", ".join(f"{name} {kind}" for name, kind in header[PARTS].items())
        raise UserError(
            f"{source}: this model has custom parts ({parts}), and the file holds only their weights. Create it in "
            f'Python as before, then run `segvit.load_model("{source}", into=model)`'
        )
    return settings_from_header(ModelConfig, header["model"], source)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Content of a header: everything about a model but its weights. Exported models have it too."""

    config: ModelConfig | None
    """Settings of the network, or None if its parts are your own."""
    parts: dict[str, str]
    """Class names of the parts by attribute, if they are your own."""
    num_classes: int
    image_size: int
    """Side of the training crop in pixels."""
    spec: DatasetSpec | None
    protocol: EvalConfig
    extra: dict[str, Any]
    """Keys of the header that are not the file's own."""


def facts_from_header(header: Mapping[str, Any], source: str | Path) -> ModelFacts:
    """Return the content of a header as settings.

    Raises:
        UserError: this version does not know a setting.
    """
    config = None if header["model"] is None else settings_from_header(ModelConfig, header["model"], source)
    return ModelFacts(
        config=config,
        parts=header.get(PARTS, {}),
        num_classes=header["num_classes"],
        image_size=header["image_size"] if config is None else config.image_size,
        spec=DatasetSpec.from_dict(header["spec"], source=str(source)) if header["spec"] else None,
        protocol=settings_from_header(EvalConfig, header["protocol"], source),
        extra={key: value for key, value in header.items() if key not in KEYS},
    )


def settings_from_header(kind: type[T], values: Mapping[str, Any], path: str | Path) -> T:
    """Return a config dataclass from the header's plain values.

    Raises:
        UserError: this version does not know a setting.
    """
    unknown = set(values) - {field.name for field in fields(kind)}
    if unknown:
        raise UserError(f"{path}: written by a newer segvit (unknown settings {sorted(unknown)}); upgrade segvit")
    if kind is ModelConfig:
        values = with_older_defaults(values)
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return kind(**plain)
