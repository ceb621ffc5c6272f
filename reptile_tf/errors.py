"""The one error that a user can do something about."""


class InputError(ValueError):
    """A flag, a file or an argument is wrong.

    The message names the value, what is allowed, and the remedy. The scripts
    print it as one line and exit with status 1.
    """
