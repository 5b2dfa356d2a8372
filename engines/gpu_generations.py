"""What NVIDIA's GPU generations can run: target × precision, with the reason where one does not work or hardly pays.

This is what "1080Ti-class" means today: the GTX 1080 Ti itself has no current TensorRT. GPUs with about its 11 TFLOP/s,
in half precision or single, that have one are the RTX 2060, the T4 and the RTX 3050 and 3060.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """GPUs that behave alike.

    Attributes
    ----------
    name, examples : as they are sold.
    compute_capabilities : such as "8.9"; the table shows what holds for the first.
    """

    name: str
    examples: str
    compute_capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether a target works on a GPU in a precision, and what there is to say of it."""

    works: bool
    reason: str = ""


PASCAL, VOLTA, TURING, HOPPER = ("6.1", "6.0"), ("7.0",), ("7.5",), ("9.0",)
BLACKWELL_SERVER, BLACKWELL = ("10.0", "10.3"), ("12.0", "12.1")

GENERATIONS = (
    Generation("Pascal", "GTX 1080 Ti", PASCAL),
    Generation("Volta", "V100", VOLTA),
    Generation("Turing", "RTX 2060, T4", TURING),
    Generation("Ampere", "A100", ("8.0",)),
    Generation("Ampere", "RTX 3060, A10", ("8.6",)),
    Generation("Ada", "RTX 4090, L4", ("8.9",)),
    Generation("Hopper", "H100", HOPPER),
    Generation("Blackwell", "B200, B300", BLACKWELL_SERVER),
    Generation("Blackwell", "RTX 5090, GB10", BLACKWELL),
)

# onnxruntime is its CUDA provider here; what it does on CPUs does not depend on the GPU.
GPU_PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt-rtx": ("fp32", "fp16", "int8"),
    "onnxruntime": ("fp32", "fp16"),
}


@dataclass(frozen=True)
class Rule:
    """A verdict on some GPUs, for one target, in some precisions (empty: in all)."""

    compute_capabilities: tuple[str, ...]
    target: str
    precisions: tuple[str, ...]
    verdict: Verdict


def _no(reason: str) -> Verdict:
    return Verdict(False, reason)


def _yes(reason: str) -> Verdict:
    return Verdict(True, reason)


# The first rule that fits decides; where none does, it works. Sources: release notes and support matrices of TensorRT
# 10.0 to 11.4, TensorRT for RTX 1.7 and ONNX Runtime 1.27; what its builder says of this network for RTX on Turing.
RULES = (
    Rule(PASCAL, "tensorrt", (), _no("TensorRT 8.6 was the last for Pascal; 10 and 11 refuse it")),
    Rule(PASCAL, "tensorrt-rtx", (), _no("TensorRT for RTX starts at Turing, 7.5")),
    Rule(("6.1",), "onnxruntime", ("fp16",), _no("half precision runs at 1/64 of the rate of fp32 on a GTX 1080 Ti")),
    Rule(PASCAL, "onnxruntime", (), _yes("onnxruntime-gpu up to 1.22; from 1.27 it wants 7.5")),
    Rule(VOLTA, "tensorrt", (), _no("TensorRT 10.5 removed Volta, and 11 has never had it")),
    Rule(VOLTA, "tensorrt-rtx", (), _no("TensorRT for RTX starts at Turing, 7.5")),
    Rule(VOLTA, "onnxruntime", (), _yes("onnxruntime-gpu up to 1.26, built for CUDA 12; from 1.27 it wants 7.5")),
    Rule(TURING, "tensorrt-rtx", ("fp32",), _no("TensorRT for RTX has no fp32 matrix product for 7.5")),
    Rule(TURING, "tensorrt-rtx", ("int8",), _no("TensorRT for RTX only rounds to int8 for 7.5")),
    Rule(TURING, "tensorrt-rtx", ("fp16",), _yes("plans run on 7.5 only if built with --compute-capability 7.5")),
    Rule(HOPPER, "tensorrt-rtx", (), _no("TensorRT for RTX is for RTX GPUs, and 9.0 is not on its list")),
    Rule(BLACKWELL_SERVER, "tensorrt-rtx", (), _no("TensorRT for RTX is for RTX GPUs, and 10.x is not on its list")),
    Rule((*BLACKWELL_SERVER, *BLACKWELL), "tensorrt", (), _yes("TensorRT 10.8 and later")),
)  # fmt: skip


def generation_of(compute_capability: str) -> Generation | None:
    """The generation of a compute capability such as "8.9"; None for one that is not in the table."""
    for generation in GENERATIONS:
        if compute_capability in generation.compute_capabilities:
            return generation
    return None


def verdict(compute_capability: str, target: str, precision: str) -> Verdict:
    """Whether `target` works on a GPU in a precision, as far as the table tells.

    GPUs that are not in the table are newer than it, or older than Pascal: those below 6.0 do not work, the others may.
    """
    for rule in RULES:
        if (
            rule.target == target
            and compute_capability in rule.compute_capabilities
            and precision in (rule.precisions or (precision,))
        ):
            return rule.verdict
    if _number(compute_capability) < min(map(_number, PASCAL)):
        return _no("GPUs before Pascal have no current library")
    return Verdict(True)


def why_not(compute_capability: str, target: str, precision: str) -> str | None:
    """None if it works; else the reason, the generation's name, and what does work there, in one line."""
    found = verdict(compute_capability, target, precision)
    if found.works:
        return None
    generation = generation_of(compute_capability)
    name = f"{generation.name} ({generation.examples})" if generation else f"compute capability {compute_capability}"
    return f"{found.reason} [{name}]; {what_works(compute_capability)}"


def what_works(compute_capability: str) -> str:
    """The command that builds something for a GPU, or that nothing here does."""
    for target, precisions in GPU_PRECISIONS.items():
        for precision in sorted(precisions):  # fp16 first
            found = verdict(compute_capability, target, precision)
            if found.works:
                capability = f" --compute-capability {compute_capability}" if target == "tensorrt-rtx" else ""
                note = f" ({found.reason})" if found.reason else ""
                return f"what works there: gconet build --target {target} --precision {precision}{capability}{note}"
    return "nothing here works on it: gconet build --target auto builds for the CPU"


def table() -> list[dict[str, object]]:
    """All of it, one row per generation, target and precision, for reports."""
    return [
        {
            "generation": generation.name,
            "examples": generation.examples,
            "compute_capabilities": list(generation.compute_capabilities),
            "target": target,
            "precision": precision,
            "works": found.works,
            "reason": found.reason,
        }
        for generation in GENERATIONS
        for target, precisions in GPU_PRECISIONS.items()
        for precision in precisions
        for found in [verdict(generation.compute_capabilities[0], target, precision)]
    ]


def _number(compute_capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in compute_capability.split("."))
