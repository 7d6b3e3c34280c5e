"""The process that holds the models: it opens photos and labels them, one after the other, and is told by a pipe.

The page's own process never decodes a photo nor runs a model. So a photo that takes too long, or brings a decoder down,
costs a worker, which is replaced (worker_pool.py), and not the page.
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
    """Load the models, say `Ready`, and answer each `Job` with `Labelled` or `Failed`, until the pipe is closed.

    An error that is no fault of the photo's ends the process; its trace is in what the process prints.

    Args:
        pipe: to the page.
        setup: which models, and where they run.
        limits: of a photo.
        examples: folder to write the examples to. None: another worker has done so.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the page ends its workers itself
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the operator's own limit holds instead
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, round(limits.max_megapixels * MEGA))
    with ExitStack() as held:
        try:
            # Not before: the page's process reads this module too, and needs no torch.
            from segvit.app.examples import offer_examples
            from segvit.app.label_photo import label, load_models
            from segvit.models.segvit import evaluating

            _share_cores(limits.concurrency)
            models = load_models(setup)
            offered, note = offer_examples(setup, examples, limits) if examples else ([], "")
            for model in models:
                held.enter_context(evaluating(model.network))  # what does not depend on the photo is worked out once
        except UserError as error:
            pipe.send(Failed(text=str(error)))
            return
        pipe.send(Ready(models=[model.about for model in models], examples=offered, note=note))
        while True:
            try:
                job: Job = pipe.recv()
            except EOFError:  # the page is gone
                return
            try:
                pipe.send(label(job, models, limits))
            except UserError as error:
                pipe.send(Failed(text=str(error)))


def _share_cores(workers: int) -> None:
    """Give torch this worker's share of the cores; OMP_NUM_THREADS, where set, has the last word."""
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max((os.cpu_count() or 1) // workers, 1))
