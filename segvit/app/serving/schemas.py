"""JSON Schemas of what the API takes and returns, by name: the components of its OpenAPI description."""

from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """Return a reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(text: str, optional: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """Return the schema of an object; all properties that are not optional are required."""
    return {
        "type": "object",
        "description": text,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def _of(kind: str | list[str], text: str, **more: Any) -> Schema:
    """Return the schema of a plain value."""
    return {"type": kind, "description": text, **more}


def _list(items: Schema, text: str, **more: Any) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, "description": text, **more}


COUNT: Schema = {"type": "integer", "minimum": 0}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COLOR = _list({"type": "integer", "minimum": 0, "maximum": 255}, "Red, green, blue.", minItems=3, maxItems=3)
SCHEMAS: dict[str, Schema] = {
    "Error": _object("Reason of a refusal.", error=_of("string", "What is wrong, and what to do.")),
    "Prediction": _object(
        "Label map of a photo in numbers and outlines.",
        model=_of("string", "Name of the model."),
        width=_of("integer", "Width of the photo in pixels.", minimum=1),
        height=_of("integer", "Height of the photo in pixels.", minimum=1),
        milliseconds=_of("number", "Time from the decoded photo to its label map."),
        shares=_of("object", "Share of each class present, largest first.", additionalProperties=SHARE),
        notes=_list(TEXT, "Remarks on how the photo was read."),
        polygons=ref("Coco"),
    ),
    "Coco": _object(
        "Outlines in COCO format: one annotation for each connected region.",
        images=_list({"type": "object"}, "The photo."),
        categories=_list(
            _object("A class.", id=COUNT, name=TEXT), "Classes; the id is the class number in the label map."
        ),
        annotations=_list(
            _object(
                "A region.",
                id=COUNT,
                image_id=COUNT,
                category_id=COUNT,
                area=NUMBER,
                bbox=_list(NUMBER, "Left, top, width, height in pixels.", minItems=4, maxItems=4),
                iscrowd=COUNT,
                segmentation=_list(_list(NUMBER, "x and y of the corners in turn."), "One polygon."),
            ),
            "Regions.",
        ),
    ),
    "Models": _object("The models and the limits.", models=_list(ref("Model"), "The models."), limits=ref("Limits")),
    "Model": _object(
        "A model.",
        name=_of("string", "Name to give as the parameter model."),
        classes=_list(TEXT, "Names in the order of the class numbers."),
        palette=_list(COLOR, "Colours in the order of the class numbers."),
        backbone=TEXT,
        structure=TEXT,
        dataset=_of(["string", "null"], "Name of the dataset that the model learned on."),
        miou=_of(["number", "null"], "Mean IoU on the validation set, 0 to 1."),
        images=_of(["integer", "null"], "Number of images in the validation set."),
        licence=_of(["string", "null"], "Licence of the weights."),
        place=_of("string", "Device and precision."),
    ),
    "Limits": _object(
        "Limits of a request.",
        megabytes=_of("number", "Largest size of a file in 2^20 bytes."),
        megapixels=_of("number", "Largest width times height of a photo in 10^6 pixels."),
        seconds=_of("number", "Longest time for one photo."),
        waiting=_of("integer", "Requests that may wait."),
    ),
    "Health": _object(
        "State of the server.",
        status=_of("string", "UP if the server is ready, as Label Studio reads it.", enum=["UP", "DOWN"]),
        alive=_of("boolean", "The server answers."),
        ready=_of("boolean", "The models of every worker are loaded, and the server is not stopping."),
        stopping=_of("boolean", "The server finishes what runs and takes nothing new."),
        models=_list(TEXT, "Names of the models."),
        workers=_of("object", "Number of workers in each state.", additionalProperties=COUNT),
    ),
    "Setup": _object(
        "Request of Label Studio when a project is connected.",
        ("project", "hostname", "access_token", "extra_params"),
        schema=_of("string", "Labelling configuration of the project, XML."),
        project={},
        hostname={},
        access_token={},
        extra_params={},
    ),
    "Version": _object("Answer to a set-up.", model_version=_of("string", "Name of the first model.")),
    "Versions": _object("Versions to choose from in Label Studio.", versions=_list(TEXT, "Names of the models.")),
    "Tasks": _object(
        "Request of Label Studio for predictions.",
        ("project", "model_version", "params"),
        tasks=_list({"type": "object"}, "Tasks with their data, such as the address of the image.", minItems=1),
        label_config=_of("string", "Labelling configuration of the project, XML."),
        model_version=_of(["string", "null"], "Name of a model. Default: the first."),
        project={},
        params={},
    ),
    "TaskPredictions": _object(
        "Predictions, one for each task.",
        results=_list(
            _object(
                "Prediction of a task.",
                ("score", "error"),
                model_version=TEXT,
                score=_of("number", "Mean confidence of the pixels.", minimum=0, maximum=1),
                error=_of("string", "Reason why this task has no regions."),
                result=_list({"type": "object"}, "Regions in the form of Label Studio."),
            ),
            "Predictions.",
        ),
        model_version=_of("string", "Name of the model."),
    ),
    "Event": {"type": "object", "description": "Event of Label Studio, such as a new annotation."},
    "Message": _object("Answer to an event.", message=TEXT),
}
