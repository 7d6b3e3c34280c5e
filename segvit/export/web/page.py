"""Write the files of a page that labels photos in the browser, except its model.

    write_page(folder, model, precision="fp32", runtime=runtime_files())

The folder has index.html, `page` (scripts and styles) and `runtime` (onnxruntime-web). The model is model.onnx, and its
facts are model.json. The policy of the page lets the browser reach the server of the page alone.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from segvit.export.onnx_file import onnx
from segvit.export.web.graphs import scores_graph
from segvit.export.web.runtime import PACKAGE, VERSION
from segvit.inference.network import Network, classes_of, described
from segvit.inference.protocol import resolve_protocol
from segvit.reports.viewer import empty_viewer, viewer_module, viewer_style
from segvit.utils.text import percentage

INDEX, MODEL, FACTS = "index.html", "model.onnx", "model.json"
"""Names of the page, the model and its facts in the folder."""
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy: scripts and connections of the page's own server alone, and WebAssembly."""
ASSETS = (
    *("page.css", "page.js", "worker.js"),
    *("photo.js", "resize.js", "windows.js", "compose.js", "write_index_png.js"),
)
"""Files of segvit/export/web/assets/ in the folder `page`."""
RUNTIME_NAMES = {"ort.wasm.bundle.min.mjs": "ort.js"}
"""New names of files of onnxruntime-web: many servers do not know that .mjs is JavaScript."""
NOTICES = ("LICENSE", "ThirdPartyNotices.txt")
"""Licence files of ONNX Runtime, which its Python package holds."""


def write_page(
    folder: Path, model: Network, *, precision: str, runtime: Mapping[str, bytes], presence: bool = False
) -> None:
    """Write everything but the model.

    Args:
        folder: existing folder.
        model: the model that is exported.
        precision: its precision, to show on the page.
        runtime: files of onnxruntime-web by name; see `runtime_files`.
        presence: the model has a presence head.
    """
    page, engine = folder / "page", folder / "runtime"
    for made in (page, engine):
        made.mkdir(exist_ok=True)
    for name in ASSETS:
        (page / name).write_text(_asset(name), encoding="utf-8")
    (page / "viewer.js").write_text(viewer_module(), encoding="utf-8")
    (page / "viewer.css").write_text(viewer_style(), encoding="utf-8")
    onnx().save(scores_graph(presence=presence), page / "scores.onnx")
    for name, content in runtime.items():
        (engine / RUNTIME_NAMES.get(name, name)).write_bytes(content)
    for name, text in _notices().items():
        (engine / name).write_text(text, encoding="utf-8")
    (folder / INDEX).write_text(_index(model, precision), encoding="utf-8")


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of the model that the page reads."""
    (folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def page_facts(model: Network, *, cell: float) -> dict[str, Any]:
    """Return what the page needs to know of a model, besides the `bytes` of its file and its `least` side in pixels.

    Args:
        model: the model.
        cell: side in pixels of a cell of its mask logits.
    """
    classes, palette = classes_of(model)
    return {
        "classes": list(classes),
        "palette": [list(color) for color in palette],
        "protocol": resolve_protocol(model),
        "cell": cell,
    }


def _index(model: Network, precision: str) -> str:
    """Fill in index.html."""
    classes, palette = classes_of(model)
    title = model.spec.name if model.spec is not None else described(model)["backbone"]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(_asset(INDEX)).render(
        policy=POLICY,
        title=f"Label photos: {title}",
        classes=classes,
        viewer=empty_viewer(classes, palette),
        facts=_described(model, precision),
    )


def _described(model: Network, precision: str) -> list[tuple[str, str]]:
    """Return the facts of a model that the page shows, as names and texts."""
    protocol = resolve_protocol(model)
    metrics = model.extra.get("metrics")
    miou = metrics.get("miou") if isinstance(metrics, dict) else None
    parts = described(model)
    facts = [
        ("Classes", ", ".join(classes_of(model)[0])),
        ("Backbone", parts["backbone"]),
        ("Structure", parts["structure"]),
        ("Validation", f"mIoU {percentage(miou)}" if isinstance(miou, float) else ""),
        ("Protocol", ", ".join(f"{name} {value}" for name, value in protocol.items() if value is not None)),
        ("Precision", precision),
        ("Runtime", f"{PACKAGE} {VERSION} (MIT licence), on the processor of this device"),
    ]
    return [(name, text) for name, text in facts if text]


def _asset(name: str) -> str:
    """Return the text of a file in segvit/export/web/assets/."""
    return (files("segvit.export.web") / "assets" / name).read_text(encoding="utf-8")


def _notices() -> dict[str, str]:
    """Return the licence files that the installed onnxruntime has, by name."""
    spec = find_spec("onnxruntime")
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path()
    return {name: (folder / name).read_text(encoding="utf-8") for name in NOTICES if (folder / name).is_file()}
