"""The API as an OpenAPI description (3.1), from which clients can be generated: GET /openapi.json.

It is written from the constants that the server itself uses: addresses, parameters, formats and statuses.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from segvit.app.serving.api import FIELD, KINDS, PARAMETERS
from segvit.app.serving.metrics import MEDIA_TYPE
from segvit.app.serving.refusals import STATUSES
from segvit.app.serving.responses import json_response
from segvit.app.serving.routes import (
    GUIDE,
    HEALTH,
    METRICS,
    MODELS,
    OPEN,
    PREDICT,
    ROUTES,
    SCHEMA,
    SETUP,
    TASKS,
    VERSIONS,
    WEBHOOK,
)
from segvit.app.serving.schemas import SCHEMAS, Schema, ref

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

JSON = "application/json"
KEYS: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "password": {"type": "http", "scheme": "basic", "description": "Any user name; the key is the password."},
}
"""Ways to send a key."""
LABELLING = "For Label Studio: give it the address of this server as a machine-learning backend."


def add_schema(application: "Starlette", models: list[str], *, root_path: str, with_keys: bool) -> None:
    """Add the addresses of the description to an application: for programs, and as a page.

    Args:
        application: gets the addresses.
        models: names of the models.
        root_path: path below which a proxy serves the page.
        with_keys: true if the server needs keys.
    """
    from segvit.app.serving.openapi_page import page_of

    content = description(models, root_path=root_path, with_keys=with_keys)

    async def schema(_: "Request") -> "Response":
        return json_response(200, content)

    async def guide(_: "Request") -> "Response":
        from starlette.responses import HTMLResponse

        return HTMLResponse(page_of(content))

    application.add_route(SCHEMA, schema, methods=["GET"])
    application.add_route(GUIDE, guide, methods=["GET"])


def description(models: list[str], *, root_path: str, with_keys: bool) -> dict[str, Any]:
    """Return the description.

    Args:
        models: names of the models.
        root_path: path below which a proxy serves the page.
        with_keys: true if the server needs keys.
    """
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), operation in _operations(models).items():
        assert method in ROUTES[path]
        answers = operation["responses"]
        if with_keys and path not in OPEN:
            answers |= _refusals(401)
        operation |= {"security": []} if path in OPEN else {}
        operation["responses"] = dict(sorted(answers.items()))
        name = f"{method.lower()}{path.replace('/', '_').replace('.', '_')}"
        paths.setdefault(path, {})[method.lower()] = {"operationId": name, **operation}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "segvit",
            "version": _version(),
            "description": f"Label maps of photos, by {', '.join(models)}.",
        },
        "servers": [{"url": root_path or "/"}],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }
    if with_keys:
        found["components"] = {"schemas": SCHEMAS, "securitySchemes": KEYS}
        found["security"] = [{name: []} for name in KEYS]
    return found


def _operations(models: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return each operation by address and method."""
    names = _json(ref("Tasks"))
    labels: dict[str, Schema] = {
        KINDS["png"]: {"schema": {"type": "string", "format": "binary"}},
        KINDS["json"]: {"schema": ref("Prediction")},
    }
    photo = {
        "type": "object",
        "properties": {FIELD: {"type": "string", "format": "binary", "description": "The photo."}},
        "required": [FIELD],
    }
    return {
        (PREDICT, "POST"): {
            "summary": "Label a photo.",
            "parameters": _parameters(models),
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": photo}}},
            "responses": {
                "200": {"description": "The label map: class numbers (PNG), or outlines (JSON).", "content": labels},
                **_refusals(400, 406, 408, 413, 415, 422, 500, 503, 504),
            },
        },
        (MODELS, "GET"): {
            "summary": "List the models, with classes and colours in the order of the class numbers, and the limits.",
            "responses": {"200": _answer("The models and the limits.", ref("Models"))},
        },
        (HEALTH, "GET"): {
            "summary": "Return the state of the server. Needs no key.",
            "responses": {
                "200": _answer("The server is ready.", ref("Health")),
                "503": _answer("A worker loads or has ended, or the server is stopping.", ref("Health")),
            },
        },
        (METRICS, "GET"): {
            "summary": "Return the counts of the server for Prometheus, in its text format.",
            "responses": {
                "200": {"description": "The counts.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
            },
        },
        (SCHEMA, "GET"): {
            "summary": "Return this description.",
            "responses": {"200": _answer("OpenAPI 3.1.", {"type": "object"})},
        },
        (GUIDE, "GET"): {
            "summary": "Show this description as a page.",
            "responses": {"200": {"description": "HTML.", "content": {"text/html": {"schema": {"type": "string"}}}}},
        },
        (TASKS, "POST"): {
            "summary": f"Label the images of tasks. {LABELLING}",
            "requestBody": {"required": True, "content": names},
            "responses": {
                "200": _answer("Regions of each task.", ref("TaskPredictions")),
                **_refusals(400, 408, 413, 422, 500, 502, 503, 504),
            },
        },
        (SETUP, "POST"): {
            "summary": f"Check the labelling configuration of a project. {LABELLING}",
            "requestBody": {"required": True, "content": _json(ref("Setup"))},
            "responses": {"200": _answer("It fits.", ref("Version")), **_refusals(400, 413, 422)},
        },
        (VERSIONS, "GET"): {
            "summary": f"List the names of the models. {LABELLING}",
            "responses": {"200": _answer("The names.", ref("Versions"))},
        },
        (VERSIONS, "POST"): {
            "summary": f"List the names of the models. {LABELLING}",
            "requestBody": {"required": False, "content": _json({"type": "object"})},
            "responses": {"200": _answer("The names.", ref("Versions")), **_refusals(413)},
        },
        (WEBHOOK, "POST"): {
            "summary": f"Take note of an event; nothing is trained. {LABELLING}",
            "requestBody": {"required": True, "content": _json(ref("Event"))},
            "responses": {"200": _answer("Noted.", ref("Message")), **_refusals(413)},
        },
    }


def _parameters(models: list[str]) -> list[dict[str, Any]]:
    """Return the parameters of a request for labels."""
    choices = {"model": models, "format": list(KINDS)}
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": text,
            "schema": {"type": "string", "enum": choices[name]},
        }
        for name, text in PARAMETERS.items()
    ]


def _answer(text: str, schema: Schema) -> dict[str, Any]:
    """Return the description of an answer in JSON."""
    return {"description": text, "content": _json(schema)}


def _refusals(*statuses: int) -> dict[str, Any]:
    """Return the descriptions of refusals by status."""
    return {str(status): _answer(STATUSES[status], ref("Error")) for status in statuses}


def _json(schema: Schema) -> Mapping[str, Any]:
    """Return the content of a body in JSON."""
    return {JSON: {"schema": schema}}


def _version() -> str:
    """Return the version of the installed package."""
    try:
        return version("segvit")
    except PackageNotFoundError:  # run from a source tree
        return "0"
