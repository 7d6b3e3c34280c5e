"""Refuse arguments that a public function lacks, with what to write instead.

def predict(model, source, **others):
    refuse_others("segvit.predict", predict, others)

`HINTS` answers the words that people bring from other libraries.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from segvit.errors import UserError
from segvit.utils.text import suggest

_PREDICT = {
    "save": 'model.predict("photo.jpg").save("seen.png")',
    "show": 'model.predict("photo.jpg").show()',
    "output": 'model.predict("photo.jpg").save("seen.png"), or type `segvit predict MODEL FOLDER --output seen`',
    "conf": "confidence=True for the confidence of each pixel",
    "image": 'segvit.predict(model, "photo.jpg")',
    "images": 'segvit.predict(model, ["a.jpg", "b.jpg"])',
    "imgsz": "segvit.predict(model, photo, config=segvit.EvalConfig(resize_short=640)), or nothing: any size works",
    "device": 'segvit.load_model("best.safetensors", device="cuda"), and give that model',
    "half": 'segvit.predict(model, photo, precision="fp16")',
    "config": "segvit.predict(model, photo, config=...)",
    "precision": 'segvit.predict(model, photo, precision="bf16")',
}
_SIZE, _RATE = 'model={"image_size": 280}', 'optim={"lr": 1e-4}'
_CLASSES, _OUTPUT = 'classes=["sky", "road"]', 'output="runs/people"'
HINTS: dict[str, dict[str, str]] = {
    "segvit.predict": _PREDICT,
    "model.predict": _PREDICT,
    "segvit.evaluate": {
        "data": 'segvit.evaluate(model, "people.yaml")',
        "masks": 'segvit.evaluate(model, images="photos", labels="masks")',
        "imgsz": "config=segvit.EvalConfig(resize_short=640), or nothing: the model has its own protocol",
        "batch": "config=segvit.EvalConfig(batch_size=8)",
        "device": _PREDICT["device"],
    },
    "segvit.create_model": {
        "classes": 'num_classes=3; their names come from a dataset, as in spec=segvit.load_spec("people.yaml")',
        "model_name": 'segvit.create_model("vit_base_patch16_384", num_classes=3)',
        "encoder_name": 'backbone="vit_base_patch16_384" (any plain ViT of timm; type `segvit backbones`)',
        "encoder_weights": "pretrained=True",
        "weights": 'pretrained=True, or segvit.load_model("best.safetensors") for a model of segvit',
        "img_size": "image_size=512",
    },
    "segvit.train": {
        "epochs": "steps=300 (a step is one batch; leave it out and segvit chooses)",
        **dict.fromkeys(("imgsz", "image_size", "img_size"), _SIZE),
        **dict.fromkeys(("lr", "lr0", "learning_rate"), _RATE),
        **dict.fromkeys(("num_classes", "nc", "names"), _CLASSES),
        **dict.fromkeys(("project", "name", "output_dir", "save_dir"), _OUTPUT),
        **dict.fromkeys(("workers", "num_workers"), 'data={"workers": 2}'),
        "batch": "batch_size=8",
        "weight_decay": 'optim={"weight_decay": 0.01}',
        "weights": 'init="best.safetensors"',
        "checkpoint": 'init="best.safetensors"',
        "pretrained": 'model={"pretrained": True}, or init="best.safetensors" for a model of segvit',
        "backbone": 'model={"backbone": "vit_small_patch14_dinov2.lvd142m"}',
        "masks": 'labels="masks"',
        "patience": "early_stop=5",
        "amp": 'precision="bf16"',
        "bf16": 'precision="bf16"',
        "fp16": 'precision="fp16"',
    },
}
"""Arguments of other libraries by the function that gets them, and what to write here."""


def refuse_others(
    call: str, function: Callable[..., Any], others: Mapping[str, object], *, settings: Iterable[str] = ()
) -> None:
    """Refuse arguments that a function does not have.

    Args:
        call: name of the function as users write it.
        function: the function.
        others: arguments that it does not have, by name.
        settings: further names that it takes.

    Raises:
        UserError: `others` is not empty.
    """
    for name in others:
        parameters = inspect.signature(function).parameters.values()
        known = [each.name for each in parameters if each.name != "self" and each.kind is not each.VAR_KEYWORD]
        known += settings
        hint = HINTS[call].get(name)
        remedy = f": write {hint}" if hint else suggest(name, known) or f"; it has {', '.join(known)}"
        raise UserError(f"{call} has no argument {name!r}{remedy}")
