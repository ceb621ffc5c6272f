"""Python processes of their own, without the seconds of an import each.

A server imports TensorFlow and Keras, runs nothing, and is forked for each
process: that one chooses its threads, devices and environment as after any
import. Nothing of this repository is imported there.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tensorflow", "keras"])


class Fork:
    """As `subprocess.Popen([sys.executable, *words])`.

    Args:
      words: a script, "-c" and a program, or "-m" and a module, and its
        arguments.
      folder: to run in.
      environment: variables that differ from this process's.
    """

    def __init__(self, *words, folder=".", **environment):
        file, name = tempfile.mkstemp()
        os.close(file)
        self._output = Path(name)
        weakref.finalize(self, self._output.unlink)
        reader, writer = SERVER.Pipe(duplex=False)
        self._process = SERVER.Process(target=_run, args=(
            [*map(str, words)], str(folder), {**os.environ, **environment},
            str(self._output), writer))
        with writer:
            self._process.start()
        with reader:  # A signal before would end it without a word here.
            reader.recv()
        self.kill = self._process.kill

    def poll(self):
        """The exit status, None while it runs."""
        return self._process.exitcode

    def wait(self, seconds=1800):
        """The exit status; TimeoutExpired if there is none by then."""
        self._process.join(seconds)
        if self.poll() is None:
            self.kill()
            raise subprocess.TimeoutExpired("fork", seconds, self.output())
        return self.poll()

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):  # It has just ended.
            os.kill(self._process.pid, number)

    def output(self):
        """What it wrote so far, errors too."""
        return self._output.read_text()


def _run(words, folder, environment, output, begun):
    """In the fork."""
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with begun:
        begun.send(None)
    try:
        _start(words, environment)
    finally:  # A Ctrl-C after it would end the server's part of it, wordless.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _start(words, environment):
    """As Python starts them."""
    ours = {str(ROOT), str(ROOT / "tests")}
    path = [*environment.get("PYTHONPATH", "").split(os.pathsep),
            *(p for p in sys.path if p not in ours)]
    if words[0] == "-c":
        sys.argv, sys.path[:] = ["-c", *words[2:]], ["", *path]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv, sys.path[:] = words[1:], [os.getcwd(), *path]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[:] = words, [os.path.dirname(words[0]), *path]
        runpy.run_path(words[0], run_name="__main__")
