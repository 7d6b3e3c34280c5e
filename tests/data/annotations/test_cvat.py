"""CVAT for images 1.1: shapes, masks, z-order, and XML that is refused."""

from pathlib import Path

import pytest

from segvit.data.annotations.recognise import recognise
from segvit.data.annotations.tools.cvat import CvatLabels
from segvit.errors import UserError
from tests.helpers.annotated import labels_of, opened, photo, write

POLYGON = '<polygon label="{}" points="1,1;4,1;4,4;1,4" z_order="{}"/>'
LABELS = """<meta><task><labels>
<label><name>zebra</name><attributes><attribute><name>old</name></attribute></attributes></label>
<label><name>ant</name><type>any</type></label>
<label><name>man</name><type>skeleton</type></label>
<label><name>hand</name><type>points</type><parent>man</parent></label>
</labels></task></meta>"""


def cvat(root: Path, shapes: str, labels: str = "", before: str = "") -> Path:
    """A file of one photo of 6 x 8 pixels."""
    photo(root / "photos" / "a.jpg")
    image = f'<image id="0" name="a.jpg" width="8" height="6">{shapes}</image>'
    return write(root / "a.xml", f'<?xml version="1.0"?>{before}<annotations>{labels}{image}</annotations>')


def test_every_kind_of_area(tmp_path: Path) -> None:
    file = cvat(
        tmp_path,
        POLYGON.format("zebra", 0)
        + '<box label="ant" xtl="6" ytl="4" xbr="8" ybr="6"/>'
        + '<ellipse label="bee" cx="6" cy="1" rx="1" ry="1"/>'
        + '<mask label="cow" left="0" top="4" width="2" height="2" rle="0, 1, 1, 2"/>'
        + '<points label="ant" points="1,1"/><polyline label="ant" points="1,1;2,2"/><tag label="ant"/>'
        + '<cuboid label="ant"/><skeleton label="man"><points label="hand" points="1,1"/></skeleton>'
        + POLYGON.format("", 9),
        LABELS,
    )
    samples = opened(tmp_path / "photos", file)
    assert samples.spec.classes == ("background", "zebra", "ant", "bee", "cow")  # in the order of the task
    assert labels_of(samples).tolist() == [
        [0, 0, 0, 0, 0, 3, 3, 0],
        [0, 1, 1, 1, 0, 3, 3, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [4, 0, 0, 0, 0, 0, 2, 2],
        [4, 4, 0, 0, 0, 0, 2, 2],
    ]
    found = recognise(tmp_path / "photos", file)
    assert found is not None
    assert dict(found.summary.skipped) == {
        "points": 1, "polyline": 1, "tag": 1, "cuboid": 1, "skeleton": 1, "polygon without a label": 1,
    }  # fmt: skip
    assert found.text.startswith("cvat: 1 file, 1 polygon, 1 box, 1 ellipse, 1 mask, classes background, zebra, ant")


def test_the_z_order_decides_and_then_the_order_of_the_file(tmp_path: Path) -> None:
    samples = opened(tmp_path / "photos", cvat(tmp_path, POLYGON.format("a", 1) + POLYGON.format("b", 0)))
    assert labels_of(samples)[1, 1] == 1
    samples = opened(tmp_path / "photos", cvat(tmp_path, POLYGON.format("a", 1) + POLYGON.format("b", 1)))
    assert labels_of(samples)[1, 1] == 2


def test_boxes_are_turned_about_their_centre(tmp_path: Path) -> None:
    box = '<box label="a" xtl="1" ytl="2" xbr="7" ybr="4" rotation="90"/>'
    labels = labels_of(opened(tmp_path / "photos", cvat(tmp_path, box)))
    assert (labels[:, 3:5] == 1).all() and labels.sum() == 12


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]>'


