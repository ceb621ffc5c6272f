"""Runs in processes of their own, for tests that disturb them."""

import time

from reptile_tf.records.checkpoints import Checkpoints


def wait_for(process, condition):
    """Wait until it holds; fail if the process ends before."""
    deadline = time.monotonic() + 1800
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, (
            process.output())
        time.sleep(0.005)


def newest(run):
    """The iteration of a run's newest checkpoint."""
    return (Checkpoints(run / "checkpoints").iterations() or [0])[-1]
