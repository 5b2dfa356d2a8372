"""`gconet doctor`: what is installed, which targets can build and run here, and what stands in the way."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from gconet.engines.gpu_generations import GENERATIONS, GPU_PRECISIONS, table, verdict
from gconet.engines.installed import installed_version, onnxruntime_conflict
from gconet.engines.registry import TARGETS, choose_target, get_target
from gconet.engines.target import Target
from gconet.engines.tensorrt_gpu import present_gpus
from gconet.runtime.command_line import EXIT_DONE, Parser
from gconet.runtime.errors import TargetError

DISTRIBUTIONS = (
    "gconet-deploy", "numpy", "pillow", "torch", "safetensors", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu",
    "openvino", "tensorrt", "tensorrt-rtx-cu12-bindings", "onnxruntime-ep-nv-tensorrt-rtx-cu12", "cuda-bindings",
    "polygraphy", "pycuda",
)  # fmt: skip
BUILD_DISTRIBUTIONS = ("torch", "safetensors", "onnx", "onnxscript")


@dataclass(frozen=True)
class TargetReport:
    """One target: precisions, and for building and running either None or the reason why not.

    `precision_problems` has the precisions that this machine cannot run where it runs others, with the reason.
    """

    target: str
    precisions: tuple[str, ...]
    build_problem: str | None
    run_problem: str | None
    precision_problems: Mapping[str, str]


def examine_targets() -> list[TargetReport]:
    """Try every target on this machine."""
    missing = [name for name in BUILD_DISTRIBUTIONS if installed_version(name) is None]
    need = f"{', '.join(missing)} missing: pip install 'gconet-deploy[build]'" if missing else None
    targets = [get_target(name) for name in TARGETS]
    return [
        TargetReport(t.name, t.precisions, need or _build_problem(t), t.runs_here(), _precision_problems(t))
        for t in targets
    ]


def main(arguments: Sequence[str]) -> int:
    """Print the report; exit code 0 whatever it says."""
    parser = Parser("gconet doctor", "Show what is installed, and which targets can build and run on this machine.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    versions = {name: installed_version(name) for name in DISTRIBUTIONS}
    reports = examine_targets()
    conflict = onnxruntime_conflict()
    gpus = present_gpus()
    if options.json:
        document = {
            "packages": versions,
            "targets": [asdict(report) for report in reports],
            "conflict": conflict,
            "gpus": [asdict(gpu) for gpu in gpus],
            "gpu_support": table(),
        }
        print(json.dumps(document, indent=2))
        return EXIT_DONE

    print(f"Python {sys.version.split()[0]}\n\npackages")
    for name, version in versions.items():
        print(f"  {name:<38}{version or '-'}")
    print("\ntargets")
    for report in reports:
        precisions = ", ".join(report.precisions) or "-"
        print(f"  {report.target} ({precisions})")
        print(f"    build  {report.build_problem or 'yes'}\n    run    {report.run_problem or 'yes'}")
        for precision, problem in report.precision_problems.items():
            print(f"    run    {precision} not: {problem}")
    print("\nNVIDIA GPUs: " + (", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in gpus) or "none here"))
    print("\n".join(f"  {line}" for line in support_lines()))
    print(f"\n{_auto_line(reports)}")
    if conflict:
        print(f"wheel conflict: {conflict}")
    return EXIT_DONE


def support_lines() -> list[str]:
    """What NVIDIA's GPU generations can run, as a table with numbered notes below it."""
    notes: list[str] = []
    lines = []
    for generation in GENERATIONS:
        cells = []
        for target, precisions in GPU_PRECISIONS.items():
            for precision in precisions:
                found = verdict(generation.compute_capabilities[0], target, precision)
                if found.reason and found.reason not in notes:
                    notes.append(found.reason)
                note = f" {notes.index(found.reason) + 1}" if found.reason else ""
                cells.append(f"{'yes' if found.works else 'no'}{note}")
        capabilities = ", ".join(generation.compute_capabilities)
        lines.append(_row(f"{generation.name} ({generation.examples}), {capabilities}", cells))
    targets = [
        target if column == 0 else "" for target, kinds in GPU_PRECISIONS.items() for column in range(len(kinds))
    ]
    columns = [precision for kinds in GPU_PRECISIONS.values() for precision in kinds]
    numbered = [f"{number} {note}" for number, note in enumerate(notes, start=1)]
    return [_row("what each generation can run (CUDA)", targets), _row("", columns), *lines, *numbered]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:<44}{''.join(f'{cell:<8}' for cell in cells)}".rstrip()


def _build_problem(target: Target) -> str | None:
    try:
        target.version()
    except TargetError as error:
        return str(error)
    return None


def _precision_problems(target: Target) -> dict[str, str]:
    if target.runs_here():
        return {}
    asked = {precision: target.runs_here(precision) for precision in target.precisions}
    return {precision: problem for precision, problem in asked.items() if problem}


def _auto_line(reports: Sequence[TargetReport]) -> str:
    if not any(report.run_problem is None for report in reports):
        return "auto: none, see above"
    target, why = choose_target()
    return f"auto: {target.name} {target.preferred_precision()} ({why})"
