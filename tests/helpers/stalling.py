"""What test_predict_parallel kills: `segvit`, whose processes each stop and wait at their 70th image.

    torchrun --nproc-per-node 2 -m tests.helpers.stalling predict ...

So the run is not done when the test comes to kill it, however long that takes.
"""

import itertools
import time
from typing import Any

import segvit.prediction.predict_files as module
from segvit.cli.main import main

STALLS_AT = 70


def stall() -> None:
    """Let each process label so many images and no more."""
    label, count = module.label_photo, itertools.count()

    def label_until_then(*arguments: Any, **settings: Any) -> Any:
        if next(count) == STALLS_AT:
            time.sleep(600)
        return label(*arguments, **settings)

    module.label_photo = label_until_then


if __name__ == "__main__":
    stall()
    main()
