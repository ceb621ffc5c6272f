"""tensorflow-datasets' own copy of Omniglot, downloaded where it is not."""

import os
import queue
import threading
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from reptile_tf.datasets.omniglot.drawings import Drawing
from reptile_tf.datasets.omniglot.forms import (
    ADDRESS,
    ARCHIVES,
    NAME,
    REMEDIES,
    recognize,
)
from reptile_tf.datasets.prepared_tfds import (
    tensorflow_datasets,
    tfds_version,
)
from reptile_tf.errors import InputError

PROBE_SECONDS = 10


def _open(address: str) -> None:
    request = urllib.request.Request(address, method="HEAD")
    urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()


def reachable(address: str, attempt: Callable[[str], None] = _open) -> None:
    """Raise OSError within PROBE_SECONDS if there is no network."""
    outcome: queue.Queue = queue.Queue()

    def probe():
        try:
            attempt(address)
            outcome.put(None)
        except Exception as e:
            outcome.put(e)

    # In a thread, because resolving a name knows no timeout.
    threading.Thread(target=probe, daemon=True).start()
    try:
        error = outcome.get(timeout=PROBE_SECONDS)
    except queue.Empty:
        raise TimeoutError(
            f"no answer within {PROBE_SECONDS} s") from None
    if error is not None:
        raise error


def _download(folder: Path) -> None:
    tfds = tensorflow_datasets("the download of Omniglot")
    tfds.builder(NAME, data_dir=str(folder)).download_and_prepare()


def automatic(
    probe: Callable[[str], None] | None = None,
    download: Callable[[Path], None] | None = None,
) -> tuple[Iterable[Drawing], str]:
    """tensorflow-datasets' own folder, else its download."""
    folder = Path(os.path.expanduser(os.environ.get(
        "TFDS_DATA_DIR") or "~/tensorflow_datasets"))
    if not (folder.is_dir() and tfds_version(folder, NAME)):
        try:
            (probe or reachable)(ADDRESS + ARCHIVES[0])
            (download or _download)(folder)
        except Exception as e:
            # Of several first runs one is the first.
            if not tfds_version(folder, NAME):
                raise InputError(
                    f"Omniglot is not in {folder} (TFDS_DATA_DIR names another "
                    f"folder) and could not be downloaded ({type(e).__name__}: "
                    f"{e}): {REMEDIES}") from e
    return recognize(folder)
