"""A learner on disk: a SavedModel, a stock Keras file, and its settings."""

import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from reptile_tf.errors import InputError, first_line
from reptile_tf.learning.adaptation import AdaptConfig
from reptile_tf.learning.initialization import Initialization
from reptile_tf.learning.losses import Loss, cross_entropy, squared_error
from reptile_tf.learning.optimizers import InnerConfig, InnerState
from reptile_tf.whole_files import content_of, replacing

LOSSES = {f.__name__: f for f in (cross_entropy, squared_error)}
SETTINGS, KERAS_FILE = "learner.json", "model.keras"
# All that is in a saved initialization; the others are the SavedModel's.
OWN = {SETTINGS, KERAS_FILE, "saved_model.pb", "fingerprint.pb", "variables",
       "assets"}


def save(learner, directory: Path) -> None:
    """Write the SavedModel, model.keras of stock layers, and the settings.

    Args:
      learner: a `learner.Learner`.
      directory: replaced as a whole, once everything is written.

    Raises:
      InputError: something else is there.
    """
    require_replaceable(directory)
    target = learner.target_spec()
    module = Initialization(learner)
    signatures = {
        "serving_default": tf.function(
            module.predict, input_signature=[module.spec("images")],
            autograph=False),
        # A signature has one type of labels; Python numbers and NumPy arrays
        # of any integer type are converted to it. Tensors of other types go
        # to the loaded object's own adapt_and_predict.
        "adapt_and_predict": module.adapt_and_predict.get_concrete_function(
            *module.adaptation_signature()),
    }
    settings = json.dumps({
        "loss": _name_of(learner.loss),
        "inner": dataclasses.asdict(learner.inner),
        "adaptation": dataclasses.asdict(learner.adaptation),
        "target": {"shape": target.shape.as_list(),
                   "dtype": target.dtype.name},
        # Keras's file has it of whole layers alone.
        "frozen": [i for i, w in enumerate(
                       learner.architecture.weights)
                   if not w.trainable],
        # Thousands, on a line of their own.
        "trained_on": " ".join(sorted(learner.trained_on))},
        indent=1, default=lambda number: number.item())  # NumPy's.
    with replacing(directory) as temporary:
        tf.saved_model.save(module, str(temporary), signatures)
        learner.model.save(temporary / KERAS_FILE)
        (temporary / SETTINGS).write_text(settings)


def copy(source: Path, directory: Path) -> None:
    """Copy what `save` wrote, without what else lies there.

    Raises:
      InputError: something else is in the place of the copy.
    """
    require_replaceable(directory)
    with replacing(directory) as temporary:
        temporary.mkdir()
        for path in source.iterdir():
            if path.name in OWN:
                (shutil.copytree if path.is_dir() else shutil.copyfile)(
                    path, temporary / path.name)


def require_replaceable(directory: Path) -> None:
    """Raise InputError where replacing a folder would lose other files."""
    content = set(content_of(directory)) if directory.is_dir() else set()
    if directory.is_file() or content and not (
            SETTINGS in content and content <= OWN):
        more = ", ".join(sorted(content - OWN)[:1]) or "no " + SETTINGS
        raise InputError(
            f"{directory} is there, and holds more than a saved "
            f"initialization, or none ({more}): name a folder that is new, "
            "empty, or an initialization to replace, move what is yours "
            "elsewhere")
    if directory.is_dir() and os.path.ismount(
            directory.resolve()):
        raise InputError(f"{directory} is where a disk is mounted, and cannot "
                         f"be replaced: name a folder in it, such as "
                         f"{directory / 'initialization'}")
    if directory.resolve() == Path.cwd():
        raise InputError(f"{directory} is the folder that you are in, which "
                         "would be replaced: name one in it")


def _name_of(loss: Loss) -> str:
    """Of one of LOSSES its name there; of one's own a name for people."""
    if loss in LOSSES.values():
        return loss.__name__
    return f"own {getattr(loss, '__name__', type(loss).__name__)}"


