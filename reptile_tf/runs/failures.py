"""Failures of the machine as one line: what, where, what to do."""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tensorflow as tf

from reptile_tf.errors import InputError, first_line
from reptile_tf.execution import memory

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
         errno.EFBIG, errno.EIO, errno.ESTALE)
_DISK_TEXT = re.compile("No space left|quota|Read-only file system|"
                        "Permission denied|File too large", re.I)
_COMPILER_TEXT = re.compile(r"XLA|HLO|LLVM|ptxas|compil", re.I)
_COMPILER = (tf.errors.InternalError, tf.errors.UnimplementedError)
# Of operations that XLA lacks, and of those that do not vectorize.
_LACKING_TEXT = re.compile("Detected unsupported operations when trying to "
                           "compile|No pfor vectorization")


@contextmanager
def as_input_errors(progress: Callable[[], str]) -> Iterator[None]:
    """Inside, a failure of the machine is an InputError.

    Args:
      progress: says what the run goes on from.
    """
    try:
        yield
    except Exception as e:
        text = explained(e)
        if text is None:
            raise
        raise InputError(f"{text}; the same command goes on from {progress()}"
                         ) from e


def explained(error: Exception) -> str | None:
    """What happened and what to do; None if it is no machine's failure."""
    first = first_line(error)
    if isinstance(error, (OSError, tf.errors.OpError)) and (
            getattr(error, "errno", None) in _DISK
            or _DISK_TEXT.search(first)):
        where = getattr(error, "filename", None)
        reason = getattr(error, "strerror", None) or first
        return (f"{where or 'a file of the run'} cannot be written or read "
                f"({reason}): make room there, or allow it")
    if memory.is_used_up(error):
        return (f"the memory is used up ({first or 'of the host'}): lower "
                "--eval_batch; or with another --run_dir lower --meta_batch or "
                "--inner_batch or use --task_order=sequential, with MAML lower "
                "--inner_iters or use --recompute_gradients")
    if _LACKING_TEXT.search(str(error)) or (
            isinstance(error, _COMPILER) and _COMPILER_TEXT.search(str(error))):
        return (f"XLA cannot compile this ({first}): use --jit_compile=off "
                "with another --run_dir, or on a GPU --nodeterministic")
    return None
