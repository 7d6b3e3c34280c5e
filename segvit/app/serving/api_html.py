"""Build the HTML of the tab that describes the API, with examples to copy."""

from collections.abc import Sequence

from markupsafe import Markup

from segvit.app.serving.api import PARAMETERS
from segvit.app.serving.refusals import STATUSES
from segvit.reports.html import join, tag

ORIGIN = "http://SERVER"
"""Placeholder for the address of this page in the examples; the browser replaces it."""
CURL = """\
curl --fail-with-body -F photo=@photo.jpg "{origin}/api/predict?model={model}" -o labels.png
curl --fail-with-body -F photo=@photo.jpg "{origin}/api/predict?model={model}&format=json" """
PYTHON = """\
# pip install httpx pillow numpy
import io

import httpx
import numpy as np
from PIL import Image

with open("photo.jpg", "rb") as photo:
    answer = httpx.post(
        "{origin}/api/predict",
        params={{"model": "{model}", "format": "png"}},
        files={{"photo": photo}},
        timeout=120,
    )
if answer.is_error:
    raise SystemExit(answer.json()["error"])
labels = np.asarray(Image.open(io.BytesIO(answer.content)))  # the class number of every pixel"""
GRADIO = """\
# pip install gradio_client
from gradio_client import Client, handle_file

client = Client("{origin}")
labels, facts, polygons = client.predict(handle_file("photo.jpg"), "{model}", api_name="/predict")
print(facts["shares"])"""
ANSWERS = (
    ("png", "The class number of every pixel, in the same bytes as the file that segvit predict writes."),
    (
        "json",
        "model, width, height, milliseconds, shares of the classes present, notes, polygons of all regions (COCO).",
    ),
)


def programs(model: str) -> Markup:
    """Return the description of the API, with examples.

    Args:
        model: name of the model in the examples.
    """
    known = {"origin": ORIGIN, "model": model}
    return tag(
        "div",
        tag("p", "One request sends a photo and returns its label map: ", tag("code", "POST /api/predict"), "."),
        tag("h2", "With curl"),
        _code(CURL.format(**known)),
        tag("h2", "In Python"),
        _code(PYTHON.format(**known)),
        tag("h2", "The request"),
        tag(
            "p",
            "The body is multipart/form-data with one file, ",
            tag("code", "photo"),
            ". You can add two parameters to the address:",
        ),
        _table(list(PARAMETERS.items())),
        tag("h2", "The answer"),
        _table(ANSWERS),
        tag("p", "The photo and its results are deleted before the answer is sent. The limits are those of this page."),
        tag(
            "p",
            "The status of an answer is 200. A refusal gives its reason as JSON, ",
            tag("code", '{"error": "the reason"}'),
            ", with one of these statuses:",
        ),
        _table([(str(status), text) for status, text in STATUSES.items()]),
        tag(
            "p",
            tag("a", "/api/models", href="api/models"),
            " lists the models, with classes and colours in the order of the class numbers, and the limits. ",
            tag("a", "/docs", href="docs"),
            " describes every address (OpenAPI). If the server has keys, add ",
            tag("code", '-H "Authorization: Bearer KEY"'),
            " to curl.",
        ),
        tag("h2", "With Gradio's client"),
        _code(GRADIO.format(**known)),
        class_="programs",
    )


def _code(text: str) -> Markup:
    """Return a block of code; it can be scrolled with the keyboard too."""
    return tag("div", tag("pre", text.rstrip(), tabindex="0"), class_="code")


def _table(rows: Sequence[tuple[str, str]]) -> Markup:
    """Return a list of names, each with its meaning."""
    return tag("dl", join(*(tag("div", tag("dt", tag("code", name)), tag("dd", text)) for name, text in rows)))
