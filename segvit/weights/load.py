"""A model by what a user calls it: a file, a repository of the Hub, or a name of the zoo.

    model = segvit.load_model("best.safetensors" | "user/repo" | "user/repo@revision" | "segvit-large-ade20k")

The zoo are the seven checkpoints that the paper's authors have released. They are fetched from the Hub and converted on
first use, and kept in segvit's cache folder.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.inference.onnx_model import is_onnx, load_onnx
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.utils.files import writing
from segvit.utils.text import suggest
from segvit.weights.authors import LICENCE, RELEASED
from segvit.weights.convert import convert_checkpoint
from segvit.weights.hub import MODEL_FILE, REPOSITORY, NotOnHub, cache_folder, fetch
from segvit.weights.model_file import facts_from_header, load_strictly, network_settings, read_header, read_state

ZOO_REPOSITORY = "Akide/SegViTv1"
FILE_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".onnx", ".yaml", ".yml"}
"""A name that ends so is a file's, even where it could be a repository's."""


def load_model(name: str | Path, *, device: torch.device | str = "cpu", into: SegViT | None = None) -> SegViT:
    """Load a model, in evaluation mode.

    Args:
        name: a file that `SegViT.save` or `segvit convert` wrote; a repository of the Hugging Face Hub, `user/repo` or
            `user/repo@revision`; or a name of the zoo, such as `segvit-large-ade20k`.
        device: where to put it.
        into: model of the same parts, which is filled and returned. Needed if the parts are your own; a file holds
            their weights, not their code.

    Raises:
        UserError: none of the three; nothing to be fetched from the Hub; not a safetensors file of segvit's; a model of
            parts of its own without `into`; or tensors that are missing, unexpected or mis-shaped: all are listed.
    """
    path = find_model(name)
    header = read_header(path)
    facts = facts_from_header(header, path)
    if into is None:
        config = network_settings(header, path)
        with torch.device(device):
            model = create_model(
                config=config.without_weights(),
                num_classes=facts.num_classes,
                spec=facts.spec,
                protocol=facts.protocol,
            )
        model.config = config  # as it was trained; without_weights only kept create_model from fetching any
    else:
        model = into.to(device)
        model.spec, model.protocol, model.image_size = facts.spec, facts.protocol, facts.image_size
    load_strictly(model, read_state(path, device=device), source=str(path))
    model.extra = facts.extra
    return model.eval()


def load_network(name: str | Path, *, device: torch.device | str) -> Network:
    """Load any model: an exported one if the name ends in .onnx, else as `load_model` does.

    Raises:
        UserError: as in `load_onnx` and `load_model`.
    """
    model: Network = load_onnx(name, device=device) if is_onnx(name) else load_model(name, device=device)
    return model


def is_model_name(name: str) -> bool:
    """Whether a name is one of the zoo, or can only be a repository of the Hub."""
    return name in RELEASED or (
        REPOSITORY.fullmatch(name) is not None and Path(name).suffix not in FILE_SUFFIXES and not Path(name).exists()
    )


def find_model(name: str | Path) -> Path:
    """The file of a model; what is not here is fetched.

    Raises:
        UserError: there is no such model, or it cannot be fetched.
    """
    path, text = Path(name), Path(name).as_posix()
    if path.is_file():
        return path
    if text in RELEASED:
        return _zoo_model(text)
    if path.is_dir():
        inside = sorted(path.glob("*.safetensors"))
        hint = f"give the file, such as {inside[0]}" if inside else "give a .safetensors file written by segvit"
        raise UserError(f"no model file {path}: it is a folder; {hint}")
    if is_model_name(text):
        match = REPOSITORY.fullmatch(text)
        assert match is not None
        try:
            return fetch(match["repo"], MODEL_FILE, revision=match["revision"])
        except NotOnHub as error:
            raise UserError(
                f"no model file {path} here, and none to be had of that name: {error}.\n"
                f"Offline: fetch {MODEL_FILE} of {match['repo']} elsewhere and give the file"
            ) from error
    raise UserError(
        f"no model file {path}{suggest(text, RELEASED)}: give a .safetensors file written by segvit, a repository of "
        f"the Hugging Face Hub (user/repo), or a name of the zoo ({', '.join(RELEASED)})"
    )


def _zoo_model(name: str) -> Path:
    """The converted checkpoint of that name in the cache, made on first use.

    A checkpoint that lies in the cache folder already is taken from there: the way in without a network.

    Raises:
        UserError: it is not here and cannot be fetched; what to do by hand is told.
    """
    folder, file = cache_folder(), RELEASED[name]
    converted = folder / f"{name}.safetensors"
    if converted.is_file():
        return converted
    print(f"{name}: the weights of {file} from {ZOO_REPOSITORY}: {LICENCE}", file=sys.stderr)
    checkpoint = folder / file
    if not checkpoint.is_file():
        try:
            checkpoint = fetch(ZOO_REPOSITORY, file)
        except NotOnHub as error:
            raise UserError(
                f"{name} cannot be fetched: {error}.\n"
                f"Where there is a network, download {file} of https://huggingface.co/{ZOO_REPOSITORY} "
                f"({LICENCE}); then put it into {folder} and try again, or type\n"
                f"  segvit convert {file} {name}.safetensors\n"
                "and give that file"
            ) from error
    with writing(folder, "name another folder for the weights in SEGVIT_CACHE"):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as aside:  # others may be doing the same
            made = Path(aside) / converted.name
            convert_checkpoint(checkpoint, made, extra={"zoo": name})
            made.replace(converted)
    return converted
