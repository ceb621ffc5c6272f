"""Standard output for every name that a file may have."""

import sys


def print_any_name() -> None:
    """Names may hold bytes that are no characters: print these escaped."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
