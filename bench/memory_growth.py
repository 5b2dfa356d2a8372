"""Whether a process grows: its resident memory now, and what samples of it come to."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gconet.runtime.errors import TargetError, UsageError

TENTH = 10


def growth(samples: Sequence[float], every: float) -> dict[str, Any]:
    """First and last tenth of the samples in MB, the growth in per cent, and the slope of a line through all."""
    if len(samples) < 2:
        raise UsageError("too short to judge memory: more --minutes, or fewer seconds --every")
    share = max(1, len(samples) // TENTH)
    first, last = statistics.median(samples[:share]), statistics.median(samples[-share:])
    step = max(1, len(samples) // 100)  # of Theil and Sen's slope, which takes every pair
    few = samples[::step]
    slopes = [(few[j] - few[i]) / (j - i) for i in range(len(few)) for j in range(i + 1, len(few))]
    return {
        "first_mb": round(first, 2),
        "last_mb": round(last, 2),
        "growth_percent": round(100 * (last - first) / first, 3),
        "slope_mb_per_hour": round(statistics.median(slopes) / (step * every) * 3600, 2) if slopes else 0.0,
    }


def resident_mb() -> float:
    """Resident memory of this process, MB."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError as error:
        raise TargetError("resident memory is read from /proc, which this system lacks: soak on Linux") from error
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
