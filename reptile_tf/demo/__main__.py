"""Draw three characters and a fourth, in a browser on this machine.

    python -m reptile_tf.demo [--initialization=DIR] [--sine=DIR,DIR]
                              [--port=N] [--nobrowser]

serves a page on 127.0.0.1 and opens it. Ctrl-C stops.
"""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)
import threading
import webbrowser
from pathlib import Path

from reptile_tf import quiet_tensorflow  # noqa: F401

from absl import app, flags

from reptile_tf import trained
from reptile_tf.demo import answers
from reptile_tf.demo.server import Server
from reptile_tf.errors import InputError
from reptile_tf.execution.devices import hide_gpus

# Of those that come with the package the best from 1, 3 and 5 drawings of the
# page's own characters.
PUBLISHED = "omniglot_5way_5shot_fomaml"
SINES = [f"runs/sine-compare-seed0/{name}/initialization"
         for name in ("reptile", "maml")]

_INITIALIZATION = flags.DEFINE_string(
    "initialization", PUBLISHED, "for 28x28 images: a run's, such as "
    "runs/demo/initialization, or one that comes with the package: "
    f"{', '.join(trained.names())}")
_SINE = flags.DEFINE_list(
    "sine", SINES, "initializations of sine runs; the default ones may be "
    "missing")
_PORT = flags.DEFINE_integer("port", 0, "0 takes a free one")
_BROWSER = flags.DEFINE_bool("browser", True, "open the page")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag")
    hide_gpus()  # The networks are tiny, and a training may be on them.
    try:
        server = serve()
    except InputError as e:
        sys.exit(f"error: {e}")
    print(f"{server.url}  (Ctrl-C stops)", flush=True)
    if _BROWSER.value:
        # Beside the server: a browser of the terminal is waited for.
        threading.Thread(target=webbrowser.open, args=[server.url],
                         daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


def serve() -> Server:
    """The server that the flags ask for, before its first request."""
    initialization = trained.folder_of(_INITIALIZATION.value) or Path(
        _INITIALIZATION.value).expanduser()
    sines = [Path(path).expanduser() for path in _SINE.value]
    missing = [] if flags.FLAGS["sine"].present else [
        path for path in sines if not path.is_dir()]
    print(f"initialization: {initialization}", flush=True)
    return Server(answers.Answers(
        initialization, [p for p in sines if p not in missing], missing),
        _PORT.value)


if __name__ == "__main__":
    app.run(main)
