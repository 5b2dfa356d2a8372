"""The steps of one run: load, check parity, time in turns, take phases apart, then find the machine's limits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from gconet.bench.clocks import read_clocks
from gconet.bench.contenders import Contender, bundle_contender, eager_contender, peer_contenders, peers_device
from gconet.bench.environment import describe_environment
from gconet.bench.gpu_timing import GpuTiming, time_gpu
from gconet.bench.latency_parity import Reference, check_contenders, open_reference
from gconet.bench.latency_phases import time_host_phases
from gconet.bench.latency_rows import measure_latency
from gconet.bench.latency_run import LatencyRun, RunFacts, complete_rows
from gconet.bench.peers import PeerRequest
from gconet.bench.photo_groups import find_group, group_inputs
from gconet.bench.roofline import Roofline, measure_roofline
from gconet.bench.roofline_products import cpu_copies, cpu_products, cuda_copies, cuda_products
from gconet.bench.timing import WarmUpRule
from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import TargetError
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import DeviceSession, open_session

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class BenchRequest:
    """What to time, and how.

    Attributes
    ----------
    groups : sizes, ascending.
    device : where bundles run, and PyTorch beside them: "auto", "cpu" or "cuda".
    eager, peers : whether eager PyTorch takes part, and names of other peers.
    checkpoint : what the bundles were built from; None for the weights that ship.
    images : folder of photos, of whose groups the largest is taken; None for the example photos.
    parity, roofline : whether to check parity and measure the machine's limits.
    """

    groups: Sequence[int]
    device: str
    rounds: int
    warm_up: WarmUpRule
    threads: int | None
    budget_ms: float | None
    eager: bool
    peers: Sequence[str]
    checkpoint: Path | None
    images: Path | None
    parity: bool
    roofline: bool


def measure_run(bundles: Sequence[Bundle], request: BenchRequest) -> LatencyRun:
    """Do all of it.

    Raises
    ------
    TargetError, BundleError
        If a bundle cannot run here, or eager PyTorch is asked for without torch.
    PhotoError, CheckpointError, UsageError
        If photos or a named checkpoint cannot be used, or a tolerance is missing.
    """
    files = find_group(request.images)[: request.groups[-1]]
    preprocessing = bundles[0].manifest.preprocessing
    inputs = group_inputs([read_photo(path) for path in files], request.groups, preprocessing)
    reference = Reference(missing="--no-parity was given")
    if request.parity:
        reference = open_reference(bundles[0].manifest, request.checkpoint)
    device = peers_device(bundles, request.device)
    with tempfile.TemporaryDirectory() as graphs:
        contenders, left_out = _contenders(bundles, request, device, Path(graphs), inputs)
        with _progress("parity", len(inputs), "group") as bar:
            parity = check_contenders(contenders, inputs, reference, bar.update)
        clocks = {"before": read_clocks()}
        with _progress("latency", len(inputs) * (request.warm_up.at_most + request.rounds), "round") as bar:
            rows = measure_latency(contenders, inputs, request.rounds, request.warm_up, bar)
        clocks["after"] = read_clocks()
        with _progress("phases", len(inputs), "group") as bar:
            host = {}
            for group in inputs:
                host[group] = time_host_phases(files, group, preprocessing, request.rounds)
                bar.update()
        gpu = _gpu_timings(contenders, inputs, request) if device == "cuda" else {}
        # After the timing: it loads libraries whose threads a torch-free run should not have met.
        roofline: Roofline | str = _roofline(request.threads, device) if request.roofline else "--no-roofline was given"
    variables = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    facts = RunFacts(
        images=request.images.name if request.images else "the example photos",
        rounds=request.rounds,
        warm_up=request.warm_up,
        threads=request.threads,
        budget_ms=request.budget_ms,
        environment={**describe_environment(), "thread_variables": variables},
        clocks=clocks,
    )
    completed = complete_rows(rows, contenders, parity, host, gpu, roofline)
    return LatencyRun(completed, facts, left_out, roofline, reference.missing)


def _contenders(
    bundles: Sequence[Bundle], request: BenchRequest, device: str, graphs: Path, inputs: Mapping[int, FloatArray]
) -> tuple[list[Contender], dict[str, str]]:
    first = bundles[0]
    contenders = [bundle_contender(bundle, request.threads, request.device) for bundle in bundles]
    peers = PeerRequest(first.manifest, request.checkpoint, request.threads, graphs, device)
    if request.eager:
        contenders.append(eager_contender(first, peers))
    others, left_out = peer_contenders(request.peers, first, peers, inputs)
    return [*contenders, *others], left_out


def _gpu_timings(
    contenders: Sequence[Contender], inputs: Mapping[int, FloatArray], request: BenchRequest
) -> dict[tuple[str, int], GpuTiming]:
    from gconet.runtime.cuda import Device

    timings = {}
    for contender in contenders:
        if isinstance(contender.session, DeviceSession):
            plain = open_session(contender.bundle, request.device, request.threads, cuda_graphs=False)
            if isinstance(plain, DeviceSession):
                for group, images in inputs.items():
                    key = contender.engine, group
                    timings[key] = time_gpu(Device(0), contender.session, plain, images, request.rounds)
    return timings


def _roofline(threads: int | None, device: str) -> Roofline | str:
    with _progress("roofline", None, "rate"):
        try:
            if device == "cuda":
                return measure_roofline(cuda_products(), cuda_copies())
            return measure_roofline(cpu_products(threads), cpu_copies(threads))
        except TargetError as error:
            return str(error)


def _progress(what: str, total: int | None, unit: str) -> tqdm[None]:
    return tqdm(total=total, desc=what, unit=unit, disable=None)
