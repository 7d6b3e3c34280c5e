"""Labels on disk in every form: MATLAB matrices, painted masks, polygons, run lengths; the cache of decoded ones."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.io import savemat
from torch.utils.data import DataLoader

from segvit.config import DataConfig
from segvit.data.check.check import check_dataset
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.labels.cache import LabelCache
from segvit.data.labels.mat import read_mat
from segvit.data.labels.rasterize import decode_rle, fill_polygon
from segvit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def said(act: Callable[[], Any], *parts: str) -> str:
    """The text of the UserError that `act` raises, which must hold `parts`."""
    with pytest.raises(UserError) as caught:
        act()
    text = str(caught.value)
    for part in parts:
        assert part in text, text
    return text


def photo(path: Path, size: tuple[int, int]) -> None:
    """A flat photo of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1]).save(path)


class Made:
    """A dataset in the making: a spec of one split, and its pairs."""

    def __init__(self, root: Path, spec: str) -> None:
        self.root = root
        self.spec = root / "spec.yaml"
        self.spec.write_text(f"name: made\nsplits: {{train: {{images: photos, labels: labels}}}}\n{spec}\n")

    def open(self, **settings: Any) -> SegmentationDataset:
        samples = open_dataset(DataConfig(spec=str(self.spec), root=self.root, **settings), "train")
        assert isinstance(samples, SegmentationDataset)
        return samples


# --- MATLAB ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64", "bool", "level 4"])
@pytest.mark.parametrize("compressed", [True, False])
def test_matrices_of_every_type(dtype: str, compressed: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"do_compression": compressed}
    if dtype == "level 4":
        dtype, options = "float64", {"format": "4"}
    values = np.array([[0, 1, 7], [1, 0, 200]]).astype(dtype)
    savemat(tmp_path / "a.mat", {"S": values, "T": values[:1]}, **options)
    labels = read_mat(tmp_path / "a.mat", "S")
    assert labels.dtype == np.uint8 and labels.tolist() == values.astype(int).tolist()


def test_a_field_of_a_structure_and_wide_values(tmp_path: Path) -> None:
    """As in the boundaries dataset: GTcls.Segmentation."""
    values = np.array([[0, 459], [65535, 2]], dtype=np.uint16)
    savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": values, "deep": {"x": values.T}}})
    assert read_mat(tmp_path / "a.mat", "GTcls.Segmentation").tolist() == values.tolist()
    assert read_mat(tmp_path / "a.mat", "GTcls.deep.x").tolist() == values.T.tolist()
    said(lambda: read_mat(tmp_path / "a.mat", "GTcls.seg"), "a.mat", "'GTcls' has no field 'seg'", "Segmentation, deep")
    said(lambda: read_mat(tmp_path / "a.mat", "GTcls"), "'GTcls' is not a matrix of numbers", "labels: key")


@pytest.mark.parametrize(
    "value, parts",
    [
        (np.array([[0.5]]), ("not whole",)),
        (np.array([[np.nan]]), ("not whole",)),
        (np.array([[-1]], dtype=np.int16), ("values from -1 to -1", "0..65535")),
        (np.array([[70_000]]), ("to 70000",)),
        (np.zeros((2, 2, 3)), ("not a matrix", "(2, 2, 3)")),
        (np.zeros((0, 0)), ("not a matrix", "(0, 0)")),
        ("text", ("not a matrix",)),
        (np.array([[1j]]), ("not a matrix", "complex")),
    ],
    ids=str,
)
def test_what_is_no_matrix_of_labels(value: Any, parts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"S": value})
    said(lambda: read_mat(path, "S"), str(path), "'S'", *parts)


def test_a_wrong_key_lists_those_there_are(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"LabelMap": np.eye(2), "names": "x"})
    said(lambda: read_mat(tmp_path / "a.mat", "S"), "a.mat", "no variable 'S', only LabelMap, names", "`labels: key`")


