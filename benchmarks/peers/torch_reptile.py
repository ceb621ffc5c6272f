"""Time of a Reptile meta-iteration and of evaluated tasks in PyTorch.

    python benchmarks/peers/torch_reptile.py --work=omniglot5 --repeats=100
        [--mode=compile|graphs|compile+graphs] [--tasks=vmap]
        [--channels_last] [--eval_tasks=100] [--tf32] [--json]

A from-scratch peer of this project, with PyTorch and NumPy alone: random
images, the same networks, inner optimizer and draws. README.md has the
details.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

TASKS = 5
META_STEP = 0.5
BETA_2, ADAM_EPSILON, NORM_EPSILON = 0.999, 1e-8, 1e-3
EVAL_STEPS = 50
MODES = ("eager", "compile", "graphs", "compile+graphs")


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
    "omniglot5": Work(5, 10, 5, 10, 1e-3, 5, 5, 4800, 20, (1, 28, 28), 64,
                      False),
    "omniglot20": Work(20, 10, 10, 20, 5e-4, 5, 10, 4800, 20, (1, 28, 28), 64,
                       False),
    "mini": Work(5, 15, 8, 10, 1e-3, 1, 5, 64, 600, (3, 84, 84), 32, True),
}


def draw(work, rng, tasks, shots):
    """Indices and labels [tasks, ways * shots], class by class."""
    classes = np.stack([rng.choice(work.classes, work.ways, replace=False)
                        for _ in range(tasks)])
    random = rng.random((tasks, work.ways, work.each), np.float32)
    chosen = random.argpartition(shots - 1, -1)[..., :shots]
    ids = (classes[..., None] * work.each + chosen).reshape(tasks, -1)
    return ids, np.tile(np.repeat(np.arange(work.ways), shots), (tasks, 1))


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


def rates(work, done, steps):
    """Adam's bias-corrected rates [steps] after `done` steps."""
    t = np.arange(done + 1, done + steps + 1)
    return (work.rate * np.sqrt(-np.expm1(t * math.log(BETA_2)))).astype(
        np.float32)


def network_of(work, symmetric):
    """uint8 / 255 images [B, C, H, W] to logits [B, N]."""
    layers, (channels, size, _) = [], work.shape
    for _ in range(4):
        padding = 1
        if not (work.pool or size % 2 or symmetric):
            # What "same" means at stride 2 for an even size.
            layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
            padding = 0
        layers += [
            nn.Conv2d(channels, work.filters, 3, 1 if work.pool else 2,
                      padding),
            nn.BatchNorm2d(work.filters, NORM_EPSILON,
                           track_running_stats=False)]
        if work.pool:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        layers.append(nn.ReLU())
        channels, size = work.filters, (size + 1) // 2
    layers += [nn.Flatten(), nn.Linear(size * size * channels, work.ways)]
    network = nn.Sequential(*layers)
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def loss_of(logits, labels):
    return F.cross_entropy(logits, labels, reduction="sum")


class Modules:
    """As popular libraries do it: a module and torch.optim.Adam for each slot
    of the meta-batch, the tasks one after the other."""

    at_once = 1  # evaluated tasks

    def __init__(self, work, args, device):
        self.work = work

        def build():
            network = network_of(work, args.padding == "symmetric").to(device)
            if args.channels_last:
                network = network.to(memory_format=torch.channels_last)
            adam = torch.optim.Adam(
                network.parameters(), work.rate, (0.0, BETA_2), ADAM_EPSILON,
                fused=True, capturable="graphs" in args.mode)
            call = (torch.compile(network, dynamic=False)
                    if "compile" in args.mode else network)
            return list(network.parameters()), adam, call

        *self.slots, self.evaluated = [build() for _ in range(TASKS + 1)]
        self.phi = [p.detach().clone() for p in self.slots[0][0]]
        self.table = None

    def images(self, ids):
        return self.table[ids].float() / 255

    def adapt(self, slot, ids, labels):
        _, adam, network = slot
        for index, label in zip(ids, labels, strict=True):
            adam.zero_grad(set_to_none=True)
            loss_of(network(self.images(index)), label).backward()
            adam.step()

    def meta_iteration(self, ids, labels, rates):
        """One outer step; Adam itself counts its steps."""
        for slot, index, label in zip(self.slots, ids, labels, strict=True):
            with torch.no_grad():
                torch._foreach_copy_(slot[0], self.phi)
            self.adapt(slot, index, label)
        with torch.no_grad():
            total = [p.detach() for p in self.slots[0][0]]
            for parameters, _, _ in self.slots[1:]:
                total = torch._foreach_add(total, parameters)
            torch._foreach_mul_(self.phi, 1 - META_STEP)
            torch._foreach_add_(self.phi, total, alpha=META_STEP / TASKS)

    def evaluate(self, ids, labels, rates, support, queries):
        """Logits [1, N, N] of the queries, transductive and not."""
        parameters, adam, network = self.evaluated
        with torch.no_grad():
            torch._foreach_copy_(parameters, self.phi)
            for i, parameter in enumerate(parameters):
                states = [s[1].state[s[0][i]] for s in self.slots]
                state = adam.state[parameter]
                if not state:
                    state.update({k: x.clone() for k, x in states[0].items()})
                state["step"].copy_(states[0]["step"])
                state["exp_avg_sq"].copy_(torch.stack(
                    [s["exp_avg_sq"] for s in states]).mean(0))
        self.adapt(self.evaluated, ids[0], labels[0])
        with torch.no_grad():
            support, queries = (self.images(x[0]) for x in (support, queries))
            alone = [network(torch.cat([support, query[None]]))[-1]
                     for query in queries]
            return network(queries)[None], torch.stack(alone)[None]