@pytest.mark.parametrize(
    "shapes, told",
    [
        ('<box label="a" xtl="1" ytl="x" xbr="1" ybr="1"/>', "`ytl` is 'x'"),
        ('<box label="a" xtl="1" ytl="nan" xbr="1" ybr="1"/>', "`ytl` is 'nan'"),
        ('<box label="a" xtl="1" ytl="1e99" xbr="1" ybr="1"/>', "`ytl` is '1e99'"),
        ('<box label="a" xtl="1"/>', "`ytl` is None"),
        ('<polygon label="a" points="1,1;2"/>', "`points` is '1,1;2'"),
        ('<polygon label="a" points="1,1;2,inf"/>', "`points` is"),
        ('<polygon label="a"/>', "`points` is ''"),
        ('<mask label="a" left="0" top="0" width="2" height="2" rle="5"/>', "does not add up to 2 x 2"),
        ('<mask label="a" left="0" top="0" width="2" height="2" rle="-1, 5"/>', "does not add up"),
        ('<mask label="a" left="0" top="0" width="2" height="2"/>', "does not add up"),
        ('<mask label="a" left="0.5" top="0" width="2" height="2" rle="4"/>', "`left` is '0.5'"),
        ('<mask label="a" left="0" top="0" width="99999" height="99999" rle="9999800001"/>', "larger than the image"),
        (POLYGON.format("a", "x"), "`z_order` is 'x'"),
    ],
)
def test_a_malformed_shape_is_named(shapes: str, told: str, tmp_path: Path) -> None:
    samples = opened(tmp_path / "photos", cvat(tmp_path, shapes))
    with pytest.raises(UserError, match="image 'a': shape 1") as caught:
        samples.read(0)
    assert told in str(caught.value) and str(tmp_path / "a.xml") in str(caught.value)


@pytest.mark.parametrize(
    "text, told",
    [
        ("<annotations>", "cannot be read as XML"),
        (f"{BOMB}<annotations>&y;</annotations>", "has a document type"),
        ("<annotations><track/></annotations>", "tracks of a video"),
        ('<annotations><image id="3"/></annotations>', "image '3' has no `name`"),
        ('<annotations><image name="a"/><image name="a"/></annotations>', "two images have the name 'a'"),
        ('<annotations><image name="a"><blob/></image></annotations>', "element 'blob'"),
    ],
)
def test_a_malformed_file_is_named(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        CvatLabels().index(write(tmp_path / "a.xml", text))


def test_blanks_around_a_label_make_no_class_of_their_own(tmp_path: Path) -> None:
    file = cvat(tmp_path, POLYGON.format("ant ", 0), LABELS)
    assert opened(tmp_path / "photos", file).spec.classes == ("background", "zebra", "ant")


def test_an_error_of_the_content_is_no_error_of_xml(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        recognise(tmp_path / "photos", cvat(tmp_path, "<nonsense/>"))
    assert "element 'nonsense' is no shape" in str(caught.value) and "cannot be read as XML" not in str(caught.value)


def test_a_file_without_areas_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no shape labels pixels \(1 x points\)"):
        opened(tmp_path / "photos", cvat(tmp_path, '<points label="a" points="1,1"/>'))


def test_a_public_export(shared_data: Path) -> None:
    folder = shared_data / "annotations" / "cvat"
    samples = opened(folder / "images", folder / "train.xml")
    assert samples.spec.classes == ("background", "label1", "label2") and len(samples) == 2
    labels = labels_of(samples)
    assert (labels[2:4, 0:4] == 1).all() and labels.sum() == 8
    found = recognise(folder / "images", folder / "train.xml")
    assert found is not None and "5 shapes of no area left out: 2 x skeleton" in found.notes[0]


def test_the_case_of_two_boxes(shared_cases: Path) -> None:
    folder = shared_cases / "label-tools"
    samples = opened(folder / "photos", folder / "cvat.xml", "background", "box")
    assert [int((labels_of(samples, index) == 1).sum()) for index in range(2)] == [18 * 16, 18 * 16]
