"""Read the labelling configuration of a project in Label Studio: its image, and the controls that we can fill.

    form = read_form('<View><Image name="image" value="$photo"/><BrushLabels ...', classes)
    form.key, form.controls

The configuration is XML of others. A document type, which could expand entities, is an error.
"""

from collections.abc import Sequence
from typing import NamedTuple
from xml.parsers import expat

from segvit.app.messages import Control
from segvit.app.serving.refusals import WrongRequest
from segvit.data.labels.background import is_background
from segvit.prediction.annotations.label_studio import BRUSH, POLYGONS

KINDS = {"BrushLabels": BRUSH, "PolygonLabels": POLYGONS}
"""Types of results by element."""
LONGEST = 1_000_000
"""Largest number of characters of a configuration."""
EXAMPLE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="label" toName="image"><Label value="CLASS"/>'
    "</BrushLabels></View>"
)


class Form(NamedTuple):
    """Image and controls of a project."""

    key: str
    """Key of the image in the data of a task."""
    controls: tuple[Control, ...]


class _Element(NamedTuple):
    """A control in the configuration."""

    kind: str
    name: str
    to_name: str
    labels: list[tuple[str, str]]
    """The value of each label, and the name by which results call it."""


def read_form(text: object, classes: Sequence[str]) -> Form:
    """Return the image and the controls of a configuration.

    Labels and classes are matched by name, first exactly, then without regard to case. A class gets the first label.

    Args:
        text: the configuration, XML.
        classes: names (K,) of the model.

    Raises:
        WrongRequest: it is no XML, has no image, no control of BrushLabels or PolygonLabels, or no label that is a
            class of the model.
    """
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
        raise WrongRequest(f"the labelling configuration is no XML text; in Label Studio, save one such as {EXAMPLE}")
    images, elements, others = _parse(text)
    if not images:
        raise WrongRequest(f"the labelling configuration has no <Image name=... value='$...'>; save one as {EXAMPLE}")
    usable = [element for element in elements if element.to_name in images]
    if not usable:
        found = f"; it has {', '.join(sorted(others))[:300]}" if others else ""
        raise WrongRequest(f"no <BrushLabels> or <PolygonLabels> labels the image{found}; save one such as {EXAMPLE}")
    image = usable[0].to_name
    controls, taken = [], set[int]()
    for element in usable:
        if element.to_name == image:
            labels = _matched(element.labels, classes)
            labels = {number: label for number, label in labels.items() if number not in taken}
            taken |= labels.keys()
            if labels:
                controls.append(Control(kind=element.kind, name=element.name, to_name=image, labels=labels))
    if not controls:
        given = ", ".join(value for element in usable for value, _ in element.labels) or "none"
        raise WrongRequest(
            f"no label is a class of the model: the labels are {given[:300]}; the classes are "
            f"{', '.join(classes)[:300]}; rename labels in the labelling configuration"
        )
    return Form(images[image], tuple(controls))


def _matched(labels: Sequence[tuple[str, str]], classes: Sequence[str]) -> dict[int, str]:
    """Return the name of the label of each class that has one. The background, which no region shows, has none."""
    exact = dict(reversed(labels))
    loose = {_plain(value): name for value, name in reversed(labels)}
    found = {}
    for number, name in enumerate(classes):
        label = exact.get(name, loose.get(_plain(name)))
        if label is not None and not is_background(name):
            found[number] = label
    return found


def _plain(name: str) -> str:
    """Return a name without regard to case and to blanks around it."""
    return name.strip().casefold()


def _parse(text: str) -> tuple[dict[str, str], list[_Element], set[str]]:
    """Return the images (key of the data by name), the controls, and the names of further elements with `toName`.

    Raises:
        WrongRequest: it is no XML, or has a document type.
    """
    images: dict[str, str] = {}
    elements: list[_Element] = []
    others: set[str] = set()
    inside: list[_Element | None] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        element = None
        if name == "Image" and attributes.get("name") and attributes.get("value", "").startswith("$"):
            images[attributes["name"]] = attributes["value"][1:]
        elif name in KINDS and attributes.get("name") and attributes.get("toName"):
            element = _Element(KINDS[name], attributes["name"], attributes["toName"], [])
            elements.append(element)
        elif name == "Label" and attributes.get("value"):
            if inside and inside[-1] is not None:
                inside[-1].labels.append((attributes["value"], attributes.get("alias") or attributes["value"]))
        elif "toName" in attributes:
            others.add(name)
        inside.append(element or (inside[-1] if inside else None))  # the control that a label below belongs to

    def refuse(*_: object) -> None:
        raise WrongRequest("the labelling configuration has a document type: delete <!DOCTYPE ...>")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: inside.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, UnicodeEncodeError) as error:  # half of a surrogate pair is no character
        raise WrongRequest(f"the labelling configuration is no XML ({error}); save one such as {EXAMPLE}") from error
    return images, elements, others
