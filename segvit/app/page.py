"""The page and its API in Gradio: one photo, many photos, and the same for programs.

service.py does all the work. This module lays out the page, connects its parts and sets its style.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from segvit.app.html import batch_table, empty, heading, limits_told, notice, result_panels
from segvit.app.photo import SUFFIXES
from segvit.app.service import Service
from segvit.app.serving.api import facts_of, models_of
from segvit.app.serving.api_html import ORIGIN, programs
from segvit.errors import UserError
from segvit.utils.optional import need

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
PUT_ADDRESS = f"""
const here = location.origin + location.pathname.replace(/[/]+$/, "");
for (const example of element.querySelectorAll("pre")) {{
  example.textContent = example.textContent.replaceAll("{ORIGIN}", here);
  if (!navigator.clipboard) continue; // browsers offer it only at https and on this machine
  const copy = document.createElement("button");
  copy.textContent = "Copy";
  copy.addEventListener("click", async () => {{
    await navigator.clipboard.writeText(example.textContent);
    copy.textContent = "Copied";
    setTimeout(() => {{ copy.textContent = "Copy"; }}, 1500);
  }});
  example.before(copy);
}}
"""
"""Script that puts the address of this page into the examples for programs, and a button to copy each."""
BATCH_EMPTY = "The label maps appear here, one row per photo."
LABEL, BATCH = "label", "batch"
"""Queues of single photos and of batches; they take turns photo by photo."""


def gradio() -> ModuleType:
    """Return Gradio, imported when it is used, with its reports to its makers turned off.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it when it is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return need("gradio", "web pages", extra="app")


def make_page(service: Service, examples: Sequence[Path]) -> Any:
    """Return the page of some models, a gradio.Blocks.

    Args:
        service: does the work.
        examples: photos to offer.

    Raises:
        UserError: Gradio is missing.
    """
    gr = gradio()
    names = [about.name for about in service.models]
    with gr.Blocks(title=f"{', '.join(names)} · segvit", analytics_enabled=False) as page:
        _html(gr, heading(service.models))
        with gr.Tab("One photo"):
            _one_photo(gr, service, names, examples)
        with gr.Tab("Many photos"):
            _many_photos(gr, service, names)
        with gr.Tab("API"):
            _html(gr, programs(names[0]), js_on_load=PUT_ADDRESS)
        _api(gr, service, names)
    page.queue(max_size=service.limits.queue, default_concurrency_limit=service.limits.concurrency, api_open=False)
    return page


