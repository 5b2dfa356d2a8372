"""Bundles, signatures and checkpoints that somebody tampered with."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from gconet.bench.fault_rows import Fault
from gconet.runtime.bundle import open_bundle
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.signing import SIGNATURE_NAME, check_signature, make_keys, sign_manifest

BAD_NAMES = ("../detect.onnx", "..", ".", "", "/etc/passwd", "sub/detect.onnx", "a\\b", ".hidden", "a\nb", "a\0b")


def _flip(path: Path, draw: random.Random) -> Callable[[], None]:
    """Flip one bit of a file; returns what flips it back."""
    position, bit = draw.randrange(path.stat().st_size), 1 << draw.randrange(8)

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(position)
            (byte,) = file.read(1)
            file.seek(position)
            file.write(bytes([byte ^ bit]))

    flip()
    return flip


def flip_artefacts(bundle: Path, folder: Path, tries: int, draw: random.Random) -> Fault:
    """One bit of one file of a bundle."""
    fault = Fault("one flipped bit in a bundle's artefacts")
    copy = Path(shutil.copytree(bundle, folder / "flipped.gconet"))
    for _ in range(tries):
        undo = _flip(copy / draw.choice(sorted(open_bundle(copy).manifest.files)), draw)
        fault.attempt(open_bundle, copy)
        undo()
    return fault


def tamper_signed(bundle: Path, folder: Path, tries: int, draw: random.Random) -> Fault:
    """One bit of any file of a signed bundle, its manifest and signature included; and the other ways to have none."""
    fault = Fault(
        "a signature is required: one flipped bit anywhere, unsigned, another key, another bundle's signature"
    )
    copy = Path(shutil.copytree(bundle, folder / "signed.gconet"))
    pair, other = make_keys(folder / "right"), make_keys(folder / "wrong")
    fault.attempt(open_bundle, copy, pair.public)  # unsigned
    manifest = (copy / MANIFEST_NAME).read_bytes()
    sign_manifest(copy, manifest, pair.private)
    open_bundle(copy, pair.public)
    fault.attempt(open_bundle, copy, other.public)
    names = [MANIFEST_NAME, SIGNATURE_NAME, *open_bundle(copy).manifest.files]
    for number in range(tries):
        undo = _flip(copy / names[number % 3 if number % 2 else number % len(names)], draw)
        fault.attempt(open_bundle, copy, pair.public)
        undo()
    altered = json.loads(manifest) | {"max_group": 1000}
    (copy / MANIFEST_NAME).write_text(json.dumps(altered), "utf-8")
    fault.attempt(open_bundle, copy, pair.public)
    sign_manifest(copy, (copy / MANIFEST_NAME).read_bytes(), other.private, overwrite=True)
    fault.attempt(open_bundle, copy, pair.public)
    (copy / MANIFEST_NAME).write_bytes(manifest)
    fault.attempt(open_bundle, copy, pair.public)  # the signature is of the altered one
    sign_manifest(copy, manifest, pair.private, overwrite=True)
    open_bundle(copy, pair.public)
    return fault


def name_outside(bundle: Path, folder: Path) -> Fault:
    """Manifests that name files outside the bundle, and links, pipes and folders in the place of its files."""
    fault = Fault("`..`, absolute and odd names in a manifest; links, pipes and folders in the place of files")
    copy = Path(shutil.copytree(bundle, folder / "outside.gconet"))
    manifest = json.loads((copy / MANIFEST_NAME).read_bytes())
    first, entry = next(iter(manifest["files"].items()))
    for name in BAD_NAMES:
        (copy / MANIFEST_NAME).write_text(json.dumps(manifest | {"files": {name: entry}}), "utf-8")
        fault.attempt(open_bundle, copy)
    for name in (first, MANIFEST_NAME):
        (copy / MANIFEST_NAME).write_text(json.dumps(manifest), "utf-8")
        (copy / name).rename(folder / "moved")
        makers: tuple[Callable[[Path], object], ...] = (
            lambda path: path.symlink_to("/dev/zero"),
            lambda path: path.symlink_to("/"),
            lambda path: path.symlink_to(path.name),
            os.mkfifo,
            Path.mkdir,
        )
        for make in makers:
            make(copy / name)
            fault.attempt(open_bundle, copy)
            remove = Path.rmdir if make is Path.mkdir else Path.unlink
            remove(copy / name)
        (folder / "moved").rename(copy / name)
    open_bundle(copy)
    return fault


class _Shell:
    """What a pickle can hold: a command that is run when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def hostile_checkpoints(folder: Path) -> Fault:
    """Pickles that run commands, compressed archives, tensors much larger than their file, pipes."""
    import torch

    from gconet.train.checkpoint import read_checkpoint

    fault = Fault("checkpoints that run code, or grow when they are read")
    mark, path = folder / "ran", folder / "hostile.pth"
    shapes = {
        "run": {"weight": torch.zeros(1), "code": _Shell(mark)},
        "grow": {"weight": torch.zeros(1, dtype=torch.float16).expand(10**12)},
        "sparse": {"weight": torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (10**12,))},
        "meta": {"weight": torch.zeros(10**12, device="meta")},
        "quantised": {"weight": torch.quantize_per_tensor(torch.zeros(4), 1.0, 0, torch.qint8)},
        "complex": {"weight": torch.zeros(4, dtype=torch.complex64)},
    }
    for state in shapes.values():
        for zipped in (True, False):
            try:
                torch.save(state, path, _use_new_zipfile_serialization=zipped)
            except RuntimeError:
                continue  # the old format has no such tensors
            fault.attempt(read_checkpoint, path)
    torch.save({"weight": torch.zeros(10**7)}, folder / "plain.pth")
    with zipfile.ZipFile(folder / "plain.pth") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    fault.attempt(read_checkpoint, path)
    os.mkfifo(folder / "pipe.pth")
    fault.attempt(read_checkpoint, folder / "pipe.pth")
    if mark.exists():
        fault.lose("a checkpoint ran a command")
    return fault


def bad_keys(folder: Path) -> Fault:
    """Keys that are none: private for public, of another kind, encrypted, a pipe."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

    fault = Fault("keys of another kind, private in the place of public, encrypted")
    pair = make_keys(folder / "pair")
    sign_manifest(folder, b"{}", pair.private)
    for other in (ec.generate_private_key(ec.SECP256R1()), ed448.Ed448PrivateKey.generate()):
        public = other.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / "other.pem").write_bytes(public)
        fault.attempt(check_signature, folder, b"{}", folder / "other.pem")
    fault.attempt(check_signature, folder, b"{}", pair.private)
    fault.attempt(sign_manifest, folder, b"{}", pair.public)
    encrypted = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (folder / "encrypted.pem").write_bytes(encrypted)
    fault.attempt(sign_manifest, folder, b"{}", folder / "encrypted.pem")
    os.mkfifo(folder / "pipe.pem")
    fault.attempt(check_signature, folder, b"{}", folder / "pipe.pem")
    return fault
