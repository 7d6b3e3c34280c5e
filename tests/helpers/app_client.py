"""The whole server of `segvit app` without a port, without models and without processes: for tests of its layers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segvit.app.file_store import FileStore
from segvit.app.service import Service


@contextmanager
def server_of(pool: Any, limits: Any, access: Any) -> Iterator[Any]:
    """Yield a uvicorn.Server whose photos `pool` labels; it is not run."""
    from segvit.app.server import make_server

    before = dict(os.environ)
    with FileStore(limits) as store:
        os.environ["GRADIO_TEMP_DIR"] = str(store.uploads)
        try:
            yield make_server(Service(pool, store, limits), store, [], access)
        finally:
            os.environ.clear()
            os.environ.update(before)


def client_of(server: Any) -> Any:
    """A client that asks a server directly."""
    from starlette.testclient import TestClient

    return TestClient(server.config.app)
