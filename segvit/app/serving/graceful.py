"""A uvicorn server that ends gracefully: it stays open, refuses what is new, and finishes what runs within a time."""

from collections.abc import Callable
from types import FrameType
from typing import Any

from segvit.app.serving.front import Stopping


def graceful_server(config: Any, stopping: Stopping, *, running: Callable[[], int], give_up: Callable[[], None]) -> Any:
    """Return a uvicorn.Server; it also stops when its `should_exit` is set.

    The first SIGTERM or Ctrl-C begins the end. A second one ends it at once: what still runs is refused.

    Args:
        config: a uvicorn.Config.
        stopping: state of the end.
        running: returns the number of requests that are still worked on.
        give_up: called if they are not finished in time, or at the second signal, so that they get an answer.
    """
    import uvicorn  # comes with Gradio

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            if not stopping.begun:
                stopping.begin()
                self.should_exit = False
            else:
                give_up()

        async def on_tick(self, counter: int) -> bool:
            if stopping.begun and not self.should_exit:
                if stopping.overdue:
                    give_up()
                self.should_exit = stopping.overdue or not running()
            return await super().on_tick(counter)

    return Server(config)
