"""Where a bundle's time goes: its layers timed in turns with the same engine as users run it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gconet.bench.clocks import read_clocks
from gconet.bench.environment import describe_environment
from gconet.bench.layer_times import ExecutedLayer, LayerProfiler
from gconet.bench.photo_groups import group_inputs, read_group
from gconet.bench.roofline import Roofline, measure_roofline
from gconet.bench.roofline_products import cpu_copies, cpu_products
from gconet.bench.timing import Timing, WarmUpRule, time_interleaved
from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import TargetError
from gconet.runtime.session import open_session

RATE_OF: Mapping[str, str] = {"u8": "int8", "i8": "int8"}  # precision of a layer -> of the roofline, where they differ
PLAN_FILES = ("detect.engine.json", "detect.layers.json")  # the engine inspector's, else the network's layers


@dataclass(frozen=True)
class ProfileRequest:
    """What to time, and how.

    Attributes
    ----------
    threads : of the CPU; None leaves the choice to the engine.
    images : folder of photos, of whose groups the largest is taken; None for the example photos.
    roofline : whether to measure the machine's limits.
    """

    group: int
    rounds: int
    warm_up: WarmUpRule
    threads: int | None
    images: Path | None
    roofline: bool


@dataclass(frozen=True)
class LayerRow:
    """A layer with its figures.

    Attributes
    ----------
    ms : the median over rounds.
    share : of the sum over layers.
    gflops : 10⁹ operations a second; None for what does no convolution or matrix product.
    share_of_roofline : time at the machine's limits, the best rate of its precision or the speed of copies, over `ms`;
        None where a limit is not known. Above 1 where data stay in caches, which are faster than copies.
    """

    layer: ExecutedLayer
    ms: float
    share: float
    gflops: float | None
    share_of_roofline: float | None


@dataclass(frozen=True)
class LayerProfile:
    """All that was measured.

    Attributes
    ----------
    engine, target, precision : of the bundle.
    rows : in order of execution.
    plain, profiled : the engine as users run it, and the one whose layers were timed.
    roofline : the machine's limits, or why they were not measured.
    """

    engine: str
    target: str
    precision: str
    request: ProfileRequest
    rows: Sequence[LayerRow]
    plain: Timing
    profiled: Timing
    roofline: Roofline | str
    clocks: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def sum_ms(self) -> float:
        """The layers' medians together."""
        return sum(row.ms for row in self.rows)

    @property
    def kinds(self) -> dict[str, float]:
        """Milliseconds by kind of layer, largest first."""
        found = {row.layer.kind for row in self.rows}
        sums = {kind: sum(row.ms for row in self.rows if row.layer.kind == kind) for kind in found}
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def overhead(self) -> float:
        """What timing layers costs: median of the profiled engine over that of the plain one, less 1."""
        return self.profiled.percentile(50) / self.plain.percentile(50) - 1

    def document(self) -> dict[str, Any]:
        """For JSON."""
        request = self.request
        return {
            "engine": self.engine,
            "target": self.target,
            "precision": self.precision,
            "group": request.group,
            "images": request.images.name if request.images else "the example photos",
            "rounds": request.rounds,
            "threads": request.threads,
            "layers": [
                {**dataclasses.asdict(row.layer), **{k: v for k, v in vars(row).items() if k != "layer"}}
                for row in self.rows
            ],
            "kinds_ms": self.kinds,
            "sum_ms": self.sum_ms,
            "plain": _timing(self.plain),
            "profiled": _timing(self.profiled),
            "overhead": self.overhead,
            "roofline": {"not_measured": self.roofline}
            if isinstance(self.roofline, str)
            else dataclasses.asdict(self.roofline),
            "clocks": self.clocks,
            "environment": self.environment,
        }


