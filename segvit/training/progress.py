"""Progress of a training run: a live bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segvit.config import TrainConfig

SMOOTHING = 0.98
"""Share of the old value in the running mean of the loss."""


class TrainProgress:
    """Step, smoothed loss, learning rate, images per second and time left."""

    def __init__(self, config: TrainConfig, *, start: int, shown: bool) -> None:
        self.config = config
        self.console = Console(quiet=not shown, soft_wrap=True)
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (shown and self.console.is_terminal),
        )
        self.main = self.bar.add_task("training", total=config.steps, completed=start, note="")
        self.loss: float | None = None
        self.since = (time.monotonic(), start)

    def __enter__(self) -> "TrainProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, step: int, *, loss: float, lr: float) -> None:
        """Show a step's loss (total) and learning rate (of the backbone)."""
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        start_time, start_step = self.since
        speed = (step - start_step) * self.config.batch_size / max(time.monotonic() - start_time, 1e-9)
        note = f"loss {self.loss:.3f}  lr {lr:.1e}  {speed:.1f} images/s"
        self.bar.update(self.main, completed=step, note=note)
        if not self.console.is_terminal and (step % self.config.log_every == 0 or step == self.config.steps):
            self.console.print(f"step {step}/{self.config.steps}  {note}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Show a second bar during other work, whose time does not count as training time."""
        began = time.monotonic()
        task = self.bar.add_task(name, total=total, note="")
        try:
            yield lambda done, _: self.bar.update(task, completed=done)
        finally:
            self.bar.remove_task(task)
            self.since = (self.since[0] + time.monotonic() - began, self.since[1])
