"""What a task is and how it is drawn, with NumPy alone."""

from reptile_tf.tasks.batches import (
    Batches,
    EvaluationTasks,
    Sampler,
    stacked,
)
from reptile_tf.tasks.prefetching import Prefetched
from reptile_tf.tasks.random_streams import (
    SPLIT_STREAM,
    TRAINING_STREAM,
    WEIGHTS_STREAM,
    evaluation_generator,
    generator,
)
from reptile_tf.tasks.sampling import (
    TaskSampler,
    draw_examples,
    evaluation_tasks,
)
from reptile_tf.tasks.schedules import TaskConfig, mini_batches, with_tail

__all__ = [
    "SPLIT_STREAM", "TRAINING_STREAM", "WEIGHTS_STREAM", "Batches",
    "EvaluationTasks", "Prefetched", "Sampler", "TaskConfig", "TaskSampler",
    "draw_examples", "evaluation_generator", "evaluation_tasks", "generator",
    "mini_batches", "stacked", "with_tail"]
