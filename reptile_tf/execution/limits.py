"""What of the machine this process may use: affinity and control groups.

A container, or a job of a batch system, often has less than the machine, and
is killed if it takes more memory.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

SELF, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cpus() -> int:
    """CPUs: those of the affinity, and of them what a quota allows."""
    own = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
           else os.cpu_count() or 1)
    quotas = []
    for folder in _groups("cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")  # v2
        if not quota:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us")
                             for name in ("quota", "period"))  # v1
        if quota.isdecimal() and period.isdecimal():  # Else max, or -1.
            quotas.append(math.ceil(int(quota) / int(period)))
    return max(1, min(own, *quotas)) if quotas else own


def free_memory() -> int:
    """Bytes that the host has left for this process."""
    free = [psutil.virtual_memory().available]
    for folder in _groups("memory"):
        # v2, v1: the limit, what is used, and what of it are files' pages,
        # which the kernel gives back.
        for limit, usage, prefix in (
                ("memory.max", "memory.current", ""),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")):
            numbers = [_text(folder / name) for name in (limit, usage)]
            if all(map(str.isdecimal, numbers)):
                used = dict(line.split(maxsplit=1) for line in _text(
                    folder / "memory.stat").splitlines())
                pages = sum(int(used.get(f"{prefix}{kind}_file", 0))
                            for kind in ("active", "inactive"))
                free.append(int(numbers[0]) - int(numbers[1]) + pages)
    return max(0, min(free))


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, and of those around."""
    for line in _text(SELF).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Of v2 there is one hierarchy, of v1 one for each controller. In a
        # container its own group is often seen as the root.
        home = ROOT / controller if controllers else ROOT
        inside = home / path.lstrip("/")
        yield from (folder for folder in (inside, *inside.parents)
                    if folder.is_relative_to(home) and folder.is_dir())


def _text(path: Path) -> str:
    """Of a small file; nothing where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
