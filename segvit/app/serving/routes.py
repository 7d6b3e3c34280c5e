"""The addresses of the server, each in one place: which exist, who may ask them, and how the metrics count them."""

import re

PREDICT, MODELS = "/api/predict", "/api/models"
"""Label a photo; list the models."""
SCHEMA, GUIDE = "/openapi.json", "/docs"
"""Description of the API for programs (OpenAPI), and the same as a page."""
HEALTH, METRICS = "/health", "/metrics"
"""State of the server, and its counts."""
TASKS, SETUP, VERSIONS, WEBHOOK = "/predict", "/setup", "/versions", "/webhook"
"""Addresses that Label Studio asks of a machine-learning backend."""
ROUTES: dict[str, tuple[str, ...]] = {
    PREDICT: ("POST",),
    MODELS: ("GET",),
    HEALTH: ("GET",),
    METRICS: ("GET",),
    SCHEMA: ("GET",),
    GUIDE: ("GET",),
    TASKS: ("POST",),
    SETUP: ("POST",),
    VERSIONS: ("GET", "POST"),
    WEBHOOK: ("POST",),
}
"""Methods of each address for programs."""
LABELLING = (TASKS, SETUP, VERSIONS, WEBHOOK)
"""Addresses whose requests hold JSON of Label Studio."""
OPEN = (HEALTH,)
"""Addresses that need no key: probes of Docker and Kubernetes have none."""
RESULTS, UPLOAD, API = "/seen/", "/gradio_api/upload", "/api/"
"""Starts of addresses: results, with token, number of the model and file name; uploads of the page; the API."""
READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info/?|openapi\.json|app_id/?|startup-events|theme\.css|upload_progress|queue/data"
    r"|heartbeat/[\w-]+|call/\w+/[\w-]+|file=.+)"
)
"""Addresses of the page that may be read (GET)."""
SENT = re.compile(r"/gradio_api/(queue/join|cancel|reset/?|(run|api|call)/\w+/?|call/v2/\w+/?|upload)")
"""Addresses of the page that may be posted to (POST)."""
PAGE, SEEN, GRADIO, OTHER = "/", "/seen", "/gradio_api", "other"
"""Names of all further addresses in the metrics. They are few, whatever visitors ask for."""


def route_of(path: str) -> str:
    """Return the name by which the metrics count an address."""
    if path in ROUTES:
        return path
    if path.startswith(RESULTS):
        return SEEN
    if path.startswith(f"{GRADIO}/"):
        return GRADIO
    return PAGE if READ.fullmatch(path) else OTHER


def is_for_programs(path: str) -> bool:
    """True for addresses whose refusals are JSON."""
    return path in ROUTES or path.startswith(API)
