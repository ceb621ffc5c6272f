"""Reptile, FOMAML, MAML and joint training (paper, sections 2, 3, 5.1).

A rule gets phi, the optimizer state and the k mini-batches of one task and
returns a displacement D, of which the plain outer step takes
phi <- phi - meta_step * mean D. The rules differ only in what they do with the
last mini-batch, and in the tape. With inner SGD at rate alpha and g_i the
gradient of mini-batch i's summed loss at phi_i:

  reptile  D = phi - W = alpha (g_1 + ... + g_k)
  fomaml   D = alpha g_k
  maml     D = alpha d/dphi L_k(U^{k-1}(phi))
  joint    D = alpha (g_1 + ... + g_k), every g_i taken at phi

and, with weights a_i of one's own (section 6.2),

  gradient_sum  D = alpha (a_1 g_1 + ... + a_k g_k)
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.learning.gradients import gradients
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.optimizers import InnerState
from reptile_tf.learning.weights import Weights
from reptile_tf.tasks import Batches

Rule = Callable[[InnerLoop, Weights, InnerState, Batches],
                tuple[Weights, InnerState]]


@dataclass(frozen=True)
class MetaUpdate:
    """A registered rule.

    Attributes:
      rule: (inner_loop, phi, state, one task's Batches) -> (D, state); where it
        is weighted, with `weights` as a further argument.
      second_order: whether it differentiates through the inner steps.
      min_iters: the fewest inner_iters that mean something.
      weighted: whether it needs weights of the inner steps.
    """

    rule: Callable[..., tuple[Weights, InnerState]]
    second_order: bool = False
    min_iters: int = 1
    weighted: bool = False

    def with_weights(self, weights: Sequence[float]) -> Rule:
        """The rule, given the weights that it needs, if any."""
        if not self.weighted:
            return self.rule
        return functools.partial(self.rule, weights=tuple(weights))


REGISTRY: dict[str, MetaUpdate] = {}


def register(name: str, **properties) -> Callable[[Rule], Rule]:
    """Make a rule a choice of --algorithm."""
    def add(rule):
        REGISTRY[name] = MetaUpdate(rule, **properties)
        return rule
    return add


def unweighted() -> list[str]:
    """The rules that need nothing but their name."""
    return [name for name, update in REGISTRY.items() if not update.weighted]


def _zeros_like(weights: Weights) -> Weights:
    return [tf.zeros_like(w) for w in weights]


def _minus(a: Weights, b: Weights) -> Weights:
    return [x - y for x, y in zip(a, b, strict=True)]


@register("reptile")
def reptile(inner_loop, phi, state, batches):
    """D = phi - U^k(phi) (section 2, algorithm 1)."""
    w, state = inner_loop.adapt(phi, state, batches.inputs, batches.targets)
    w, state = inner_loop.step(w, state, batches.last_inputs,
                               batches.last_targets)
    return _minus(phi, w), state


@register("fomaml")
def fomaml(inner_loop, phi, state, batches):
    """D = the displacement of the last step alone (section 5.1, eq. 26)."""
    w, state = inner_loop.adapt(phi, state, batches.inputs, batches.targets)
    last, state = inner_loop.step(w, state, batches.last_inputs,
                                  batches.last_targets)
    return _minus(w, last), state


@register("maml", second_order=True, min_iters=2)
def maml(inner_loop, phi, state, batches):
    """As fomaml, with the gradient taken with respect to phi (eq. 17-21)."""
    with tf.GradientTape() as tape:
        tape.watch(phi)
        w, state = inner_loop.adapt(phi, state, batches.inputs, batches.targets)
        loss = inner_loop.loss(inner_loop.decay(w), batches.last_inputs,
                               batches.last_targets)
    gradient = gradients(tape, loss, phi)
    last, state = inner_loop.apply_gradient(inner_loop.decay(w), gradient,
                                            state)
    return _minus(w, last), state


@register("joint")
def joint(inner_loop, phi, state, batches):
    """D = the sum of k one-step displacements, each from phi (eq. 28)."""
    def body(carry, x, y, step=inner_loop.adapting_step):
        total, state = carry
        w, state = step(phi, state, x, y)
        return [d + p - u for d, p, u in zip(total, phi, w, strict=True)], state

    carry = inner_loop.scan(body, (_zeros_like(phi), state), batches.inputs,
                            batches.targets)
    return body(carry, batches.last_inputs, batches.last_targets,
                inner_loop.step)


@register("gradient_sum", weighted=True)
def gradient_sum(inner_loop, phi, state, batches, weights):
    """D = the weighted sum of the inner steps' displacements (section 6.2).

    D = sum_i a_i (W_{i-1} - W_i), W_0 = phi: reptile with weights 1, fomaml
    with 0, ..., 0, 1. As in those, the displacement of step i includes its own
    weight decay. Steps of one weight in a row move from W_a to W_b, and add
    a_i (W_a - W_b): no sum over the steps is kept, and none is needed of those
    of weight 0.

    Raises:
      InputError: not a weight for each mini-batch.
    """
    steps = batches.inputs.shape[0] + 1
    check_weights(weights, steps)
    w, done, total = list(phi), 0, _zeros_like(phi)
    for weight, equal in itertools.groupby(weights):
        before, start = w, done
        done += len(list(equal))
        w, state = inner_loop.adapt(w, state, batches.inputs[start:done],
                                    batches.targets[start:done])
        if done == steps:
            w, state = inner_loop.step(w, state, batches.last_inputs,
                                       batches.last_targets)
        if weight:
            total = [d + tf.constant(weight, d.dtype) * x for d, x in
                     zip(total, _minus(before, w), strict=True)]
    return total, state


def check_weights(weights: Sequence[float], steps: int) -> None:
    """Raise InputError unless there is a weight for each inner step."""
    text = ",".join(f"{a:g}" for a in weights)
    if len(weights) != steps:
        raise InputError(
            f"gradient_weights={text} are {len(weights)} and "
            f"inner_iters={steps}: give one weight for each inner step")
    if not all(map(math.isfinite, weights)) or not any(weights):
        raise InputError(f"gradient_weights={text} must be finite and not "
                         "all 0, such as 0,0,1,1")
