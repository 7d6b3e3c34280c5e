"""Write folders with a page that labels photos in the browser, and run their model in ONNX Runtime."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segvit.errors import UserError
from segvit.export.formats.format import Format, Run
from segvit.export.formats.onnx_graph import OnnxGraph

if TYPE_CHECKING:
    from torch import Tensor

    from segvit.export.graph import LabelGraph
    from segvit.export.quantize import ExportPrecision
    from segvit.export.traced import Traced


class WebPage(Format):
    """Page for the browser. `model.onnx` holds the header.

    Args:
        runtime: package of onnxruntime-web, as an archive of npm or an unpacked folder. Default: the one in the cache
            or in `node_modules`; if there is none, npm fetches it.
    """

    name = "web"
    suffix = ""
    precisions = ("int8", "fp32", "fp16")  # in WebAssembly int8 is the fastest, and a quarter of the download
    int8_images = "optional"
    from_onnx = True
    packages = OnnxGraph.packages
    extra = OnnxGraph.extra
    marker = "page/scores.onnx"

    def __init__(self, runtime: Path | None = None) -> None:
        self.runtime = runtime

    def next_steps(self, path: Path) -> list[str]:
        """Return the command that serves the page on this computer."""
        command = shlex.join(["python", "-m", "http.server", "--directory", str(path)])
        return [f"to open the page, run `{command}`, then open http://localhost:8000"]

    def check(self, precision: "ExportPrecision") -> None:
        """Check the packages, and find or fetch onnxruntime-web before the work.

        Raises:
            UserError: something is missing.
        """
        from segvit.export.web.runtime import runtime_files

        super().check(precision)
        runtime_files(self.runtime)

    def check_model(self, graph: "LabelGraph") -> None:
        """Check that the model takes photos, and that no scores are asked for.

        Raises:
            UserError: it takes other bands or other depths, or there are scores.
        """
        from segvit.inference.network import reading_of

        super().check_model(graph)
        reading = reading_of(graph.model)
        if reading.floats or reading.bands != 3:
            raise UserError("a page shows photos of red, green and blue in 8 bits, and this model takes other images")
        if graph.with_scores:
            raise UserError("--scores: a page has no such output; leave it out, or export an .onnx file")

    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Write the model, the page and the runtime. int8 is calibrated on windows (3, H, W), if there are any.

        Raises:
            UserError: the model is fixed to a size that its test protocol does not use.
        """
        from segvit.export.onnx_file import onnx
        from segvit.export.web.graphs import gives_presence, logits_graph
        from segvit.export.web.page import MODEL, page_facts, write_facts, write_page
        from segvit.export.web.runtime import runtime_files
        from segvit.inference.protocol import protocol_windows

        model = traced.graph.model
        cuts = protocol_windows(model, model.protocol)
        if traced.size is not None and (cuts is None or traced.size != (cuts.side, cuts.side)):
            fixed = f"{traced.size[0]} x {traced.size[1]} pixels"
            used = "whole photos" if cuts is None else f"windows of {cuts.side} x {cuts.side} pixels"
            raise UserError(
                f"a graph of {fixed} cannot run this model's test protocol, which uses {used}; leave --size out. If "
                "you gave none, the model can be exported at one size only: export an .onnx file instead"
            )
        file.mkdir()
        OnnxGraph().write(traced, file / MODEL, precision, windows)
        reduced = logits_graph(onnx().load(file / MODEL))
        onnx().save(reduced, file / MODEL)
        presence, runtime = gives_presence(reduced), runtime_files(self.runtime)
        write_page(file, model, precision=precision, runtime=runtime, presence=presence)
        write_facts(file, page_facts(model, cell=model.mask_cell))

    def run(self, file: Path) -> Run:
        """Run the model in ONNX Runtime on the CPU, and compose its labels from the logits."""
        import numpy as np
        import torch

        from segvit.export.web.page import FACTS, MODEL
        from segvit.inference.exported import INPUT, LOGITS, VALID
        from segvit.inference.label_map import label_map
        from segvit.inference.onnx_model import open_session
        from segvit.models.output import SegOutput

        session = open_session(str(file / MODEL), torch.device("cpu"), source=file)
        cell = json.loads((file / FACTS).read_text(encoding="utf-8"))["cell"]

        def run(images: "Tensor") -> "Tensor":
            size = (images.shape[2], images.shape[3])
            found = session.run(LOGITS, {INPUT: images.numpy(), VALID: np.array(size)})
            classes, masks = (torch.from_numpy(logits)[None] for logits in found)
            return label_map(SegOutput(classes, masks, size, (int(masks.shape[3] * cell), int(masks.shape[4] * cell))))

        return run

    def add_header(self, file: Path, traced: "Traced", header: str) -> None:
        """Store the header in the model, and what the page reads of it beside the model."""
        from segvit.export.web.page import FACTS, MODEL, write_facts

        OnnxGraph().add_header(file / MODEL, traced, header)
        facts = json.loads((file / FACTS).read_text(encoding="utf-8"))
        least = json.loads(header)["export"]["least"]
        write_facts(file, facts | {"least": least, "bytes": (file / MODEL).stat().st_size})
