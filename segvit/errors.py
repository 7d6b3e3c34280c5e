"""The error for mistakes that the user can correct."""


class UserError(ValueError):
    """A mistake that the user can correct. The text gives the value, what is allowed, and one command to type.

    The command line prints it without a traceback and exits with code 2. In Python it is a `ValueError`.
    """

    exit_code = 2
    """Exit code of the command line."""
