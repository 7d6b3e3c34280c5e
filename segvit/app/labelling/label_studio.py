"""The routes that Label Studio asks of a machine-learning backend: /setup, /predict, /versions, /webhook, /health.

    segvit app best.safetensors --label-studio-url http://127.0.0.1:8080

In the project, give the address of this server under Settings, Model. Regions come in the form of the project's
own controls (controls.py). Images come from that Label Studio alone (images.py). Nothing is trained.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from segvit.app.file_store import FileStore
from segvit.app.labelling.controls import Form, read_form
from segvit.app.labelling.images import LabelStudio, fetch
from segvit.app.messages import About
from segvit.app.service import Service
from segvit.app.serving.api import in_time
from segvit.app.serving.refusals import RETRY_SECONDS, Full, WrongRequest
from segvit.app.serving.responses import json_response, refusal
from segvit.app.serving.routes import SETUP, TASKS, VERSIONS, WEBHOOK
from segvit.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MOST_TASKS = 100
"""Largest number of tasks in a request."""
NOTED = "noted; nothing is trained here: export the annotations, and type `segvit train`"


def add_label_studio(
    application: "Starlette", service: Service, store: FileStore, source: LabelStudio | None
) -> "Backend":
    """Add the routes to an application, and return what answers them.

    Args:
        application: gets the addresses.
        service: labels the photos.
        store: place of the images while they are needed.
        source: Label Studio that images may be fetched from.
    """
    backend = Backend(service, store, source)
    for path, methods, act in (
        (SETUP, ["POST"], backend.setup),
        (TASKS, ["POST"], backend.predict),
        (VERSIONS, ["GET", "POST"], backend.versions),
        (WEBHOOK, ["POST"], backend.webhook),
    ):
        application.add_route(path, _answering(act), methods=methods)
    return backend


class Backend:
    """Answers Label Studio.

    Args:
        service: labels the photos.
        store: place of the images while they are needed.
        source: Label Studio that images may be fetched from.

    Attributes:
        waiting: number of requests for predictions that are not yet answered.
    """

    def __init__(self, service: Service, store: FileStore, source: LabelStudio | None) -> None:
        self._service, self._store, self._source = service, store, source
        self._threads = ThreadPoolExecutor(service.limits.concurrency, thread_name_prefix="label-studio")
        self.waiting = 0

    async def setup(self, request: "Request") -> dict[str, Any]:
        """Check the labelling configuration of a project against the classes of the first model.

        Raises:
            WrongRequest: it does not fit.
        """
        content = await _content(request)
        about = self._service.models[0]
        read_form(content.get("schema"), about.classes)
        return {"model_version": about.name}

    async def versions(self, request: "Request") -> dict[str, Any]:
        """Return the names of the models, from which Label Studio lets its users choose."""
        return {"versions": [about.name for about in self._service.models]}

    async def webhook(self, request: "Request") -> dict[str, Any]:
        """Take note of an event, and keep nothing of it."""
        async for _ in request.stream():
            pass
        return {"message": NOTED}

    async def predict(self, request: "Request") -> dict[str, Any]:
        """Label the images of tasks.

        Raises:
            UserError: the request is malformed, or none of its images can be labelled.
        """
        if self.waiting >= self._service.limits.queue:  # before the body, which may have many megabytes
            raise Full(f"{self.waiting} requests wait already: try again in {RETRY_SECONDS} seconds")
        self.waiting += 1
        try:
            async with in_time(self._service.limits.timeout):
                content = await _content(request)
            return await self._predict(content)
        finally:
            self.waiting -= 1

    async def _predict(self, content: dict[str, Any]) -> dict[str, Any]:
        """Label the images of tasks.

        Raises:
            UserError: the request is malformed, or none of its images can be labelled.
        """
        tasks = content.get("tasks")
        if not isinstance(tasks, list) or not 1 <= len(tasks) <= MOST_TASKS:
            raise WrongRequest(f"`tasks` is no list of 1 to {MOST_TASKS} tasks: send {{'tasks': [...]}}")
        about = self._wanted(content.get("model_version"))
        form = read_form(content.get("label_config"), about.classes)
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._threads, self._label_all, tasks, form, about.name)
        return {"results": results, "model_version": about.name}

    def _wanted(self, name: Any) -> About:
        """Return the model that a project asks for, else the first. The answer names it.

        A project keeps the name of a model that has been replaced, and must get labels all the same.
        """
        for about in self._service.models:
            if about.name == name:
                return about
        first = self._service.models[0]
        if name:
            text = f"Label Studio asks for {str(name)[:40]}, which is not on this server: {first.name} answers"
            print(text, file=sys.stderr, flush=True)
        return first

    def _label_all(self, tasks: list[Any], form: Form, model: str) -> list[dict[str, Any]]:
        """Label each task. If one fails, its prediction is empty and holds the reason.

        Raises:
            UserError: all of them fail.
        """
        results: list[dict[str, Any]] = []
        errors: list[UserError] = []
        for number, task in enumerate(tasks, start=1):
            try:
                results.append(self._label(task, form, model))
            except UserError as error:
                name = task.get("id", number) if isinstance(task, dict) else number
                text = f"task {str(name)[:40]}: {error}"
                print(f"Label Studio, {text}", file=sys.stderr, flush=True)
                results.append({"model_version": model, "result": [], "error": text})
                errors.append(error)
        if len(errors) == len(tasks):
            raise errors[0]
        return results

    def _label(self, task: Any, form: Form, model: str) -> dict[str, Any]:
        """Return the prediction of a task.

        Raises:
            UserError: it has no image, or the image cannot be fetched or labelled.
        """
        data = task.get("data") if isinstance(task, dict) else None
        with self._store.open_upload() as folder:
            photo = fetch(data, form.key, self._source, folder, self._service.limits)
            result = self._service.label(str(photo), [model], overlay=False, polygons=False, controls=form.controls)
        try:
            (seen,) = result.labelled.seen
            assert seen.regions is not None
            regions = json.loads(seen.regions.read_text(encoding="utf-8"))
            score = {} if seen.score is None else {"score": round(seen.score, 4)}
            return {"model_version": model, **score, "result": regions}
        finally:
            self._store.remove(result.folder)


async def _content(request: "Request") -> dict[str, Any]:
    """Return the JSON of a request.

    Raises:
        WrongRequest: it is no JSON object.
    """
    try:
        content = json.loads(await request.body(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WrongRequest("the body of the request is no JSON: send an object") from error
    if not isinstance(content, dict):
        raise WrongRequest("the body of the request is no JSON object: send {...}")
    return content


def _refuse(constant: str) -> None:
    """Refuse NaN and infinite numbers.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{constant} is no JSON")


def _answering(act: Callable[["Request"], Awaitable[dict[str, Any]]]) -> Callable[["Request"], Awaitable["Response"]]:
    """Return a handler that answers with what an action returns, or with the reason why it fails."""

    async def handler(request: "Request") -> "Response":
        try:
            return json_response(200, await act(request))
        except UserError as error:
            return refusal(error)

    return handler
