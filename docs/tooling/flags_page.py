"""docs/flags.md, from the flags themselves.

    make flags
"""

import dataclasses
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(DOCS.parent))

from reptile_tf import quiet_tensorflow  # noqa: E402, F401, I001

from reptile_tf.datasets import mini_imagenet, omniglot, sine  # noqa: E402

SCRIPTS = {"Omniglot": omniglot, "Mini-ImageNet": mini_imagenet,
           "sine": sine}
GROUPS = {
    "The task": (
        "network", "classes", "shots", "train_shots", "tail_shots"),
    "The inner loop": (
        "inner_iters", "inner_batch", "replacement", "learning_rate",
        "inner_optimizer", "inner_beta1", "inner_loss", "weight_decay",
        "inner_frozen"),
    "The outer loop": (
        "algorithm", "meta_step", "meta_step_final", "meta_batch",
        "meta_iters", "init", "outer_optimizer", "outer_clip",
        "gradient_weights", "task_order", "seed"),
    "Evaluation": (
        "eval_iters", "eval_batch", "eval_queries", "eval_samples",
        "eval_interval", "eval_interval_samples", "eval_splits",
        "transductive"),
    "The run": ("run_dir", "resume", "pretrained", "export"),
    "The machine": (
        "num_threads", "jit_compile", "mixed_bfloat16", "tf32",
        "deterministic", "recompute_gradients", "distribution"),
    "Omniglot's data": ("data", "data_dir", "val_classes"),
    "Mini-ImageNet, and your own images": (
        "data_dir", "allow_partial", "image_size", "channels",
        "resize_filter", "cache_dir", "device_images"),
    "Sine waves": (
        "shots", "train_shots", "activation", "amplitude", "phase", "x_range",
        "compare"),
}
OF_ONE_SCRIPT = {"Omniglot's data": omniglot, "Sine waves": sine,
                 "Mini-ImageNet, and your own images": mini_imagenet}
SYMBOL = re.compile(r"(a_1\.\.a_k|alpha|beta1|epsilon|[NKknpab])(, | that )")
HEAD = """# Flags

Written by `make flags` from the code. `--help` of a script lists its own.
*Symbol* is the paper's. A flag that is *fixed* may not change when a run goes
on. Where the scripts' defaults differ, Omniglot's is first; FOMAML and MAML
have `--outer_optimizer=adam`, `--meta_step=0.001` and
`--meta_step_final=0.001` in `run_sine.py`, which has none of `--network`,
`--classes`, `--eval_queries` and `--transductive`. `--flagfile=FILE` reads
flags from a file, and a flag after it wins over the file. A flag whose default
is on or off is given as `--export` or `--noexport`.
"""


def flags_of(dataset) -> dict[str, dataclasses.Field]:
    """The flags of a script, by name."""
    return {field.name: field for field in dataclasses.fields(dataset.CONFIG)}


def default_of(dataset, name: str) -> str:
    """As it is typed."""
    value = dataset.DEFAULTS.get(name, flags_of(dataset)[name].default)
    if isinstance(value, tuple):
        value = ",".join(f"{v:.6g}" for v in value)
    elif isinstance(value, bool):
        value = "on" if value else "off"
    return "" if value in ("", None) else str(value)


def defaults(name: str, datasets: dict) -> str:
    """The first script's, and the others' where they differ from it."""
    values = {script: default_of(dataset, name)
              for script, dataset in datasets.items()}
    first = next(iter(values.values()))
    texts = [f"`{first}`" if first else "unset"] + [
        f"{script} `{value}`" for script, value in values.items()
        if value != first]
    return ", ".join(texts)


def row(name: str, datasets: dict) -> str:
    """A line of a table."""
    field = flags_of(next(iter(datasets.values())))[name]
    text, choices = field.metadata["help"], field.metadata["choices"]
    found = SYMBOL.match(text)
    if found and found[2] == ", ":
        text = text[found.end():]
    if choices:
        text += " (" + ", ".join(f"`{c}`" for c in choices if c) + ")"
    cells = (f"`--{name}`", found[1] if found else "", text,
             defaults(name, datasets),
             "fixed" if field.metadata["training"] else "")
    return "| " + " | ".join(
        c.replace("<", "&lt;").replace("*", "\\*") for c in cells) + " |"


def datasets_of(group: str, name: str) -> dict:
    """Whose flag of this name it is: one script's, or those that share it."""
    if group in OF_ONE_SCRIPT:
        return {"": OF_ONE_SCRIPT[group]}
    shared = flags_of(omniglot)[name].metadata["help"]
    return {script: dataset for script, dataset in SCRIPTS.items()
            if name in flags_of(dataset)
            and flags_of(dataset)[name].metadata["help"] == shared}


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for group, names in GROUPS.items():
        lines += [f"## {group}", "",
                  "| flag | symbol | meaning | default | |",
                  "|---|---|---|---|---|"]
        lines += [row(name, datasets_of(group, name)) for name in names]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    (DOCS / "flags.md").write_text(page(), encoding="utf-8")
