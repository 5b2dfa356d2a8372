"""A model repository for Triton Inference Server from a bundle.

A model is a folder `NAME_GRAPH`: `config.pbtxt` and, in the folder of version `1`, the graph under the name that its
backend of Triton's looks for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gconet.engines.triton_config import ServingOptions, Signature, config_text
from gconet.engines.triton_signatures import onnx_signature, openvino_signature, plan_signature
from gconet.runtime.atomic import cannot_fill, cannot_write
from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.manifest import PLAIN_NAME
from gconet.runtime.paths import kind_of
from gconet.runtime.session import DETECT, DEVICES

CONFIG_NAME, VERSION = "config.pbtxt", "1"
GRAPHS = (DETECT, "consensus", "segment")  # what answers a client by itself; the others are parts of large groups


@dataclass(frozen=True)
class Backend:
    """How one of Triton's backends wants its files.

    Attributes
    ----------
    suffix : of the graphs in a bundle.
    model : name of a graph in the repository.
    weights : name of the bundle's `.bin` beside it; None where a graph's file is all there is.
    signature : reads names and shapes from a graph in the repository.
    """

    suffix: str
    model: str
    weights: str | None
    signature: Callable[[Path, Bundle], Signature]


# An .onnx names the file of its weights; for an .xml OpenVINO takes the .bin of the same name.
BACKENDS: Mapping[str, Backend] = {
    "onnxruntime": Backend(".onnx", "model.onnx", "weights.bin", onnx_signature),
    "openvino": Backend(".xml", "model.xml", "model.bin", openvino_signature),
    "tensorrt": Backend(".plan", "model.plan", None, plan_signature),
}


def check_serving(bundle: Bundle, options: ServingOptions) -> None:
    """Raise TargetError if Triton cannot run the bundle like that, UsageError if the options make no sense."""
    manifest, folder = bundle.manifest, bundle.folder
    if manifest.target == "tensorrt-rtx":
        raise TargetError(
            f"{folder} is a plan of TensorRT for RTX, which Triton has no backend for: build with "
            "`gconet build --target tensorrt` on the server's GPU, or with --target onnxruntime"
        )
    if manifest.target not in BACKENDS:
        raise TargetError(f"{folder}: target {manifest.target!r} is unknown to this version: update gconet-deploy")
    if manifest.weights_stripped:
        raise TargetError(
            f"{folder} is a plan without weights, which Triton would not put back: build without --strip-weights"
        )
    if options.device not in DEVICES[manifest.target]:
        mend = "for a GPU, `gconet build --target tensorrt`" if options.device == "cuda" else "leave out --device"
        raise TargetError(
            f"target {manifest.target} runs on {' or '.join(DEVICES[manifest.target])}, not {options.device}: {mend}"
        )
    if options.device == "cuda" and manifest.precision == "int8" and manifest.target == "onnxruntime":
        raise TargetError(
            f"{folder} runs on the CPU only: for a GPU, `gconet build --target tensorrt --precision int8`"
        )
    if options.device == "cuda" and options.threads is not None:
        raise UsageError("--threads is for the CPU: leave it out, or pass --device cpu")
    if not PLAIN_NAME.fullmatch(options.name):
        raise UsageError(f"--name {options.name!r}: use letters, digits, dots, hyphens and underscores")


def write_repository(bundle: Bundle, repository: Path, options: ServingOptions, overwrite: bool = False) -> list[str]:
    """Write the bundle's graphs as models of a repository, which may hold other models.

    Parameters
    ----------
    repository : folder that Triton is given; made if absent.
    overwrite : whether models of these names are replaced. All three are: a consensus of other weights than its
        `segment` would be of no use.

    Returns
    -------
    Names of the models.

    Raises
    ------
    TargetError, UsageError
        As `check_serving`; also if models of these names are there, or the folder cannot be written.
    BundleError
        If a graph is damaged.
    """
    check_serving(bundle, options)
    names = {graph: f"{options.name}_{graph}" for graph in GRAPHS}
    _check_free(repository, list(names.values()), overwrite)
    backend = BACKENDS[bundle.manifest.target]
    with _staging(repository) as staging:
        present = bundle.graphs(backend.suffix) | {DETECT}
        written = [graph for graph in GRAPHS if graph in present]
        with cannot_fill(staging, repository):
            for graph in written:
                _write_model(bundle, graph, staging, names, backend, options)
        _publish(staging, repository, list(names.values()))
    return [names[graph] for graph in written]


def _check_free(repository: Path, names: Sequence[str], overwrite: bool) -> None:
    if kind_of(repository) not in (None, "folder"):
        raise UsageError(f"{repository} is no folder: choose another --repository")
    for name in names:
        if kind_of(repository / name) is None:
            continue
        if not overwrite:
            raise UsageError(f"{repository} has a {name} already: choose another --name, or pass --overwrite")
        if kind_of(repository / name / CONFIG_NAME) != "file":
            raise UsageError(f"{repository / name} is no model of Triton's: choose another --name, or remove it")


@contextlib.contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """A folder on the repository's disk, but outside of it, where a server would take it for a model."""
    real = repository.resolve()
    parent = real if real.is_mount() else real.parent
    staging = parent / f".{real.name}.partial-{os.getpid()}"
    try:
        with cannot_write(repository):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_model(
    bundle: Bundle, graph: str, staging: Path, names: Mapping[str, str], backend: Backend, options: ServingOptions
) -> None:
    folder = staging / names[graph] / VERSION
    folder.mkdir(parents=True)
    model = folder / backend.model
    shutil.copyfile(bundle.file(f"{graph}{backend.suffix}"), model)
    if backend.weights and any(name.endswith(".bin") for name in bundle.manifest.files):
        first = staging / names[DETECT] / VERSION / backend.weights
        _share(first if first.exists() else None, bundle.file(".bin"), folder / backend.weights)
    signature = backend.signature(model, bundle)
    folder.with_name(CONFIG_NAME).write_text(config_text(graph, bundle.manifest, signature, options), "ascii")


def _share(present: Path | None, source: Path, target: Path) -> None:
    """One copy on the disk for all models, if it has hard links; none to the bundle, which is another's to change."""
    if present is not None:
        with contextlib.suppress(OSError):  # FAT, and some network and object stores
            target.hardlink_to(present)
            return
    shutil.copyfile(source, target)


def _publish(staging: Path, repository: Path, names: Sequence[str]) -> None:
    """Move the models to their place, and those of an earlier export out of it; if that fails, all goes back."""
    earlier = staging / "earlier"
    with contextlib.ExitStack() as undo, cannot_write(repository):
        repository.mkdir(parents=True, exist_ok=True)
        earlier.mkdir()
        for name in names:
            for source, target in ((repository / name, earlier / name), (staging / name, repository / name)):
                if source.exists():
                    source.rename(target)
                    undo.callback(target.rename, source)
        undo.pop_all()
