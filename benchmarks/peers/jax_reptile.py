"""Time of a Reptile meta-iteration and of evaluated tasks in JAX.

    python benchmarks/peers/jax_reptile.py --work=omniglot5 --repeats=100
        [--convolution=lax] [--unroll] [--iterations_per_call=10]
        [--eval_tasks=100] [--tf32] [--json]

A from-scratch peer of this project, with JAX and NumPy alone: random images,
the same networks, inner optimizer and draws. Tasks are side by side by vmap,
a call is one compiled function. README.md has the details.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TASKS = 5
META_STEP = 0.5
BETA_2, ADAM_EPSILON, NORM_EPSILON = 0.999, 1e-8, 1e-3
EVAL_STEPS = 50


class Work(NamedTuple):
    """One configuration; `pool` is stride 1 and max pooling, not stride 2."""

    ways: int
    train_shots: int
    steps: int
    batch: int
    rate: float
    eval_shots: int
    eval_batch: int
    classes: int
    each: int
    shape: tuple[int, int, int]
    filters: int
    pool: bool


WORKS = {
    "omniglot5": Work(5, 10, 5, 10, 1e-3, 5, 5, 4800, 20, (28, 28, 1), 64,
                      False),
    "omniglot20": Work(20, 10, 10, 20, 5e-4, 5, 10, 4800, 20, (28, 28, 1), 64,
                       False),
    "mini": Work(5, 15, 8, 10, 1e-3, 1, 5, 64, 600, (84, 84, 3), 32, True),
}


def draw(work, rng, tasks, shots):
    """Indices and labels [tasks, ways * shots], class by class."""
    classes = np.stack([rng.choice(work.classes, work.ways, replace=False)
                        for _ in range(tasks)])
    random = rng.random((tasks, work.ways, work.each), np.float32)
    chosen = random.argpartition(shots - 1, -1)[..., :shots]
    ids = (classes[..., None] * work.each + chosen).reshape(tasks, -1)
    labels = np.repeat(np.arange(work.ways), shots)
    return ids.astype(np.int32), np.tile(labels.astype(np.int32), (tasks, 1))


def mini_batches(rng, ids, labels, steps, batch):
    """[tasks, S] cut into [tasks, steps, batch], shuffled in every pass."""
    tasks, size = ids.shape
    passes = -(-steps * batch // size)
    order = rng.random((tasks, passes, size), np.float32).argsort(-1)
    order = order.reshape(tasks, -1)[:, :steps * batch]
    return tuple(np.take_along_axis(x, order, 1).reshape(tasks, steps, batch)
                 for x in (ids, labels))


def sample(work, rng, tasks=TASKS):
    """Indices and labels [tasks, steps, batch] of a meta-batch."""
    drawn = draw(work, rng, tasks, work.train_shots)
    return mini_batches(rng, *drawn, work.steps, work.batch)


def sample_evaluation(work, rng, tasks):
    """(indices, labels) [tasks, 50, batch], support [tasks, S], queries
    [tasks, ways]."""
    shots = work.eval_shots
    ids, labels = (x.reshape(tasks, work.ways, -1)
                   for x in draw(work, rng, tasks, shots + 1))
    support, y = (x[..., :shots].reshape(tasks, -1) for x in (ids, labels))
    return (*mini_batches(rng, support, y, EVAL_STEPS, work.eval_batch),
            support, ids[..., shots])


def initial_weights(work, seed=0):
    """Kernel [3, 3, C, F], bias, gamma, beta of each layer; dense [D, N],
    bias. Kernels are glorot uniform."""
    rng, weights = np.random.default_rng(seed), []
    size, channels = work.shape[0], work.shape[2]

    def glorot(shape, fan_in, fan_out):
        bound = math.sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    for _ in range(4):
        f = work.filters
        weights += [glorot((3, 3, channels, f), 9 * channels, 9 * f),
                    np.zeros(f, np.float32), np.ones(f, np.float32),
                    np.zeros(f, np.float32)]
        channels, size = f, (size + 1) // 2
    flat = size * size * channels
    return [*weights, glorot((flat, work.ways), flat, work.ways),
            np.zeros(work.ways, np.float32)]


def patches_convolution(h, kernel, stride):
    """Nine slices side by side, then one matrix product."""
    size = h.shape[1]
    out = -(-size // stride)
    pad = max((out - 1) * stride + 3 - size, 0)
    span = (out - 1) * stride + 1
    padded = jnp.pad(h, [(0, 0), *[(pad // 2, pad - pad // 2)] * 2, (0, 0)])
    patches = jnp.concatenate(
        [padded[:, i:i + span:stride, j:j + span:stride]
         for i in range(3) for j in range(3)], -1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def lax_convolution(h, kernel, stride):
    return lax.conv_general_dilated(
        h, kernel, (stride, stride), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"))


def sliced_max_pool(h):
    """2x2, the gradient to exactly one of the four.

    The gradient of jnp.max tests each element for equality with the maximum,
    which XLA, computing both anew with other roundings, can find of none.
    """
    odd = h.shape[1] % 2
    h = jnp.pad(h, [(0, 0), (0, odd), (0, odd), (0, 0)],
                constant_values=-jnp.inf)
    a, b = h[:, ::2], h[:, 1::2]
    h = jnp.where(a >= b, a, b)
    a, b = h[:, :, ::2], h[:, :, 1::2]
    return jnp.where(a >= b, a, b)


def lax_max_pool(h):
    return lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1),
                             "SAME")


CONVOLUTIONS = {"patches": (patches_convolution, sliced_max_pool),
                "lax": (lax_convolution, lax_max_pool)}


class Reptile:
    """The compiled functions of one configuration."""

    def __init__(self, work, convolution, unroll):
        self.work, self.unroll = work, unroll
        self.convolve, self.pool = CONVOLUTIONS[convolution]
        self.meta_iterations = jax.jit(self._meta_iterations,
                                       donate_argnums=(0, 1))
        self.evaluate = jax.jit(self._evaluate)

    def network(self, w, images):
        """uint8 images [B, ...] to logits [B, N]."""
        h = images.astype(jnp.float32) / 255
        for kernel, bias, gamma, beta in zip(*[iter(w[:-2])] * 4,
                                             strict=True):
            h = self.convolve(h, kernel, 1 if self.work.pool else 2) + bias
            mean = h.mean((0, 1, 2))
            variance = jnp.square(h - mean).mean((0, 1, 2))
            h = (h - mean) * (lax.rsqrt(variance + NORM_EPSILON)
                              * gamma) + beta
            h = jax.nn.relu(self.pool(h) if self.work.pool else h)
        return h.reshape(h.shape[0], -1) @ w[-2] + w[-1]

    def loss(self, w, images, labels):
        log_p = jax.nn.log_softmax(self.network(w, images))
        return -jnp.sum(log_p * jax.nn.one_hot(labels, self.work.ways))

    def adapt(self, w, v, t, images, labels, unroll):
        """Adam without momentum on [k, B, ...]; t steps were made before."""
        def step(carry, batch):
            w, v, t = carry
            g = jax.grad(self.loss)(w, *batch)
            t = t + 1
            rate = self.work.rate * jnp.sqrt(
                -jnp.expm1(t * math.log(BETA_2)))
            v = [BETA_2 * a + (1 - BETA_2) * b * b
                 for a, b in zip(v, g, strict=True)]
            w = [a - rate * b / (jnp.sqrt(c) + ADAM_EPSILON)
                 for a, b, c in zip(w, g, v, strict=True)]
            return (w, v, t), None

        (w, v, _), _ = lax.scan(step, (w, v, t), (images, labels),
                                unroll=unroll)
        return w, v

    def _meta_iterations(self, phi, v, t, table, ids, labels):
        """ids, labels [C, T, k, B]; phi and v [T, ...] after C outer steps."""
        adapt = jax.vmap(partial(self.adapt, unroll=self.unroll),
                         (None, 0, None, 0, 0))

        def one(carry, batch):
            phi, v, t = carry
            w, v = adapt(phi, v, t, table[batch[0]], batch[1])
            phi = [a + META_STEP * (b.mean(0) - a)
                   for a, b in zip(phi, w, strict=True)]
            return (phi, v, t + self.work.steps), None

        if len(ids) == 1:
            (phi, v, _), _ = one((phi, v, t), (ids[0], labels[0]))
        else:
            (phi, v, _), _ = lax.scan(one, (phi, v, t), (ids, labels))
        return phi, v

    def _evaluate(self, phi, v, t, table, ids, labels, support, queries):
        """Logits [T, N, N] of the queries, transductive and not."""
        v = [x.mean(0) for x in v]

        def task(ids, labels, support, queries):
            w, _ = self.adapt(phi, v, t, table[ids], labels, False)
            support, queries = table[support], table[queries]

            def alone(query):
                batch = jnp.concatenate([support, query[None]])
                return self.network(w, batch)[-1]

            return self.network(w, queries), lax.map(alone, queries)

        return jax.vmap(task)(ids, labels, support, queries)


def median_seconds(fn, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def first_call(fn):
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def peak_memory_mb():
    """Of the device; without statistics of it, of the process."""
    stats = jax.devices()[0].memory_stats() or {}
    resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return stats.get("peak_bytes_in_use", resident) / 2**20


def measure(args):
    work, rng = WORKS[args.work], np.random.default_rng(0)
    reptile = Reptile(work, args.convolution, args.unroll)
    table = jnp.asarray(rng.integers(
        0, 256, (work.classes * work.each, *work.shape), np.uint8))
    phi = [jnp.asarray(x) for x in initial_weights(work)]
    v = [jnp.zeros((TASKS, *x.shape), x.dtype) for x in phi]
    per_call, done = args.iterations_per_call, 0

    def sampled():
        return [x.reshape(per_call, TASKS, work.steps, work.batch)
                for x in sample(work, rng, per_call * TASKS)]

    def train(batches):
        nonlocal phi, v, done
        phi, v = reptile.meta_iterations(
            phi, v, np.float32(done * work.steps), table, *batches)
        done += per_call
        jax.block_until_ready((phi, v))

    compile_seconds = first_call(lambda: train(sampled()))
    for _ in range(args.warm_up):
        train(sampled())
    seconds = median_seconds(lambda: train(sampled()), args.repeats)
    batches = [jax.device_put(x) for x in sampled()]
    without = median_seconds(lambda: train(batches), args.repeats)
    if not all(bool(jnp.isfinite(x).all()) for x in phi):
        raise FloatingPointError("phi is not finite")
    figures = {
        "peer": "jax", "version": jax.__version__, "work": args.work,
        "device": jax.devices()[0].device_kind, "tf32": args.tf32,
        "mode": f"{args.convolution}, "
                f"{'unrolled' if args.unroll else 'scan'}, "
                f"{per_call} a call",
        "ms_per_meta_iteration": 1e3 * seconds / per_call,
        "ms_without_sampling": 1e3 * without / per_call,
        "eval_tasks": args.eval_tasks, "eval_tasks_per_second": None,
        "compile_seconds": compile_seconds, "eval_compile_seconds": None,
        "peak_memory_mb": peak_memory_mb(), "eval_peak_memory_mb": None}
    if args.eval_tasks:
        tasks = [jax.device_put(x) for x in sample_evaluation(
            work, rng, args.eval_tasks)]

        def evaluate():
            jax.block_until_ready(reptile.evaluate(
                phi, v, np.float32(done * work.steps), table, *tasks))

        figures["eval_compile_seconds"] = first_call(evaluate)
        figures["eval_tasks_per_second"] = args.eval_tasks / median_seconds(
            evaluate, args.eval_repeats)
        figures["eval_peak_memory_mb"] = peak_memory_mb()
    return figures


def report(figures):
    """One short line a figure."""
    f = figures
    print(f"{f['peer']} {f['version']}, {f['work']}, {f['mode']}, "
          f"TF32 {'on' if f['tf32'] else 'off'}; {f['device']}")
    print(f"meta-iteration: {f['ms_per_meta_iteration']:.4g} ms")
    print(f"without sampling: {f['ms_without_sampling']:.4g} ms")
    print(f"first call: {f['compile_seconds']:.1f} s")
    print(f"peak memory: {f['peak_memory_mb']:.0f} MB")
    if f["eval_tasks"]:
        print(f"evaluation: {f['eval_tasks_per_second']:.4g} tasks/s, "
              f"{f['eval_tasks']} at once")
        print(f"first evaluation: {f['eval_compile_seconds']:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--work", choices=WORKS, default="omniglot5")
    add("--convolution", choices=CONVOLUTIONS, default="patches")
    add("--unroll", action="store_true", help="write the inner steps out")
    add("--iterations_per_call", type=int, default=1)
    add("--eval_tasks", type=int, default=0, help="at once; 0: none")
    add("--repeats", type=int, default=100, help="timed calls")
    add("--eval_repeats", type=int, default=5)
    add("--warm_up", type=int, default=5, help="calls before the timed ones")
    add("--tf32", action="store_true")
    add("--json", action="store_true", help="one JSON object, last")
    args = parser.parse_args()
    jax.config.update("jax_default_matmul_precision",
                      "tensorfloat32" if args.tf32 else "highest")
    try:
        figures = measure(args)
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        sys.exit(f"jax, {args.work}, {args.convolution}: failed: "
                 f"{type(error).__name__}: {reason}")
    report(figures)
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
