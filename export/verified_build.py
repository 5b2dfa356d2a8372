"""From a checkpoint to a bundle whose parity and latency were measured; nothing is published before they were."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from gconet.bench.contenders import bundle_contender, eager_contender
from gconet.bench.environment import describe_environment, installed_libraries
from gconet.bench.latency_rows import measure_latency
from gconet.bench.latency_run import row_document
from gconet.bench.latency_tables import latency_table
from gconet.bench.parity import measure_parity, parity_document, parity_table
from gconet.bench.peers import PeerRequest
from gconet.bench.photo_groups import extend_photos, group_inputs, read_group
from gconet.bench.timing import BRIEF
from gconet.bench.tolerances import tolerance
from gconet.engines.bundle_writer import check_output, describe_files, staged_bundle, write_manifest
from gconet.engines.registry import choose_target, get_target
from gconet.engines.target import EngineSpec, Target, check_spec
from gconet.engines.tensorrt_builder import plan_facts
from gconet.engines.tensorrt_network import audit_line
from gconet.export.audit import audit_graph
from gconet.export.build_request import BuildRequest
from gconet.export.convolution_forms import check_form, choose_forms
from gconet.export.graphs import make_graph
from gconet.export.operators import opset_of
from gconet.export.typed_parity import GROUP_SIZES, graph_network, measure_typed_parity
from gconet.export.typed_parity import TARGET as TYPED_TARGET
from gconet.runtime.bundle import describe_file, open_bundle
from gconet.runtime.manifest import Manifest
from gconet.runtime.photos import find_groups
from gconet.runtime.preprocess import to_input
from gconet.runtime.session import open_session
from gconet.train.checkpoint import Checkpoint, read_checkpoint

LATENCY_GROUP = 2  # the paper's pair
LATENCY_ROUNDS = 10

Report = Callable[[str, str], None]  # (step, what came of it)


class ParityError(Exception):
    """The engine's answers differ from the network's by more than the tolerance; no bundle was written."""


def build(request: BuildRequest, report: Report) -> Manifest:
    """Build, measure and publish a bundle.

    Raises
    ------
    CheckpointError, PhotoError, TargetError, UsageError
        For what cannot be read, built or written.
    ParityError
        If no precision that was to be tried keeps parity, and the request does not allow that.
    """
    check_output(request.out)
    if request.calibration is not None:
        find_groups([request.calibration])  # a folder that cannot be used is told at once, and for any precision
    target, why = (
        choose_target(request.precision) if request.target == "auto" else (get_target(request.target), "as asked for")
    )
    specs = [
        EngineSpec(precision, request.max_group, request.compute_capabilities, request.plan)
        for precision in _precisions(target, request.precision)
    ]
    for spec in specs:
        check_spec(target, spec)
    check_form(request.convolutions, target.name, specs[0].precision)
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
            manifest = _build_engine(checkpoint, identity, target, version, spec, request, folder, report)
            if problem := target.why_not_here(spec):
                unmeasured = {"not_measured": problem}
                report("parity", f"not measured: {problem}")
                parity = unmeasured | _measure_graph(checkpoint, target, spec, request, report)
                manifest = dataclasses.replace(manifest, parity=parity, latency=unmeasured)
                break
            manifest = _measure_parity(checkpoint, manifest, folder, report)
            if (
                not manifest.parity["passed"]
                and request.convolutions == "auto"
                and manifest.convolutions.get("winograd")
            ):
                report("", "outside the tolerance with Winograd's convolutions, so again with direct ones")
                _remove_files(manifest, folder)
                direct = dataclasses.replace(request, convolutions="direct")
                manifest = _build_engine(checkpoint, identity, target, version, spec, direct, folder, report)
                manifest = _measure_parity(checkpoint, manifest, folder, report)
            passed = manifest.parity["passed"]
            if not passed:
                outside = f"{spec.precision} is outside the tolerance for this checkpoint"
                report("", f"{outside}; limits: {tolerance(target.name, spec.precision)}")
            if passed or (request.allow_parity_failure and spec is specs[-1]):
                if not passed:
                    manifest = dataclasses.replace(manifest, parity={**manifest.parity, "allowed": True})
                manifest = _measure_latency(manifest, folder, request, report)
                break
            _remove_files(manifest, folder)
        else:
            tried = [spec.precision for spec in specs]
            outside = f"{target.name} {', '.join(tried)} is outside the tolerance for this checkpoint"
            other = "" if "fp32" in tried else "try --precision fp32, or "
            if request.convolutions == "winograd":
                other = "try --convolutions direct, or "
            raise ParityError(f"no bundle written: {outside}; {other}--allow-parity-failure writes it nevertheless")
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
    request: BuildRequest,
    folder: Path,
    report: Report,
) -> Manifest:
    convolutions = choose_forms(checkpoint, target.name, spec.precision, request.convolutions, report)
    graph = make_graph(checkpoint, spec.precision, target, request.calibration, convolutions.get("winograd", ()))
    report("graph", _describe_graph(graph))
    files = describe_files(target.build(graph, spec, folder))
    report("engine", ", ".join(f"{name} ({entry.bytes / 1e6:.1f} MB)" for name, entry in files.items()))
    manifest = Manifest(
        target=target.name,
        precision=spec.precision,
        target_version=version,
        preprocessing=checkpoint.info.preprocessing,
        max_group=spec.max_group,
        files=files,
        architecture=dataclasses.asdict(checkpoint.info.architecture),
        checkpoint=identity,
        opset=opset_of(graph),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        compute_capabilities=spec.compute_capabilities,
        tools=installed_libraries(),
        convolutions=convolutions,
    )
    manifest = dataclasses.replace(manifest, **plan_facts(folder))
    if manifest.audit:
        report("audit", audit_line(manifest.audit))
    write_manifest(folder, manifest)  # for the measurements, which load the bundle as a user would
    return manifest


def _remove_files(manifest: Manifest, folder: Path) -> None:
    for name in manifest.files:
        (folder / name).unlink()


def _describe_graph(graph: onnx.ModelProto) -> str:
    custom = sorted({node.op_type for node in graph.graph.node if node.domain})
    operations = audit_graph(graph).operations
    shares = ", ".join(f"{share / sum(operations.values()):.1%} {name}" for name, share in sorted(operations.items()))
    return (
        f"ONNX opset {opset_of(graph)}, {len(graph.graph.node)} nodes, with {' and '.join(custom)}; checked; "
        f"operations of convolutions: {shares}"
    )


def _measure_parity(checkpoint: Checkpoint, manifest: Manifest, folder: Path, report: Report) -> Manifest:
    session = open_session(open_bundle(folder), "auto", None)
    with tqdm(desc="parity", unit="group", disable=None, leave=False) as progress:

        def step(text: str) -> None:
            progress.set_description(text)
            progress.update()

        rows = measure_parity(session, manifest, checkpoint.network(), read_group(None), step)
    report("parity", f"against eager PyTorch fp32, on photos\n{parity_table(rows)}")
    limits = tolerance(manifest.target, manifest.precision)
    return dataclasses.replace(manifest, parity=parity_document(rows, limits))


def _measure_graph(
    checkpoint: Checkpoint, target: Target, spec: EngineSpec, request: BuildRequest, report: Report
) -> dict[str, Any]:
    """Parity of a graph in its own arithmetic on this CPU, where the engine itself cannot run."""
    network = graph_network(checkpoint, spec.precision, target, request.calibration)
    if network is None:
        return {}
    inputs = to_input(extend_photos(read_group(None), max(GROUP_SIZES)), checkpoint.info.preprocessing)
    rows = measure_typed_parity(checkpoint.network(), network, spec.precision, inputs)
    report(
        "", f"its graph in {spec.precision} on this CPU, against eager PyTorch fp32, on photos\n{parity_table(rows)}"
    )
    graph = parity_document(rows, tolerance(TYPED_TARGET, spec.precision))
    if not graph["passed"] and not request.allow_parity_failure:
        raise ParityError(
            f"no bundle written: in {spec.precision} the graph is outside the tolerance for this checkpoint; try "
            "--precision fp32, or --allow-parity-failure writes it nevertheless"
        )
    return {"graph": graph if graph["passed"] else graph | {"allowed": True}}


def _measure_latency(manifest: Manifest, folder: Path, request: BuildRequest, report: Report) -> Manifest:
    group = min(LATENCY_GROUP, manifest.max_group)
    bundle = open_bundle(folder)
    engine = dataclasses.replace(bundle_contender(bundle, None), engine=request.out.name.removesuffix(".gconet"))
    eager = eager_contender(bundle, PeerRequest(manifest, request.checkpoint, None, folder))
    inputs = group_inputs(read_group(None), [group], manifest.preprocessing)
    steps = BRIEF.at_most + LATENCY_ROUNDS
    with tqdm(total=steps, desc="latency", unit="round", disable=None, leave=False) as progress:
        rows = measure_latency([engine, eager], inputs, LATENCY_ROUNDS, BRIEF, progress)
    report("latency", f"compute only, interleaved with eager PyTorch\n{latency_table(rows)}")
    latency = {"rows": [row_document(row) for row in rows], "environment": describe_environment()}
    return dataclasses.replace(manifest, latency=latency)
