"""The sensitivity sweep: every convolution alone in INT8, every one alone in float, and then one by one into float."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gconet.bench.timing import answer_once, time_interleaved
from gconet.engines.bundle_writer import describe_files
from gconet.engines.target import EngineSpec, Target
from gconet.export.audit import audit_graph
from gconet.export.operators import OPSET
from gconet.export.quantise import Quantisable, quantise
from gconet.export.sensitivity_judge import Infer, Judge, Judgement
from gconet.runtime.bundle import Bundle
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray, Preprocessing
from gconet.runtime.session import open_session

LATENCY_GROUP = 2  # the paper's pair


@dataclass(frozen=True)
class LayerRow:
    """One convolution.

    Attributes
    ----------
    layer : its name.
    share : of the operations of all convolutions, in [0, 1].
    only : it alone in INT8, the rest in float32.
    without : it alone in float32, the rest of those swept in INT8.
    """

    layer: str
    share: float
    only: Judgement
    without: Judgement

    @property
    def harm(self) -> float:
        """Mask IoU that INT8 costs here, for each operation: 1 would be the whole mask for the whole network."""
        return (1 - self.only.mask_iou) / self.share


@dataclass(frozen=True)
class CurveRow:
    """A step of the trade-off.

    Attributes
    ----------
    floated : the layer that went to float in this step, after those of all rows before; "" in the first.
    share : of the operations of all convolutions that are left in INT8.
    judgement : of the engine as it is deployed.
    p50_ms, fp32_ms : median latency for a pair of it, and of the fp32 engine that took turns with it.
    """

    floated: str
    share: float
    judgement: Judgement
    p50_ms: float
    fp32_ms: float


@dataclass(frozen=True)
class Bench:
    """Turns graphs into engines of one target and judges them."""

    target: Target
    preprocessing: Preprocessing
    judge: Judge

    @contextlib.contextmanager
    def engine(self, source: Quantisable, layers: Collection[str], precision: str) -> Iterator[tuple[Infer, float]]:
        """An engine with `layers` in INT8, and their share of operations; `precision` says how the float rest runs."""
        graph = quantise(source, layers)
        group = max(LATENCY_GROUP, *(len(group.images) for group in self.judge.groups))
        with tempfile.TemporaryDirectory() as scratch:
            files = describe_files(self.target.build(graph, EngineSpec(precision, group), Path(scratch)))
            manifest = Manifest(
                target=self.target.name,
                precision=precision,
                target_version=self.target.version(),
                preprocessing=self.preprocessing,
                max_group=group,
                files=files,
                architecture={},
                checkpoint={},
                opset=OPSET,
                created="",
            )
            session = open_session(Bundle(Path(scratch), manifest), "auto", None)
            yield (lambda images: session.infer({"images": images})["maps"]), audit_graph(graph).share("int8")


def sweep_layers(
    bench: Bench, source: Quantisable, layers: Sequence[str], progress: Callable[[], object]
) -> list[LayerRow]:
    """Each layer alone in INT8 and alone in float; two progress steps a layer."""
    rows = []
    for layer in layers:
        with bench.engine(source, [layer], "fp32") as (infer, share):
            only = bench.judge.judge(infer)
        progress()
        with bench.engine(source, [other for other in layers if other != layer], "fp32") as (infer, _):
            without = bench.judge.judge(infer)
        progress()
        rows.append(LayerRow(layer, share, only, without))
    return rows


def trade_off(
    bench: Bench, source: Quantisable, rows: Sequence[LayerRow], steps: int, rounds: int, progress: Callable[[], object]
) -> list[CurveRow]:
    """From all in INT8 to `steps` layers in float, the most harmful for their operations first; one progress step each.

    Parameters
    ----------
    rounds : latency samples of every step.
    """
    order = [row.layer for row in sorted(rows, key=lambda row: row.harm, reverse=True)]
    size = bench.preprocessing.size
    pair: FloatArray = np.random.default_rng(0).standard_normal((LATENCY_GROUP, 3, size, size), np.float32)
    curve = []
    with bench.engine(source, [], "fp32") as (exact, _):
        for count in range(min(steps, len(order)) + 1):
            with bench.engine(source, order[count:], "int8") as (infer, share):
                judgement = bench.judge.judge(infer)
                calls = {"int8": partial(infer, pair), "fp32": partial(exact, pair)}
                timings = time_interleaved(calls, rounds, lambda: None, before=partial(answer_once, calls))
            medians = (timings[name].percentile(50) for name in ("int8", "fp32"))
            curve.append(CurveRow(order[count - 1] if count else "", share, judgement, *medians))
            progress()
    return curve


def as_document(row: LayerRow | CurveRow) -> dict[str, object]:
    """For the JSON report."""
    document = dataclasses.asdict(row)
    return {**document, "harm": row.harm} if isinstance(row, LayerRow) else document