def look_of(gr: Any) -> dict[str, Any]:
    """Return theme and style of the page as Gradio's arguments, in the colours of the viewer."""
    theme = gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="lg",
        font=FONT,
        font_mono=MONO,
    ).set(
        body_text_color="#1d2330",
        body_text_color_dark="#e6e9ee",
        body_background_fill_dark="#14171c",
        background_fill_primary_dark="#14171c",
        background_fill_secondary_dark="#1d2129",
        block_background_fill_dark="#1d2129",
        border_color_primary_dark="#333a46",
        table_odd_background_fill_dark="#1d2129",
        table_even_background_fill_dark="#262b35",
        color_accent="#2563a8",
        link_text_color="#2563a8",
        link_text_color_dark="#6cb0f5",
        button_primary_background_fill="#2563a8",
        button_primary_background_fill_hover="#1d4f87",
        button_primary_text_color="#ffffff",
    )
    style, script = (
        (files("segvit.app") / "assets" / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    return {
        "theme": theme,
        "head": f"<style>{style}</style><script>{script}</script>",
    }  # given as css, Gradio would drop the container queries


def _html(gr: Any, content: str, **options: Any) -> Any:
    """Add a piece of HTML without Gradio's style."""
    return gr.HTML(content, **{"apply_default_css": False, "js_on_load": None} | options)


def _one_photo(gr: Any, service: Service, names: list[str], examples: Sequence[Path]) -> None:
    """Build the tab that labels one photo."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280, elem_id="side"):
            photo = gr.Image(
                label="Photo",
                show_label=False,
                sources=["upload", "webcam", "clipboard"],
                buttons=[],
                height=240,
                elem_id="photo",
                placeholder="Drop one photo or several here,\nor click to choose one",
            )
            chosen = gr.CheckboxGroup(
                names, value=names, label="Models", visible=len(names) > 1, elem_id="models", interactive=True
            )
            with gr.Column(elem_id="aside"):
                _html(gr, limits_told(service.limits))
                if examples:
                    gr.Examples(
                        [[str(path)] for path in examples],
                        photo,
                        label="Or take one of these",
                        cache_examples=False,
                        api_visibility="private",
                        elem_id="examples",
                    )
        with gr.Column(scale=3, min_width=320):
            result = _html(gr, empty(), elem_id="result")
    gr.on(
        [photo.change, chosen.change],
        partial(_look, service),
        [photo, chosen],
        result,
        preprocess=False,
        api_visibility="private",
        trigger_mode="always_last",
        concurrency_id=LABEL,
        concurrency_limit=service.limits.concurrency,
    )


def _look(service: Service, photo: dict[str, Any] | None, models: list[str]) -> str:
    """Return the HTML of the result, or of the reason why there is none."""
    if photo is None:
        return empty()
    try:
        return result_panels(service.label(_path_of(photo), models, viewer=True, named=True))
    except UserError as error:
        return notice(str(error))


def _many_photos(gr: Any, service: Service, names: list[str]) -> None:
    """Build the tab that labels many photos and offers the results as one file."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            photos = gr.File(
                label=f"Up to {service.limits.batch_files} photos",
                file_count="multiple",
                file_types=list(SUFFIXES),
                height=240,
                elem_id="photos",
            )
            model = gr.Radio(names, value=names[0], label="Model", visible=len(names) > 1, interactive=True)
            _html(gr, limits_told(service.limits))
        with gr.Column(scale=3, min_width=320):
            table = _html(gr, empty(BATCH_EMPTY), elem_id="table")
    gr.on(
        [photos.upload, photos.clear, model.change],
        partial(_label_all, service),
        [photos, model],
        table,
        trigger_mode="always_last",
        preprocess=False,
        show_progress="minimal",
        api_visibility="private",
        concurrency_id=BATCH,
        concurrency_limit=1,
    )


def _label_all(service: Service, photos: list[dict[str, Any]] | None, model: str) -> Iterator[str]:
    """Yield the HTML of a batch after each photo."""
    if not photos:
        yield empty(BATCH_EMPTY)
        return
    try:
        about = next((about for about in service.models if about.name == model), service.models[0])
        for batch in service.batch([_path_of(photo) for photo in photos], model):
            yield batch_table(batch, about)
    except UserError as error:
        yield notice(str(error))


def _api(gr: Any, service: Service, names: list[str]) -> None:
    """Add the addresses for programs: /predict and /models."""

    def predict(photo: dict[str, Any], model: str) -> tuple[str, dict[str, Any], str]:
        """Label a photo.

        Args:
            photo: an uploaded file.
            model: name of a model, one of those listed by /models. Default: the first.

        Returns:
            The label map as a PNG of class numbers, the same bytes as from `segvit predict`. The facts: size,
            milliseconds, share of each class present, notes. The outlines of the regions as JSON in COCO format.
        """
        try:
            result = service.label(_path_of(photo), [model or names[0]], overlay=False)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        (seen,) = result.labelled.seen
        return str(seen.labels), facts_of(result.labelled), str(seen.polygons)

    def models() -> dict[str, Any]:
        """List the models, with classes and colours in the order of the class numbers, and the limits."""
        return models_of(service)

    with gr.Column(visible=False):  # Gradio derives the description of an address from its parts
        photo = gr.File(label="photo", file_types=list(SUFFIXES))
        photo.example_payload = photo.example_value = lambda: None  # Gradio's default points to another site
        model = gr.Dropdown(names, value=names[0], label="model")
        outputs = [gr.File(label="labels, PNG"), gr.JSON(label="facts"), gr.File(label="polygons, JSON")]
        about = gr.JSON(label="models and limits")
        gr.Button().click(
            predict,
            [photo, model],
            outputs,
            preprocess=False,
            api_name="predict",
            concurrency_id=LABEL,
            concurrency_limit=service.limits.concurrency,
        )
        gr.Button().click(models, None, about, api_name="models", concurrency_limit=None)


def _path_of(sent: object) -> str:
    """Return the path where Gradio put an uploaded file.

    Raises:
        UserError: nothing was uploaded.
    """
    path = sent.get("path") if isinstance(sent, dict) else None
    if not isinstance(path, str) or not path:
        raise UserError("no photo came: upload one first, and give its path")
    return path