def test_matlab_7_3_is_told_and_how_to_save_it_again(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(512) + b"\x89HDF\r\n\x1a\n")
    said(lambda: read_mat(path, "S"), str(path), "MATLAB 7.3 (HDF5)", "'-v7'")


def test_damaged_matlab_files(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.mat", tmp_path / "a.mat"
    savemat(whole, {"S": np.arange(5000).reshape(50, 100) % 251, "cells": {"x": "y"}}, do_compression=True)
    content = whole.read_bytes()
    for cut in (0, 1, 4, 60, 127, 129, 140, len(content) // 3, len(content) // 2):
        path.write_bytes(content[:cut])
        said(lambda: read_mat(path, "S"), str(path))
    for position in range(0, 400, 7):  # refused or read, but never anything else
        path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        with contextlib.suppress(UserError):
            read_mat(path, "S")
    path.write_bytes(b"no MATLAB file at all")
    said(lambda: read_mat(path, "S"), str(path), "cannot be read as a MATLAB file")
    said(lambda: read_mat(tmp_path / "none.mat", "S"), "none.mat: no such file")


def test_without_scipy_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    said(lambda: read_mat(tmp_path / "a.mat", "S"), "a.mat", "scipy", "pip install 'segvit[mat]'")


def test_mat_files_as_a_dataset(tmp_path: Path) -> None:
    made = Made(tmp_path, "classes: [sky, {name: road, raw: 300}]\nignore: [9]\nlabels: {format: mat, key: S}")
    for name in ("a", "deep/b"):
        photo(tmp_path / "photos" / f"{name}.jpg", (2, 2))
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        savemat(tmp_path / "labels" / f"{name}.mat", {"S": np.array([[0, 300], [9, 0]], dtype=np.uint16)})
    (tmp_path / "labels" / "a.png").write_bytes(b"of another form")
    samples = made.open()
    assert [sample.name for sample in (samples.read(0), samples.read(1))] == ["a", "deep/b"]
    assert samples.read(1).labels.tolist() == [[0, 1], [255, 0]]
    assert not check_dataset(samples, decode=True).errors
    savemat(tmp_path / "labels" / "a.mat", {"S": np.array([[0, 5], [9, 0]])})
    said(lambda: made.open().read(0), str(tmp_path / "labels" / "a.mat"), "label value 5 is not a class")
    savemat(tmp_path / "labels" / "a.mat", {"S": np.zeros((3, 2))})
    said(lambda: made.open().read(0), "a.jpg is 2 x 2", "a.mat is 2 x 3")


# --- painted masks ---------------------------------------------------------------------------------------------------

PAINTED = """classes: [{name: sky, color: [70, 130, 180]}, {name: car, color: [0, 0, 142]}]
labels: {format: color, ignore: [[0, 0, 0]], merge: {car: [[0, 0, 70], [0, 60, 100]]}}"""


@pytest.fixture
def painted(tmp_path: Path) -> Made:
    photo(tmp_path / "photos" / "a.png", (2, 3))
    (tmp_path / "labels").mkdir()
    return Made(tmp_path, PAINTED)


COLORS = np.array([[[70, 130, 180], [0, 0, 142], [0, 0, 0]], [[0, 0, 70], [0, 60, 100], [70, 130, 180]]], np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_become_classes(mode: str, painted: Made) -> None:
    picture = Image.fromarray(COLORS)
    picture = picture.quantize(16, dither=Image.Dither.NONE) if mode == "P" else picture.convert(mode)
    picture.save(painted.root / "labels" / "a.png")
    samples = painted.open()
    assert samples.read(0).labels.tolist() == [[0, 1, 255], [1, 1, 0]]
    assert samples.spec.to_dict()["labels"]["merge"] == {"car": [[0, 0, 70], [0, 60, 100]]}
    assert type(samples.spec).from_dict(samples.spec.to_dict()) == samples.spec
    report = check_dataset(samples, decode=True)
    assert not report.errors and [round(row.share, 3) for row in report.rows] == [0.333, 0.5]


def test_grey_counts_as_a_colour(tmp_path: Path) -> None:
    made = Made(
        tmp_path,
        "classes: [{name: a, color: [0, 0, 0]}, {name: b, color: [128, 128, 128]}]\nlabels: {format: color}",
    )
    photo(tmp_path / "photos" / "a.png", (1, 2))
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.array([[128, 0]], dtype=np.uint8)).save(tmp_path / "labels" / "a.png")
    assert made.open().read(0).labels.tolist() == [[1, 0]]


def test_an_unknown_colour(painted: Made) -> None:
    path = painted.root / "labels" / "a.png"
    colors = COLORS.copy()
    colors[0, :2] = [70, 130, 179]
    colors[1, 0] = [9, 0, 0]
    Image.fromarray(colors).save(path)
    parts = ("the colour [70, 130, 179], in 2 pixels", "1 other such colour in 1 pixel", "[70, 130, 180] (sky)")
    said(lambda: painted.open().read(0), str(path), *parts, "merge", "others: ignore")
    said(check_dataset(painted.open()).raise_on_error, str(path), "[70, 130, 179]")
    for others, labels in (("ignore", [[255, 255, 255], [255, 1, 0]]), ("car", [[1, 1, 255], [1, 1, 0]])):
        made = Made(painted.root, f"{PAINTED}\nothers: {others}")
        assert made.open().read(0).labels.tolist() == labels


def test_a_painted_mask_that_was_compressed_or_is_see_through(painted: Made) -> None:
    path = painted.root / "labels" / "a.png"
    photo(painted.root / "photos" / "a.png", (40, 40))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    parts = ("earlier JPEG", "`labels: {format: color, others: nearest}`", "`others: ignore`")
    said(lambda: painted.open().read(0), str(path), *parts)
    Image.new("RGBA", (40, 40), (70, 130, 180, 128)).save(path)
    said(lambda: painted.open().read(0), str(path), "transparent")
    Image.new("F", (40, 40)).save(path.with_suffix(".tif"))
    path.unlink()
    said(lambda: painted.open().read(0), "a.tif", "mode F")


def test_other_colours_count_as_the_nearest_and_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    colors[:2, :4] = [0, 0, 140]  # the commonest unknown one
    colors[7] = [70, 130, 180]
    photo(tmp_path / "photos" / "a.png", (8, 9))
    (tmp_path / "labels").mkdir()
    Image.fromarray(colors).save(tmp_path / "labels" / "a.png")
    samples = Made(tmp_path, PAINTED.replace("color, ignore", "color, others: nearest, ignore")).open()
    known = {(70, 130, 180): 0, (0, 0, 142): 1, (0, 0, 0): 255, (0, 0, 70): 1, (0, 60, 100): 1}
    labels = samples.read(0).labels.numpy()
    for place in np.ndindex(8, 9):
        distances = {color: np.square(colors[place].astype(int) - color).sum() for color in known}
        best = {known[color] for color in known if distances[color] == min(distances.values())}
        assert labels[place] in best
    (warning,) = [text for text in check_dataset(samples).warnings if "nearest" in text]
    assert warning.startswith("63 pixels (87.50 %) in 1 label map without") and "[0, 0, 140], in 8 pixels" in warning
    assert "becomes 'car'" in warning
    assert type(samples.spec).from_dict(samples.spec.to_dict()) == samples.spec


def test_a_painted_mask_under_another_spec_says_what_to_write(painted: Made) -> None:
    Image.fromarray(COLORS).save(painted.root / "labels" / "a.png")
    said(lambda: Made(painted.root, "classes: [a]").open().read(0), "painted in colours", "labels: {format: color}")


@pytest.mark.parametrize(
    "change, parts",
    [
        (("[0, 0, 142]", "[70, 130, 180]"), ("two classes have the colour [70, 130, 180]",)),
        (("[0, 60, 100]", "[70, 130, 180]"), ("[70, 130, 180]", "'sky'", "'car'")),
        (("[[0, 0, 0]]", "[[0, 0, 142]]"), ("[0, 0, 142]", "'car'", "'ignore'")),
        (("[[0, 0, 0]]", "[0, 0, 0]"), ("`ignore` is 0", "red, green, blue")),
        (("[[0, 0, 0]]", "[[0, 0, 300]]"), ("[0, 0, 300]", "0..255")),
        (("merge: {car", "merge: {cra"), ("`labels: merge` names 'cra'", "did you mean 'car'")),
        (("merge: {car: [[0, 0, 70], [0, 60, 100]]}", "merge: [1]"), ("`merge` is [1]",)),
        (("labels:", "ignore: []\nlabels:"), ("`ignore: [VALUE]`",)),
        (("color, ignore", "color, others: car, ignore"), ("`others` is 'car'; give nearest, or write `others: car`",)),
        (("labels: {", "others: ignore\nlabels: {others: nearest, "), ("`others` is 'ignore'", "keep one of them")),
    ],
)
def test_mistakes_in_a_table_of_colours(change: tuple[str, str], parts: tuple[str, ...], painted: Made) -> None:
    assert change[0] in PAINTED
    said(Made(painted.root, PAINTED.replace(*change)).open, "spec.yaml", *parts)


# --- polygons and run lengths ----------------------------------------------------------------------------------------


def inside(points: npt.NDArray[np.float64], x: float, y: float) -> bool:
    """Whether (x, y) lies in a polygon: a ray to the left crosses an odd number of edges."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if min(y0, y1) <= y - 1e-12 < max(y0, y1) - 1e-12 or min(y0, y1) == y < max(y0, y1):
            crossings += x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
    return crossings % 2 == 1


@pytest.mark.parametrize("seed", range(30))
def test_a_polygon_holds_the_pixels_whose_centre_is_inside(seed: int) -> None:
    """Against the slow obvious way; also crossing itself, and beyond the image."""
    generator = np.random.default_rng(seed)
    points = generator.uniform(-4, 16, (int(generator.integers(3, 9)), 2)).round(int(generator.integers(0, 3)))
    labels = np.zeros((11, 13), dtype=np.uint8)
    fill_polygon(labels, points, 7)
    expected = [[7 * inside(points, column + 0.5, row + 0.5) for column in range(13)] for row in range(11)]
    assert labels.tolist() == expected


def test_polygons_that_meet_share_no_pixel() -> None:
    labels = np.zeros((4, 8), dtype=np.uint8)
    for value, (left, right) in enumerate([(0, 2.5), (2.5, 6.5), (6.5, 8)], start=1):
        before = labels.copy()
        fill_polygon(labels, np.array([(left, 0), (right, 0), (right, 4), (left, 4)], dtype=float), value)
        assert not before[labels == value].any()
    assert labels[0].tolist() == [1, 1, 2, 2, 2, 2, 3, 3] and (labels == labels[0]).all()  # a square is its area
    for few in ([(1, 1)], [(0, 0), (8, 4)]):
        fill_polygon(labels, np.array(few, dtype=float), 9)
    assert not (labels == 9).any()


def compress(mask: npt.NDArray[np.bool_]) -> str:
    """COCO's text of a mask, written down from the rule: for the decoder to undo."""
    flat = mask.T.ravel()
    runs = [len(list(group)) for _, group in itertools.groupby(flat)]
    runs = [0, *runs] if flat[0] else runs
    text = ""
    for index, run in enumerate(runs):
        number = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 if more else bits))
    return text


