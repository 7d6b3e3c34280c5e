"""The card of a model (README.md of its repository on the Hub), written from the header of its file alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from segvit.weights.model_file import averaged


def model_card(header: Mapping[str, Any], *, repo: str) -> str:
    """Markdown with the Hub's YAML in front.

    Args:
        header: of the model's file, as `read_header` gives it.
        repo: `user/repo`, under which the model can be loaded.
    """
    metrics = header.get("metrics")
    classes = [item["name"] for item in header["spec"]["classes"]] if header["spec"] else []
    dataset = header["spec"]["name"] if header["spec"] else None
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(metrics, repo, dataset), sort_keys=False)}---",
        f"# {repo.rpartition('/')[2]}",
        _summary(header),
        _usage(repo),
        "## Facts\n\n" + _facts(header),
        "## Scores\n\n" + (_scores(metrics) if metrics else "None are kept in the model's file."),
        "## Test protocol\n\n" + _table(("setting", "value"), [row for row in header["protocol"].items() if row[1]]),
        "## Classes\n\n"
        + (_classes(classes, metrics) if classes else f"{header['num_classes']}, whose names are not known."),
        "## Licence\n\n" + _licence(header),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(metrics: Mapping[str, Any] | None, repo: str, dataset: str | None) -> dict[str, Any]:
    """What the Hub finds the model by."""
    front: dict[str, Any] = {
        "library_name": "segvit",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "segvit", "vision-transformer"],
    }
    if metrics and dataset:
        score = {"type": "mean_iou", "name": "mIoU", "value": round(100 * metrics["miou"], 2)}
        result = {
            "task": {"type": "image-segmentation"},
            "dataset": {"name": dataset, "type": dataset},
            "metrics": [score],
        }
        front["model-index"] = [{"name": repo.rpartition("/")[2], "results": [result]}]
    return front


def _summary(header: Mapping[str, Any]) -> str:
    model, spec = header["model"], header["spec"]
    return (
        f"Semantic segmentation with a plain Vision Transformer: SegViT, structure `{model['structure']}`, on "
        f"`{model['backbone']}`, {header['num_classes']} classes{' of ' + spec['name'] if spec else ''}."
    )


def _usage(repo: str) -> str:
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
    """Network and origin."""
    model = header["model"]
    rows = [
        ("backbone", model["backbone"]),
        ("structure", model["structure"]),
        ("training crop", f"{model['image_size']} px"),
        ("started from", header.get("starts_from")),
        ("converted from", header.get("converted_from")),
        ("training steps", header.get("step")),
        ("weights", averaged(header)),
        ("written by", f"segvit {header['version']}"),
    ]
    return _table(("", ""), [(key, value) for key, value in rows if value is not None])


def _scores(metrics: Mapping[str, Any]) -> str:
    """Means over the validation images."""
    rows = [
        ("mIoU", metrics["miou"]),
        ("mean accuracy", metrics["mean_accuracy"]),
        ("mean Dice", metrics["mean_dice"]),
        ("mean boundary IoU", metrics["mean_boundary_iou"]),
        ("accuracy of all pixels", metrics["overall_accuracy"]),
    ]
    table = _table((f"on {metrics['images']} validation images", "%"), [(key, _percent(value)) for key, value in rows])
    protocol = ", ".join(f"{key} {value}" for key, value in metrics["protocol"].items() if value)
    return f"{table}\n\nTested with {protocol}; one confusion matrix over the set, ignored pixels left out."


def _classes(classes: Sequence[str], metrics: Mapping[str, Any] | None) -> str:
    """Every class by its index, with its scores where there are any."""
    if metrics is None:
        return _table(("index", "class"), list(enumerate(classes)))
    columns = (metrics["iou"], metrics["accuracy"], metrics["dice"], metrics["boundary_iou"])
    rows = [
        (index, name, *map(_percent, scores))
        for index, (name, scores) in enumerate(zip(classes, zip(*columns, strict=True), strict=True))
    ]
    return _table(("index", "class", "IoU %", "accuracy %", "Dice %", "boundary IoU %"), rows)


def _licence(header: Mapping[str, Any]) -> str:
    """That of the weights which the model began as, where it is known."""
    licence = header.get("licence")
    if licence is None:
        return "Not said in the model's file."
    if header.get("starts_from") is None:
        return f"Of these weights: {licence}."
    return f"The model began as {header['starts_from']}, whose licence is {licence}."


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"
