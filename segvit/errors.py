"""The one error that a user is meant to read."""


class UserError(ValueError):
    """Something that the user can mend: the text says what came, what is needed, and what to type.

    The command line prints it without a traceback and leaves with code 2; in Python it is a `ValueError`.
    """

    exit_code = 2
    """Of the command line."""
