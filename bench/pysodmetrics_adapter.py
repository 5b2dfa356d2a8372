"""PySODMetrics behind the interface of bench/toolboxes.py; importing this needs the library."""

from __future__ import annotations

import numpy as np
import py_sod_metrics as library

from gconet.bench.metrics import FloatArray, Grey
from gconet.bench.toolboxes import Figures

THRESHOLDS: FloatArray = np.arange(256) / 255


def measure(saliency: Grey, truth: Grey) -> Figures:
    """Figures of one map (H, W) against its truth (H, W), by the library; its curves turned to rising thresholds."""
    curves = library.FmeasureV2(
        {
            "precision": library.PrecisionHandler(with_dynamic=True, with_adaptive=False),
            "recall": library.RecallHandler(with_dynamic=True, with_adaptive=False),
            "false_positive_rate": library.FPRHandler(with_dynamic=True, with_adaptive=False),
            "f": library.FmeasureHandler(with_dynamic=True, with_adaptive=False, beta=0.3),
        }
    )
    mae, s, e = library.MAE(), library.Smeasure(), library.Emeasure()
    for metric in (curves, mae, s, e):
        metric.step(saliency, truth)
    return Figures(
        mae=mae.get_results()["mae"],
        s=s.get_results()["sm"],
        e=e.get_results()["em"]["curve"][::-1],
        **{name: result["dynamic"][::-1] for name, result in curves.get_results().items()},
    )
