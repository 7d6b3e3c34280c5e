"""State of the server: /health for probes and balancers, /metrics for Prometheus.

curl http://127.0.0.1:7860/health
{"status": "UP", "alive": true, "ready": true, "stopping": false, "workers": {"ready": 1, ...}}
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import psutil

from segvit.app.service import Service
from segvit.app.serving.front import Stopping
from segvit.app.serving.metrics import MEDIA_TYPE, Family, Labels, Metrics
from segvit.app.serving.responses import json_response
from segvit.app.serving.routes import HEALTH, METRICS
from segvit.app.worker_process import State

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


def add_health(
    application: "Starlette",
    service: Service,
    metrics: Metrics,
    stopping: Stopping,
    queued: Callable[[], int],
) -> None:
    """Add the addresses /health and /metrics to an application.

    Args:
        application: gets the addresses.
        service: labels the photos.
        metrics: counts of requests.
        stopping: state of the end.
        queued: returns the number of requests of the API that are in its queue.
    """

    async def health(_: "Request") -> "Response":
        content = health_of(service, stopping)
        return json_response(200 if content["ready"] else 503, content)

    async def counts(_: "Request") -> "Response":
        from starlette.responses import Response

        families = families_of(service, queued=queued())
        return Response(metrics.text(families), headers={"content-type": MEDIA_TYPE})

    application.add_route(HEALTH, health, methods=["GET"])
    application.add_route(METRICS, counts, methods=["GET"])


def health_of(service: Service, stopping: Stopping) -> dict[str, Any]:
    """Return the state of the server, ready for JSON.

    It is ready if the models of every worker are loaded, and it is not stopping. `status` is what Label Studio reads.
    """
    workers = _counts(service)
    ready = not stopping.begun and not workers["dead"] and not workers["loading"]
    return {
        "status": "UP" if ready else "DOWN",
        "alive": True,
        "ready": ready,
        "stopping": stopping.begun,
        "models": [about.name for about in service.models],
        "workers": workers,
    }


def families_of(service: Service, *, queued: int) -> list[Family]:
    """Return the counts that are no counts of requests: queues, workers, memory.

    Args:
        service: labels the photos.
        queued: number of requests of the API that are in its queue.
    """
    pool = service.pool
    workers: dict[Labels, float] = {(("state", state),): count for state, count in _counts(service).items()}
    queues: dict[Labels, float] = {(("name", "api"),): queued, (("name", "workers"),): pool.waiting}
    memory: dict[Labels, float] = {(("process", "server"),): psutil.Process().memory_info().rss}
    for number, process in enumerate(pool.processes()):
        try:
            memory[("process", f"worker {number}"),] = psutil.Process(process).memory_info().rss
        except psutil.Error:  # it has ended
            continue
    return [
        Family("segvit_queue_length", "gauge", "Requests of the API, and photos that wait for a worker.", queues),
        Family("segvit_workers", "gauge", "Workers by state.", workers),
        Family("segvit_worker_restarts_total", "counter", "Workers that were replaced.", {(): pool.restarts}),
        Family("segvit_resident_memory_bytes", "gauge", "Memory of each process in bytes.", memory),
    ]


def _counts(service: Service) -> dict[str, int]:
    """Return the number of workers in each state."""
    return dict.fromkeys(get_args(State), 0) | Counter(service.pool.states())
