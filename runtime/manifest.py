"""The manifest of a bundle: `manifest.json`, what the engine is, how to feed it, and what was measured on it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gconet.runtime.errors import BundleError
from gconet.runtime.preprocess import Preprocessing

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
WEIGHTS_NAME = "weights.onnx"  # what a weight-stripped plan is refitted from
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST = 2**31 - 1  # of numbers that interfaces have 32 bits for
USUAL_CHANNELS = (512,)  # the last of the paper's encoder, where a manifest says nothing of them
TYPES: Mapping[str, type] = {
    **dict.fromkeys(("model", "target", "precision", "target_version", "created"), str),
    **dict.fromkeys(("max_group", "opset"), int),
    **dict.fromkeys(
        ("architecture", "checkpoint", "parity", "latency", "tools", "audit", "plan_options", "convolutions"), dict
    ),
    "weights_stripped": bool,
}


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 (lower-case hexadecimal) of one artefact."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle says of itself.

    Attributes
    ----------
    target, precision : name of the engine and of its arithmetic, such as "openvino", "bf16".
    target_version : of the engine's library at build time.
    preprocessing : input size and normalisation.
    max_group : largest group that was verified; a plan takes no larger one.
    files : artefacts by plain file name.
    architecture : the network's switches and widths.
    checkpoint : SHA-256 and provenance of the weights.
    opset : of the ONNX graph the engine was made from.
    compute_capabilities : of the NVIDIA GPUs a plan is for; empty for the target's default, or for a CPU.
    parity, latency : what was measured at build, or `{"not_measured": reason}`.
    tools : versions of the libraries that took part.
    created : ISO 8601, UTC.
    profiles : of a plan: (smallest, usual, largest) group of each optimisation profile, ascending, without overlap.
    weights_stripped : whether a plan must be refitted from the bundle's `WEIGHTS_NAME` before it runs.
    audit : of a plan: share of the convolutions' operations by type, and in what the figures are counted.
    plan_options : how a plan was built, such as whether other versions of TensorRT may run it.
    convolutions : of an engine in which they may have Winograd's form: the names of those that have it, and what was
        timed to find out.
    """

    target: str
    precision: str
    target_version: str
    preprocessing: Preprocessing
    max_group: int
    files: Mapping[str, FileEntry]
    architecture: Mapping[str, Any]
    checkpoint: Mapping[str, str]
    opset: int
    created: str
    compute_capabilities: tuple[str, ...] = ()
    parity: Mapping[str, Any] = field(default_factory=dict)
    latency: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    model: str = "GCoNet"
    profiles: tuple[tuple[int, int, int], ...] = ()
    weights_stripped: bool = False
    audit: Mapping[str, Any] = field(default_factory=dict)
    plan_options: Mapping[str, Any] = field(default_factory=dict)
    convolutions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Numbers in a consensus of this network: 512 in the paper's."""
        return int(self.architecture.get("encoder_channels", USUAL_CHANNELS)[-1])

    def to_json(self) -> str:
        """The manifest as it is written."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2) + "\n"

    @staticmethod
    def from_json(text: str, where: str) -> Manifest:
        """Parse and validate; `where` names the bundle in errors.

        Raises
        ------
        BundleError
            If the text is no manifest, of a newer schema, or names files outside the bundle.
        """
        try:
            document = json.loads(text)
            schema = document.pop("schema")
            if not isinstance(schema, int):
                raise TypeError(f"schema {schema!r} is no number")
            if schema > SCHEMA:
                raise BundleError(
                    f"{where} has manifest schema {schema}, this version reads up to {SCHEMA}: update gconet-deploy"
                )
            known = {f.name for f in dataclasses.fields(Manifest)}
            values = {key: value for key, value in document.items() if key in known}
            values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
            values["files"] = {name: _file_entry(name, entry) for name, entry in values["files"].items()}
            values["compute_capabilities"] = _capabilities(values.get("compute_capabilities", ()))
            values["profiles"] = _profiles(values.get("profiles", ()))
            for key, expected in TYPES.items():
                if key in values and not isinstance(values[key], expected):
                    raise TypeError(f"{key} is {values[key]!r}")
            _check_channels(values["architecture"].get("encoder_channels", USUAL_CHANNELS))
            if not 0 < values["max_group"] <= MOST:
                raise ValueError(f"max_group {values['max_group']!r} is no group size")
            if values.get("weights_stripped") and WEIGHTS_NAME not in values["files"]:
                raise ValueError(f"its plan is stripped of weights, and it has no {WEIGHTS_NAME}")
            return Manifest(**values)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise BundleError(
                f"{where} has a damaged {MANIFEST_NAME} ({repr(error)[:200]}): build it again with `gconet build`"
            ) from error


def _capabilities(document: Sequence[str]) -> tuple[str, ...]:
    if isinstance(document, str) or not all(isinstance(capability, str) for capability in document):
        raise TypeError(f"compute_capabilities {document!r} are no list of texts")
    return tuple(document)


def _check_channels(document: Sequence[int]) -> None:
    """Refuse channels of the encoder that are no list of numbers; the last is the length of a consensus."""
    known = isinstance(document, list | tuple) and all(type(c) is int and 0 < c <= MOST for c in document)
    if not known or not document:
        raise ValueError(f"encoder_channels {document!r} are no numbers of channels")


def _profiles(document: Sequence[Sequence[int]]) -> tuple[tuple[int, int, int], ...]:
    profiles: list[tuple[int, int, int]] = []
    for smallest, usual, largest in document:
        if not all(type(size) is int for size in (smallest, usual, largest)):
            raise TypeError(f"profile {(smallest, usual, largest)} has no three group sizes")
        if not (profiles[-1][2] if profiles else 0) < smallest <= usual <= largest:
            raise ValueError(f"profile {(smallest, usual, largest)} is no range of groups above those before it")
        profiles.append((smallest, usual, largest))
    return tuple(profiles)


def _file_entry(name: str, entry: Mapping[str, Any]) -> FileEntry:
    if not PLAIN_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a plain file name")
    sha256, size = entry["sha256"], entry["bytes"]
    if not isinstance(size, int) or not SHA256.fullmatch(sha256):
        raise ValueError(f"{name} has no SHA-256 and size")
    return FileEntry(sha256, size)
