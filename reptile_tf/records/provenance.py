"""What a result depends on besides its flags: machine, versions, commit."""

import os
import platform
import subprocess
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port

import reptile_tf
from reptile_tf.execution import devices, threads


def environment(jit: bool = True) -> dict[str, Any]:
    """What bit-for-bit repetition depends on.

    Args:
      jit: whether XLA compiles what is computed.
    """
    gpus = devices.gpus()
    device = (tf.config.experimental.get_device_details(gpus[0]).get(
        "device_name", "GPU") if gpus else f"CPU {_cpu_name()}")
    return {
        "versions": {"python": platform.python_version(),
                     "tensorflow": tf.__version__, "keras": keras.__version__,
                     "numpy": np.__version__,
                     "reptile_tf": reptile_tf.__version__},
        "device": device,
        "num_threads": (tf.config.threading.get_inter_op_parallelism_threads()
                        or threads.cpus()),
        "onednn": _pywrap_util_port.IsMklEnabled(),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "deterministic": devices.deterministic(jit)}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def code() -> int:
    """A checksum of the package's source."""
    value = 0
    for path in sorted(Path(reptile_tf.__file__).parent.rglob("*.py")):
        value = zlib.crc32(path.read_bytes(), value)
    return value


def commit() -> str:
    """The commit of this code, "-dirty" if changed; else its version."""
    here = Path(__file__).resolve()
    root = next((p for p in here.parents if (p / ".git").exists()), None)
    # A repository's settings are commands that git runs: of one above the
    # code, of somebody who could not change the code, none are read.
    owners = {here.stat().st_uid, here.parent.stat().st_uid,
              getattr(os, "geteuid", lambda: None)()}
    if root is None or (root / ".git").stat().st_uid not in owners:
        return reptile_tf.__version__
    try:
        def git(*words):
            return subprocess.run(
                # Another user's checkout, as in a container, is read too.
                ["git", "--no-optional-locks", "-c", f"safe.directory={root}",
                 "-C", str(here.parent), *words], check=True, text=True,
                capture_output=True).stdout.strip()
        if not git("ls-files", here.name):
            return reptile_tf.__version__
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return reptile_tf.__version__
