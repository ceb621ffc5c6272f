"""Which engine a model gets."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from reptile_tf import networks as models
from reptile_tf.datasets import omniglot
from reptile_tf.datasets.few_shot import FewShotImages, ImageData
from reptile_tf.datasets.omniglot import dataset
from reptile_tf.execution import engine
from reptile_tf.runs import building

DENSE = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
SMALL, LARGE = models.omniglot(2), models.mini_imagenet(2)


@pytest.mark.parametrize("gpus, model, flag, want, reason", [
    ([], DENSE, "auto", (True, True, "sliced"), "dense layers"),
    ([], SMALL, "auto", (False, False, "gathered"), "on the CPU"),
    ([], LARGE, "auto", (False, False, "gathered"), "on the CPU"),
    (["GPU"], SMALL, "auto", (True, True, "sliced"), "on a GPU"),
    (["GPU"], LARGE, "auto", (True, True, "sliced"), "on a GPU"),
    ([], SMALL, "on", (True, True, "sliced"), "--jit_compile=on"),
    ([], LARGE, "on", (False, True, "compiled"), "--jit_compile=on"),
    ([], LARGE, "off", (False, False, "gathered"), "--jit_compile=off"),
    (["GPU"], SMALL, "off", (False, False, "stock"), "--jit_compile=off")])
def test_the_engine_of_a_model(monkeypatch, gpus, model, flag, want, reason):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: gpus)
    chosen = engine.choose(model, flag)
    assert (chosen.vectorized, chosen.jit, chosen.convolutions) == want
    # A sub-graph for each of hundreds of tasks would compile for minutes.
    assert chosen.tasks_per_call == (
        engine.GPU_TASKS_PER_CALL if gpus and want[0]
        else engine.CPU_TASKS_PER_CALL)
    assert reason in str(chosen)


@pytest.mark.parametrize("gpus, want", [([], 1), (["GPU"], 20)])
def test_a_gpu_makes_many_meta_iterations_a_call(monkeypatch, gpus, want):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: gpus)
    assert engine.iterations_per_call() == want


@pytest.mark.parametrize("flags", [
    {"algorithm": "reptile"},
    {"algorithm": "maml", "network": "maml", "mixed_bfloat16": True}])
def test_without_xla_nothing_goes_back_to_the_host(monkeypatch, flags):
    """All of a call has kernels for GPUs, the images' lookup too."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: ["GPU"])
    classes = list(np.arange(24).reshape(3, 8))
    config = omniglot.CONFIG(**{
        **omniglot.DEFAULTS, "classes": 2, "train_shots": 5, "shots": (1,),
        "inner_iters": 2, "eval_iters": 1, "meta_batch": 1,
        "jit_compile": "off", **flags})
    source = FewShotImages(
        ImageData(np.zeros([24, 28, 28, 1], np.uint8),
                  {"train": classes, "test": classes}, "zeros"), config,
        dataset.NETWORKS[config.network])
    trainer = building.trainer_of(source, config, source.network())
    evaluator = building.evaluator_of(source, config, trainer.learner)
    learner = trainer.learner
    rng = np.random.default_rng(0)
    batches = source.sampler(rng)(20)
    tasks = source.evaluation_tasks("test", 1, 2, 2, rng)
    for function, arguments in (
            (trainer._outer.steps, (_tensors(batches, [20, 1]), 1)),
            (evaluator._compiled, (learner.weights, learner.state,
                                   _tensors(tasks, [2])))):
        graph = function.get_concrete_function(
            *arguments).graph.as_graph_def()
        nodes = [*graph.node,
                 *(n for f in graph.library.function for n in f.node_def)]
        assert {"ResourceGather", "Conv2D"} <= {n.op for n in nodes}
        assert [n.op for n in nodes if not _runs_on_gpu(n)] == []


def _tensors(numbers, shape):
    return tf.nest.map_structure(
        lambda x: tf.reshape(x, [*shape, *np.shape(x)[1:]]), numbers)


def _runs_on_gpu(node):
    """By TensorFlow's list of the kernels that it has."""
    return any(
        all(node.attr[c.name].type in c.allowed_values.list.type
            for c in kernel.constraint)
        for kernel in kernels.get_registered_kernels_for_op(node.op).kernel
        if kernel.device_type in ("GPU", "DEFAULT"))