BALL = (
    "k:7f16K4L4M2N2N2N2O0O2O0O@SO0l0NXO0h0OZO0e00]O0b00^O0b0O@0`00@0`00@0`01^O0b00^O0c00[O0f01XO0h02TO0m0`0101N101N2N2N"
    "2N3L4L5JX?"
)
"""What COCO's own tool (pycocotools 2.0.11) writes for the ring of `test_run_lengths`."""


def test_run_lengths() -> None:
    rows, columns = np.mgrid[:64, :48]
    distance = (rows - 30) ** 2 + (columns - 22) ** 2
    ring = (distance < 300) & (distance >= 40)
    assert (decode_rle({"size": [64, 48], "counts": BALL}, (64, 48)) == ring).all()
    small = np.zeros((4, 5), dtype=bool)
    small[1:3, 1:4] = True
    for counts in ("5220003", [5, 2, 2, 2, 2, 2, 5]):
        assert (decode_rle({"size": [4, 5], "counts": counts}, (4, 5)) == small).all()
    generator = np.random.default_rng(0)
    for _ in range(40):
        mask = np.kron(generator.random(generator.integers(1, 20, 2)) < generator.random(), np.ones((7, 5))) > 0
        rle = {"size": list(mask.shape), "counts": compress(mask)}
        assert (decode_rle(rle, (mask.shape[0], mask.shape[1])) == mask).all()


CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]
COCO = """classes: [{name: nothing, raw: 0}, {name: person, raw: 1}, {name: car, raw: 3}]
labels: {format: coco, unlabeled: nothing}"""


def row(category: int, segmentation: Any, image: int = 5, **more: Any) -> dict[str, Any]:
    return {"id": 90 + category, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def coco(root: Path, annotations: list[Any], spec: str = COCO, **changes: Any) -> Made:
    """Two images of 6 x 5 pixels, of which the first has the annotations; `changes` are of the JSON."""
    images = [
        {"id": identity, "file_name": f"{name}.jpg", "height": 5, "width": 6} for identity, name in ((5, "a"), (7, "b"))
    ]
    for name in "abc":  # c is in the folder, but not in the file
        photo(root / "photos" / f"{name}.jpg", (5, 6))
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}
    (root / "labels.json").write_text(json.dumps(content))
    made = Made(root, spec)
    made.spec.write_text(made.spec.read_text().replace("labels: labels", "labels: labels.json"))
    return made


def test_polygons_become_labels(tmp_path: Path) -> None:
    two_parts = [[0, 0, 2, 0, 2, 2, 0, 2], [4.0, 3.0, 6.0, 3.0, 6.0, 5.0, 4.0, 5.0]]
    samples = coco(tmp_path, [row(1, two_parts), row(3, SQUARE)]).open()
    assert [pair.name for pair in samples.pairs] == ["a", "b"]
    assert samples.read(0).labels.tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 2, 2, 2, 0, 0],  # the car comes later, and lies over the person
        [0, 2, 2, 2, 0, 0],
        [0, 2, 2, 2, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]
    assert (samples.read(1).labels == 0).all()  # without annotations all of it is unlabelled
    assert "labels.json: a" in samples.describe(0)
    assert not check_dataset(samples, decode=True).errors
    loaded = [labels for _, labels, _ in DataLoader(samples, batch_size=None, num_workers=2)]
    assert (loaded[0] == samples.read(0).labels).all() and (loaded[1] == 0).all()


