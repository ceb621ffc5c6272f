"""Saving and restoring a run."""

import time
import zlib

from reptile_tf.errors import InputError
from reptile_tf.learning.weights import checksum
from reptile_tf.runs.experiment import Experiment


def save(run: Experiment) -> None:
    """Write a checkpoint of this very moment; all processes must."""
    arrays = run.trainer.state_dict()
    if run.directory.writes:
        run.directory.lock.require()
        run.directory.checkpoints.save(run.trainer.iteration, arrays, {
            "sampler": run.rng.bit_generator.state,
            "metrics": run.directory.metrics_text(),
            "evaluated": run.evaluated,
            "elapsed": run.seconds(),
            "data": run.fingerprint,
            "commits": run.commits,
            "environment": run.environment()})
    run.last_save = time.monotonic()


def restore(run: Experiment) -> None:
    """Go on from the newest checkpoint, or start.

    Raises:
      InputError: the checkpoint was made from other data, or the workers
        of a run do not start alike.
    """
    _load(run)
    # Where all have loaded, the chief may write.
    run.replicas.require_equal({
        "their meta-iteration": run.trainer.iteration,
        "the checksum of their flags": zlib.crc32(
            repr(run.config.lines()).encode()),
        "that of their data": run.fingerprint,
        "that of their code": run.code,
        "whether they were given --pretrained": int(run.config.pretrained),
        "that of their weights": checksum(run.trainer.weights)})


def _load(run: Experiment) -> None:
    found = run.directory.checkpoints.load(run.log.warning)
    if found is None:
        if not run.config.pretrained:
            run.directory.reset_metrics()
            if run.start.folder:
                run.directory.keep_start(run.start.folder)
        return
    arrays, meta = found
    if meta["data"] != run.fingerprint:
        raise InputError(
            f"{run.directory.path} was trained on other data than "
            f"{run.source.source}: use the same data, or another --run_dir; "
            f"--init={run.directory.initialization} --meta_iters=0 there "
            "evaluates it on these")
    then = {"replicas": 1, **meta["environment"]}
    for name, value in run.environment().items():
        if name in then and then[name] != value:
            run.log.warning(
                "warning: %s was %s, now %s: the rest of the run may "
                "differ in the last bits", name,
                then[name], value)
    run.trainer.load_state_dict(arrays)
    run.rng.bit_generator.state = meta["sampler"]
    run.elapsed, run.evaluated = meta["elapsed"], meta["evaluated"]
    run.commits = meta.get("commits", ["unknown"])
    if not run.config.pretrained:
        run.directory.reset_metrics(meta["metrics"])
    run.log.info("going on from meta-iteration %s",
                 f"{run.trainer.iteration:,}")
