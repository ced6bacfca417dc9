"""Resident memory of a process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def resident(what: str = "VmRSS", process: int | str = "self") -> int:
    """Resident memory of a process in bytes: now (``VmRSS``), or the most it ever had (``VmHWM``).

    ``getrusage`` would count what a process's parent held when it began.

    Raises:
        SystemExit: there is no such process, or this is not Linux.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        raise SystemExit(f"memory of process {process} is read from Linux's /proc, and it is not there") from None
    line = next((line for line in status.splitlines() if line.startswith(f"{what}:")), None)
    if line is None:
        raise SystemExit(f"process {process} has no {what}: it has ended")
    return int(line.split()[1]) * 1024
