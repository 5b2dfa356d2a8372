"""Rows and runs made up, for what is made of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gconet.bench.gpu_timing import GpuTiming
from gconet.bench.latency_parity import ContenderParity
from gconet.bench.latency_phases import Phases
from gconet.bench.latency_rows import LatencyRow
from gconet.bench.latency_run import LatencyRun, RunFacts
from gconet.bench.parity_statistics import compare
from gconet.bench.roofline import Rate, Roofline, RooflineShare
from gconet.bench.timing import WarmUpRule
from gconet.bench.tolerances import Tolerance

LIMITS = Tolerance(1e-4, 1e-5, 0.999, "tests")
REFERENCE_MAPS = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
PASSED = ContenderParity("passed", None, compare(REFERENCE_MAPS, REFERENCE_MAPS, LIMITS), LIMITS)
FAILED = ContenderParity("failed", None, compare(REFERENCE_MAPS, 1 - REFERENCE_MAPS, LIMITS), LIMITS)
UNCHECKED = ContenderParity("not checked", "the weights are unknown")
ON_GPU = GpuTiming(0.5, 4.0, 0.25, 0.1, 5.0, 1.5)

ROW = LatencyRow(
    engine="ours & <best>",
    target="openvino",
    precision="bf16",
    group=2,
    p50_ms=50.0,
    p90_ms=60.0,
    p99_ms=70.0,
    images_per_s=40.0,
    peak_rss_mb=252.0,
    speedup_over_eager=4.0,
    samples_ms=[45.0, 50.0, 60.0],
    warm_up_ms=[90.0, 50.0],
    stationary=True,
    drift=0.015,
    gflop=119.2,
    is_peer=False,
    parity=PASSED,
    phases=Phases(3.0, 2.0, None, 50.0, None, 1.0),
    roofline=RooflineShare(2384.0, 0.62, 31.0, 0.62),
)
EAGER_ROW = dataclasses.replace(
    ROW,
    engine="eager PyTorch",
    target="pytorch",
    precision="fp32",
    p50_ms=200.0,
    images_per_s=10.0,
    is_peer=True,
    phases=None,
)


def make_run(*rows: LatencyRow, **changes: Any) -> LatencyRun:
    """A run of some rows; `changes` are fields of the run or of its facts."""
    facts: dict[str, Any] = {
        "images": "the example photos",
        "rounds": 3,
        "warm_up": WarmUpRule(12),
        "threads": 2,
        "budget_ms": None,
        "environment": {"cpu": "Imaginary <CPU>", "cores": 2, "os": "Linux", "libraries": {"numpy": "2"}},
        "clocks": {},
    }
    run: dict[str, Any] = {
        "left_out": {},
        "roofline": Roofline({"bf16": Rate(3840.0, "tests, matrices of 512")}, 26.3),
        "parity_missing": None,
    }
    facts |= {key: value for key, value in changes.items() if key in facts}
    run |= {key: value for key, value in changes.items() if key in run}
    return LatencyRun(rows, RunFacts(**facts), **run)
