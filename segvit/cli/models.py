"""The verbs that carry a model from elsewhere or to elsewhere: `segvit convert`, `segvit push`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Rgb = Annotated[tuple[float, float, float] | None, Parameter(negative=())]


def convert(
    checkpoint: Path,
    output: Path,
    *,
    num_heads: int | None = None,
    head_num_heads: int | None = None,
    taps: Annotated[tuple[int, ...] | None, Parameter(negative=())] = None,
    shrink_at: int | None = None,
    mean: Rgb = None,
    std: Rgb = None,
) -> None:
    """Turn a checkpoint of the paper's authors into a model file; its sizes and classes are read from the tensors.

    Parameters
    ----------
    checkpoint
        A .pth file. Nothing in it is executed.
    output
        The .safetensors file to write; an old one is replaced.
    num_heads
        Attention heads of a backbone block. Default: width / 64.
    head_num_heads
        Attention heads of a head layer. Default: head width / 32.
    taps
        Blocks (from 0) that the head reads, shallow first. Default: the paper's for the depth.
    shrink_at
        Block (from 0) that shrinks the tokens. Default: the paper's for the depth.
    mean
        Mean of R, G, B on the 0..1 scale. Default: ImageNet's, 0.5 for width 1024.
    std
        Deviation of R, G, B on the 0..1 scale. Default: ImageNet's, 0.5 for width 1024.
    """
    from segvit.weights.convert import convert_checkpoint

    model = convert_checkpoint(
        checkpoint,
        output,
        num_heads=num_heads,
        head_num_heads=head_num_heads,
        taps=taps,
        shrink_at=shrink_at,
        mean=mean,
        std=std,
    )
    config, backbone = model.config, model.backbone
    assert config is not None
    classes = f"{model.num_classes} classes{f' of {model.spec.name}' if model.spec else ', their names not known'}"
    print(f"{config.structure}, {len(backbone.blocks)} blocks of width {backbone.embed_dim}, {classes}")
    heads = f"{config.num_heads} heads, {config.head_num_heads} in the head"
    print(f"crop {config.image_size} px, taps {config.taps}, {heads}")
    print(f"mean {config.mean}, std {config.std}")
    if "licence" in model.extra:
        print(f"licence {model.extra['licence']}")
    print(f"model {output}")


def push(model: Path, repo: str, *, private: bool = False) -> None:
    """Put a model into a repository of the Hugging Face Hub, with a card; log in first with `hf auth login`.

    Parameters
    ----------
    model
        A model file, a repository of the Hub, or a name of the zoo.
    repo
        Where to: user/repo; made where missing.
    private
        A repository that is made is for its owner only.
    """
    from segvit.weights.load import load_model

    print(load_model(model).push_to_hub(repo, private=private))