def profile_bundle(bundle: Bundle, request: ProfileRequest) -> LayerProfile:
    """Time the layers of a bundle on photos.

    Raises
    ------
    TargetError
        If the bundle cannot run here, or its engine does not tell the times of its layers.
    PhotoError
        If the photos cannot be used.
    """
    manifest = bundle.manifest
    why_not = why_no_layers(bundle)
    if why_not:
        raise TargetError(why_not)
    images = group_inputs(read_group(request.images), [request.group], manifest.preprocessing)[request.group]
    plain = open_session(bundle, "cpu", request.threads)
    with tempfile.TemporaryDirectory() as folder:
        profiler = _profiler(bundle, request.threads, Path(folder))
        calls: dict[str, Callable[[], object]] = {
            "plain": lambda: plain.infer({"images": images}),
            "profiled": lambda: profiler.infer(images),
        }
        # Threads of ONNX Runtime spin on after an answer and cost the next engine 35 ms. A call of its own that does
        # not count keeps that out.
        spins = manifest.target == "onnxruntime"
        before = (lambda name: calls[name]()) if spins else None
        clocks = {"before": read_clocks()}
        with tqdm(total=request.warm_up.at_most + request.rounds, desc="layers", unit="round", disable=None) as bar:
            timings = time_interleaved(calls, request.rounds, bar.update, request.warm_up, before)
        clocks["after"] = read_clocks()
        layers = profiler.layers(request.rounds * (2 if spins else 1))
        if spins:
            layers = [dataclasses.replace(layer, samples_ms=layer.samples_ms[1::2]) for layer in layers]
    # After the timing: it loads libraries whose threads the engine should not have met.
    roofline: Roofline | str = "--no-roofline was given"
    if request.roofline:
        with tqdm(desc="roofline", unit="rate", disable=None):
            roofline = measure_roofline(cpu_products(request.threads), cpu_copies(request.threads))
    return LayerProfile(
        engine=bundle.folder.name.removesuffix(".gconet"),
        target=manifest.target,
        precision=manifest.precision,
        request=request,
        rows=make_rows(layers, roofline),
        plain=timings["plain"],
        profiled=timings["profiled"],
        roofline=roofline,
        clocks=clocks,
        environment=describe_environment(),
    )


def why_no_layers(bundle: Bundle) -> str | None:
    """None if the layers of a bundle's engine can be timed, else why not and what to look at."""
    target = bundle.manifest.target
    if target in ("openvino", "onnxruntime"):
        return None
    kept = next((name for name in PLAN_FILES if name in bundle.manifest.files), None)
    look = f"see what became of each in {bundle.folder / kept}, and " if kept else ""
    return f"{bundle.folder}: the layers of a {target} plan are not timed; {look}time the whole with `gconet bench`"


def make_rows(layers: Sequence[ExecutedLayer], roofline: Roofline | str) -> list[LayerRow]:
    """Medians and shares of executed layers."""
    # Where a counter is coarse, the differences of a short layer scatter about its time: never below none.
    medians = [max(0.0, float(np.median(layer.samples_ms))) for layer in layers]
    total = sum(medians)
    return [
        LayerRow(
            layer=layer,
            ms=ms,
            share=ms / total if total else 0.0,
            gflops=layer.flop / ms / 1e6 if layer.flop and ms else None,
            share_of_roofline=_share_of_roofline(layer, ms, roofline),
        )
        for layer, ms in zip(layers, medians, strict=True)
    ]


def _share_of_roofline(layer: ExecutedLayer, ms: float, roofline: Roofline | str) -> float | None:
    if isinstance(roofline, str) or not ms:
        return None
    arithmetic = layer.precision.partition("→")[0]
    rate = roofline.rates.get(RATE_OF.get(arithmetic, arithmetic))
    if layer.flop and rate is None:
        return None
    computing = layer.flop / rate.gflops / 1e6 if rate else 0.0
    return max(computing, layer.bytes / roofline.copy_gb_per_s / 1e6) / ms


def _profiler(bundle: Bundle, threads: int | None, folder: Path) -> LayerProfiler:
    if bundle.manifest.target == "openvino":
        from gconet.bench.openvino_layers import OpenVinoProfiler

        return OpenVinoProfiler(bundle, threads, folder)
    from gconet.bench.onnxruntime_layers import OnnxRuntimeProfiler

    return OnnxRuntimeProfiler(bundle, threads, folder)


def _timing(timing: Timing) -> dict[str, Any]:
    return {"p50_ms": timing.percentile(50), "drift": timing.drift, **dataclasses.asdict(timing)}