def test_a_split_may_use_other_pairs_of_the_file(tmp_path: Path) -> None:
    made = coco(tmp_path, [row(1, SQUARE)])
    (tmp_path / "list.txt").write_text("b.jpg\n")
    assert [pair.name for pair in made.open(train_list=tmp_path / "list.txt").pairs] == ["b"]
    (tmp_path / "photos" / "b.jpg").unlink()
    said(made.open, "label maps without an image", "(b)", "labels.json")


def test_unlabelled_pixels_and_crowds(tmp_path: Path) -> None:
    crowd = row(3, {"size": [5, 6], "counts": [0, 5, 25]}, iscrowd=1)
    labels = coco(tmp_path, [row(1, SQUARE), crowd]).open().read(0).labels
    assert (labels[:, 0] == 2).all() and labels[1, 1] == 1 and labels[0, 5] == 0  # a crowd of cars is car
    ignoring = COCO.replace("nothing}", "ignore, crowd: ignore}")
    labels = coco(tmp_path, [row(1, SQUARE), crowd], ignoring).open().read(0).labels
    assert (labels[:, 0] == 255).all() and labels[1, 1] == 1 and labels[0, 5] == 255
    without = COCO.replace("nothing}", "nothing, crowd: ignore}") + "\nignore: []"
    said(coco(tmp_path, [], without).open, "`crowd`", "`ignore: [VALUE]`")
    said(coco(tmp_path, [], COCO.replace("unlabeled: nothing", "unlabeled: nothin")).open, "did you mean 'nothing'")


