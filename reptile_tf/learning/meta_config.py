"""The hyper-parameters of the outer loop (paper, section 6.1)."""

from dataclasses import KW_ONLY, dataclass

from reptile_tf.errors import (
    InputError,
    require_at_least,
    require_choice,
)
from reptile_tf.learning.meta_batch import TASK_ORDERS
from reptile_tf.learning.rules import REGISTRY

OUTER_OPTIMIZERS = ("sgd", "adam")
LIMIT_OF_ADAM = 0.1  # The defaults, 1 and 0.1, are of SGD on displacements.


@dataclass(frozen=True)
class MetaConfig:
    """The outer loop (paper, section 6.1).

    Attributes:
      algorithm: a key of `rules.REGISTRY`.
      meta_step: epsilon at the first iteration.
      meta_step_final: epsilon that it is annealed to, linearly.
      meta_batch: n, tasks of a meta-iteration.
      meta_iters: meta-iterations.
      outer_optimizer: "sgd": phi <- phi - epsilon mean D; "adam" is given
        D / learning_rate as the gradient, with rate epsilon.
      outer_clip: each element of what the outer optimizer is given is cut
        to [-outer_clip, outer_clip]; 0 does not.
      task_order: "parallel": each slot of the meta-batch keeps its own inner
        Adam v; "sequential": v passes through the tasks, as in the authors'
        code.
      recompute_gradients: MAML keeps the weights between inner steps, not
        the steps' activations, and runs each step twice.
      gradient_weights: a_1..a_k of gradient_sum; of no other algorithm.

    Raises:
      InputError: a value out of range, or two that do not go together.
    """

    algorithm: str = "reptile"
    _: KW_ONLY
    meta_step: float = 1.0
    meta_step_final: float = 0.0
    meta_batch: int = 5
    meta_iters: int = 100_000
    outer_optimizer: str = "sgd"
    outer_clip: float = 0.0
    task_order: str = "parallel"
    recompute_gradients: bool = False
    gradient_weights: tuple[float, ...] = ()

    @property
    def slots(self) -> int:
        """Tasks side by side, each with a v of its own."""
        return self.meta_batch if self.task_order == "parallel" else 1

    def __post_init__(self) -> None:
        require_choice(tuple(REGISTRY), algorithm=self.algorithm)
        require_choice(OUTER_OPTIMIZERS, outer_optimizer=self.outer_optimizer)
        require_choice(TASK_ORDERS, task_order=self.task_order)
        require_at_least(1, meta_batch=self.meta_batch)
        require_at_least(
            0, meta_iters=self.meta_iters, meta_step=self.meta_step,
            meta_step_final=self.meta_step_final, outer_clip=self.outer_clip)
        for name in ("meta_step", "meta_step_final"):
            step = getattr(self, name)
            if self.outer_optimizer == "adam" and step >= LIMIT_OF_ADAM:
                raise InputError(
                    f"{name}={step} with outer_optimizer=adam is Adam's "
                    "learning rate, by which each weight moves in a "
                    f"meta-iteration: use less than {LIMIT_OF_ADAM}, such as "
                    "0.001")
        if REGISTRY[self.algorithm].weighted != bool(self.gradient_weights):
            raise InputError(
                "gradient_weights are those of algorithm=gradient_sum, which "
                f"needs them; algorithm={self.algorithm} was given "
                + (",".join(map(str, self.gradient_weights)) or "none")
                + ": give them with gradient_sum alone")
