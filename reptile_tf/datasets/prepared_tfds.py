"""What tensorflow-datasets has prepared in a folder."""

from pathlib import Path


def tfds_version(folder: Path, name: str) -> Path | None:
    """The folder of a prepared tensorflow-datasets `name` in `folder`.

    The newest version if there are several; None if there is none.
    """
    for base in (folder, folder / name):
        versions = [p.parent for p in base.glob("*/dataset_info.json")]
        versions += [base] if (base / "dataset_info.json").exists() else []
        if versions:
            return max(versions)
    return None