def test_wide_category_ids_and_merged_ones(tmp_path: Path) -> None:
    spec = COCO.replace("raw: 3", "raw: [3, 1200]").replace("raw: 0", "raw: 65535")
    samples = coco(tmp_path, [row(1200, SQUARE)], spec).open()
    assert samples.read(0).labels[1].tolist() == [0, 2, 2, 2, 0, 0]


def test_categories_outside_the_spec(tmp_path: Path) -> None:
    made = coco(
        tmp_path, [row(1, SQUARE), row(8, SQUARE), row(8, SQUARE)], categories=[*CATEGORIES, {"id": 8, "name": "cat"}]
    )
    said(made.open, "labels.json: category 8 ('cat', 2 annotations) is not a class", "{name: NAME, raw: 8}", "others")
    ignoring = coco(tmp_path, [row(8, SQUARE)], COCO + "\nothers: ignore").open()
    assert ignoring.read(0).labels[1].tolist() == [0, 255, 255, 255, 0, 0]


@pytest.mark.parametrize(
    "segmentation, parts",
    [
        ("outline", ("annotation 91 of image 'a'", "`segmentation` is 'outline'", "polygons or run lengths")),
        ([[0, 0, 4, 0, 4]], ("x, y, x, y",)),
        ([[0, 0, 4, 0, 4, "4"]], ("x, y, x, y",)),
        ([[0, 0, 4, 0, 1e8, 4]], ("x, y, x, y",)),
        ([0, 0, 4, 0, 4], ("x, y, x, y",)),
        ({"size": [6, 5], "counts": [30]}, ("size is [6, 5]", "[5, 6] (height, width)")),
        ({"size": [5, 6], "counts": [29]}, ("add up to 29", "30 pixels")),
        ({"size": [5, 6], "counts": [-1, 31]}, ("lengths of runs",)),
        ({"size": [5, 6]}, ("`counts` is None",)),
        ({"size": [5, 6], "counts": "ä"}, ("'ä'",)),
        ({"size": [5, 6], "counts": "P"}, ("cut short",)),
    ],
    ids=str,
)
def test_an_ill_formed_segmentation(segmentation: Any, parts: tuple[str, ...], tmp_path: Path) -> None:
    samples = coco(tmp_path, [row(1, segmentation)]).open()
    said(lambda: samples.read(0), str(tmp_path / "labels.json"), *parts)


TWICE = {"id": 5, "file_name": "a.jpg", "height": 5, "width": 6}


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"annotations": {}}, ("no list `annotations`",)),
        ({"categories": [{"name": "x"}]}, ("a category: `id` is None",)),
        ({"images": [TWICE, TWICE]}, ("two images have the id 5",)),
        ({"images": [TWICE, {**TWICE, "id": 6}]}, ("two images have the name 'a'",)),
        ({"images": [{**TWICE, "file_name": 3}]}, ("image 5", "`file_name` is 3")),
        ({"images": [{**TWICE, "height": None}]}, ("image 5", "`height` is None")),
        ({"images": [{**TWICE, "width": 0}]}, ("image 5", "0 x 5")),
        ({"annotations": [row(1, SQUARE, image=99)]}, ("annotation 91", "image 99")),
        ({"annotations": [{**row(1, SQUARE), "category_id": "1"}]}, ("annotation 91", "`category_id` is '1'")),
        ({"annotations": [row(70_000, SQUARE)]}, ("category 70000",)),
        ({"annotations": [3]}, ("annotation 3",)),
    ],
)
def test_an_ill_formed_file(changes: dict[str, Any], parts: tuple[str, ...], tmp_path: Path) -> None:
    content = {"annotations": [], **changes}
    said(coco(tmp_path, **content).open, str(tmp_path / "labels.json"), *parts)


