"""Memory of this process; apart from the rest, because it must not load torch."""

from __future__ import annotations

from pathlib import Path


def peak_rss_mb() -> float:
    """Most memory that this process held so far, in MB; the mark of the process that started it does not count."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
