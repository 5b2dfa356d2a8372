"""What is tried of a bundle's readers: its manifest, its folder, its signature, keys, and consensus files of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from gconet.runtime.bundle import Bundle, describe_file, open_bundle
from gconet.runtime.consensus_file import load_consensus, save_consensus
from gconet.runtime.manifest import MANIFEST_NAME, Manifest
from gconet.runtime.preprocess import Preprocessing

ARTEFACT, CONTENT = "detect.bin", b"an artefact"


def example_manifest(folder: Path) -> Manifest:
    """A manifest of one artefact, which is written to the folder."""
    (folder / ARTEFACT).write_bytes(CONTENT)
    return Manifest(
        target="openvino",
        precision="bf16",
        target_version="2026.1",
        preprocessing=Preprocessing(),
        max_group=64,
        files={ARTEFACT: describe_file(folder / ARTEFACT)},
        architecture={"gam": True, "encoder_channels": [4, 6, 8, 12, 16]},
        checkpoint={"sha256": "0" * 64, "provenance": "fuzzing"},
        opset=18,
        created="2026-01-01T00:00:00+00:00",
        compute_capabilities=("8.9",),
        parity={"passed": True, "max": 1e-6},
        latency={"not_measured": "fuzzing"},
        tools={"numpy": "2.0"},
        profiles=((1, 1, 1), (2, 5, 64)),
    )


def manifest_seeds(folder: Path) -> list[bytes]:
    manifest = example_manifest(folder)
    small = dataclasses.replace(manifest, compute_capabilities=(), profiles=(), parity={}, latency={}, tools={})
    return [manifest.to_json().encode(), json.dumps(json.loads(small.to_json())).encode()]


def check_manifest(data: bytes, _folder: Path) -> None:
    manifest = Manifest.from_json(data.decode("utf-8", "replace"), "bundle")
    text = manifest.to_json()
    if Manifest.from_json(text, "bundle").to_json() != text:
        raise AssertionError("what was accepted does not survive being written")


def check_bundle(data: bytes, folder: Path) -> None:
    """The bytes are the manifest of a bundle that has its artefact, a link out of it, and what nobody listed."""
    bundle = folder / "fuzz.gconet"
    if not bundle.exists():
        bundle.mkdir()
        (bundle / ARTEFACT).write_bytes(CONTENT)
        (folder / "outside").write_bytes(CONTENT)
        (bundle / "link").symlink_to(folder / "outside")
        (bundle / "unlisted").write_bytes(CONTENT)
    (bundle / MANIFEST_NAME).write_bytes(data)
    opened = open_bundle(bundle)
    inside = bundle.resolve()
    for name in opened.manifest.files:
        if (bundle / name).resolve().parent != inside:
            raise AssertionError(f"{name!r} leads out of the bundle")
    opened.graphs(".xml")


def _signature_parts(folder: Path) -> tuple[Path, bytes, Path]:
    """A signed manifest and the public key, made once in a folder."""
    from gconet.runtime.signing import make_keys, sign_manifest

    content, public = b'{"schema": 1}', folder / "fuzz.public.pem"
    if not public.exists():
        pair = make_keys(folder / "fuzz")
        sign_manifest(folder, content, pair.private)
        (folder / "true").write_bytes((folder / "manifest.sig").read_bytes())
    return folder / "manifest.sig", content, public


def signature_seeds(folder: Path) -> list[bytes]:
    return [_signature_parts(folder)[0].read_bytes()]


def check_signature(data: bytes, folder: Path) -> None:
    from gconet.runtime.signing import check_signature

    signature, content, public = _signature_parts(folder)
    signature.write_bytes(data)
    check_signature(folder, content, public)
    if data != (folder / "true").read_bytes():
        raise AssertionError("another signature than the true one was accepted")


def key_seeds(folder: Path) -> list[bytes]:
    from gconet.runtime.signing import make_keys

    pair = make_keys(folder / "seed")
    return [pair.public.read_bytes(), pair.private.read_bytes()]


def check_key(data: bytes, folder: Path) -> None:
    from gconet.runtime.signing import read_public_key

    (folder / "key.pem").write_bytes(data)
    read_public_key(folder / "key.pem")


def _consensus_bundle(folder: Path) -> Bundle:
    """A bundle for consensus files, made once in a folder."""
    bundle = folder / "consensus.gconet"
    if not bundle.exists():
        bundle.mkdir()
        (bundle / MANIFEST_NAME).write_text(example_manifest(bundle).to_json(), "utf-8")
    return open_bundle(bundle)


def consensus_seeds(folder: Path) -> list[bytes]:
    vector = np.linspace(0, 1, 16, dtype=np.float32)
    save_consensus(folder / "seed.safetensors", _consensus_bundle(folder), vector, ["a.jpg"])
    return [(folder / "seed.safetensors").read_bytes()]


def check_consensus(data: bytes, folder: Path) -> None:
    (folder / "fuzz.safetensors").write_bytes(data)
    consensus = load_consensus(folder / "fuzz.safetensors", _consensus_bundle(folder))
    if consensus.vector.ndim != 1 or not np.isfinite(consensus.vector).all():
        raise AssertionError("a consensus that is none")