class Functional:
    """torch.func: the tasks side by side by vmap, weights with a leading axis
    of tasks."""

    def __init__(self, work, args, device):
        self.work, self.at_once = work, max(args.eval_tasks, 1)
        self.network = network_of(work, args.padding == "symmetric").to(device)
        self.names = [n for n, _ in self.network.named_parameters()]
        self.phi = [p.detach().clone() for p in self.network.parameters()]
        if args.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.v = [p.new_zeros(TASKS, *p.shape) for p in self.phi]
        self.table = None
        self.gradient = torch.func.vmap(torch.func.grad(self.loss))
        self.batched = torch.func.vmap(self.logits)
        self.step = self._step
        if "compile" in args.mode:
            self.step = torch.compile(self._step, dynamic=False)
            self.batched = torch.compile(self.batched, dynamic=False)

    def images(self, ids):
        return self.table[ids].float() / 255

    def logits(self, w, images):
        return torch.func.functional_call(
            self.network, dict(zip(self.names, w, strict=True)), (images,))

    def loss(self, w, images, labels):
        return loss_of(self.logits(w, images), labels)

    def _step(self, w, v, rate, ids, labels):
        g = self.gradient(w, self.images(ids), labels)
        v = [torch.lerp(a, b * b, 1 - BETA_2)
             for a, b in zip(v, g, strict=True)]
        w = [a - rate * b / (c.sqrt() + ADAM_EPSILON)
             for a, b, c in zip(w, g, v, strict=True)]
        return w, v

    def adapt(self, v, ids, labels, rates):
        w = [p.expand(len(ids), *p.shape).contiguous() for p in self.phi]
        for k in range(ids.shape[1]):
            w, v = self.step(w, v, rates[k], ids[:, k], labels[:, k])
        return w, v

    @torch.no_grad()
    def meta_iteration(self, ids, labels, rates):
        """One outer step: phi and v are written in place."""
        w, v = self.adapt(self.v, ids, labels, rates)
        torch._foreach_copy_(self.v, v)
        torch._foreach_lerp_(self.phi, [x.mean(0) for x in w], META_STEP)

    @torch.no_grad()
    def evaluate(self, ids, labels, rates, support, queries):
        """Logits [T, N, N] of the queries, transductive and not."""
        v = [x.mean(0).expand(len(ids), *x.shape[1:]).contiguous()
             for x in self.v]
        w, _ = self.adapt(v, ids, labels, rates)
        support, queries = self.images(support), self.images(queries)
        alone = [self.batched(w, torch.cat([support, q[:, None]], 1))[:, -1]
                 for q in queries.unbind(1)]
        return self.batched(w, queries), torch.stack(alone, 1)


TASK_ORDERS = {"loop": Modules, "vmap": Functional}


