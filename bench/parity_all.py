"""Bundles of every target and precision that runs here, and for each of the others why it does not."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from gconet.engines.registry import TARGETS, get_target
from gconet.engines.target import EngineSpec
from gconet.export import build_engine
from gconet.runtime.command_line import EXIT_DONE
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.paths import kind_of

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
MAX_GROUP = 16  # the largest group parity is asked for everywhere


def build_all(folder: Path, checkpoint: str | None, calibration: Path | None) -> tuple[list[Path], dict[str, str]]:
    """Build `<target>-<precision>.gconet` for each pair, in `folder`; bundles that are there already are kept.

    Engines outside the tolerance are built all the same, for parity to tell how far outside they are.

    Parameters
    ----------
    checkpoint : None for the weights that ship.
    calibration : groups of photos to calibrate narrow precisions on; None for the example photos.

    Returns
    -------
    The bundles, and why there is none, by `<target> <precision>`.

    Raises
    ------
    CheckpointError, UsageError
        If the checkpoint cannot be read, the folder not written, or nothing at all runs here.
    """
    bundles, not_run = [], {}
    for name in TARGETS:
        target = get_target(name)
        for precision in PRECISIONS:
            out = folder / f"{name}-{precision}.gconet"
            if precision not in target.precisions:
                not_run[f"{name} {precision}"] = f"the target builds {', '.join(target.precisions)}"
            elif missing := target.why_not_here(EngineSpec(precision, MAX_GROUP)):
                not_run[f"{name} {precision}"] = missing
            elif kind_of(out / MANIFEST_NAME) == "file":
                bundles.append(out)
            else:
                try:
                    _build(name, precision, checkpoint, calibration, out)
                    bundles.append(out)
                except TargetError as error:
                    not_run[f"{name} {precision}"] = str(error)
    if not bundles:
        raise UsageError(f"nothing runs here: {'; '.join(f'{pair}: {why}' for pair, why in not_run.items())}")
    return bundles, not_run


def _build(target: str, precision: str, checkpoint: str | None, calibration: Path | None, out: Path) -> None:
    arguments = ["--target", target, "--precision", precision, "--max-group", str(MAX_GROUP), "--out", str(out)]
    arguments += ["--allow-parity-failure", *(["--checkpoint", checkpoint] if checkpoint else [])]
    arguments += ["--calibration", str(calibration)] if calibration else []
    print(f"building {out}", file=sys.stderr)
    with contextlib.redirect_stdout(sys.stderr):  # what the build tells is not part of the report
        code = build_engine.main(arguments)
    if code != EXIT_DONE:
        raise UsageError(f"{out} was not built (exit code {code}): try `gconet build {' '.join(arguments)}`")
