"""Puts a finished run's initialization, with its card, into initializations/.

    python docs/tooling/publish_initialization.py RUN_DIR FLAGFILE [NOTE]

FLAGFILE is the name of one of configs/, without .cfg, and the initialization's.
NOTE is what the card says about the training beyond the run's own record.
"""

import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from reptile_tf import quiet_tensorflow  # noqa: E402, F401, I001

from reptile_tf import trained  # noqa: E402
from reptile_tf.configuration import flags  # noqa: E402
from reptile_tf.datasets import omniglot  # noqa: E402
from reptile_tf.datasets.few_shot.results import mode_name  # noqa: E402
from reptile_tf.errors import InputError  # noqa: E402
from reptile_tf.learning.learner import Learner  # noqa: E402
from reptile_tf.records.run_directory import RunDirectory  # noqa: E402

CARD = """# {name}

{algorithm} on Omniglot, {ways}-way {shots}-shot, seed {seed}: an
initialization that adapts to drawings of {ways} characters that it has never
seen.

```python
import reptile_tf

learner = reptile_tf.load("{name}")
adapted = learner.adapt(support_images, support_labels)  # [S, 28, 28, 1], [S]
logits = adapted.predict(query_images)                   # [Q, {ways}]
```

Images are 28x28 floats, paper 1 and ink 0 (bytes are not divided by 255 for
you), the drawing upright or turned. Labels are 0 to {last}; of fewer classes
take the first `logits`. `adapt` makes {steps} steps of {batch} images, as in
the evaluation below: give `steps=` or `batch=` for support sets of more.
With one query of each class `predict(query_images, transductive=True)` is
better; other queries would be normalized as if they were so.

| accuracy, % | {count:,} tasks of test characters | untrained, {untrained:,} |
|---|---|---|
{rows}

± is the 95 % interval over tasks. In transduction the {ways} queries of a
task, one of each character, are normalized together.

- **Training**: `configs/{name}.cfg`, {iters:,} meta-iterations.{note}
  One run; its seed was chosen beforehand.
- **Evaluated** with commit {commit}, TensorFlow {tensorflow}, Keras {keras},
  {device}. [`result.json`](result.json) has all of it.
- **Data**: Omniglot (Lake, Salakhutdinov, Tenenbaum, 2015), MIT licence;
  {classes}.
  The test characters are those that `run_omniglot.py {split}` holds out, not
  Omniglot's own evaluation half, most of which was trained on. Nothing was
  chosen by them.
- **Licence**: MIT, as this repository.
- **Limits**: single handwritten characters, black on white, 1-bit, drawn with
  a thin pen and shrunk to 28x28 by nearest neighbour. Photographs, grey scans
  and other resolutions have not been measured. Not for recognizing text or
  people, nor for a decision that matters without a measurement on data of
  your own.

`sha256sum -c SHA256SUMS` checks the files; `reptile_tf.load` does so each
time.
"""
CLASSES = {
    "maml": "1,100 characters, turned, for training, 100 for validation, 423 "
            "for testing",
    "reptile": "1,200 characters, turned, for training, 423 for testing"}


def row(result: dict, cell: dict) -> str:
    """A line of the card's table."""
    def accuracy(r):
        return f"{100 * r['accuracy']:.2f} ± {100 * r['ci95']:.2f}"

    before, = (r for r in result["untrained"] if all(
        r[key] == cell[key] for key in ("split", "shots", "transductive")))
    return (f"| {cell['shots']}-shot {mode_name(cell['transductive'])} | "
            f"{accuracy(cell)} | {accuracy(before)} |")


def publish(run: Path, name: str, note: str) -> None:
    """Write initializations/NAME anew.

    Raises:
      InputError: a run that was not trained as the card would say.
    """
    result = json.loads((run / "result.json").read_text())
    config = flags.parse(
        ["", f"--flagfile={ROOT}/configs/{name}.cfg",
         f"--seed={result['seed']}"], omniglot.CONFIG, omniglot.DEFAULTS)
    directory = RunDirectory(run)
    directory.require_trained_with(config)
    if directory.flags()["data"] == "--data=synthetic":
        raise InputError(f"{run} was trained on built-in glyphs, and the card "
                         "is of Omniglot")
    for commit, what in ((result["commit"], "evaluated"), *(
            (c, "trained") for c in result.get("trained_with", ())
            if c != "unknown")):  # Before runs noted it.
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise InputError(f"{run} was {what} with code of no commit "
                             f"({commit}): do it with code that others can "
                             "check out")
    learner = Learner.load(run / "initialization")
    if not learner.trained_on:
        raise InputError(f"{run} was exported before initializations knew "
                         "their classes: remove initialization/, and go on "
                         "with --export")
    # The card says what `adapt` does, and how well.
    measured = {(r["shots"], r["eval_batch"], r["eval_iters"],
                 r.get("eval_queries", 1)) for r in result["results"]}
    if learner.adaptation != config.adaptation or measured != {
            (shots, batch, config.eval_iters, config.eval_queries)
            for shots, batch in config.evaluations()}:
        raise InputError(f"{run} was exported or evaluated otherwise than "
                         f"configs/{name}.cfg says: do both as it says")
    result["data_source"] = result["data_source"].split(" in ")[0]
    folder = trained.FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "initialization", folder)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    cells = [r for r in result["results"] if r["split"] == "test"]
    (folder / "README.md").write_text(CARD.format(
        name=name, algorithm=result["algorithm"].upper() if "maml" in name
        else "Reptile", ways=result["ways"], last=result["ways"] - 1,
        shots=" and ".join(map(str, result["shots"])), seed=result["seed"],
        steps=cells[0]["eval_iters"], batch=cells[0]["eval_batch"],
        count=cells[0]["tasks"], untrained=result["untrained"][0]["tasks"],
        rows="\n".join(row(result, cell) for cell in cells),
        iters=result["meta_iters"], note=f" {note}" if note else "",
        commit=result["commit"][:7], device=result["device"],
        classes=CLASSES[config.network], split=f"--seed={result['seed']}",
        **{k: result["versions"][k] for k in ("tensorflow", "keras")}),
        encoding="utf-8")
    # Not the card, which may be corrected.
    files = sorted(p for p in folder.glob("**/*")
                   if p.is_file() and p.name != "README.md")
    (folder / trained.CHECKSUMS).write_text("".join(
        f"{trained.digest_of(p)}  {p.relative_to(folder)}\n" for p in files))


if __name__ == "__main__":
    publish(Path(sys.argv[1]), *sys.argv[2:3], " ".join(sys.argv[3:]))
