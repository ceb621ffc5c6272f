"""Train from a prepared data set that is larger than the memory.

    python benchmarks/larger_than_memory.py [--gigabytes=40]
        [--meta_iters=200] [--folder=/tmp] [--out=results/scaling]

Makes the cache that run_miniimagenet.py makes of Mini-ImageNet's pickles, with
many more classes, as a sparse file: all pixels are 0 but those of the first
and the last image, and it takes next to no disk. It is removed at the end.
Fails if the process itself held LIMIT bytes or more.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import meta_iteration
import numpy as np
import psutil
import resident
from absl import app, flags

from reptile_tf import tasks
from reptile_tf.configuration import flags as flag_parser
from reptile_tf.datasets import mini_imagenet
from reptile_tf.datasets.few_shot import FewShotImages
from reptile_tf.datasets.mini_imagenet import cache_pickles, forms, prepared
from reptile_tf.datasets.pictures import UNCHANGED
from reptile_tf.records.provenance import commit, environment
from reptile_tf.runs.building import trainer_of
from reptile_tf.runs.run import prepared_replicas

FLAGS = flags.FLAGS
LIMIT = 2e9
HELD_OUT = 0.1  # Of the classes, for validation and again for test.
MARKS = (200, 100)  # All pixels of the first image, and of the last.


def make(folder: Path, size: float, per_class: int,
         more: list[str]) -> mini_imagenet.MiniImageNetConfig:
    """Write the cache; returns the configuration of a run that opens it.

    Args:
      folder: for data and cache.
      size: bytes of all pixels.
      per_class: images of a class.
      more: flags of the run.
    """
    data = folder / "data"
    data.mkdir()
    for name in cache_pickles.NAMES:
        (data / name).touch()
    config = flag_parser.parse(
        ["", f"--data_dir={data}", f"--cache_dir={folder / 'cache'}",
         "--allow_partial", "--device_images=off", *more], mini_imagenet.CONFIG,
        mini_imagenet.DEFAULTS)
    number = int(size / (config.image_size**2 * config.channels) / per_class)
    held_out = max(config.ways, round(HELD_OUT * number))
    of_split = {"train": number - 2 * held_out, "val": held_out,
                "test": held_out}
    home = prepared.home_of(forms.recognize(data), data, config.pixels,
                            config.cache)
    home.mkdir(parents=True)
    images = np.lib.format.open_memmap(
        home / prepared.IMAGES, "w+", np.uint8,
        (number * per_class, *config.pixels.shape))
    images[0], images[-1] = MARKS
    images.flush()
    prepared.write_index(home, "cache pickles", "0", {
        split: {f"{split}{i:06d}": per_class for i in range(count)}
        for split, count in of_split.items()}, UNCHANGED)
    return config


def measure(folder: Path, size: float, per_class: int,
            more: list[str]) -> dict[str, Any]:
    """Make the cache in a folder, train from it, and look at the memory."""
    config = make(folder, size, per_class, more)
    prepared_replicas(mini_imagenet, config, logging.getLogger())
    with resident.Peak() as peak:
        source = mini_imagenet.load(config)
        ends = source.fetch(np.array([0, len(source.data.images) - 1]))
        if [int(x) for image in ends for x in np.unique(image)] != [*MARKS]:
            raise SystemExit("the first and last image are not what was "
                             "written")
        trained = train(source, config)
    files = [p for p in config.cache.rglob("*") if p.is_file()]
    return {
        "bytes": sum(p.stat().st_size for p in files),
        "bytes_on_disk": sum(512 * p.stat().st_blocks for p in files),
        "bytes_of_memory": psutil.virtual_memory().total, **trained,
        "anonymous_bytes_at_the_end": resident.anonymous(),
        "anonymous_bytes_at_most": peak.bytes}


def train(source: FewShotImages, config) -> dict[str, Any]:
    """Train to meta_iters; what was drawn, and how long it took."""
    def rng():
        return tasks.generator(config.seed, tasks.TRAINING_STREAM)

    trainer = trainer_of(source, config, source.network())
    steps = trainer.train(source.sampler(rng()))
    compile_seconds = meta_iteration.first_call(lambda: next(steps))
    seconds = meta_iteration.first_call(lambda: [*steps])
    classes = source.data.splits["train"]
    # The same indices again: the sampler above has looked them up.
    drawn = tasks.TaskSampler(classes, config.task, rng())(
        config.meta_iters * config.meta_batch)
    read = np.unique(np.concatenate(
        [drawn.inputs.ravel(), drawn.last_inputs.ravel()]))
    return {
        "images": len(source.data.images),
        "training_images": sum(map(len, classes)),
        "training_classes": len(classes), "meta_iterations": trainer.iteration,
        "classes_seen": len(np.unique(read // len(classes[0]))),
        "images_seen": len(read), "lowest_image": int(read[0]),
        "highest_image": int(read[-1]), "compile_seconds": compile_seconds,
        "ms_per_meta_iteration": 1e3 * seconds / (trainer.iteration - 1)}


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag")
    with tempfile.TemporaryDirectory(dir=FLAGS.folder) as folder:
        measured = measure(Path(folder), 1e9 * FLAGS.gigabytes,
                           mini_imagenet.PER_CLASS,
                           [f"--meta_iters={FLAGS.meta_iters}"])
    result = {"commit": commit(), **environment(), **measured}
    out = Path(FLAGS.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1)
    (out / "larger_than_memory.json").write_text(text + "\n")
    print(text)
    if measured["anonymous_bytes_at_most"] >= LIMIT:
        sys.exit(f"error: the process held {LIMIT / 1e9:g} GB or more")


if __name__ == "__main__":
    flags.DEFINE_float("gigabytes", 40, "size of the data set, GB", 1)
    flags.DEFINE_integer("meta_iters", 200, "meta-iterations", 2)
    flags.DEFINE_string("folder", tempfile.gettempdir(),
                        "where the sparse files are, on a file system with "
                        "sparse files")
    flags.DEFINE_string("out", f"{meta_iteration.ROOT}/results/scaling",
                        "folder of larger_than_memory.json")
    app.run(main)
