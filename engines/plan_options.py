"""How a TensorRT plan is built: profiles over the group axis, tuning, and where else the plan shall run."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gconet.runtime.command_line import positive
from gconet.runtime.errors import UsageError

HARDWARE_LEVELS = ("same-capability", "ampere+")
OPTIMIZATION_LEVELS = range(6)  # TensorRT's own scale; it builds at 3 where nothing is said


class Profile(NamedTuple):
    """A range of group sizes that kernels are chosen for, and the size they are tuned at."""

    smallest: int
    usual: int
    largest: int

    def __str__(self) -> str:
        return ":".join(map(str, self))


# Kernels are chosen at a profile's usual size, and only those that can take its largest one, whose affinity grows with
# the square of the group: photos in fives must not pay for hundreds. One photo alone is a static shape, nothing is left
# open there. 5 photos are a usual group; 20 are about the average one of the data sets CoCA (16) and CoSOD3k (21).
USUAL_PROFILES = (Profile(1, 1, 1), Profile(2, 5, 8), Profile(9, 20, 1_000_000))


@dataclass(frozen=True)
class PlanOptions:
    """What the command line may say of a plan; the defaults leave everything to TensorRT.

    Attributes
    ----------
    profiles : ascending, without gap from 1 to the largest group; empty for the usual ones.
    timing_cache : file of measured kernels, read before and written after the build; None for one beside the bundle.
    optimization_level : 0 (fastest build) to 5 (fastest plan); None for TensorRT's own choice.
    workspace_mib : scratch memory a kernel may take, in MiB; None for all the GPU has.
    version_compatible : whether later versions of TensorRT shall run the plan.
    hardware : "same-capability" or "ampere+" for a plan that runs on more GPUs than the one it was built on; else None.
    strip_weights : leave the weights out of the plan; they are put back from the bundle's ONNX file when it is loaded.
    affinity_plugin : compile the fused affinity kernel into the plan, instead of the operator's function body.
    """

    profiles: tuple[Profile, ...] = ()
    timing_cache: Path | None = None
    optimization_level: int | None = None
    workspace_mib: int | None = None
    version_compatible: bool = False
    hardware: str | None = None
    strip_weights: bool = False
    affinity_plugin: bool = False

    def given(self) -> tuple[str, ...]:
        """The options, by their names on the command line, that differ from the default."""
        return tuple(FLAGS[f.name] for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)

    def as_built(self) -> dict[str, Any]:
        """What the manifest keeps: the choices a loader or a reader of figures may need to know, by JSON type."""
        return {
            "optimization_level": self.optimization_level,
            "workspace_mib": self.workspace_mib,
            "version_compatible": self.version_compatible,
            "hardware": self.hardware,
            "affinity_plugin": self.affinity_plugin,
        }


DEFAULT_PLAN = PlanOptions()

FLAGS = {
    "profiles": "--profile",
    "timing_cache": "--timing-cache",
    "optimization_level": "--optimization-level",
    "workspace_mib": "--workspace",
    "version_compatible": "--version-compatible",
    "hardware": "--hardware-compatible",
    "strip_weights": "--strip-weights",
    "affinity_plugin": "--affinity-plugin",
}


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `PlanOptions`; `plan_options` reads them."""
    group = parser.add_argument_group("TensorRT plans")
    add = group.add_argument
    add(FLAGS["profiles"], dest="profiles", action="append", type=_profile, default=[], metavar="MIN:USUAL:MAX",
        help="range of group sizes with kernels of its own, repeatable; together they must cover 1 to "
             "--max-group (default: 1:1:1, 2:5:8, 9:20:max)")  # fmt: skip
    add(FLAGS["timing_cache"], type=Path, metavar="F",
        help="kernel timings to read and add to, tensorrt only (default: a file beside the bundle)")  # fmt: skip
    add(FLAGS["optimization_level"], type=int, choices=OPTIMIZATION_LEVELS, metavar="0…5",
        help="0 builds fastest, 5 searches longest for fast kernels (default: TensorRT's, 3)")  # fmt: skip
    add(FLAGS["workspace_mib"], dest="workspace_mib", type=positive, metavar="MIB",
        help="scratch memory a kernel may use (default: no limit)")  # fmt: skip
    add(FLAGS["version_compatible"], action="store_true", help="let later TensorRT versions run it, tensorrt only")
    add(FLAGS["hardware"], dest="hardware", choices=HARDWARE_LEVELS,
        help="let more GPUs than this one run it, tensorrt only: %(choices)s")  # fmt: skip
    add(FLAGS["strip_weights"], action="store_true",
        help="keep the weights out of the plan, in weights.onnx beside it")  # fmt: skip
    add(
        FLAGS["affinity_plugin"],
        action="store_true",
        help="compile the fused affinity kernel into the plan, for large groups; tensorrt only, GPUs from 8.0 on",
    )


def plan_options(namespace: argparse.Namespace) -> PlanOptions:
    """The options of a parsed command line."""
    values = {f.name: getattr(namespace, f.name) for f in dataclasses.fields(PlanOptions)}
    return PlanOptions(**{**values, "profiles": tuple(values["profiles"])})


def profiles_for(options: PlanOptions, max_group: int) -> tuple[Profile, ...]:
    """The profiles of a plan for groups of 1 to `max_group`.

    Raises
    ------
    UsageError
        If those asked for leave out a size, overlap, or are not ascending.
    """
    if not options.profiles:
        return tuple(
            Profile(smallest, min(usual, max_group), min(largest, max_group))
            for smallest, usual, largest in USUAL_PROFILES
            if smallest <= max_group
        )
    expected = 1
    for profile in options.profiles:
        if profile.smallest != expected:
            raise UsageError(
                f"--profile {profile}: the ranges must follow each other from 1 without gap or overlap, so this one "
                f"must start at {expected}"
            )
        expected = profile.largest + 1
    if expected - 1 != max_group:
        raise UsageError(
            f"--profile: the last range ends at {expected - 1}, the largest group is {max_group}: "
            f"add --max-group {expected - 1}"
        )
    return options.profiles


def _profile(text: str) -> Profile:
    sizes = text.split(":")
    try:
        smallest, usual, largest = map(positive, sizes)
    except (ValueError, argparse.ArgumentTypeError):
        smallest, usual, largest = 0, 0, 0
    if not 0 < smallest <= usual <= largest:
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN:USUAL:MAX, three group sizes such as 2:5:8")
    return Profile(smallest, usual, largest)
