"""The API of the page: POST /api/predict takes one photo and returns its label map; GET /api/models lists the models.

    curl -F photo=@photo.jpg "http://127.0.0.1:7860/api/predict?model=camvid&format=json"

An answer is a PNG of class numbers, or JSON. A refusal is JSON too: {"error": "the reason"}. docs/app.md lists both.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from segvit.app.file_store import FULL, FileStore
from segvit.app.messages import Labelled
from segvit.app.service import Service
from segvit.app.serving.refusals import RETRY_SECONDS, Full, NoForm, NotAcceptable, SlowUpload, WrongRequest
from segvit.app.serving.responses import json_response, refusal
from segvit.app.serving.routes import MODELS, PREDICT
from segvit.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

FIELD = "photo"
"""Name of the field that holds the photo."""
PARAMETERS = {
    "model": "Name of a model on this page. Default: the first.",
    "format": "png or json. Default: what the header Accept asks for, else png.",
}
"""Parameters of the address, each with its meaning."""
KINDS = {"png": "image/png", "json": "application/json"}
"""Formats of an answer, and their media types."""
HOW = f"send it as multipart/form-data: curl -F {FIELD}=@photo.jpg ADDRESS{PREDICT}"

Handler = Callable[["Request"], Awaitable["Response"]]


def add_api(application: "Starlette", service: Service, store: FileStore) -> "Predictor":
    """Add the addresses of the API to an application, and return what answers its requests for labels."""
    predictor = Predictor(service, store)
    application.add_route(PREDICT, predictor.answer, methods=["POST"])

    async def models(_: "Request") -> "Response":
        return json_response(200, models_of(service))

    application.add_route(MODELS, models, methods=["GET"])
    return predictor


class Predictor:
    """Answers POST /api/predict. Requests wait in a queue of their own, and take turns with the page at the workers.

    Args:
        service: labels the photos.
        store: place of the photos while they are needed.

    Attributes:
        waiting: number of requests that are not yet answered.
    """

    def __init__(self, service: Service, store: FileStore) -> None:
        self._service, self._store = service, store
        self._threads = ThreadPoolExecutor(service.limits.concurrency, thread_name_prefix="api")
        self.waiting = 0

    async def answer(self, request: "Request") -> "Response":
        """Return the label map of the photo in a request, or the reason why there is none."""
        try:
            kind, model = self._parameters(request)
            if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                raise NoForm(f"the body of the request is no form with a photo: {HOW}")
            if self.waiting >= self._service.limits.queue:
                raise Full(f"{self.waiting} requests wait already: try again in {RETRY_SECONDS} seconds")
        except UserError as error:
            return refusal(error)
        self.waiting += 1
        try:
            with self._store.open_upload() as folder:
                async with in_time(self._service.limits.timeout):
                    photo = await self._receive(request, folder)
                body = await self._in_turn(photo, model, kind)
        except UserError as error:
            return refusal(error)
        finally:
            self.waiting -= 1
        from starlette.responses import Response

        return Response(body, media_type=KINDS[kind])

    def _parameters(self, request: "Request") -> tuple[str, str]:
        """Return the format of the answer and the name of the model.

        Raises:
            WrongRequest: a parameter or its value is unknown.
            NotAcceptable: the header asks for other formats.
        """
        given = request.query_params
        for name in given:
            if name not in PARAMETERS:
                raise WrongRequest(f"parameter {name} in the address: the parameters are {' and '.join(PARAMETERS)}")
        kind = given.get("format")
        if kind is None:
            kind = _accepted(request.headers.get("accept", "*/*"))
        elif kind not in KINDS:
            raise WrongRequest(f"format={kind}: choose from {', '.join(KINDS)}")
        model = given.get("model", self._service.models[0].name)
        self._service.check([model])
        return kind, model

    async def _receive(self, request: "Request", folder: Path) -> Path:
        """Write the photo of a request to a folder.

        Raises:
            WrongRequest: the form is damaged, has other fields, or holds no photo.
            Full: the disk is full.
        """
        from starlette.exceptions import HTTPException

        try:
            async with request.form(max_files=1, max_fields=len(PARAMETERS)) as form:
                name, file = _photo_in(form)
                if self._store.room() < 0:
                    raise Full(FULL)
                path = folder / name
                await asyncio.to_thread(_copy, file, path)
        except HTTPException as error:
            raise WrongRequest(f"the form cannot be read ({error.detail}): {HOW}") from error
        except OSError as error:
            raise Full(FULL) from error
        return path

    async def _in_turn(self, photo: Path, model: str, kind: str) -> bytes:
        """Label a photo after those that came before, and return the answer in a format.

        Raises:
            UserError: the photo cannot be labelled.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._label, photo, model, kind)

    def _label(self, photo: Path, model: str, kind: str) -> bytes:
        """Label a photo, and return the answer in a format. The results are deleted at once."""
        result = self._service.label(str(photo), [model], overlay=False, polygons=kind == "json")
        try:
            (seen,) = result.labelled.seen
            if kind == "png":
                return seen.labels.read_bytes()
            assert seen.polygons is not None
            polygons = json.loads(seen.polygons.read_text(encoding="utf-8"))
            return json.dumps({**facts_of(result.labelled), "polygons": polygons}).encode()
        finally:
            self._store.remove(result.folder)


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Limit the time of an upload, so that slow clients do not keep the places of others in the queue.

    Raises:
        SlowUpload: the time is over.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise SlowUpload(f"the upload took longer than {seconds:g} seconds: send a smaller file") from error


