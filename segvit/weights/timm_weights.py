"""timm's pretrained weights, from the Hugging Face Hub or a file, and the licence of each."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from torch import Tensor

from segvit.errors import UserError
from segvit.weights.file_kind import no_weights

HUB_FILE = "model.safetensors"
"""Name of the weights in a repository of timm, unless timm's config gives another."""
RANDOM = "random weights"
"""Start of a network without trained weights, for a log."""


def pretrained_vit(
    name: str,
    *,
    image_size: tuple[int, int],
    patch_size: int | None = None,
    file: Path | None = None,
    bands: int | None = None,
) -> Any:
    """Return timm's model of that name with its weights. timm resizes positions and patch embedding as they need it.

    Families differ: bicubic with antialias, bilinear without (FlexiViT), or cut from a larger grid (RADIO). For other
    bands than red, green, blue, timm adapts the patch embedding. One band gets the sum of the three filters. N bands
    repeat the three filters in turn, multiplied by 3 / N.

    Args:
        name: of the model, with the tag of its weights.
        image_size: size (H, W) in pixels of the images that the positions are resized to.
        patch_size: side of a patch in pixels. None: the model's own.
        file: file of the weights. None: they are fetched from the Hub.
        bands: number of bands of the images. None: red, green, blue.

    Raises:
        UserError: the weights cannot be fetched, or the file's are not of that model.
    """
    shape: dict[str, Any] = {"img_size": image_size} | ({} if patch_size is None else {"patch_size": patch_size})
    shape |= {} if bands is None else {"in_chans": bands}
    if file is not None:
        return _from_file(name, file, shape)
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **shape)
    except Exception as error:  # timm and the Hub raise many kinds: network, cache, missing weights
        raise UserError(f"no pretrained weights for {name!r}: {error}\n{_where(name)}") from error


def weights_settings(name: str) -> Any:
    """Return timm's settings of the weights of that name, which may have none; None if timm has no such model."""
    return timm.get_pretrained_cfg(name.removeprefix("hf_hub:timm/"))


def is_cached(name: str) -> bool:
    """Return True if timm's weights of that name are in the cache of the Hub, so that no network is needed."""
    settings = weights_settings(name)
    if settings is None or not settings.hf_hub_id:
        return False
    return isinstance(try_to_load_from_cache(settings.hf_hub_id, settings.hf_hub_filename or HUB_FILE), str)


def _where(name: str) -> str:
    """Explain which file to fetch, and where to put it; or that timm has no weights."""
    settings = weights_settings(name)
    if settings is not None and settings.url and not settings.hf_hub_id:
        return (
            f"They are at {settings.url}. If you are offline, download that file elsewhere and pass it with "
            "--model.pretrained-file FILE; --model.no-pretrained starts from random ones"
        )
    if settings is None or not settings.hf_hub_id:
        tags = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*"))
        return f"timm has none; its tags with weights: {tags or 'none'}; --model.no-pretrained starts from random ones"
    repository, file = settings.hf_hub_id, settings.hf_hub_filename or HUB_FILE
    return (
        f"They are the file {file} of the Hugging Face Hub's repository {repository}. If you are offline, download it "
        f"elsewhere:\n  hf download {repository} {file}\n"
        f"and pass it with --model.pretrained-file FILE (or copy the whole folder "
        f"models--{repository.replace('/', '--')} into {HF_HUB_CACHE}). --model.no-pretrained starts from random ones"
    )


def _from_file(name: str, file: Path, shape: Mapping[str, Any]) -> Any:
    """Return timm's model of that name, for images and patches of a shape, with the weights in a file, all of them.

    Raises:
        UserError: no such file, not weights, or not those of this model.
    """
    state = _read_weights(Path(file))
    settings = weights_settings(name)
    assert settings is not None
    heads = (settings.classifier,) if isinstance(settings.classifier, str) else settings.classifier or ()
    state = {key: value for key, value in state.items() if key.rpartition(".")[0] not in heads}
    overlay = {"state_dict": state, "classifier": None}  # without a classifier's name timm loads strictly
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **shape)
    except Exception as error:  # timm's filters raise many kinds for tensors that they do not expect
        near = _where(name).splitlines()[0] if settings.hf_hub_id else ""
        raise UserError(f"{file}: not the weights of {name!r}: {reason(error)}\n{near}".rstrip()) from error


def _read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors in a file by name; nothing in it is executed."""
    if not file.is_file():
        raise UserError(f"model.pretrained_file: no file {file}; give timm's weights as .safetensors or .pth")
    try:
        state: dict[str, Tensor] = timm.models.load_state_dict(str(file), weights_only=True)
        found = bool(state) and all(isinstance(value, Tensor) for value in state.values())
    except Exception as error:  # safetensors, zipfile and pickle raise their own kinds
        if known := no_weights(file):
            raise UserError(f"model.pretrained_file: {file}: {known}") from error
        told = reason(error)
        if "weights_only" in told:  # torch and timm advise to run the file's code
            told = "it holds objects whose code would have to run"
        raise UserError(
            f"model.pretrained_file: {file} is neither safetensors nor a torch file of plain tensors, or is incomplete "
            f"({told}); take the file {HUB_FILE} of the weights' repository"
        ) from error
    if not found:
        raise UserError(f"model.pretrained_file: {file} holds no weights by name")
    if "backbone.patch_embed.proj.weight" in state:
        raise UserError(f"model.pretrained_file: {file} is a model of segvit; start from it with --init {file}")
    return state


def reason(error: Exception) -> str:
    """Return the first lines of an error, or the source of an assertion that failed without a message."""
    lines = str(error).strip().splitlines()
    if lines:
        return "\n".join(lines[:8])
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"timm stops at `{frame.line}` ({Path(frame.filename).name})"


def licence_of(weights: Mapping[str, Any]) -> str:
    """Return the licence in timm's `pretrained_cfg` of the weights, or `unknown`."""
    return weights.get("license") or "unknown"


def origin_of(weights: Mapping[str, Any], *, file: Path | None) -> dict[str, str]:
    """Return what a model's file says about the weights that a network starts from.

    Args:
        weights: timm's `pretrained_cfg` of the backbone.
        file: file that they were read from. It may hold anything, so no repository is named then.
    """
    origin = {"starts_from": starts_from(weights, file=file), "licence": licence_of(weights)}
    repository = weights.get("hf_hub_id")
    return origin | ({"base_model": repository} if repository and file is None else {})


def starts_from(weights: Mapping[str, Any], *, file: Path | None = None) -> str:
    """Name the weights that a network starts from, for a log and a model's file, which may be published.

    Args:
        weights: timm's `pretrained_cfg` of the backbone.
        file: file that they were read from.
    """
    name = ".".join(part for part in (weights["architecture"], weights.get("tag")) if part)
    given = "" if file is None else f"{Path(file).name}, given as "
    return f"{given}timm {name} (licence {licence_of(weights)})"