def test_no_json(tmp_path: Path) -> None:
    made = coco(tmp_path, [])
    for text in ("{", "[]", "\xff"):
        (tmp_path / "labels.json").write_text(text, encoding="latin-1")
        said(made.open, str(tmp_path / "labels.json"), "JSON" if text != "[]" else "COCO's format")
    (tmp_path / "labels.json").unlink()
    said(made.open, "labels.json: no such file")


# --- the folder that keeps decoded label maps ------------------------------------------------------------------------


class Source:
    """A file, and a decoder of it that counts."""

    def __init__(self, path: Path, values: npt.ArrayLike) -> None:
        self.path, self.calls = path, 0
        self.write(values)

    def write(self, values: npt.ArrayLike) -> None:
        savemat(self.path, {"S": np.asarray(values, dtype=np.uint16)})

    def decode(self) -> npt.NDArray[Any]:
        self.calls += 1
        return read_mat(self.path, "S")


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("values", [[[0, 1], [2, 255]], [[0, 300], [65535, 2]]])
def test_a_label_map_is_decoded_once(values: list[list[int]], tmp_path: Path) -> None:
    source, folder = Source(tmp_path / "a.mat", values), tmp_path / "kept"
    for _ in range(3):
        assert LabelCache(folder).get(source.path, source.decode).tolist() == values
    assert source.calls == 1
    (entry,) = entries(folder)
    assert entry.suffix == ".png" and np.asarray(Image.open(entry)).tolist() == values


