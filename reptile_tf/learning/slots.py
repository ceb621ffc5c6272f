"""The inner optimizer's state in training: one for each slot of a meta-batch.

v belongs to slots, not to processes, so that another number of processes can
go on with it.
"""

from typing import Any

import tensorflow as tf

from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning.optimizers import InnerState


class Slots:
    """(v, t), and m if there is one, as variables of this process's slots.

    Args:
      initial: the state before the first step, without slots.
      number: slots of all processes together.
      replicas: that share them.

    Attributes:
      v, m: variables [slots of this process, ...], one per weight.
      t: the inner steps that each has made so far.
    """

    def __init__(self, initial: InnerState, number: int, replicas: Replicas
                 ) -> None:
        self.number, self._replicas = number, replicas
        own = number // replicas.cluster.processes
        zero = initial.map_moments(lambda x: tf.repeat(x[None], own, 0))
        self.v, self.m = ([tf.Variable(x) for x in moments]
                          for moments in (zero.v, zero.m))
        self.t = tf.Variable(zero.t)

    def values(self) -> InnerState:
        """Those of this process, as tensors."""
        return InnerState([x.value() for x in self.v], self.t.value(),
                          [x.value() for x in self.m])

    def assign(self, state: InnerState) -> None:
        """Take what a meta-iteration left in this process's slots."""
        for variable, value in zip([*self.v, self.t, *self.m],
                                   tf.nest.flatten(state), strict=True):
            variable.assign(value)

    def gathered(self) -> InnerState:
        """Those of all processes, which all must ask."""
        moments = [tf.reshape(x, [self.number, *x.shape[2:]])
                   for x in self._replicas.gather([*self.v, *self.m])]
        count = len(self.v)
        return InnerState(moments[:count], self.t.value(), moments[count:])


def moments_by_name(v: list, m: list) -> dict[str, Any]:
    """Tensors or variables of slots, by their names in a checkpoint."""
    return {f"{name}/{i}": x for name, tensors in (("v", v), ("m", m))
            for i, x in enumerate(tensors)}
