"""Folders that come with the package: flagfiles and initializations.

A checkout has them beside the package, an installed package inside it
(pyproject.toml, package-dir). No link stands for them: a ZIP file, Windows and
many network disks make text files of links.
"""

from pathlib import Path

# Of a package that is linked into a project, where the link leads.
PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Where that one lies."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
