"""Memory that the process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def physical_memory(root: str = "/") -> int:
    """Return the bytes of memory of the machine, or of its container if that has less.

    `root` is the folder of "proc" and "sys".
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # not a POSIX system
        machine = 2**33
    return min([machine, *_limits_of_groups(Path(root))])


def _limits_of_groups(root: Path) -> Iterator[int]:
    """Yield the memory limits of the process's control groups, of both versions."""
    try:
        groups = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        # A container may see its own group at the root instead of at the path of the group.
        within = Path(path.lstrip("/"))
        for each in (within, *within.parents):
            limit = Path(root, "sys/fs/cgroup", folder, each, name)
            with suppress(OSError, ValueError):  # no such group, or "max" for no limit
                yield int(limit.read_text())
