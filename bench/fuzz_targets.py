"""What reads files that others made, each as one function of bytes: the bytes are read, or refused by a GconetError.

Anything else that comes out of `FuzzTarget.check` is a fault. The tests try them with hypothesis, `bench/fuzz.py` with
atheris for as long as one likes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gconet.runtime.bundle import Bundle, describe_file, open_bundle
from gconet.runtime.consensus_file import load_consensus, save_consensus
from gconet.runtime.errors import GconetError
from gconet.runtime.manifest import MANIFEST_NAME, Manifest
from gconet.runtime.photos import find_groups, read_photo
from gconet.runtime.preprocess import Preprocessing

ARTEFACT, CONTENT = "detect.bin", b"an artefact"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


@dataclass(frozen=True)
class FuzzTarget:
    """A reader.

    Attributes
    ----------
    reads : what the bytes are.
    seeds : makes inputs that it accepts, in an empty folder.
    check : reads bytes by way of a folder that is its own; raises GconetError where it refuses them.
    """

    reads: str
    seeds: Callable[[Path], list[bytes]]
    check: Callable[[bytes, Path], object]


def accepts(target: FuzzTarget, data: bytes, folder: Path) -> bool:
    """Whether the bytes are accepted; a refusal must be one line. Anything but a GconetError passes through."""
    try:
        target.check(data, folder)
    except GconetError as error:
        message = str(error)
        if not message or len(message) > 4096:
            raise AssertionError(f"a message of {len(message)} characters") from error
        return False
    return True


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


def _manifest_seeds(folder: Path) -> list[bytes]:
    manifest = example_manifest(folder)
    small = dataclasses.replace(manifest, compute_capabilities=(), profiles=(), parity={}, latency={}, tools={})
    return [manifest.to_json().encode(), json.dumps(json.loads(small.to_json())).encode()]


def _check_manifest(data: bytes, _folder: Path) -> None:
    manifest = Manifest.from_json(data.decode("utf-8", "replace"), "bundle")
    text = manifest.to_json()
    if Manifest.from_json(text, "bundle").to_json() != text:
        raise AssertionError("what was accepted does not survive being written")


def _check_bundle(data: bytes, folder: Path) -> None:
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


def _signature_seeds(folder: Path) -> list[bytes]:
    return [_signature_parts(folder)[0].read_bytes()]


def _check_signature(data: bytes, folder: Path) -> None:
    from gconet.runtime.signing import check_signature

    signature, content, public = _signature_parts(folder)
    signature.write_bytes(data)
    check_signature(folder, content, public)
    if data != (folder / "true").read_bytes():
        raise AssertionError("another signature than the true one was accepted")


def _key_seeds(folder: Path) -> list[bytes]:
    from gconet.runtime.signing import make_keys

    pair = make_keys(folder / "seed")
    return [pair.public.read_bytes(), pair.private.read_bytes()]


def _check_key(data: bytes, folder: Path) -> None:
    from gconet.runtime.signing import read_public_key

    (folder / "key.pem").write_bytes(data)
    read_public_key(folder / "key.pem")


def _safetensors_seeds(folder: Path) -> list[bytes]:
    from gconet.train.checkpoint import random_checkpoint, save_checkpoint
    from gconet.train.model import Architecture

    seeds = []
    for gam in (True, False):
        tiny = Architecture(gam, False, False, 1, (1, 1, 1, 1, 2), 1)
        save_checkpoint(random_checkpoint(0, tiny), folder / "seed.safetensors")
        seeds.append((folder / "seed.safetensors").read_bytes())
    return seeds


def _check_safetensors(data: bytes, folder: Path) -> None:
    from gconet.train.checkpoint import load_checkpoint

    (folder / "fuzz.safetensors").write_bytes(data)
    load_checkpoint(folder / "fuzz.safetensors")


def _pth_seeds(folder: Path) -> list[bytes]:
    import torch

    state = {"backbone.conv1.conv1_1.bias": torch.zeros(3), "classifier.weight": torch.ones(2, 4, dtype=torch.float16)}
    seeds = []
    for zipped in (True, False):
        torch.save(state, folder / "seed.pth", _use_new_zipfile_serialization=zipped)
        seeds.append((folder / "seed.pth").read_bytes())
    return seeds


def _check_pth(data: bytes, folder: Path) -> None:
    from gconet.train.checkpoint import read_checkpoint
    from gconet.train.state_dict import read_state_dict, rename_authors

    path = folder / "fuzz.pth"
    path.write_bytes(data)
    rename_authors(read_state_dict(path))
    with contextlib.suppress(GconetError):  # a state dict, but of another network
        read_checkpoint(path)


def _photo_seeds(_folder: Path) -> list[bytes]:
    rgb = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    deep = rgb[..., 0].astype(np.uint16) * 257
    seeds = []
    for name in FORMATS:
        seeds += [_encoded(image, name) for image in (Image.fromarray(rgb), Image.fromarray(rgb[..., 0]))]
    seeds.append(_encoded(Image.fromarray(deep), "PNG"))
    seeds.append(_encoded(Image.fromarray(rgb).convert("P"), "PNG", transparency=0))
    seeds.append(_encoded(Image.fromarray(rgb).convert("CMYK"), "TIFF", compression="tiff_lzw"))
    seeds.append(_encoded(Image.fromarray(rgb), "TIFF", compression="tiff_adobe_deflate"))
    seeds.append(_encoded(Image.fromarray(rgb), "JPEG", progressive=True, exif=_turned()))
    return seeds


def _encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _check_photo(data: bytes, folder: Path) -> None:
    (folder / "photo.jpg").write_bytes(data)
    photo = read_photo(folder / "photo.jpg")
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise AssertionError(f"a photo of {photo.dtype} {photo.shape}")


def _calibration_seeds(folder: Path) -> list[bytes]:
    return [b"apple.jpg\0" + seed for seed in _photo_seeds(folder)]


def _check_calibration(data: bytes, folder: Path) -> None:
    """The bytes are the name of a file in a folder of calibration photos, a zero, and its content."""
    from gconet.export.calibration import read_calibration

    name, _, content = data.partition(b"\0")
    path = folder / "groups" / os.fsdecode(name.replace(b"/", b"") or b"x")
    path.parent.mkdir(exist_ok=True)
    try:
        path.write_bytes(content)
    except OSError:
        return  # no name that a file can have
    try:
        (group,) = read_calibration(path.parent, Preprocessing(32))
        if group.shape != (1, 3, 32, 32) or not np.isfinite(group).all():
            raise AssertionError(f"calibration input {group.shape}")
        find_groups([path.parent])
    finally:
        path.unlink()


def _consensus_bundle(folder: Path) -> Bundle:
    """A bundle for consensus files, made once in a folder."""
    bundle = folder / "consensus.gconet"
    if not bundle.exists():
        bundle.mkdir()
        (bundle / MANIFEST_NAME).write_text(example_manifest(bundle).to_json(), "utf-8")
    return open_bundle(bundle)


def _consensus_seeds(folder: Path) -> list[bytes]:
    vector = np.linspace(0, 1, 16, dtype=np.float32)
    save_consensus(folder / "seed.safetensors", _consensus_bundle(folder), vector, ["a.jpg"])
    return [(folder / "seed.safetensors").read_bytes()]


def _check_consensus(data: bytes, folder: Path) -> None:
    (folder / "fuzz.safetensors").write_bytes(data)
    consensus = load_consensus(folder / "fuzz.safetensors", _consensus_bundle(folder))
    if consensus.vector.ndim != 1 or not np.isfinite(consensus.vector).all():
        raise AssertionError("a consensus that is none")


FUZZ_TARGETS: Mapping[str, FuzzTarget] = {
    "manifest": FuzzTarget("text of a manifest", _manifest_seeds, _check_manifest),
    "bundle": FuzzTarget("manifest.json in a bundle folder", _manifest_seeds, _check_bundle),
    "signature": FuzzTarget("manifest.sig", _signature_seeds, _check_signature),
    "key": FuzzTarget("public key in PEM", _key_seeds, _check_key),
    "safetensors": FuzzTarget("checkpoint of ours", _safetensors_seeds, _check_safetensors),
    "pth": FuzzTarget("PyTorch state dict", _pth_seeds, _check_pth),
    "photo": FuzzTarget("JPEG, PNG, WebP, BMP or TIFF", _photo_seeds, _check_photo),
    "calibration": FuzzTarget("file in a folder of calibration photos", _calibration_seeds, _check_calibration),
    "consensus": FuzzTarget("consensus file", _consensus_seeds, _check_consensus),
}
