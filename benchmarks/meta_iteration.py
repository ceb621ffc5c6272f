"""Time of one meta-iteration and one evaluated task, against the machine.

    python benchmarks/meta_iteration.py
        [--dataset=omniglot|miniimagenet|sine] [--classes=20]
        [--algorithm=fomaml] [--task_order=sequential] [--jit_compile=on]
        [--config=configs/omniglot_5way_1shot_maml.cfg]
        [--mixed_bfloat16] [--json]

Random images; the hyper-parameters of configs/. Work is 2 FLOP per
multiply-add of the convolutions and the dense layer: forward, weights'
gradient, and inputs' gradient except the first layer's; MAML is counted as if
it were FOMAML. The machine's rate is that of float32 matrix products, before
and after.
"""

import json
import logging
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from reptile_tf import quiet_tensorflow  # noqa: E402, F401, I001

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import app, flags  # noqa: E402

from reptile_tf import tasks  # noqa: E402
from reptile_tf.configuration import flags as flag_parser  # noqa: E402
from reptile_tf.configuration.config import Config  # noqa: E402
from reptile_tf.datasets import mini_imagenet, omniglot, sine  # noqa: E402
from reptile_tf.datasets.few_shot import (  # noqa: E402
    FewShotImages,
    ImageData,
)
from reptile_tf.execution.devices import gpus, prepare_gpus  # noqa: E402
from reptile_tf.execution.engine import JIT_COMPILE  # noqa: E402
from reptile_tf.learning.evaluation import Evaluator  # noqa: E402
from reptile_tf.learning.rules import unweighted  # noqa: E402
from reptile_tf.records.provenance import environment  # noqa: E402
from reptile_tf.runs.building import trainer_of  # noqa: E402
from reptile_tf.runs.run import prepared_replicas  # noqa: E402

CONFIGS = {"omniglot": {5: "omniglot_5way", 20: "omniglot_20way"},
           "miniimagenet": {5: "miniimagenet_5way_1shot"}}
# shape of an image; training classes, images of each; whether a run on the
# CPU keeps them on the device, as one on a GPU always does
IMAGES = {"omniglot": ((28, 28, 1), 4800, 20, True),
          "miniimagenet": ((84, 84, 3), 64, 600, False)}
MODULES = {"omniglot": omniglot, "miniimagenet": mini_imagenet, "sine": sine}
MATMUL_SIZES = (1024, 2048)

FLAGS = flags.FLAGS


def multiply_adds(model: keras.Model) -> list[int]:
    """Multiply-adds per example of each convolution and dense layer."""
    counts = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            counts.append(int(np.prod(layer.output.shape[1:3])
                              * np.prod(layer.kernel.shape)))
        elif isinstance(layer, keras.layers.Dense):
            counts.append(int(np.prod(layer.kernel.shape)))
    return counts


def training_flop(model: keras.Model) -> int:
    """FLOP per example of one inner step."""
    counts = multiply_adds(model)
    return 2 * (3 * sum(counts) - counts[0])


def matmul_gflops() -> float:
    """The better rate of float32 products of 1024 and of 2048.

    In a process of its own: there every product has all threads, whatever
    this process gives to one operation.
    """
    done = subprocess.run([sys.executable, __file__, "--matmul"], check=True,
                          capture_output=True, text=True)
    return float(done.stdout)


def own_matmul_gflops() -> float:
    """The rate in this process."""
    best = 0.0
    for size in MATMUL_SIZES:
        a = tf.random.normal([size, size])
        product = tf.function(tf.matmul)
        product(a, a)
        for _ in range(6):
            start = time.perf_counter()
            np.asarray(product(a, a))
            seconds = time.perf_counter() - start
            best = max(best, 2e-9 * size**3 / seconds)
    return best


def seconds_each(fn, repeats: int) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def first_call(fn) -> float:
    """Seconds of the call that traces and compiles."""
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def config_of(dataset: str, ways: int, flags: Sequence[str]) -> Config:
    """The flagfile's configuration, with further flags."""
    module = MODULES[dataset]
    flagfile = [] if dataset == "sine" else [
        f"--flagfile={ROOT}/configs/{CONFIGS[dataset][ways]}.cfg",
        "--data_dir=random images"]
    return flag_parser.parse(["", *flagfile, *flags], module.CONFIG,
                             module.DEFAULTS, module.BY_ALGORITHM)


def source_of(dataset: str, ways: int, flags: Sequence[str],
              tf32: bool = False):
    """(config, task source) of random images, or of the sine waves."""
    config = config_of(dataset, ways, flags)
    prepared_replicas(MODULES[dataset], replace(config, tf32=tf32),
                      logging.getLogger())
    if dataset == "sine":
        return config, sine.load(config)
    shape, number, count, on_device = IMAGES[dataset]
    classes = list(np.arange(number * count).reshape(number, count))
    data = ImageData(
        np.random.default_rng(0).integers(
            0, 256, (number * count, *shape), np.uint8),
        {"train": classes, "test": classes}, "random images")
    on_gpu = bool(gpus())
    return config, FewShotImages(
        data, config, MODULES[dataset].network_of(config),
        on_device or on_gpu)


