"""The first lines that newcomers write, from what they know: each works, or says what to write.

A line that works gives what is expected of it; one that cannot work raises a UserError with every part of the answer.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segvit
from segvit.prediction.photo import Prediction
from tests.helpers.newcomer import HEIGHT, NUM_PHOTOS, TINY, WIDTH, make_folder


def labelled(found: Any) -> bool:
    return isinstance(found, Prediction) and found.labels.shape == (HEIGHT, WIDTH)


def all_labelled(number: int) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, list) and len(found) == number and all(map(labelled, found))


def trained(found: Any) -> bool:
    return isinstance(found, segvit.Run) and found.path.is_file()


WORK = {
    "load: as in torchvision": ("segvit.load_model(Path('best.safetensors'), device='cpu').classes", len),
    "predict: a file": ("model.predict('photo.jpg')", labelled),
    "predict: a Path": ("model.predict(Path('photo.jpg'))", labelled),
    "predict: several, as in ultralytics": ("model.predict(['photo.jpg', Path('photo.jpg')])", all_labelled(2)),
    "predict: a glob": ("segvit.predict(model, Path('photos').glob('*.jpg'))", all_labelled(NUM_PHOTOS)),
    "predict: by the model's name, as a pipeline": ("segvit.predict('best.safetensors', 'photo.jpg')", labelled),
    "predict: a picture of PIL": ("model.predict(Image.open('photo.jpg'))", labelled),
    "predict: an array": ("model.predict(np.asarray(Image.open('photo.jpg')))", labelled),
    "predict: floats, as skimage gives them": ("model.predict(np.asarray(Image.open('photo.jpg')) / 255)", labelled),
    "predict: with transparency": ("model.predict(np.full((48, 64, 4), 255, np.uint8))", labelled),
    "predict: a tensor of torchvision": ("segvit.predict(model, torch.rand(3, 48, 64))", labelled),
    "predict: a batch, as in smp": ("model.predict(torch.rand(2, 3, 48, 64))", lambda maps: maps.shape == (2, 48, 64)),
    "save the picture": ("model.predict('photo.jpg').save('out/seen.png')", Path.is_file),
    "save the labels": ("model.predict('photo.jpg').save('labels.png', labels=True)", Path.is_file),
    "save the polygons": ("model.predict('photo.jpg').save('regions.json')", Path.is_file),
    "polygons": ("model.predict('photo.jpg').polygons()", lambda found: sum(r.area for r in found) == HEIGHT * WIDTH),
    "a cell of a notebook": ("model.predict('photo.jpg')._repr_png_()", lambda png: png.startswith(b"\x89PNG")),
    "names of the classes": ("model.classes", lambda names: names == ("background", "person")),
    "score on two folders": ("segvit.evaluate(model, images='photos', labels='masks').images", NUM_PHOTOS.__eq__),
    "score on a file": ("segvit.evaluate('best.safetensors', 'people.yaml').images", (2).__eq__),
    "score on settings": ("segvit.evaluate(model, segvit.TrainConfig.load('people.yaml').data).images", (2).__eq__),
    "train from a file": ("segvit.train('people.yaml', steps=1)", trained),
    "train from two folders": (
        "segvit.train(images='photos', labels='masks', classes=['background', 'person'], steps=1, **small)",
        trained,
    ),
    "resume": (
        "[segvit.train('people.yaml', steps=1, output='runs/a'), segvit.train(output='runs/a', resume=True)][1]",
        trained,
    ),
    "create, as in timm": (
        "segvit.create_model('vit_tiny_patch16_224', pretrained=False, num_classes=3).num_classes",
        (3).__eq__,
    ),
}
"""Line, and whether what it gives is right."""

SAY = {
    "call on a file, as in ultralytics": ("model('photo.jpg')", ["segvit.predict(model, 'photo.jpg')"]),
    "call on an array, as in transformers": ("model(np.zeros((48, 64, 3)))", ["segvit.predict(model, photo)"]),
    "call on one image": ("model(torch.rand(3, 48, 64))", ["(B, 3, H, W)", "images[None]"]),
    "save=True": ("model.predict('photo.jpg', save=True)", ['.save("seen.png")']),
    "imgsz": ("segvit.predict(model, 'photo.jpg', imgsz=640)", ["EvalConfig(resize_short=640)", "any size"]),
    "a folder": ("model.predict('photos')", ["photos is a folder", "glob", "segvit predict MODEL photos"]),
    "an address": ("model.predict('https://x.org/a.jpg')", ["address", "download"]),
    "no such file": ("model.predict('photos/9.jpg')", ["photos/9.jpg", "no such file"]),
    "a normalised tensor": ("segvit.predict(model, torch.randn(3, 48, 64))", ["0..1", "the model normalises"]),
    "channels first": ("model.predict(np.zeros((3, 48, 64), np.uint8))", ["array.transpose(1, 2, 0)"]),
    "a batch where a photo belongs": (
        "segvit.predict(model, torch.rand(2, 3, 9, 9))",
        ["model.predict(images)", "list"],
    ),
    "bytes": ("model.predict(b'x')", ["bytes", "PIL image"]),
    "over the photo itself": ("model.predict('photo.jpg').save('photo.jpg')", ["photo itself", "seen.png"]),
    "labels as jpg": ("model.predict('photo.jpg').save('labels.jpg', labels=True)", [".png"]),
    "train a model, as in ultralytics": ("model.train(data='people.yaml', epochs=3)", ["segvit.train(images="]),
    "epochs": ("segvit.train('people.yaml', epochs=3)", ["'epochs'", "steps=300"]),
    "a typo": ("segvit.train('people.yaml', stpes=3)", ["'stpes'", "steps"]),
    "a typo in a section": ("segvit.train('people.yaml', optim={'lrr': 3})", ["lrr", "lr"]),
    "a section as a value": ("segvit.train('people.yaml', data='photos')", ["segvit.train('photos')"]),
    "two folders without names": ("segvit.train('photos', 'masks')", ['images="photos"', 'labels="masks"', "classes="]),
    "one folder": ("segvit.train('photos')", ['images="photos"', "classes="]),
    "nothing": ("segvit.train()", ['images="photos"', "people.yaml"]),
    "a model first": ("segvit.train(model)", ['init="best.safetensors"']),
    "no such file of settings": ("segvit.train('peple.yaml')", ["peple.yaml"]),
    "a dataset file of ultralytics": ("segvit.train('yolo.yaml')", ['labels="masks"', "('sky', 'road')"]),
    "a backbone as the model": ("segvit.train('people.yaml', 'vit_base')", ["backbone", "init="]),
    "no data to score on": ("segvit.evaluate(model)", ['images="photos"']),
    "a folder to score on": ("segvit.evaluate(model, 'photos')", ['images="photos"']),
    "data=": ("segvit.evaluate(model, data='people.yaml')", ['segvit.evaluate(model, "people.yaml")']),
    "classes of smp": ("segvit.create_model('vit_tiny_patch16_224', classes=3)", ["num_classes=3"]),
    "no classes": ("segvit.create_model('vit_tiny_patch16_224')", ["num_classes=3"]),
    "encoder of smp": ("segvit.create_model(encoder_name='resnet34', num_classes=3)", ["backbone"]),
    "a state dict": ("segvit.load_model({})", ["by name", "best.safetensors"]),
    "a folder as the model": ("segvit.load_model('photos')", ["is a folder", ".safetensors"]),
}
"""Line, and what its error says."""

ELSEWHERE = {
    "segvit.from_pretrained": "segvit.load_model",
    "segvit.fit": "segvit.train",
    "segvit.val": "segvit.evaluate",
    "segvit.load_modle": "segvit.load_model",
    "segvit.Trainer": "segvit.train",
}
"""Names that segvit lacks, and the one that it suggests."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("newcomer")
    make_folder(path)
    (path / "yolo.yaml").write_text("path: .\ntrain: photos\nnames: {0: sky, 1: road}\n")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> segvit.SegViT:
    return segvit.load_model(folder / "best.safetensors")