def test_a_stale_or_damaged_entry_is_made_anew(tmp_path: Path) -> None:
    source, folder = Source(tmp_path / "a.mat", [[1, 2, 3]]), tmp_path / "kept"
    cache = LabelCache(folder)

    def read() -> list[Any]:
        return list(cache.get(source.path, source.decode).tolist())

    read()
    (entry,) = entries(folder)
    whole = entry.read_bytes()
    source.write([[4, 5, 6]])
    os.utime(source.path, ns=(1, 1))  # the same size, but another time
    assert read() == [[4, 5, 6]] and source.calls == 2
    good = entry.read_bytes()
    for number, damaged in enumerate((b"", b"x", good[: len(good) // 2], whole), start=3):
        entry.write_bytes(damaged)
        assert read() == [[4, 5, 6]] and source.calls == number
    picture = Image.open(entry)
    other = picture.copy()
    other.putpixel((0, 0), 77)
    about = PngInfo()
    about.add_text("segvit", picture.info["segvit"])
    other.save(entry, pnginfo=about)  # the right stamp, but other pixels
    for _ in range(2):
        assert read() == [[4, 5, 6]] and source.calls == 7
    assert entries(folder) == [entry]


def test_an_entry_may_have_any_number_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = Source(tmp_path / "a.mat", [[1, 2, 3, 4]]), LabelCache(tmp_path / "kept")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)  # Pillow would refuse 3 pixels
    for _ in range(2):
        assert cache.get(source.path, source.decode).tolist() == [[1, 2, 3, 4]] and source.calls == 1


def test_entries_of_files_items_and_settings_are_apart(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path / "kept")
    for name in ("a", "b"):
        (tmp_path / name).write_text("the same")
    wanted = itertools.product(("a", "b"), ("", "x"), ("", "x"))
    for number, (name, item, settings) in enumerate(wanted):
        labels = np.full((1, 1), number, dtype=np.uint8)
        assert cache.get(tmp_path / name, labels.copy, item=item, settings=settings).item() == number
    assert len(entries(tmp_path / "kept")) == 8


WRITER = """
import sys
from pathlib import Path
import numpy as np
from segvit.data.labels.cache import LabelCache
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
cache = LabelCache(folder)
expected = np.arange(200 * 300, dtype=np.uint16).reshape(200, 300)
made = 0
def decode():
    global made
    made += 1
    return expected
for _ in range(60):
    for item in "abc":
        assert (cache.get(source, decode, item=item) == expected).all()
    for entry in folder.rglob("*.png"):
        entry.unlink(missing_ok=True)  # so that all of them keep writing, and reading, the same entries
print(made)
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    source, folder = tmp_path / "a.mat", tmp_path / "kept"
    source.write_text("x")
    command = [sys.executable, "-c", WRITER, str(source), str(folder)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert all(int(count) > 0 for count in counts)
    assert not list(folder.rglob("*.partial"))


def test_entries_are_written_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    save = Image.Image.save

    def recorded(self: Image.Image, path: Path, *arguments: Any, **options: Any) -> None:
        assert not list(path.parent.glob("*.png"))
        written.append(path)
        save(self, path, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", recorded)
    source, folder = Source(tmp_path / "a.mat", [[1, 2]]), tmp_path / "kept"
    for _ in range(2):
        LabelCache(folder).get(source.path, source.decode)
        (entry,) = entries(folder)
        assert entry not in written
        entry.unlink()
    assert len(set(written)) == 2  # no two writers share a file


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    made = Made(tmp_path, "classes: [a]\nlabels: {format: mat, key: S}")
    said(lambda: made.open(cache=tmp_path / "file" / "below"), str(tmp_path / "file"), "--data.cache FOLDER")
    source, cache = Source(tmp_path / "a.mat", [[1]]), LabelCache(tmp_path / "kept")
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").write_text("in the way")
    said(lambda: cache.get(source.path, source.decode), str(tmp_path / "kept"), "--data.cache FOLDER")
    said(lambda: cache.get(tmp_path / "none.mat", source.decode), "none.mat: no such file")


def test_a_dataset_with_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tmp_path, "classes: [sky, road]\nlabels: {format: mat, key: S}")
    for name in "ab":
        photo(tmp_path / "photos" / f"{name}.jpg", (1, 2))
        (tmp_path / "labels").mkdir(exist_ok=True)
        savemat(tmp_path / "labels" / f"{name}.mat", {"S": np.array([[0, 1]], dtype=np.uint8)})
    kept = tmp_path / "kept"
    first = [made.open(cache=kept).read(index).labels.tolist() for index in range(2)]
    assert len(entries(kept)) == 2
    monkeypatch.setitem(sys.modules, "scipy.io", None)  # what is kept needs no scipy
    assert [made.open(cache=kept).read(index).labels.tolist() for index in range(2)] == first == [[[0, 1]]] * 2
    said(lambda: made.open().read(0), "pip install 'segvit[mat]'")
    polygons = coco(tmp_path, [row(1, SQUARE)])
    before = polygons.open(cache=kept).read(0).labels
    assert (polygons.open(cache=kept).read(0).labels == before).all() and len(entries(kept)) == 3
    assert (polygons.open(cache=kept).read(1).labels == 0).all() and len(entries(kept)) == 4
    polygons.spec.write_text(polygons.spec.read_text().replace("unlabeled: nothing", "unlabeled: ignore"))
    assert polygons.open(cache=kept).read(0).labels[0, 0] == 255  # other settings, another entry
    plain = Made(tmp_path, "classes: [sky, road]")
    said(lambda: plain.open(cache=kept), "data.cache", "leave it out")