def peak_memory_mb() -> float:
    """Of the GPU where there is one, else of this process."""
    if gpus():
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(dataset: str, ways: int, flags: Sequence[str],
            repeats: int) -> dict:
    """Everything, for one configuration."""
    config, source = source_of(dataset, ways, flags)
    model, per_call = source.network(), source.iterations_per_call
    trainer = trainer_of(source, config, model)
    sampler = source.sampler(tasks.generator(0, 1))
    learner = trainer.learner
    evaluator = Evaluator(learner.inner_loop, learner.engine, source.lookup,
                          (False,), measure=source.measure,
                          fetch=source.fetch)
    shots, batch = config.evaluations()[-1]
    drawn = source.evaluation_tasks("test", shots, batch,
                                    learner.engine.tasks_per_call,
                                    tasks.generator(0, 2))
    meta_batch = config.meta_batch * per_call

    def train():
        trainer.train_step(sampler(meta_batch))

    def evaluate():
        evaluator.evaluate(learner.weights, learner.state, drawn)

    compile_seconds, eval_compile = first_call(train), first_call(evaluate)
    before = matmul_gflops()
    with_sampling = seconds_each(train, repeats) / per_call
    batches = sampler(meta_batch)
    without = seconds_each(
        lambda: trainer.train_step(batches), repeats) / per_call
    sampling = seconds_each(lambda: sampler(meta_batch), repeats) / per_call
    per_task = seconds_each(evaluate, max(3, repeats // 8)
                            ) / learner.engine.tasks_per_call
    rate = max(before, matmul_gflops())

    # The last mini-batch may be of another size: a separate tail.
    trained = (math.prod(batches.targets.shape[1:3])
               + batches.last_targets.shape[1])
    work = 1e-9 * config.meta_batch * trained * training_flop(model)
    # Each test example with the whole support set, forward.
    examples = drawn.query_inputs.shape[1] * (
        drawn.support_inputs.shape[1] + 1)
    scoring = examples * 2 * sum(multiply_adds(model))
    eval_work = 1e-9 * (
        config.eval_iters * batch * training_flop(model) + scoring)
    return {
        "dataset": dataset, "classes": config.ways,
        "algorithm": config.algorithm,
        "task_order": config.task_order,
        "mixed_bfloat16": config.mixed_bfloat16,
        "engine": str(learner.engine),
        "gflop_per_meta_iteration": work,
        "ms_per_meta_iteration": 1e3 * with_sampling,
        "ms_without_sampling": 1e3 * without,
        "sampling_fraction": sampling / with_sampling,
        "gflops": work / with_sampling, "matmul_gflops": rate,
        "ratio": work / with_sampling / rate,
        "eval_shots": shots, "gflop_per_evaluated_task": eval_work,
        "eval_ms_per_task": 1e3 * per_task,
        "eval_ratio": eval_work / per_task / rate,
        "compile_seconds": compile_seconds,
        "eval_compile_seconds": eval_compile,
        "peak_memory_mb": peak_memory_mb(),
        "device": environment()["device"],
        "num_threads": environment()["num_threads"]}


def text(m: dict) -> list[str]:
    """The figures for people."""
    return [
        f"{m['dataset']}, {m['classes']}-way, {m['algorithm']}, "
        f"{m['task_order']}{', mixed_bfloat16' * m['mixed_bfloat16']}; "
        f"{m['device']}, {m['num_threads']} threads",
        f"engine: {m['engine']}",
        f"meta-iteration: {m['ms_per_meta_iteration']:.3g} ms, without "
        f"sampling {m['ms_without_sampling']:.3g} ms (sampling "
        f"{100 * m['sampling_fraction']:.1f} %)",
        f"work: {m['gflop_per_meta_iteration']:.3g} GFLOP, so "
        f"{m['gflops']:.3g} GFLOP/s; float32 matmul "
        f"{m['matmul_gflops']:.1f} GFLOP/s; ratio {m['ratio']:.3f}",
        f"evaluation, {m['eval_shots']}-shot, non-transductive: "
        f"{m['eval_ms_per_task']:.3g} ms a task, ratio {m['eval_ratio']:.3f}",
        f"trace, compile and first call: {m['compile_seconds']:.1f} s, of "
        f"evaluation {m['eval_compile_seconds']:.1f} s",
        f"peak memory: {m['peak_memory_mb']:.0f} MB"]


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag")
    allowed = [*CONFIGS.get(FLAGS.dataset, [5])]
    if FLAGS.classes not in allowed:
        raise app.UsageError(
            f"--classes={FLAGS.classes} has no flagfile for {FLAGS.dataset}; "
            f"there is {', '.join(map(str, allowed))}")
    if FLAGS.matmul:
        prepare_gpus()
        print(own_matmul_gflops())
        return
    measured = measure(
        FLAGS.dataset, FLAGS.classes,
        [*([f"--flagfile={FLAGS.config}"] if FLAGS.config else []),
         # Those given: the flagfile has its own.
         *(FLAGS[name].serialize() for name in (
             "algorithm", "task_order", "jit_compile", "mixed_bfloat16")
           if FLAGS[name].present)],
        FLAGS.repeats)
    print("\n".join(text(measured)))
    if FLAGS.json:
        print(json.dumps(measured))


if __name__ == "__main__":
    flags.DEFINE_enum("dataset", "omniglot", [*CONFIGS, "sine"],
                      "which network")
    flags.DEFINE_integer("classes", 5, "ways")
    flags.DEFINE_enum("algorithm", "reptile", unweighted(), "rule")
    flags.DEFINE_string("config", "", "flagfile of further hyper-parameters")
    flags.DEFINE_enum("task_order", "parallel", ["parallel", "sequential"],
                      "of the meta-batch")
    flags.DEFINE_enum("jit_compile", "auto", JIT_COMPILE, "XLA")
    flags.DEFINE_bool("mixed_bfloat16", False, "compute in bfloat16")
    flags.DEFINE_bool("matmul", False, "print the matmul rate, nothing else")
    flags.DEFINE_integer("repeats", 40, "timed meta-iterations", 1)
    flags.DEFINE_bool("json", False, "print one JSON object as the last line")
    app.run(main)
