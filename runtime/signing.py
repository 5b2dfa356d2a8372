"""Signing a bundle's manifest with Ed25519 (RFC 8032). The manifest holds a hash of every file, so that signs them all.

`manifest.sig` lies beside `manifest.json`: one line of ASCII, "ed25519", the key's id and the signature in base64. What
is signed is `DOMAIN` and then the manifest's bytes as they are: no other use of the key can be taken for a bundle.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from gconet.runtime.atomic import cannot_write, replacing
from gconet.runtime.errors import BundleError, GconetError, TargetError, UsageError, one_line
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.paths import kind_of, reason

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_NAME = "manifest.sig"
DOMAIN = b"gconet bundle manifest, version 1\0"
LINE = re.compile(rb"ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/=]{88})\n")
MAX_KEY_BYTES = 16384  # a PEM file has about 120
INSTALL = "pip install 'gconet-deploy[signing]'"


class KeyPair(NamedTuple):
    """Where a new pair of keys was written, and the id of its public key."""

    private: Path
    public: Path
    key_id: str


def make_keys(name: Path) -> KeyPair:
    """Write a new pair of keys as PEM: `NAME.private.pem`, which only its owner can read, and `NAME.public.pem`.

    Raises
    ------
    UsageError
        If one of the files exists, or cannot be written: no key is ever replaced.
    TargetError
        If cryptography is not installed.
    """
    if not name.name:
        raise UsageError(f"{name} is a folder: give the keys a name, such as {name / 'release'}")
    serialization, ed25519 = _cryptography()
    private, public = (name.with_name(f"{name.name}.{kind}.pem") for kind in ("private", "public"))
    key = ed25519.Ed25519PrivateKey.generate()
    encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret = key.private_bytes(*encodings)
    open_ = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if kind_of(public) is not None:
        raise UsageError(f"{public} exists already: choose another name, keys are never replaced")
    with cannot_write(private):
        private.parent.mkdir(parents=True, exist_ok=True)
    _write_new(private, secret, 0o600)
    try:
        _write_new(public, open_, 0o644)
    except BaseException:
        private.unlink()  # half a pair is none; it is ours, made a moment ago
        raise
    return KeyPair(private, public, key_id(key.public_key()))


def sign_manifest(folder: Path, manifest: bytes, private_key: Path, overwrite: bool = False) -> str:
    """Write `manifest.sig` beside a manifest with these bytes, which is best one whose files were checked just now.

    Returns
    -------
    The id of the key.

    Raises
    ------
    UsageError
        If the key is no private Ed25519 key, the signature cannot be written, or another one is there and not to be
        overwritten.
    TargetError
        If cryptography is not installed.
    """
    key = _read_private_key(private_key)
    name = key_id(key.public_key())
    line = b"ed25519 %s %s\n" % (name.encode(), base64.b64encode(key.sign(DOMAIN + manifest)))
    path = folder / SIGNATURE_NAME
    kind = kind_of(path)
    if kind is not None and (kind != "file" or path.is_symlink()):
        raise UsageError(f"{path} is not a plain file: remove it")
    if kind == "file" and not overwrite and _read_some(path, len(line) + 1) != line:
        raise UsageError(f"{path} is of another key, or of another manifest: pass --overwrite to replace it")
    with replacing(path) as temporary:
        temporary.write_bytes(line)
    return name


def check_signature(folder: Path, manifest: bytes, public_key: str | os.PathLike[str]) -> str:
    """Check that the owner of a key signed the manifest with these bytes.

    Returns
    -------
    The id of the key.

    Raises
    ------
    BundleError
        If the signature is missing, damaged, of another key, or of another manifest.
    UsageError
        If `public_key` is no file with a public Ed25519 key.
    TargetError
        If cryptography is not installed.
    """
    key = read_public_key(public_key)
    from cryptography.exceptions import InvalidSignature

    path, name = folder / SIGNATURE_NAME, key_id(key)
    if kind_of(path, BundleError) is None:
        raise BundleError(
            f"{folder} is not signed, and a signature by {public_key} is required: sign it with "
            f"`gconet sign --bundle {folder} --key PRIVATE.pem`, or take it from whoever signs"
        )
    if kind_of(path, BundleError) != "file":
        raise BundleError(f"{path} is not a plain file: take the bundle from whoever signs")
    line = _read_some(path, 256, BundleError)
    match = LINE.fullmatch(line)
    if match is None:
        raise BundleError(f"{path} is no signature: take the bundle from whoever signs")
    if (signer := match[1].decode()) != name:
        raise BundleError(
            f"{folder} was signed by key {signer}, not by {name} of {public_key}: take the bundle from whoever signs"
        )
    try:
        signature = base64.b64decode(match[2], validate=True)
        key.verify(signature, DOMAIN + manifest)
        if base64.b64encode(signature) != match[2]:
            raise binascii.Error  # one signature, one spelling
    except (InvalidSignature, binascii.Error) as error:
        raise BundleError(
            f"{folder} was altered after it was signed ({MANIFEST_NAME}, or {SIGNATURE_NAME}): take the bundle from "
            "whoever signs"
        ) from error
    return name


def read_public_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    """A public key from PEM; errors as for `check_signature`."""
    serialization, ed25519 = _cryptography()
    content = _read_key(Path(path))
    if b"PRIVATE KEY" in content:
        raise UsageError(f"{path} is a private key: keep it where bundles are signed, and give the public one")
    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:  # ValueError, and what OpenSSL's bindings raise of their own
        raise UsageError(f"{path} is no public key in PEM: make a pair with `gconet sign --new-key NAME`") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{path} is a key of another kind than Ed25519: make a pair with `gconet sign --new-key NAME`")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """Sixteen hexadecimal digits that tell keys apart for people; nothing is decided by them."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _read_private_key(path: Path) -> Ed25519PrivateKey:
    serialization, ed25519 = _cryptography()
    content = _read_key(path)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise UsageError(f"{path} is encrypted: decrypt it for the moment, `openssl pkey -in {path}`") from error
    except Exception as error:  # as above
        raise UsageError(f"{path} is no private key in PEM: make a pair with `gconet sign --new-key NAME`") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} is a key of another kind than Ed25519: make a pair with `gconet sign --new-key NAME`")
    return key


def _read_key(path: Path) -> bytes:
    if kind_of(path) != "file":
        raise UsageError(f"no key at {path}: make a pair with `gconet sign --new-key NAME`")
    return _read_some(path, MAX_KEY_BYTES)


def _read_some(path: Path, most: int, refusal: type[GconetError] = UsageError) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise refusal(f"cannot read {path}: {reason(error)}") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist; its mode is there before its content is."""
    with cannot_write(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with cannot_write(path), os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except BaseException:
        path.unlink()
        raise


def _cryptography() -> tuple[ModuleType, ModuleType]:
    """Its modules `serialization` and `ed25519`, imported only where keys are used."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise TargetError(f"signatures need cryptography ({one_line(error)}): {INSTALL}") from error
    return serialization, ed25519
