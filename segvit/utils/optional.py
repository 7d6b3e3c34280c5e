"""Gradio, imported when it is used."""

import os
from importlib import import_module
from types import ModuleType

from segvit.errors import UserError


def gradio() -> ModuleType:
    """Gradio, which reports to nobody.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it is asked for when Gradio is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        return import_module("gradio")
    except ImportError as error:
        raise UserError(f"the page needs Gradio ({error}); type `pip install 'segvit[app]'`") from error
