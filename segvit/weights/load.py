"""Load a model by name: a file, a repository of the Hub, or a name of the zoo.

    model = segvit.load_model("best.safetensors" | "user/repo" | "user/repo@revision" | "segvit-large-ade20k")

The zoo is the seven checkpoints that the paper's authors have released. On first use, they are downloaded from the Hub,
converted, and kept in segvit's cache folder.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.inference.runtimes import load_exported
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.utils.files import cache_folder, expanded, writing
from segvit.utils.text import REPOSITORY
from segvit.weights.convert import convert_checkpoint
from segvit.weights.hub import MODEL_FILE, NotOnHub, fetch
from segvit.weights.model_file import facts_from_header, load_strictly, network_settings, read_header, read_state
from segvit.weights.names import LICENCE, RELEASED, check_model_name, is_exported

ZOO_REPOSITORY = "Akide/SegViTv1"


def load_model(name: str | Path, *, device: torch.device | str = "cpu", into: SegViT | None = None) -> SegViT:
    """Load a model, in evaluation mode.

    Examples:
        >>> import segvit
        >>> model = segvit.load_model("best.safetensors")
        >>> model.classes
        ('background', 'person')

    Args:
        name: a file that `SegViT.save` or `segvit convert` wrote; a repository of the Hugging Face Hub, `user/repo` or
            `user/repo@revision`; or a name of the zoo, such as `segvit-large-ade20k`.
        device: device of the model.
        into: model of the same parts, which is filled and returned. Needed if the parts are your own; a file holds
            their weights, not their code.

    Raises:
        UserError: the name is none of the three; the Hub cannot be reached or has no such model; the file is not a
            safetensors file of segvit; the parts are your own and `into` is missing; or tensors are missing,
            unexpected or mis-shaped (all are listed).
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
    """Load any model: an exported one by the ending of its name, else as `load_model` does.

    Raises:
        UserError: as in `ExportedModel` and `load_model`.
    """
    model: Network = load_exported(name, device=device) if is_exported(name) else load_model(name, device=device)
    return model


def find_model(name: str | Path) -> Path:
    """Return the file of a model, downloaded if it is not on this computer.

    Raises:
        UserError: there is no such model, or it cannot be downloaded.
    """
    try:
        path, text = Path(expanded(name)), Path(name).as_posix()
    except TypeError:
        raise UserError(
            f"a model is loaded by name, not from a {type(name).__name__}: give a file such as "
            '"runs/photos/best.safetensors", or "user/repo"'
        ) from None
    check_model_name(path)
    if path.is_file():
        return path
    if text in RELEASED:
        return _zoo_model(text)
    match = REPOSITORY.fullmatch(text)
    assert match is not None
    try:
        return fetch(match["repo"], MODEL_FILE, revision=match["revision"])
    except NotOnHub as error:
        raise UserError(
            f"no model file {path}, and no such model can be downloaded: {error}.\n"
            f"Offline: download {MODEL_FILE} of {match['repo']} on another computer and give the file"
        ) from error


def _zoo_model(name: str) -> Path:
    """Return the converted checkpoint of that name in the cache, converting it on first use.

    If the authors' checkpoint is already in the cache folder, nothing is downloaded, so it also works offline.

    Raises:
        UserError: the checkpoint cannot be downloaded; the error gives the manual steps.
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
                f"{name} cannot be downloaded: {error}.\n"
                f"On a computer with a network, download {file} from https://huggingface.co/{ZOO_REPOSITORY} "
                f"({LICENCE}). Then put it into {folder} and try again, or run\n"
                f"  segvit convert {file} {name}.safetensors\n"
                "and give that file"
            ) from error
    with writing(folder, "set SEGVIT_CACHE to another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as aside:  # other processes may convert the same file
            made = Path(aside) / converted.name
            convert_checkpoint(checkpoint, made, extra={"zoo": name})
            made.replace(converted)
    return converted
