"""Download from and upload to the Hugging Face Hub, and write the cards of models.

The Hub's own settings apply: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segvit.config import ModelConfig
from segvit.errors import UserError
from segvit.utils.text import REPOSITORY, counted, percent_cell
from segvit.weights.model_file import PARTS, Saved, averaged, network_settings, read_header, save_model

MODEL_FILE = "model.safetensors"
"""Name of the model in a repository."""


class NotOnHub(UserError):
    """A file that the Hub does not have, or a Hub that does not answer."""


def fetch(repo: str, file: str, *, revision: str | None = None) -> Path:
    """Return a file of a repository, from the Hub or from its cache of earlier downloads.

    Args:
        repo: `user/repo`.
        file: name of the file in the repository.
        revision: branch, tag or commit. Default: main.

    Raises:
        NotOnHub: the file cannot be fetched; the text says why.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except LocalEntryNotFoundError as error:
        reason = "no connection to it, and no earlier download"
        if not constants.HF_HUB_OFFLINE:  # the library retries six times in half a minute
            reason += " (offline, HF_HUB_OFFLINE=1 skips the wait)"
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {reason}") from error
    except GatedRepoError as error:
        reason = f"its owner must grant access: request it at {_address(repo)}, then run `hf auth login`"
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {reason}") from error
    except RepositoryNotFoundError as error:
        reason = "no such repository, or a private one; run `hf auth login` with an account that may read it"
        raise NotOnHub(f"{repo} on the Hugging Face Hub: {reason}") from error
    except RevisionNotFoundError as error:
        raise NotOnHub(f"{repo} on the Hugging Face Hub: no branch, tag or commit {revision!r}") from error
    except EntryNotFoundError as error:
        raise NotOnHub(f"{repo} on the Hugging Face Hub: it has no {file}, so it is not a model of segvit") from error
    except Exception as error:  # the Hub's library passes on what its transport raises
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {error}") from error


def push_model(model: Saved, repo: str, *, private: bool, token: str | None) -> str:
    """Write a model and its card into a repository; see `SegViT.push_to_hub`.

    Raises:
        UserError: the name is not user/repo, or the Hub cannot be reached or refuses the model.
    """
    from huggingface_hub import HfApi

    match = REPOSITORY.fullmatch(repo)
    if match is None or match["revision"]:
        raise UserError(f"{repo!r} is not a repository of the Hugging Face Hub: give `user/repo`")
    with TemporaryDirectory() as folder:
        file = Path(folder) / MODEL_FILE
        save_model(model, file)
        (file.parent / "README.md").write_text(model_card(read_header(file), repo=repo), encoding="utf-8")
        api = HfApi(token=token)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model of segvit")
        except Exception as error:  # the Hub's library passes on what its transport raises
            raise UserError(
                f"{repo}: the Hugging Face Hub refuses the model ({error}); run `hf auth login` with an account that "
                "may write there, or give a token"
            ) from error
    return _address(repo)


def _address(repo: str) -> str:
    """Return the address of a repository for a browser."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def model_card(header: Mapping[str, Any], *, repo: str) -> str:
    """Return the card of a model in Markdown, with the Hub's YAML in front.

    Args:
        header: header of the model's file, as `read_header` returns it.
        repo: `user/repo` from which the model can be loaded.
    """
    metrics = header.get("metrics")
    classes = [item["name"] for item in header["spec"]["classes"]] if header["spec"] else []
    dataset = header["spec"]["name"] if header["spec"] else None
    parts = [
        f"---\n{_front_matter(metrics, repo, dataset)}\n---",
        f"# {repo.rpartition('/')[2]}",
        _summary(header),
        _usage(repo, own_parts=header["model"] is None),
        "## Facts\n\n" + _facts(header),
        "## Scores\n\n" + (_scores(metrics) if metrics else "The model's file holds none."),
        "## Test protocol\n\n" + _table(("setting", "value"), [row for row in header["protocol"].items() if row[1]]),
        "## Classes\n\n"
        + (_classes(classes, metrics) if classes else f"{header['num_classes']}, whose names are not known."),
        "## Licence\n\n" + _licence(header),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(metrics: Mapping[str, Any] | None, repo: str, dataset: str | None) -> str:
    """Write the YAML by which the Hub finds the model and shows its score."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "image-segmentation"
    facts: dict[str, Any] = {}
    if metrics and dataset and metrics["miou"] is not None:
        result = EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=dataset,
            metric_type="mean_iou",
            metric_name="mIoU",
            metric_value=round(100 * metrics["miou"], 2),
        )
        facts = {"model_name": repo.rpartition("/")[2], "eval_results": [result]}
    tags = ["semantic-segmentation", "segvit", "vision-transformer"]
    return ModelCardData(library_name="segvit", pipeline_tag=task, tags=tags, **facts).to_yaml()