@dataclasses.dataclass(frozen=True)
class Saved:
    """What `save` wrote beside phi.

    Attributes: as of `learner.Learner`.
    """

    inner: InnerConfig
    adaptation: AdaptConfig
    loss: Loss
    target: tf.TensorSpec | None
    state: InnerState
    trained_on: frozenset[str]


def load(directory: Path, loss: Loss | None = None
         ) -> tuple[keras.Model, Saved]:
    """The model at phi, and the rest of a learner.

    Args:
      directory: that `save` wrote.
      loss: needed if it was none of LOSSES.

    Raises:
      InputError: no learner is there, or `loss` is missing, or a layer or
        function of one's own is, which Keras must know.
    """
    try:
        settings = json.loads((directory / SETTINGS).read_text())
        name, inner = settings["loss"], {**settings["inner"]}
        adaptation = {**settings["adaptation"]}
        adaptation["smaller"] = tuple(map(tuple, adaptation["smaller"]))
    except OSError as e:
        raise InputError(
            f"{directory} holds no learner ({SETTINGS}: {e.strerror}): give "
            "the folder that Learner.save wrote, or a run's initialization"
        ) from e
    except (ValueError, KeyError, TypeError) as e:
        raise InputError(f"{directory / SETTINGS} is not whole "
                         f"({first_line(e)}): copy the whole folder") from e
    own = LOSSES.get(name)
    # Another loss may have targets of another form.
    target = settings.get("target") if loss in (None, own) or not own else None
    loss = loss or own
    if loss is None:
        raise InputError(f"{directory} was saved with a loss of your own, "
                         f"{name!r}: give it, Learner.load(directory, loss)")
    model = _model(directory / KERAS_FILE)
    try:
        inner, adaptation = InnerConfig(**inner), AdaptConfig(**adaptation)
    except TypeError as e:
        raise InputError(f"{directory} was written by a newer reptile_tf "
                         f"({first_line(e)}): install that one") from e
    try:
        for i in settings.get("frozen", ()):
            model.weights[i].trainable = False
        state = _state(tf.train.load_checkpoint(
            str(directory / "variables" / "variables")))
    except (tf.errors.OpError, ValueError, IndexError) as e:
        raise InputError(f"{directory} has no variables that can be read "
                         f"({first_line(e)}): copy the whole folder") from e
    return model, Saved(
        inner, adaptation, loss, target and tf.TensorSpec(**target), state,
        frozenset(settings.get("trained_on", "").split()))


def _model(file: Path) -> keras.Model:
    """The model of a Keras file."""
    if not file.exists():
        raise InputError(f"{file.parent} has no {file.name}, which "
                         "Learner.save wrote: copy the whole folder")
    try:
        return keras.models.load_model(file)
    except (TypeError, ValueError, KeyError, OSError,
            zipfile.BadZipFile) as e:
        if not zipfile.is_zipfile(file) or not isinstance(
                e, (TypeError, ValueError)):
            remedy = "copy the whole folder"
        elif "unsafe_deserialization" in str(e):  # As Keras says of lambdas.
            remedy = ("a lambda is code, which runs: if you trust the file, "
                      "call keras.config.enable_unsafe_deserialization()")
        else:
            remedy = ("register layers and functions of your own before, by "
                      "the decorator "
                      "keras.saving.register_keras_serializable()")
        raise InputError(f"{file} cannot be read ({first_line(e)}): {remedy}"
                         ) from e


def _state(variables: Any) -> InnerState:
    """(v, t), and m if there is one, of a SavedModel's variables."""
    names = variables.get_variable_to_shape_map()

    def moments(name):
        count = sum(k.startswith(f"{name}/") for k in names)
        return [tf.constant(_value(variables, f"{name}/{i}"))
                for i in range(count)]

    return InnerState(moments("v"), tf.constant(_value(variables, "t")),
                      moments("m"))


def _value(variables: Any, name: str) -> Any:
    return variables.get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")
