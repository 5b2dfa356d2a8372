"""Parity of everything that is timed, in the same run and on the same network inputs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gconet.bench.contenders import Contender
from gconet.bench.parity_statistics import ParityRow, compare, json_numbers
from gconet.bench.tolerances import Tolerance, tolerance
from gconet.runtime.errors import CheckpointError
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray

Maps = Callable[[FloatArray], FloatArray]
NOT_CHECKED: Literal["not checked"] = "not checked"


@dataclass(frozen=True)
class ContenderParity:
    """How one contender compares with eager PyTorch fp32 at one group size.

    Attributes
    ----------
    reason : why it was not checked.
    row, limits : statistics and what they were judged by, where it was.
    """

    status: Literal["passed", "failed", "not checked"]
    reason: str | None = None
    row: ParityRow | None = None
    limits: Tolerance | None = None

    def document(self) -> dict[str, Any]:
        """For JSON."""
        if self.row is None:
            return {"status": self.status, "reason": self.reason}
        statistics = {key: value for key, value in json_numbers(self.row).items() if key not in ("group", "passed")}
        return {"status": self.status, **statistics, "limits": json_numbers(self.limits)}


@dataclass(frozen=True)
class Reference:
    """The eager fp32 network of one checkpoint, or why there is none.

    Attributes
    ----------
    maps : network input (N, 3, S, S) to maps (N, 1, S, S).
    sha256 : of the checkpoint.
    missing : why `maps` is None.
    """

    maps: Maps | None = None
    sha256: str | None = None
    missing: str | None = None


def open_reference(manifest: Manifest, checkpoint: Path | None) -> Reference:
    """Load what a bundle was built from.

    Raises
    ------
    CheckpointError
        If a checkpoint is named that cannot be read or is not the bundle's.
    """
    if not importlib.util.find_spec("torch"):
        return Reference(missing="it needs torch: pip install 'gconet-deploy[build]'")
    from gconet.bench.reference import eager_maps, reference_network

    try:
        model = reference_network(manifest, checkpoint)
    except CheckpointError as error:
        if checkpoint is not None:
            raise
        return Reference(missing=str(error))
    return Reference(lambda images: eager_maps(model, images), manifest.checkpoint.get("sha256"))


def check_contenders(
    contenders: Sequence[Contender],
    inputs: Mapping[int, FloatArray],
    reference: Reference,
    progress: Callable[[], object],
) -> dict[tuple[str, int], ContenderParity]:
    """Compare every contender with the reference at every group size, by (engine, group); one progress step a group.

    Raises
    ------
    UsageError
        If no tolerance is set for a target and precision.
    """
    found = {}
    for group, images in inputs.items():
        wanted = None if reference.maps is None else reference.maps(images)
        for contender in contenders:
            key = contender.engine, group
            if wanted is None:
                found[key] = ContenderParity(NOT_CHECKED, reference.missing)
            elif not contender.is_peer and contender.bundle.manifest.checkpoint.get("sha256") != reference.sha256:
                found[key] = ContenderParity(NOT_CHECKED, "it was built from another checkpoint than the first bundle")
            else:
                limits = tolerance(contender.target, contender.precision)
                row = compare(wanted, contender.infer(images), limits)
                found[key] = ContenderParity("passed" if row.passed else "failed", None, row, limits)
        progress()
    return found
