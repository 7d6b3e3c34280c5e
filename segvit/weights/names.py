"""Names of models: a file, a repository of the Hub, or a name of the zoo. Nothing here needs torch.

check_model_name("best.safetensors")        # a UserError if there is no such file
"""

from pathlib import Path

from segvit.config import ModelConfig
from segvit.errors import UserError
from segvit.utils.text import REPOSITORY, suggest
from segvit.weights.file_kind import no_weights

RELEASED = {
    "segvit-base-ade20k": "ade_51.3.pth",
    "segvit-large-ade20k": "ade_54.6.pth",
    "segvit-large-shrunk-ade20k": "ade_shrunk_53.9.pth",
    "segvit-large-coco-stuff-10k": "COCOstuff_49.9.pth",
    "segvit-large-shrunk-coco-stuff-10k": "COCOstuff10k_shrunk_49.1.pth",
    "segvit-large-pascal-context-59": "PC59cls_64.1.pth",
    "segvit-large-shrunk-pascal-context-59": "PC59cls_62.3.pth",
}
"""Files that the authors have released, by our names. The number is the mIoU that they report (single scale)."""
LICENCE = "academic use only, by the licence of the paper's authors"
"""Licence of these files."""
EXPORTED = (".onnx", ".xml")
"""Endings of exported models that segvit runs (segvit/inference/runtimes.py)."""
MODELS = (".safetensors", *EXPORTED)
"""Endings of all models that segvit runs."""
FILE_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".yaml", ".yml", *EXPORTED}
"""Suffixes of files: a name that ends in one of them is never a repository."""


def is_model_name(name: str) -> bool:
    """True if the name is one of the zoo, or can only be a repository of the Hub."""
    if name in RELEASED:
        return True
    is_file = Path(name).suffix.lower() in FILE_SUFFIXES or Path(name).exists()
    return REPOSITORY.fullmatch(name) is not None and not is_file


def is_exported(name: str | Path) -> bool:
    """True if the name is that of an exported model."""
    return Path(name).suffix.lower() in EXPORTED


def check_weights_file(config: ModelConfig) -> None:
    """Refuse a network whose pretrained weights are in a file that does not exist.

    Raises:
        UserError: there is no such file.
    """
    file = config.pretrained_file
    if file is not None and not file.is_file():
        raise UserError(f"model.pretrained_file: no file {file}; give timm's weights as .safetensors or .pth")


def check_model_name(name: str | Path) -> None:
    """Refuse a name that cannot be a model, without loading or downloading anything.

    Raises:
        UserError: the name is neither a file nor a name of the zoo, nor can it be a repository; or it is a file that is
            empty or a web page.
    """
    path, text = Path(name), Path(name).as_posix()
    if path.is_file():
        if reason := no_weights(path):
            raise UserError(f"{path}: {reason}")
        return
    if text in RELEASED:
        return
    if path.is_dir():
        inside = sorted(path.glob("*.safetensors"))
        hint = f"give the file, such as {inside[0]}" if inside else "give a .safetensors file written by segvit"
        raise UserError(f"no model file {path}: it is a folder; {hint}")
    if is_exported(path):
        raise UserError(f"no model file {path}: give an {path.suffix.lower()} file written by `segvit export`")
    if not is_model_name(text):
        raise UserError(
            f"no model file {path}{suggest(text, RELEASED)}: give a .safetensors file written by segvit, a repository "
            f"of the Hugging Face Hub (user/repo), or a name of the zoo ({', '.join(RELEASED)})"
        )
