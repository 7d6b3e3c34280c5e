"""The process that holds the models: it gets photos through a pipe and labels them one by one.

The page's own process never decodes a photo or runs a model. A photo that takes too long or crashes a decoder ends
only a worker, which is replaced (worker_pool.py), and not the page.
"""

import os
import signal
import warnings
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

from segvit.app.limits import MEGA, Limits
from segvit.app.messages import Failed, Job, Ready, Setup
from segvit.errors import UserError


def serve(pipe: Connection, setup: Setup, limits: Limits, examples: Path | None) -> None:
    """Load the models, send `Ready`, and answer each `Job` with `Labelled` or `Failed`, until the pipe is closed.

    Any error that is not the photo's fault ends the process, which prints its trace.

    Args:
        pipe: connection to the page.
        setup: models and their device.
        limits: limits of a photo.
        examples: folder to write the examples to, or None if another worker does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the page ends its workers itself
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit applies instead
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, round(limits.max_megapixels * MEGA))
    with ExitStack() as held:
        try:
            # Imported here, because the page's process imports this module too and needs no torch.
            from segvit.app.examples import offer_examples
            from segvit.app.label_photo import label, load_models
            from segvit.models.modes import evaluating

            _share_cores(limits.concurrency)
            models = load_models(setup)
            offered, note = offer_examples(setup, examples, limits) if examples else ([], "")
            for model in models:
                held.enter_context(evaluating(model.network))  # results that do not depend on the photo are cached
        except UserError as error:
            pipe.send(Failed(text=str(error)))
            return
        pipe.send(Ready(models=[model.about for model in models], examples=offered, note=note))
        while True:
            try:
                job: Job = pipe.recv()
            except EOFError:  # the page has ended
                return
            try:
                pipe.send(label(job, models, limits))
            except UserError as error:
                pipe.send(Failed(text=str(error)))


def _share_cores(workers: int) -> None:
    """Give torch this worker's share of the cores, unless OMP_NUM_THREADS is set."""
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        import torch

        from segvit.utils.device import available_cores

        torch.set_num_threads(max(available_cores() // workers, 1))
