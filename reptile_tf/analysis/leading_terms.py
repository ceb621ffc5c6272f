"""The terms of section 5.1's expansion, on a finite family of tasks.

A small smooth network in float64 and a few mini-batches of each task, drawn
independently: all sequences are enumerated, so expectations are exact.
"""

import itertools
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import squared_error
from reptile_tf.learning.optimizers import InnerConfig
from reptile_tf.networks import inner_clone
from reptile_tf.tasks import Batches

TASKS, MINI_BATCHES, EXAMPLES, INPUTS = 3, 2, 4, 2


def network(seed: int = 0) -> keras.Model:
    """A smooth float64 network of 17 weights."""
    kernels = (keras.initializers.RandomNormal(0, 0.7, seed + i)
               for i in range(4))
    return keras.Sequential([
        keras.Input([INPUTS], dtype="float64"),
        keras.layers.Dense(4, "tanh", dtype="float64",
                           kernel_initializer=next(kernels),
                           bias_initializer=next(kernels)),
        keras.layers.Dense(1, dtype="float64",
                           kernel_initializer=next(kernels),
                           bias_initializer=next(kernels))])


@dataclass(frozen=True)
class Family:
    """A finite p(tau): inputs and targets of every mini-batch.

    Attributes:
      inputs: [tasks, mini-batches, B, inputs].
      targets: [tasks, mini-batches, B, 1].
    """

    inputs: np.ndarray
    targets: np.ndarray

    @classmethod
    def draw(cls, seed: int = 0) -> "Family":
        """Noisy regression tasks."""
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(TASKS, MINI_BATCHES, EXAMPLES, INPUTS))
        slopes = rng.normal(size=(TASKS, 1, INPUTS, 1))
        return cls(x, np.sin(x @ slopes) + 0.3 * rng.normal(
            size=(TASKS, MINI_BATCHES, EXAMPLES, 1)))

    def sequences(self, k: int) -> Batches:
        """Every sequence of k mini-batches of every task, equally likely."""
        order = np.array(list(itertools.product(
            range(self.inputs.shape[1]), repeat=k)))
        shape = (-1, k, *self.inputs.shape[2:])
        return Batches.from_steps(
            self.inputs[:, order].reshape(shape),
            self.targets[:, order].reshape(*shape[:-1], 1))


def flat(tensors: list[tf.Tensor], leading: int = 0) -> tf.Tensor:
    """Weights as one vector, after `leading` axes."""
    return tf.concat([tf.reshape(x, [*x.shape[:leading], -1])
                      for x in tensors], -1)


class LeadingTerms:
    """gbar_i, Hbar_i gbar_j at phi, and their averages (eq. 28, 29).

    Args:
      model: at phi.
      family: the tasks.

    Attributes:
      gradients: gbar [tasks, mini-batches, weights].
      products: Hbar_i gbar_j [tasks, i, j, weights], Hessian-vector products.
      avg_grad: AvgGrad [weights].
      avg_grad_inner: AvgGradInner [weights], from the products.
      avg_grad_inner_by_eq32: the same as d/dphi of gbar_1 . gbar_2, halved.
    """

    def __init__(self, model: keras.Model, family: Family) -> None:
        self._inner_loop = InnerLoop(
            inner_clone(model), InnerConfig(inner_loss="sum"),
            squared_error)
        self._phi = [w.value.value()
                     for w in self._inner_loop.model.trainable_variables]
        tasks, number = family.inputs.shape[:2]
        gradients, products, by_eq32 = [], [], []
        for x, y in zip(family.inputs, family.targets, strict=True):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(self._phi)
                g = [self._gradient(x[i], y[i]) for i in range(number)]
                inner_products = {
                    (i, j): tf.reduce_sum(g[i] * tf.stop_gradient(g[j]))
                    for i in range(number) for j in range(number)}
                both = sum(tf.reduce_sum(a * b) for a in g for b in g)
            gradients.append(g)
            products.append([
                [flat(tape.gradient(inner_products[i, j], self._phi))
                 for j in range(number)] for i in range(number)])
            by_eq32.append(flat(tape.gradient(both, self._phi))
                           / (2 * number**2))
        self.gradients = np.array(gradients)
        self.products = np.array(products)
        self.avg_grad = self.gradients.mean((0, 1))
        self.avg_grad_inner = self.products.mean((0, 1, 2))
        self.avg_grad_inner_by_eq32 = np.mean(by_eq32, 0)

    def _gradient(self, x, y) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(self._phi)
            loss = self._inner_loop.loss(self._phi, x, y)
        return flat(tape.gradient(loss, self._phi))