def _summary(header: Mapping[str, Any]) -> str:
    model, spec = header["model"], header["spec"]
    if model is None:
        network = "SegViT with custom parts: " + ", ".join(f"{key} `{kind}`" for key, kind in header[PARTS].items())
    else:
        network = f"SegViT, structure `{_network(header).outline}`, on `{model['backbone']}`"
    classes = f"{counted(header['num_classes'], 'class')}{' of ' + spec['name'] if spec else ''}"
    return f"Semantic segmentation with a plain Vision Transformer: {network}, {classes}."


def _network(header: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of the network in a header that has them."""
    return network_settings(header, "the model")


def _usage(repo: str, *, own_parts: bool) -> str:
    if own_parts:
        return (
            "## Use\n\nThe file holds the weights of custom parts, not their code. Create the parts as in training:\n\n"
            "```python\n"
            "import segvit\n\n"
            "model = segvit.SegViT(backbone, head, ...)\n"
            f'segvit.load_model("{repo}", into=model)\n'
            "```"
        )
    return (
        "## Use\n\n"
        "```python\n"
        "import segvit\n\n"
        f'model = segvit.load_model("{repo}")\n'
        'result = segvit.predict(model, "photo.jpg")\n'
        'result.overlay().save("seen.png")\n'
        "```\n\n"
        "```\n"
        f"segvit predict {repo} photo.jpg --output seen\n"
        "```"
    )


def _facts(header: Mapping[str, Any]) -> str:
    """Return a table of the network and its origin."""
    model = header["model"] or {**header[PARTS], "image_size": header["image_size"]}
    rows = [
        ("backbone", model["backbone"]),
        ("structure", _network(header).outline if header["model"] else None),
        ("training crop", f"{model['image_size']} px"),
        ("started from", header.get("starts_from")),
        ("converted from", header.get("converted_from")),
        ("training steps", header.get("step")),
        ("weights", averaged(header)),
        ("written by", f"segvit {header['version']}"),
    ]
    return _table(("", ""), [(key, value) for key, value in rows if value is not None])


def _scores(metrics: Mapping[str, Any]) -> str:
    """Return a table of the means over the validation images."""
    rows = [
        ("mIoU", metrics["miou"]),
        ("mean accuracy", metrics["mean_accuracy"]),
        ("mean Dice", metrics["mean_dice"]),
        ("mean boundary IoU", metrics["mean_boundary_iou"]),
        ("accuracy of all pixels", metrics["overall_accuracy"]),
    ]
    table = _table(
        (f"on {counted(metrics['images'], 'validation image')}", "%"),
        [(key, percent_cell(value, missing="-")) for key, value in rows],
    )
    protocol = ", ".join(f"{key} {value}" for key, value in metrics["protocol"].items() if value)
    return f"{table}\n\nTested with {protocol}; one confusion matrix over the set, ignored pixels excluded."


def _classes(classes: Sequence[str], metrics: Mapping[str, Any] | None) -> str:
    """Return a table of the classes by index, with their scores if there are any."""
    if metrics is None:
        return _table(("index", "class"), list(enumerate(classes)))
    columns = (metrics["iou"], metrics["accuracy"], metrics["dice"], metrics["boundary_iou"])
    rows = [
        (index, name, *map(percent_cell, scores))
        for index, (name, scores) in enumerate(zip(classes, zip(*columns, strict=True), strict=True))
    ]
    return _table(("index", "class", "IoU %", "accuracy %", "Dice %", "boundary IoU %"), rows)


def _licence(header: Mapping[str, Any]) -> str:
    """State the licence of the weights that training started from, if it is known."""
    licence = header.get("licence")
    if licence is None:
        return "The model's file does not state it."
    if header.get("starts_from") is None:
        return f"Licence of these weights: {licence}."
    return f"Training started from {header['starts_from']}, whose licence is {licence}."


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
