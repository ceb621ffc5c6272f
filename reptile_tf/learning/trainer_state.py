"""A trainer's state as arrays by name: what a checkpoint holds."""

from typing import Any

import numpy as np

from reptile_tf.errors import InputError
from reptile_tf.learning.slots import moments_by_name


def _variables(trainer) -> dict[str, Any]:
    slots = trainer.slots
    named = {f"phi/{i}": p.value for i, p in enumerate(trainer.phi)}
    named |= moments_by_name(slots.v, slots.m)
    named["t"] = slots.t
    return named | {f"outer/{i}": o.value
                    for i, o in enumerate(trainer.optimizer.variables)}


def arrays_of(trainer) -> dict[str, np.ndarray]:
    """Everything that training continues from.

    The same whatever the number of processes; all of them must ask.

    Args:
      trainer: a `meta_training.MetaTrainer`.
    """
    arrays = {k: v.numpy().copy() for k, v in _variables(trainer).items()}
    state = trainer.slots.gathered()
    return arrays | {k: x.numpy()
                     for k, x in moments_by_name(state.v, state.m).items()}


def load(trainer, arrays: dict[str, np.ndarray]) -> None:
    """Continue from what `arrays_of` returned.

    Args:
      trainer: a `meta_training.MetaTrainer`.
      arrays: by name.

    Raises:
      InputError: other names or shapes than this trainer's.
    """
    variables, slots = _variables(trainer), trainer.slots
    found = {k: tuple(v.shape) for k, v in arrays.items()}
    expected = {k: tuple(v.shape) for k, v in variables.items()}
    moments = moments_by_name(slots.v, slots.m)
    expected |= {k: (slots.number, *x.shape[1:]) for k, x in moments.items()}
    if found != expected:
        wrong = sorted(k for k in found.keys() | expected.keys()
                       if found.get(k) != expected.get(k))
        raise InputError(
            f"the saved state does not fit this model: {wrong[0]} is "
            f"{found.get(wrong[0])}, expected {expected.get(wrong[0])}")
    own = {k: trainer.replicas.own(arrays[k]) for k in moments}
    for name, variable in variables.items():
        variable.assign({**arrays, **own}[name])