class Graph:
    """A function captured once, on static inputs, and replayed."""

    def __init__(self, fn, inputs):
        self.inputs = [x.clone() for x in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                fn(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = fn(*self.inputs)

    def __call__(self, *inputs):
        for static, x in zip(self.inputs, inputs, strict=True):
            static.copy_(x, non_blocking=True)
        self.graph.replay()
        return self.outputs


class Trainer:
    """Host side: draws, transfers, captures, waits."""

    def __init__(self, args):
        self.work, self.args = WORKS[args.work], args
        self.rng = np.random.default_rng(0)
        self.device = torch.device(
            "cuda" if torch.cuda.is_available() else "cpu")
        if "graphs" in args.mode and self.device.type != "cuda":
            raise RuntimeError("CUDA graphs need a CUDA device")
        torch.manual_seed(0)
        self.reptile = TASK_ORDERS[args.tasks](self.work, args, self.device)
        table = torch.from_numpy(self.rng.integers(
            0, 256, (self.work.classes * self.work.each, *self.work.shape),
            np.uint8)).to(self.device)
        if args.channels_last:
            table = table.contiguous(memory_format=torch.channels_last)
        self.reptile.table = table
        self.done = 0
        self._train = self._evaluate = None

    def put(self, array):
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def wrap(self, fn, inputs):
        return Graph(fn, inputs) if "graphs" in self.args.mode else fn

    def sample(self):
        return [self.put(x) for x in sample(self.work, self.rng)]

    def train(self, batches):
        """One meta-iteration, waited for."""
        steps = self.work.steps
        inputs = [*batches, self.put(rates(self.work, self.done, steps))]
        self._train = self._train or self.wrap(self.reptile.meta_iteration,
                                               inputs)
        self._train(*inputs)
        self.done += steps
        self.synchronize()

    def evaluation(self, tasks):
        ids, labels, *others = sample_evaluation(self.work, self.rng, tasks)
        return [self.put(x) for x in (ids, labels, *others)]

    def evaluate(self, ids, labels, support, queries):
        """Both modes' logits, on the host."""
        rate = self.put(rates(self.work, self.done, EVAL_STEPS))
        outputs, n = [], self.reptile.at_once
        for i in range(0, len(ids), n):
            inputs = [ids[i:i + n], labels[i:i + n], rate, support[i:i + n],
                      queries[i:i + n]]
            self._evaluate = self._evaluate or self.wrap(
                self.reptile.evaluate, inputs)
            outputs.append([x.clone() for x in self._evaluate(*inputs)])
        return [torch.cat(x).cpu() for x in zip(*outputs, strict=True)]


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
    """Of the device, in PyTorch's allocator; of the process on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(args):
    trainer = Trainer(args)

    def train():
        trainer.train(trainer.sample())

    compile_seconds = first_call(train)
    for _ in range(args.warm_up):
        train()
    seconds = median_seconds(train, args.repeats)
    batches = trainer.sample()
    without = median_seconds(lambda: trainer.train(batches), args.repeats)
    if not all(bool(x.isfinite().all()) for x in trainer.reptile.phi):
        raise FloatingPointError("phi is not finite")
    cuda = trainer.device.type == "cuda"
    figures = {
        "peer": "torch", "version": torch.__version__, "work": args.work,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "tf32": args.tf32,
        "mode": ", ".join([
            args.mode, args.tasks, f"{args.padding} padding",
            *["channels_last"] * args.channels_last]),
        "ms_per_meta_iteration": 1e3 * seconds,
        "ms_without_sampling": 1e3 * without,
        "eval_tasks": args.eval_tasks, "eval_tasks_per_second": None,
        "compile_seconds": compile_seconds, "eval_compile_seconds": None,
        "peak_memory_mb": peak_memory_mb(), "eval_peak_memory_mb": None}
    if args.eval_tasks:
        tasks = trainer.evaluation(args.eval_tasks)

        def evaluate():
            return trainer.evaluate(*tasks)

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
    add("--mode", choices=MODES, default="eager")
    add("--tasks", choices=TASK_ORDERS, default="loop",
        help="one after the other, or side by side")
    add("--padding", choices=("same", "symmetric"), default="same",
        help="at stride 2: exactly this project's, which pads apart, or 1 "
             "all around, as PyTorch's libraries")
    add("--channels_last", action="store_true")
    add("--eval_tasks", type=int, default=0, help="in all; 0: none")
    add("--repeats", type=int, default=100, help="timed meta-iterations")
    add("--eval_repeats", type=int, default=5)
    add("--warm_up", type=int, default=5, help="calls before the timed ones")
    add("--tf32", action="store_true")
    add("--json", action="store_true", help="one JSON object, last")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.backends.cudnn.allow_tf32 = args.tf32
    torch.backends.cudnn.benchmark = True
    try:
        figures = measure(args)
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        sys.exit(f"torch, {args.work}, {args.mode}, {args.tasks}: failed: "
                 f"{type(error).__name__}: {reason}")
    report(figures)
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
