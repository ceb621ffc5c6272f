"""The tutorial, docs/tutorial.ipynb, run from its first cell to its last."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs/tutorial.ipynb"
REASON = "needs requirements/notebook.txt"


def test_the_committed_notebook_is_short_and_has_no_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert len(cells) <= 15
    for cell in cells:
        assert not cell.get("outputs") and not cell.get("execution_count")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Those of Jupyter's packages.
def test_the_notebook_runs_and_adapts():
    nbclient = pytest.importorskip("nbclient", reason=REASON)
    nbformat = pytest.importorskip("nbformat", reason=REASON)
    pytest.importorskip("ipykernel", reason=REASON)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=3600, startup_timeout=600, kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells
               for output in cell.get("outputs", ())]
    text = "".join(o.get("text", "") for o in outputs)
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 3
    untrained, trained = (float(re.search(rf"^{name} +([\d.]+) ±", text,
                                          re.M)[1])
                          for name in ("untrained", "meta-trained"))
    assert trained > untrained + 5
    errors = [float(re.search(rf"^{name}: .* ([\d.]+) over", text, re.M)[1])
              for name in ("random initialization", "Reptile")]
    assert errors[1] < errors[0] / 3
