"""What is installed, in which version, and whether it can be imported."""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType

from gconet.runtime.errors import TargetError, one_line
from gconet.runtime.openvino_reports import unreported


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def import_or_explain(module: str, distributions: tuple[str, ...]) -> ModuleType:
    """Import a target's library.

    Raises
    ------
    TargetError
        With the command that installs it, if it cannot be imported.
    """
    try:
        with unreported():
            return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise TargetError(
            f"{module} cannot be imported ({one_line(error)}): pip install {' '.join(distributions)}"
        ) from error


def onnxruntime_conflict() -> str | None:
    """The wheels that overwrite each other's files when installed together, or None."""
    rivals = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
    present = [name for name in rivals if installed_version(name)]
    if len(present) < 2:
        return None
    mend = f"pip uninstall -y {' '.join(present)}, then pip install {present[-1]}"
    return f"{' and '.join(present)} share one folder and break each other: {mend}"