@pytest.fixture
def names(folder: Path, model: segvit.SegViT, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names that a line may use."""
    monkeypatch.chdir(folder)
    small = {"model": TINY, "data": {"val_fraction": 0.34, "workers": 0}, "loggers": (), "device": "cpu"}
    known = {"segvit": segvit, "Path": Path, "Image": Image, "np": np, "torch": torch}
    return known | {"model": model, "small": small | {"output": "runs/two"}}


@pytest.mark.parametrize("line", WORK)
def test_it_works(line: str, names: dict[str, Any]) -> None:
    code, right = WORK[line]
    found = eval(code, names)
    assert right(found), found


@pytest.mark.parametrize("line", SAY)
def test_it_says_what_to_write(line: str, names: dict[str, Any]) -> None:
    code, parts = SAY[line]
    with pytest.raises(segvit.UserError) as caught:
        eval(code, names)
    assert not [part for part in parts if part not in str(caught.value)], caught.value


@pytest.mark.parametrize("line", ELSEWHERE)
def test_a_name_of_another_library_is_answered(line: str) -> None:
    with pytest.raises(AttributeError, match=ELSEWHERE[line]):
        eval(line)


def test_every_source_of_a_photo_gives_the_same_labels(names: dict[str, Any]) -> None:
    model, picture = names["model"], Image.open("photo.jpg")
    expected = model.predict("photo.jpg")
    array = np.asarray(picture)
    planes = torch.from_numpy(array.transpose(2, 0, 1).copy())
    for source in (picture, array, array / 255, planes, planes / 255):
        found = segvit.predict(model, source)
        assert np.array_equal(found.labels, expected.labels) and np.array_equal(found.image, array)
    assert expected.path == Path("photo.jpg") and found.path is None
    assert torch.equal(model.predict(planes[None])[0], torch.from_numpy(expected.labels))
    assert repr(expected).startswith("Prediction(photo.jpg, 48 x 64: ")
    confident = model.predict(picture, confidence=True)
    assert confident.confidence is not None and confident.confidence.shape == (HEIGHT, WIDTH)


def test_a_dataset_alone_gets_its_settings_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spec, a file with only the section data, settings of the data, two folders: all lead to the recipe."""
    monkeypatch.chdir(folder)
    asked: list[tuple[segvit.DataConfig, dict[str, Any]]] = []

    def choose(data: segvit.DataConfig, given: dict[str, Any]) -> Any:
        asked.append((data, given))
        return SimpleNamespace(config=segvit.TrainConfig(data=data), text="")

    monkeypatch.setattr("segvit.recipes.train.recipe", choose)
    monkeypatch.setattr("segvit.training.train.train", lambda config, *_, **__: config)
    spec = "name: people\nclasses: [background, person]\nsplits: {train: {images: photos, labels: masks}}\n"
    (folder / "spec.yaml").write_text(spec)
    (folder / "data.yaml").write_text("data: {images: photos, labels: masks, classes: [background, person]}\n")
    pair = {"images": "photos", "labels": "masks", "classes": ("background", "person")}
    for source in ("data.yaml", segvit.DataConfig(**pair)):  # type: ignore[arg-type]
        segvit.train(source)
    segvit.train(steps=70, optim=segvit.OptimConfig(lr=3e-4), **pair)
    segvit.train(Path("spec.yaml"))
    datasets, given = zip(*asked, strict=True)
    assert len(set(datasets[:3])) == 1 and given == ({}, {}, {"steps": 70, "optim.lr": 3e-4}, {})
    assert datasets[3] == segvit.DataConfig(spec="spec.yaml", root=Path())
    segvit.train("people.yaml")
    segvit.train("shapes/demo", steps=10)
    assert len(asked) == 4  # these hold settings of their own


def test_your_own_parts_need_the_settings_of_the_run(model: segvit.SegViT) -> None:
    with pytest.raises(segvit.UserError, match=r"your own model needs the settings .*TrainConfig"):
        segvit.train("shapes", model=model)
    with pytest.raises(segvit.UserError, match="not both"):
        segvit.train("shapes", images="photos", labels="masks")
