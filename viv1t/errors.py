"""Errors that a user can cure."""


class UserError(Exception):
    """Shown as one line without traceback (exit code 2): what is wrong, in which file, how to fix it."""
