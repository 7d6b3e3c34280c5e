"""Optional packages, imported when they are used."""

from importlib import import_module
from types import ModuleType

from segvit.errors import UserError


def need(name: str, purpose: str, *, extra: str) -> ModuleType:
    """Import an optional package or one of its modules.

    Args:
        name: what to import, such as `scipy.io`.
        purpose: what needs it, in the plural, such as "MATLAB files".
        extra: the extra of segvit that installs it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"{purpose} need {package} ({error}); type `pip install 'segvit[{extra}]'`") from error
