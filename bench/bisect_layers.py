"""Where an engine goes wrong: each layer against the exported fp32 graph, in the order of computation.

A layer's error is inherited from the layers before it or made by itself. The first that jumps, that is, whose error
exceeds what it inherited and what its arithmetic explains by JUMP_FACTOR, is where to look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gconet.bench.bisect_graph import layer_inputs
from gconet.bench.bisect_runners import LayerRunner, LayerValues, bundle_runner, graph_runner
from gconet.bench.parity_statistics import decibels
from gconet.export.to_onnx import export_detect
from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import BundleError
from gconet.runtime.preprocess import FloatArray
from gconet.train.model import GCoNet

JUMP_FACTOR = 4.0  # 12 dB, two bits; sums that cancel amplify an error by 2 to 3 in sound engines


@dataclass(frozen=True)
class Rounding:
    """Relative error one layer may make by itself before it is suspicious, and why."""

    relative_error: float
    reason: str


ROUNDING: Mapping[str, Rounding] = {
    "fp32": Rounding(1e-5, "2⁻²⁴ a rounding, sums of up to 4608 terms in another order"),
    "fp16": Rounding(2e-3, "2⁻¹¹ a rounding: of inputs, weights and the result, four times that to be safe"),
    "bf16": Rounding(1e-2, "2⁻⁹ a rounding: of inputs, weights and the result, four times that to be safe"),
    "int8": Rounding(5e-2, "256 steps over a range most values use little of: 1 to 3 % a layer when calibrated well"),
}
EQUALISED = frozenset({"fp16", "bf16"})  # `export.equalise` puts a power of two on a layer's values; that is no error
OUTPUT = "maps"  # the exported graph's


@dataclass(frozen=True)
class LayerRow:
    """One layer of an engine (e) against the exported fp32 graph (r).

    Attributes
    ----------
    layer : see `bisect_graph`.
    relative_error : ‖e − r‖ / ‖r‖; NaN or infinite if e is.
    inherited : the largest relative error among the layers it is computed from; 0 for the first.
    sqnr_db : the same error as signal to quantisation noise.
    worst_reference, worst_engine : both values where they differ most.
    largest_reference, largest_engine : largest |activation|; the engine's of those that are finite.
    not_finite : how many of the engine's values are NaN or infinite.
    scale : factor that equalisation has put on the engine's values, taken out before comparing.
    jumps : the error is no longer explained by what was inherited and by rounding.
    """

    layer: str
    relative_error: float
    inherited: float
    sqnr_db: float | None
    worst_reference: float
    worst_engine: float
    largest_reference: float
    largest_engine: float
    not_finite: int
    scale: float
    jumps: bool


@dataclass(frozen=True)
class Bisection:
    """All layers both sides have; `not_compared` are those that one has and the other has not, or in another shape.

    Attributes
    ----------
    graph_max_abs : largest difference between the maps of the exported graph and those of eager PyTorch; what the
        layers are compared with is as good as this is small.
    """

    rows: Sequence[LayerRow]
    not_compared: Sequence[str]
    precision: str
    group: int
    graph_max_abs: float

    @property
    def rounding(self) -> Rounding:
        """What the precision explains by itself."""
        return ROUNDING[self.precision]

    @property
    def first_jump(self) -> LayerRow | None:
        """The first layer whose error jumps."""
        return next((row for row in self.rows if row.jumps), None)

    @property
    def first_not_finite(self) -> LayerRow | None:
        """The first layer with a NaN or an infinity."""
        return next((row for row in self.rows if row.not_finite), None)

    @property
    def largest(self) -> LayerRow:
        """The layer of the engine with the largest |activation|."""
        return max(self.rows, key=lambda row: row.largest_engine)


def exported_layers(model: GCoNet, size: int) -> LayerRunner:
    """What layers are compared with: the fp32 graph of a network for inputs (N, 3, size, size)."""
    return graph_runner(export_detect(model, size))


def bisect_bundle(bundle: Bundle, exported: LayerRunner, images: FloatArray, eager: FloatArray) -> Bisection:
    """Compare every layer of a bundle's artefact with the exported fp32 graph, on one group.

    Parameters
    ----------
    exported : of the network the bundle was built from.
    images : network inputs (N, 3, S, S).
    eager : that network's maps (N, 1, S, S) for them.

    Raises
    ------
    TargetError
        If the target's layers cannot be read, or a library is missing.
    BundleError
        If the artefact has no layers of this network's.
    """
    engine = bundle_runner(bundle)
    reference = exported.run(images)
    rows, not_compared = compare_layers(exported, reference, engine.run(images), bundle.manifest.precision)
    if not rows:
        raise BundleError(
            f"{bundle.folder} has none of this network's layers by name: build it again with `gconet build`"
        )
    maps = next(values for name, values in reference.items() if exported.layers[name] == OUTPUT)
    return Bisection(rows, not_compared, bundle.manifest.precision, len(images), float(np.abs(maps - eager).max()))


def compare_layers(
    exported: LayerRunner, reference: LayerValues, engine: LayerValues, precision: str
) -> tuple[list[LayerRow], list[str]]:
    """A row for each layer that both have, in order, and the names of the others."""
    shared = [name for name in reference if name in engine and engine[name].size == reference[name].size]
    inputs = layer_inputs(exported.graph, {name: exported.layers[name] for name in shared})
    errors: dict[str, float] = {}
    rows = []
    for name in shared:
        inherited = max((errors[above] for above in inputs[name]), default=0.0)
        row = _compare_layer(name, reference[name], engine[name], inherited, precision)
        errors[name] = row.relative_error if math.isfinite(row.relative_error) else math.inf
        rows.append(row)
    return rows, sorted({*reference, *engine}.difference(shared))


def _compare_layer(
    name: str,
    reference: NDArray[np.floating[Any]],
    engine: NDArray[np.floating[Any]],
    inherited: float,
    precision: str,
) -> LayerRow:
    wanted, found = reference.astype(np.float64), engine.astype(np.float64).reshape(reference.shape)
    scale = _scale_by_design(wanted, found, precision)
    unscaled = found / scale
    difference = np.abs(unscaled - wanted)
    norm, noise = float(np.linalg.norm(wanted)), float(np.linalg.norm(difference))
    error = noise / norm if norm else math.inf if noise else 0.0
    worst = int(np.argmax(difference))  # of a NaN, where there is one
    finite = found[np.isfinite(found)]
    explained = max(inherited, ROUNDING[precision].relative_error)
    return LayerRow(
        layer=name,
        relative_error=error,
        inherited=inherited,
        sqnr_db=decibels(norm, noise),
        worst_reference=float(wanted.flat[worst]),
        worst_engine=float(unscaled.flat[worst]),
        largest_reference=float(np.abs(wanted).max()),
        largest_engine=float(np.abs(finite).max(initial=0.0)),
        not_finite=found.size - finite.size,
        scale=scale,
        jumps=math.isfinite(inherited) and not error <= JUMP_FACTOR * explained,  # a NaN jumps too
    )


def _scale_by_design(wanted: NDArray[np.float64], found: NDArray[np.float64], precision: str) -> float:
    """The factor that equalisation may have put on a layer; 1 where the values are no multiple."""
    if precision not in EQUALISED:
        return 1.0
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # of an infinity, or of zeros, there is no fit
        fit = np.vdot(wanted, found) / np.vdot(wanted, wanted)
        nearest = np.exp2(np.rint(np.log2(fit)))
        multiple = fit > 0 and np.isfinite(fit) and abs(fit / nearest - 1) < 0.1
    return float(nearest) if multiple else 1.0
