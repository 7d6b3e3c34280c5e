"""Write the card of a model: the README.md of its repository on the Hugging Face Hub.

    text = model_card(read_header("best.safetensors"), repo="user/repo")

All text in it comes from the model's file, so it is escaped: a class may have any name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from segvit.config import ModelConfig
from segvit.utils.text import by_group, counted, listed, markdown_text, percent_cell
from segvit.weights.model_file import PARTS, averaged, network_settings

PERMISSIVE = {"apache-2.0", "bsd-3-clause", "cc-by-4.0", "mit"}
"""Licences among timm's that allow any use. The Hub knows them by these names."""
HUB_LICENCES = PERMISSIVE | {"apple-amlr", "apple-ascl", "cc-by-nc-4.0", "gemma", "unknown"}
"""Licences among timm's that the Hub knows by these names. It calls any other one `other`, with its name beside it."""


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
        f"---\n{_front_matter(header, repo, dataset)}\n---",
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


def _front_matter(header: Mapping[str, Any], repo: str, dataset: str | None) -> str:
    """Write the YAML by which the Hub finds the model, its score, its licence and the model that it started from."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "image-segmentation"
    metrics = header.get("metrics")
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
    facts |= _hub_licence(header)
    tags = ["semantic-segmentation", "segvit", "vision-transformer"]
    return ModelCardData(library_name="segvit", pipeline_tag=task, tags=tags, **facts).to_yaml()


def _hub_licence(header: Mapping[str, Any]) -> dict[str, str]:
    """Return the Hub's keys for origin and licence.

    If the weights came from a user's file, their origin is not proven. Then only a licence that restricts use is
    published, because a permissive one would be a promise.
    """
    origin, licence = header.get("base_model"), header.get("licence")
    facts = {} if origin is None else {"base_model": origin}
    if licence is None or (origin is None and licence in PERMISSIVE):
        return facts
    if licence in HUB_LICENCES:
        return facts | {"license": licence}
    return facts | {"license": "other", "license_name": licence}


def _summary(header: Mapping[str, Any]) -> str:
    model, spec = header["model"], header["spec"]
    if model is None:
        network = "SegViT with custom parts: " + ", ".join(f"{key} `{kind}`" for key, kind in header[PARTS].items())
    else:
        network = f"SegViT, structure `{_network(header).outline}`, on `{model['backbone']}`"
    classes = f"{counted(header['num_classes'], 'class')}{' of ' + markdown_text(spec['name']) if spec else ''}"
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
        ("groups of classes", _groups(header)),
        ("training crop", f"{model['image_size']} px"),
        ("started from", header.get("starts_from")),
        ("converted from", header.get("converted_from")),
        ("training steps", header.get("step")),
        ("weights", averaged(header)),
        ("written by", f"segvit {header['version']}"),
    ]
    return _table(("", ""), [(key, value) for key, value in rows if value is not None])


def _groups(header: Mapping[str, Any]) -> str | None:
    """Describe the groups of a model to which classes were added."""
    added = _network(header).added_classes if header["model"] else ()
    if not added or not header["spec"]:
        return None
    return listed(by_group([item["name"] for item in header["spec"]["classes"]], added))


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
        return f"Licence of these weights: {markdown_text(licence)}."
    start, licence = markdown_text(header["starts_from"]), markdown_text(licence)
    if header.get("base_model") is None:
        return (
            f"Training started from {start}. By that name the licence is {licence}; segvit does not check where a file "
            "comes from."
        )
    return f"Training started from {start}, whose licence is {licence}."


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table. Any text fits into its cells."""
    lines = [headings, ["---"] * len(headings), *(map(markdown_text, row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
