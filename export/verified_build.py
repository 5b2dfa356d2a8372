"""From a checkpoint to a bundle whose parity and latency were measured; nothing is published before they were."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from tqdm import tqdm

from gconet.bench.environment import describe_environment, installed_libraries
from gconet.bench.latency import bundle_contender, eager_contender, latency_table, measure_latency
from gconet.bench.parity import measure_parity, parity_document, parity_table
from gconet.bench.reference import read_photos
from gconet.bench.timing import WARM_UP_ROUNDS
from gconet.bench.tolerances import tolerance
from gconet.engines.bundle_writer import check_output, describe_files, staged_bundle, write_manifest
from gconet.engines.registry import choose_target, get_target
from gconet.engines.target import EngineSpec, Target, check_spec
from gconet.export.operators import OPSET
from gconet.export.to_onnx import export_detect
from gconet.runtime.bundle import describe_file, open_bundle
from gconet.runtime.manifest import Manifest
from gconet.runtime.session import SESSIONS, open_session
from gconet.train.checkpoint import Checkpoint, read_checkpoint

LATENCY_GROUP = 2  # the paper's pair
LATENCY_ROUNDS = 10

Report = Callable[[str, str], None]  # (step, what came of it)


@dataclass(frozen=True)
class BuildRequest:
    """What `build_engine.py` was asked for; None and "auto" leave the choice to the build.

    Attributes
    ----------
    checkpoint : .safetensors or .pth.
    target, precision : as on the command line.
    size : side of the square input, None for the checkpoint's own.
    max_group, compute_capabilities : see `EngineSpec`.
    out : folder of the bundle; an earlier bundle there is replaced.
    """

    checkpoint: Path
    target: str
    precision: str
    size: int | None
    max_group: int
    compute_capabilities: tuple[str, ...]
    out: Path


class ParityError(Exception):
    """The engine's answers differ from the network's by more than the tolerance; no bundle was written."""


def build(request: BuildRequest, report: Report) -> Manifest:
    """Build, measure and publish a bundle.

    Raises
    ------
    CheckpointError, TargetError, UsageError
        For what cannot be read, built or written.
    ParityError
        If no precision that was to be tried keeps parity.
    """
    check_output(request.out)
    target, why = (
        choose_target(request.precision) if request.target == "auto" else (get_target(request.target), "as asked for")
    )
    specs = [
        EngineSpec(precision, request.max_group, request.compute_capabilities)
        for precision in _precisions(target, request.precision)
    ]
    for spec in specs:
        check_spec(target, spec)
    version = target.version()
    report("target", f"{target.name} {version}, {specs[0].precision}: {why}")

    checkpoint = read_checkpoint(request.checkpoint)
    identity = {"provenance": checkpoint.info.provenance, "sha256": describe_file(request.checkpoint).sha256}
    if request.size is not None:
        preprocessing = dataclasses.replace(checkpoint.info.preprocessing, size=request.size)
        checkpoint = dataclasses.replace(
            checkpoint, info=dataclasses.replace(checkpoint.info, preprocessing=preprocessing)
        )
    report("checkpoint", f"{request.checkpoint.name}: {identity['provenance']}")
    if checkpoint.dropped:
        report("", f"left out, unused by the network: {', '.join(checkpoint.dropped)}")

    with staged_bundle(request.out) as folder:
        for spec in specs:
            manifest = _build_engine(checkpoint, identity, target, version, spec, folder, report)
            if target.name not in SESSIONS:
                unmeasured = {"not_measured": target.runs_here() or "no session"}
                manifest = dataclasses.replace(manifest, parity=unmeasured, latency=unmeasured)
                report("parity", f"not measured: {unmeasured['not_measured']}")
                break
            manifest = _measure_parity(checkpoint, manifest, folder, report)
            if manifest.parity["passed"]:
                manifest = _measure_latency(manifest, folder, request.out.name, report)
                break
            report(
                "", f"{spec.precision} is outside the tolerance for this checkpoint ({manifest.parity['tolerance']})"
            )
            for name in manifest.files:
                (folder / name).unlink()
        else:
            tried = [spec.precision for spec in specs]
            outside = f"{target.name} {', '.join(tried)} is outside the tolerance for this checkpoint"
            raise ParityError(f"no bundle written: {outside}{'' if 'fp32' in tried else '; try --precision fp32'}")
        write_manifest(folder, manifest)
    report("bundle", f"{request.out} ({sum(entry.bytes for entry in manifest.files.values()) / 1e6:.1f} MB)")
    return manifest


def _precisions(target: Target, asked: str) -> list[str]:
    """What to build, best first: `auto` goes on to fp32 where the faster arithmetic does not keep parity."""
    if asked != "auto":
        return [asked]
    preferred = target.preferred_precision()
    return [preferred] if preferred == "fp32" else [preferred, "fp32"]


def _build_engine(
    checkpoint: Checkpoint,
    identity: dict[str, str],
    target: Target,
    version: str,
    spec: EngineSpec,
    folder: Path,
    report: Report,
) -> Manifest:
    preprocessing = checkpoint.info.preprocessing
    graph = export_detect(checkpoint.network(), preprocessing.size, spec.precision if target.typed_graph else "fp32")
    report("graph", _describe_graph(graph))
    files = describe_files(target.build(graph, spec, folder))
    report("engine", ", ".join(f"{name} ({entry.bytes / 1e6:.1f} MB)" for name, entry in files.items()))
    manifest = Manifest(
        target=target.name,
        precision=spec.precision,
        target_version=version,
        preprocessing=preprocessing,
        max_group=spec.max_group,
        files=files,
        architecture=dataclasses.asdict(checkpoint.info.architecture),
        checkpoint=identity,
        opset=OPSET,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        compute_capabilities=spec.compute_capabilities,
        tools=installed_libraries(),
    )
    write_manifest(folder, manifest)  # for the measurements, which load the bundle as a user would
    return manifest


def _describe_graph(graph: onnx.ModelProto) -> str:
    custom = sorted({node.op_type for node in graph.graph.node if node.domain})
    return f"ONNX opset {OPSET}, {len(graph.graph.node)} nodes, with {' and '.join(custom)}; checked"


def _measure_parity(checkpoint: Checkpoint, manifest: Manifest, folder: Path, report: Report) -> Manifest:
    session = open_session(open_bundle(folder), "auto", None)
    with tqdm(desc="parity", unit="group", disable=None, leave=False) as progress:

        def step(text: str) -> None:
            progress.set_description(text)
            progress.update()

        rows = measure_parity(session, manifest, checkpoint.network(), read_photos(None), step)
    report("parity", f"against eager PyTorch fp32, on photos\n{parity_table(rows)}")
    limits = tolerance(manifest.target, manifest.precision)
    return dataclasses.replace(manifest, parity=parity_document(rows, limits))


def _measure_latency(manifest: Manifest, folder: Path, name: str, report: Report) -> Manifest:
    group = min(LATENCY_GROUP, manifest.max_group)
    bundle = open_bundle(folder)
    engine = dataclasses.replace(bundle_contender(bundle, None), engine=name.removesuffix(".gconet"))
    with tqdm(
        total=WARM_UP_ROUNDS + LATENCY_ROUNDS, desc="latency", unit="round", disable=None, leave=False
    ) as progress:
        rows = measure_latency([engine, eager_contender(bundle, None)], [group], LATENCY_ROUNDS, None, progress)
    report("latency", f"compute only, interleaved with eager PyTorch\n{latency_table(rows)}")
    latency = {"rows": [dataclasses.asdict(row) for row in rows], "environment": describe_environment()}
    return dataclasses.replace(manifest, latency=latency)