def facts_of(labelled: Labelled) -> dict[str, Any]:
    """Return the facts on a photo that one model has labelled, ready for JSON."""
    (seen,) = labelled.seen
    return {
        "model": seen.model,
        "width": labelled.width,
        "height": labelled.height,
        "milliseconds": round(seen.milliseconds, 1),
        "shares": seen.shares,
        "notes": labelled.notes,
    }


def models_of(service: Service) -> dict[str, Any]:
    """Return the models, with classes and colours in the order of the class numbers, and the limits."""
    limits = service.limits
    return {
        "models": [vars(about) for about in service.models],
        "limits": {
            "megabytes": limits.max_megabytes,
            "megapixels": limits.max_megapixels,
            "seconds": limits.timeout,
            "waiting": limits.queue,
        },
    }


def _photo_in(form: "FormData") -> tuple[str, IO[bytes]]:
    """Return name and content of the file in a form.

    Raises:
        WrongRequest: it has other fields, or holds no photo.
    """
    from starlette.datastructures import UploadFile

    photo = form.get(FIELD)
    others = ", ".join(sorted({name for name in form if name != FIELD}))
    if isinstance(photo, UploadFile) and not others:
        return _safe_name(photo.filename or FIELD), photo.file
    if photo is not None and others:
        raise WrongRequest(f"field {others}: a form has one field, {FIELD}; parameters go in the address")
    came = f"{others} came" if others else "the form is empty" if photo is None else "text came"
    raise WrongRequest(f"no file in the field {FIELD} ({came}): {HOW}")


def _copy(file: IO[bytes], path: Path) -> None:
    """Write what a file holds to another."""
    with path.open("wb") as target:
        shutil.copyfileobj(file, target)


def _safe_name(name: str) -> str:
    """Return the name of a sent file as Gradio does: without folders and without characters that a system refuses."""
    from gradio_client.utils import strip_invalid_filename_characters

    last = str(strip_invalid_filename_characters(PurePosixPath(name.replace("\\", "/")).name))
    return FIELD if last in ("", ".", "..") else last


def _accepted(header: str) -> str:
    """Return the format that a header Accept likes best.

    Raises:
        NotAcceptable: it likes none of ours.
    """
    best, most = None, 0.0
    for word in header.split(","):
        kind, *options = (part.strip().lower() for part in word.split(";"))
        quality = next((_number(option[2:]) for option in options if option.startswith("q=")), 1.0)
        found = next((key for key, media in KINDS.items() if kind in (media, f"{media.split('/')[0]}/*", "*/*")), None)
        if found is not None and quality > most:
            best, most = found, quality
    if best is None:
        raise NotAcceptable(f"Accept: {header}: give {' or '.join(KINDS.values())}")
    return best


def _number(text: str) -> float:
    """Return a quality of a header Accept, and 0 for one that is no number."""
    try:
        return float(text)
    except ValueError:
        return 0.0
