"""The flags that every data set shares: default, meaning, unit, symbol."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from reptile_tf.execution.cluster import DISTRIBUTIONS
from reptile_tf.execution.engine import JIT_COMPILE
from reptile_tf.learning.meta_batch import TASK_ORDERS
from reptile_tf.learning.meta_config import OUTER_OPTIMIZERS
from reptile_tf.learning.optimizers import INNER_LOSSES, INNER_OPTIMIZERS
from reptile_tf.learning.rules import REGISTRY


def flag(default: Any, text: str, training: bool = False,
         choices: tuple[str, ...] | None = None, path: bool = False) -> Any:
    """A flag.

    Args:
      default: its value.
      text: its meaning.
      training: it may not change when a run is resumed.
      choices: the values it may have.
      path: a leading ~ in it is the home folder.
    """
    return dataclasses.field(default=default, metadata={
        "help": text, "training": training, "choices": choices, "path": path})


@dataclass(frozen=True)
class RunFlags:
    """A run's flags. Defaults are the paper's Omniglot 5-way column.

    Their order is that of --help and of flags.cfg.
    """

    algorithm: str = flag(
        "reptile", "meta-update rule (sections 2, 3, 5.1); a list, such as "
        "reptile,maml, makes a run of each", True, tuple(REGISTRY))
    shots: tuple[int, ...] = flag(
        (1, 5), "K, support examples per class in evaluation; a list "
        "evaluates one training several times")
    train_shots: int = flag(
        10, "examples per class of a training task; 0 means --shots", True)
    inner_batch: int = flag(
        10, "examples per inner mini-batch in training", True)
    inner_iters: int = flag(5, "k, inner steps per training task", True)
    replacement: bool = flag(
        False, "draw each mini-batch afresh instead of cycling through the "
        "task's examples", True)
    learning_rate: float = flag(
        1e-3, "alpha, step size of the inner optimizer", True)
    inner_optimizer: str = flag(
        "adam", "inner optimizer", True, INNER_OPTIMIZERS)
    inner_beta1: float = flag(
        0.0, "beta1, momentum of the inner Adam; the paper has none (section "
        "6.1)", True)
    inner_frozen: str = flag(
        "", "weights that adapting leaves alone, as patterns of layer/weight "
        "with commas between them, such as norm*/beta,conv1/*; the last "
        "mini-batch of each task trains them", True)
    inner_loss: str = flag(
        "sum", "inner loss: over the mini-batch", True, INNER_LOSSES)
    meta_step: float = flag(
        1.0, "epsilon, the outer step size at the first meta-iteration", True)
    meta_step_final: float = flag(
        0.0, "epsilon that it is annealed to, linearly", True)
    meta_batch: int = flag(5, "n, tasks per meta-iteration", True)
    meta_iters: int = flag(
        100_000, "outer steps of the run; 0 evaluates the network that it "
        "starts from", True)
    init: str = flag(
        "", "start from an initialization instead of random weights, with its "
        "network and, for the same inner optimizer, its (v, t): a run's "
        "initialization/ or another saved learner's folder, or the name of "
        "one that comes with the package; --meta_iters=0 evaluates it", True,
        path=True)
    outer_optimizer: str = flag(
        "sgd", "outer optimizer; sgd is phi + epsilon (W - phi)", True,
        OUTER_OPTIMIZERS)
    gradient_weights: tuple[float, ...] = flag(
        (), "a_1..a_k, weights of the inner steps' gradients, such as "
        "0,0,1,1; of --algorithm=gradient_sum alone (section 6.2)", True)
    outer_clip: float = flag(
        0.0, "bound on each element of what the outer optimizer is given; 0 "
        "means none", True)
    tail_shots: int = flag(
        0, "examples per class set apart as the last mini-batch (separate "
        "tail); 0 means a shared tail", True)
    eval_batch: tuple[int, ...] = flag(
        (5,), "examples per inner mini-batch in evaluation; one value, or "
        "one for each of --shots")
    eval_iters: int = flag(50, "inner steps in evaluation")
    eval_samples: int = flag(10_000, "tasks of the final evaluation")
    eval_interval: int = flag(
        1000, "meta-iterations between periodic evaluations; 0 means none")
    eval_interval_samples: int = flag(
        100, "tasks of a periodic evaluation, and of the untrained network's")
    eval_splits: str = flag(
        "all", "splits of the final evaluation: all, that is test, validation "
        "where there is one, and training classes; test alone; or val alone, "
        "to choose by without test classes", False, ("all", "test", "val"))
    weight_decay: float = flag(
        1.0, "factor on all weights before each inner step, such as 0.9999; 1 "
        "means none",
        True)
    seed: int = flag(
        0, "of the split, weights and tasks; a list, such as 0,1,2, makes a "
        "run of each", True)
    task_order: str = flag(
        "parallel", "whether each slot of the meta-batch keeps its own inner "
        "Adam v, or v passes through the tasks one after the other", True,
        TASK_ORDERS)
    mixed_bfloat16: bool = flag(
        False, "compute the network in bfloat16, in training and in "
        "evaluation; weights, (v, t), batch-norm statistics, loss and outer "
        "step stay in float32, and what is exported computes in float32",
        True)
    tf32: bool = flag(
        False, "products in TF32 on NVIDIA GPUs of Ampere and later, with 10 "
        "bits: not what was published, nor faster on an H200", True)
    deterministic: bool = flag(
        True, "on a GPU, XLA's kernels that repeat bit for bit, measured to "
        "take up to 2 % longer; what XLA_FLAGS say of them wins. A CPU always "
        "repeats")
    recompute_gradients: bool = flag(
        False, "MAML in the memory of one inner step: run each again on the "
        "way back", True)
    jit_compile: str = flag(
        "auto", "XLA; auto: on a GPU, and on the CPU where it is measured "
        "best", True, JIT_COMPILE)
    distribution: str = flag(
        "none", "who shares the tasks of a meta-batch: one device, mirrored: "
        "all GPUs of this machine, multi_worker: the machines of TF_CONFIG; "
        "sine waves stay on the CPU",
        False, DISTRIBUTIONS)
    run_dir: str = flag(
        "", "folder of the run; empty means "
        "runs/<dataset>-<algorithm>-seed<seed>; of several runs the folder "
        "that holds theirs, empty runs/<dataset>-compare, of run_sine.py "
        "--compare with -seed<seed>", path=True)
    pretrained: bool = flag(
        False, "no training: evaluate the newest checkpoint of --run_dir")
    export: bool = flag(
        True, "after training, write the SavedModel and model.keras of the "
        "initialization")
    resume: bool = flag(
        True, "go on from the newest checkpoint; --noresume refuses a "
        "--run_dir that is not empty")
    num_threads: int = flag(0, "CPU threads; 0 means all")
