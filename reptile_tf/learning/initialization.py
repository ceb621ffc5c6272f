"""phi and (v, t) as a SavedModel, for programs without this package."""

from functools import partial

import tensorflow as tf

from reptile_tf.learning.evaluation import score_logits
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import cross_entropy
from reptile_tf.learning.optimizers import InnerState
from reptile_tf.networks import inner_clone

INTEGER_TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16",
                 "uint32", "uint64")


def inner_loop_of(learner, convolutions: str = "stock",
                  mixed_bfloat16: bool = False) -> InnerLoop:
    """U^k of a learner without XLA: for any number of examples, anywhere.

    Args:
      learner: a `learner.Learner`.
      convolutions, mixed_bfloat16: see `networks.inner_clone`.
    """
    # It may be asked for first while a function of the caller's is traced.
    with tf.init_scope():
        clone = inner_clone(learner.architecture, convolutions, mixed_bfloat16)
        # TensorFlow Lite has no float64.
        return InnerLoop(clone, learner.inner, learner.loss, correct_in=(
            tf.float32 if convolutions == "lite" else tf.float64))


class Initialization(tf.Module):
    """phi and (v, t), and what is done with them, as a SavedModel.

    A plain tf.Module, so every variable is stored once. It computes in the
    weights' type, since few machines are fast in bfloat16.

    Args:
      learner: a `learner.Learner`.
      convolutions: see `networks.inner_clone`: "plain", or "lite" in the
        operations that TensorFlow Lite has.
    """

    def __init__(self, learner, convolutions: str = "plain") -> None:
        super().__init__(name="initialization")
        self._inner_loop = inner_loop_of(learner, convolutions)
        self._adaptation, self._target = (learner.adaptation,
                                          learner.target_spec())
        # Look-ups compute with them; a SavedModel keeps what it can find here.
        self.tables = [layer.lookup_table for layer in (
            self._inner_loop.model._flatten_layers())
            if hasattr(layer, "lookup_table")]
        # Classes are integers of any type; regression targets are floats.
        self._classifies = learner.loss is cross_entropy
        self.phi = [tf.Variable(w) for w in learner.weights]
        state = learner.state
        self.v = [tf.Variable(v, trainable=False) for v in state.v]
        self.m = [tf.Variable(m, trainable=False) for m in state.m]
        self.t = tf.Variable(state.t, trainable=False)
        self.adapt_and_predict = tf.function(
            self._adapt_and_predict, autograph=False)
        for dtype in INTEGER_TYPES if self._classifies else [None]:
            self.adapt_and_predict.get_concrete_function(
                *self.adaptation_signature(dtype))

    def spec(self, name: str) -> tf.TensorSpec:
        """Any number of the network's inputs."""
        one = self._inner_loop.model.inputs[0]
        return tf.TensorSpec([None, *one.shape[1:]], one.dtype, name)

    def adaptation_signature(self, labels: str | None = None
                             ) -> list[tf.TensorSpec]:
        """The inputs of adapt_and_predict.

        Args:
          labels: the type of the targets; None means `Learner.target_spec`'s.
        """
        return [self.spec("support_images"),
                tf.TensorSpec([None, *self._target.shape],
                              labels or self._target.dtype, "support_labels"),
                self.spec("query_images"),
                tf.TensorSpec([], tf.bool, "transductive")]

    def _weights(self):
        return [w.value() for w in self.phi]

    def predict(self, images):
        """Outputs [B, ...], with the statistics of the batch given."""
        return {"logits": self._inner_loop.outputs(self._weights(), images)}

    def _adapt_and_predict(self, support_images, support_labels,
                           query_images, transductive):
        """Outputs [Q, ...] of the queries after the inner steps from phi."""
        if self._classifies:
            support_labels = tf.cast(support_labels, tf.int64)
        return self._adapt(support_images, support_labels, query_images,
                           transductive)

    @tf.function(autograph=False)
    def _adapt(self, support_images, support_labels, query_images,
               transductive):
        checks = self._checks(support_images, support_labels, query_images)
        with tf.control_dependencies(checks):  # They are to speak first.
            support_images = tf.identity(support_images)
            support_labels = tf.identity(support_labels)
        w, _ = self._inner_loop.adapt_to(
            self._weights(),
            InnerState([v.value() for v in self.v], self.t.value(),
                       [m.value() for m in self.m]),
            support_images, support_labels,
            self._adaptation.positions(tf.shape(support_images)[0]))
        scored = partial(score_logits, self._inner_loop, w, support_images,
                         query_images)
        return {"logits": tf.cond(transductive, partial(scored, True),
                                  partial(scored, False))}

    def _checks(self, support_images, support_labels, query_images):
        """Assertions in the graph: its users have no Python of ours."""
        checks = [
            tf.debugging.assert_positive(
                tf.shape(images)[0], f"{name}_images is empty: give at least "
                "one")
            for name, images in (("support", support_images),
                                 ("query", query_images))]
        checks.append(tf.debugging.assert_equal(
            tf.shape(support_images)[0], tf.shape(support_labels)[0],
            "there are not as many support_labels as support_images"))
        free = [i + 1 for i, size in enumerate(self._target.shape)
                if size is None]
        if free:  # Of a size that the inputs decide, or they would broadcast.
            outputs = self._inner_loop.outputs(self._weights(), support_images)
            checks.append(tf.debugging.assert_equal(
                *(tf.gather(tf.shape(x), free)
                  for x in (support_labels, outputs)),
                "support_labels are not of the outputs' shape"))
        if self._classifies:
            ways = self._inner_loop.model.outputs[0].shape[-1]
            checks += [
                tf.debugging.Assert(tf.reduce_all(right), [
                    f"support_labels must be from 0 to {ways - 1}, and are",
                    support_labels])
                for right in (support_labels >= 0, support_labels < ways)]
        return checks
