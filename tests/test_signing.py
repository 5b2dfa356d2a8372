"""A signed bundle opens for whoever holds the public key; any other is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gconet.runtime as gr
from gconet.bench.photo_groups import EXAMPLES
from gconet.runtime import cli, command_line
from gconet.runtime.bundle import open_bundle
from gconet.runtime.errors import BundleError, TargetError, UsageError
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.signing import (
    DOMAIN,
    SIGNATURE_NAME,
    KeyPair,
    check_signature,
    make_keys,
    sign_manifest,
)


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return make_keys(tmp_path / "keys" / "right")


@pytest.fixture
def wrong(tmp_path: Path) -> KeyPair:
    return make_keys(tmp_path / "keys" / "wrong")


@pytest.fixture
def unsigned(tiny_bundle: Callable[[str, str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("onnxruntime", "fp32"), tmp_path / "tiny.gconet"))


@pytest.fixture
def signed(unsigned: Path, keys: KeyPair) -> Path:
    sign_manifest(unsigned, (unsigned / MANIFEST_NAME).read_bytes(), keys.private)
    return unsigned


def run(*words: object) -> int:
    try:
        return command_line.run(cli.main, [str(word) for word in words])
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else -1


def refusal(folder: Path, key: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_signed_bundle_opens_with_and_without_its_key(signed: Path, keys: KeyPair) -> None:
    assert open_bundle(signed, keys.public) == open_bundle(signed, str(keys.public)) == open_bundle(signed)
    photo = next(EXAMPLES.glob("*/*.jpg"))
    (saliency,) = gr.load(signed, threads=1, require_signature=keys.public).detect([photo])
    assert saliency.shape == Image.open(photo).size[::-1]


def test_the_signature_is_ed25519_of_the_domain_and_the_manifests_bytes(signed: Path, keys: KeyPair) -> None:
    import base64

    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    kind, name, signature = (signed / SIGNATURE_NAME).read_text("ascii").split()
    assert (kind, name) == ("ed25519", keys.key_id)
    public = load_pem_public_key(keys.public.read_bytes())
    public.verify(base64.b64decode(signature), DOMAIN + (signed / MANIFEST_NAME).read_bytes())  # type: ignore[call-arg, union-attr]


def test_an_unsigned_bundle_is_refused_where_a_signature_is_required(unsigned: Path, keys: KeyPair) -> None:
    assert "is not signed" in refusal(unsigned, keys.public)
    open_bundle(unsigned)


def test_a_signature_by_another_key_is_refused_and_both_are_named(signed: Path, keys: KeyPair, wrong: KeyPair) -> None:
    message = refusal(signed, wrong.public)
    assert keys.key_id in message
    assert wrong.key_id in message


def test_a_manifest_altered_after_signing_is_refused_before_it_is_believed(signed: Path, keys: KeyPair) -> None:
    path = signed / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"schema": 99}), "utf-8")
    assert "was altered after it was signed" in refusal(signed, keys.public)


def test_even_white_space_is_signed(signed: Path, keys: KeyPair) -> None:
    path = signed / MANIFEST_NAME
    path.write_bytes(path.read_bytes() + b"\n")
    assert "was altered" in refusal(signed, keys.public)


def test_an_artefact_exchanged_together_with_its_hash_is_refused(signed: Path, keys: KeyPair) -> None:
    from gconet.runtime.bundle import describe_file

    artefact, manifest = signed / "detect.onnx", signed / MANIFEST_NAME
    artefact.write_bytes(artefact.read_bytes() + b"\0")
    document = json.loads(manifest.read_bytes())
    entry = describe_file(artefact)
    document["files"]["detect.onnx"] = {"sha256": entry.sha256, "bytes": entry.bytes}
    manifest.write_text(json.dumps(document), "utf-8")
    open_bundle(signed)  # hashes alone find damage, not malice
    refusal(signed, keys.public)


def test_a_signature_of_another_bundle_is_refused(signed: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = Path(shutil.copytree(signed, tmp_path / "other.gconet"))
    document = json.loads((other / MANIFEST_NAME).read_bytes())
    (other / MANIFEST_NAME).write_text(json.dumps(document | {"max_group": 2}), "utf-8")
    sign_manifest(other, (other / MANIFEST_NAME).read_bytes(), keys.private, overwrite=True)
    open_bundle(other, keys.public)
    shutil.copy(signed / SIGNATURE_NAME, other / SIGNATURE_NAME)
    refusal(other, keys.public)


@pytest.mark.parametrize(
    "content", [b"", b"ed25519\n", b"ed25519 0123456789abcdef " + b"A" * 88 + b"\n", b"\0" * 10_000]
)
def test_what_is_no_signature_is_refused(content: bytes, signed: Path, keys: KeyPair) -> None:
    (signed / SIGNATURE_NAME).write_bytes(content)
    refusal(signed, keys.public)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes among files")
def test_a_pipe_in_the_place_of_a_signature_is_not_waited_for(signed: Path, keys: KeyPair) -> None:
    (signed / SIGNATURE_NAME).unlink()
    os.mkfifo(signed / SIGNATURE_NAME)
    assert "not a plain file" in refusal(signed, keys.public)


def test_a_domain_keeps_other_uses_of_the_key_apart(signed: Path, keys: KeyPair) -> None:
    import base64

    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(keys.private.read_bytes(), None)
    signature = base64.b64encode(private.sign((signed / MANIFEST_NAME).read_bytes()))  # type: ignore[call-arg, union-attr]
    (signed / SIGNATURE_NAME).write_bytes(b"ed25519 %s %s\n" % (keys.key_id.encode(), signature))
    refusal(signed, keys.public)


def test_keys_are_never_replaced_and_the_private_one_is_its_owners(keys: KeyPair) -> None:
    before = keys.private.read_bytes(), keys.public.read_bytes()
    assert stat.S_IMODE(keys.private.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="exists already"):
        make_keys(keys.private.parent / "right")
    keys.public.unlink()
    with pytest.raises(UsageError, match="File exists"):
        make_keys(keys.private.parent / "right")
    assert keys.private.read_bytes() == before[0]
    assert not keys.public.exists()


@pytest.mark.parametrize("name", [".", "/"])
def test_keys_need_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sign", "--new-key", name) == 2
    assert "give the keys a name" in capsys.readouterr().err


def test_half_a_pair_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gconet.runtime import signing

    write = signing._write_new

    def fail_for_public(path: Path, content: bytes, mode: int) -> None:
        if "public" in path.name:
            raise UsageError("no room")
        write(path, content, mode)

    monkeypatch.setattr(signing, "_write_new", fail_for_public)
    with pytest.raises(UsageError, match="no room"):
        make_keys(tmp_path / "half")
    assert not list(tmp_path.iterdir())


def test_signing_again_changes_nothing_and_another_key_needs_overwrite(
    signed: Path, keys: KeyPair, wrong: KeyPair
) -> None:
    manifest, before = (signed / MANIFEST_NAME).read_bytes(), (signed / SIGNATURE_NAME).read_bytes()
    sign_manifest(signed, manifest, keys.private)
    assert (signed / SIGNATURE_NAME).read_bytes() == before
    with pytest.raises(UsageError, match="--overwrite"):
        sign_manifest(signed, manifest, wrong.private)
    assert (signed / SIGNATURE_NAME).read_bytes() == before
    sign_manifest(signed, manifest, wrong.private, overwrite=True)
    open_bundle(signed, wrong.public)


def test_a_signature_that_cannot_be_read_is_one_line(
    signed: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, usual = (signed / MANIFEST_NAME).read_bytes(), Path.open

    def refuse(path: Path, *arguments: Any) -> Any:
        if path.name == SIGNATURE_NAME:
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*manifest\.sig: Permission denied"):
        sign_manifest(signed, manifest, keys.private)
    with pytest.raises(BundleError, match=r"cannot read .*manifest\.sig: Permission denied"):
        check_signature(signed, manifest, keys.public)


def test_a_machine_without_cryptography_says_what_to_install(
    signed: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(TargetError, match=r"pip install 'gconet-deploy\[signing\]'"):
        open_bundle(signed, keys.public)
    open_bundle(signed)


def test_a_private_key_is_not_taken_for_a_public_one(signed: Path, keys: KeyPair) -> None:
    with pytest.raises(UsageError, match="is a private key"):
        check_signature(signed, (signed / MANIFEST_NAME).read_bytes(), keys.private)


def test_the_command_makes_keys_signs_and_checks(
    unsigned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = tmp_path / "release"
    private, public = f"{name}.private.pem", f"{name}.public.pem"
    assert run("sign", "--new-key", name) == 0
    assert run("sign", "--bundle", unsigned, "--check", public) == 2
    assert run("sign", "--bundle", unsigned, "--key", private) == 0
    assert run("sign", "--bundle", unsigned, "--check", public) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.count("\n") == 1
    assert "is not signed" in err


def test_a_damaged_bundle_is_not_signed(unsigned: Path, keys: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    artefact = unsigned / "detect.onnx"
    artefact.write_bytes(artefact.read_bytes()[:-1])
    assert run("sign", "--bundle", unsigned, "--key", keys.private) == 2
    assert "is not the file that was built" in capsys.readouterr().err
    assert not (unsigned / SIGNATURE_NAME).exists()


@pytest.mark.parametrize(
    "words",
    [(), ("--bundle", "b"), ("--new-key", "n", "--bundle", "b"), ("--key", "k"), ("--key", "k", "--check", "c")],
)
def test_the_command_wants_one_thing_to_do(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sign", *words) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["detect", "consensus", "export-triton", "profile", "bench", "parity"])
@pytest.mark.parametrize("fault", ["unsigned", "tampered", "another key"])
def test_every_command_that_loads_a_bundle_refuses_it(
    command: str,
    fault: str,
    signed: Path,
    keys: KeyPair,
    wrong: KeyPair,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if fault == "unsigned":
        (signed / SIGNATURE_NAME).unlink()
    elif fault == "tampered":
        (signed / MANIFEST_NAME).write_bytes((signed / MANIFEST_NAME).read_bytes() + b" ")
    words: dict[str, tuple[object, ...]] = {
        "detect": (EXAMPLES / "cat", "--out", tmp_path / "maps"),
        "consensus": (EXAMPLES / "cat", "--out", tmp_path / "c.safetensors"),
        "export-triton": ("--repository", tmp_path / "models"),
    }
    key = wrong.public if fault == "another key" else keys.public
    assert run(command, *words.get(command, ()), "--bundle", signed, "--require-signature", key) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert str(signed) in err
    assert {path.name for path in tmp_path.iterdir()} == {"keys", "tiny.gconet"}


def test_detect_runs_a_signed_bundle(signed: Path, keys: KeyPair, tmp_path: Path) -> None:
    words = ("--bundle", signed, "--out", tmp_path / "maps", "--threads", "1", "--require-signature", keys.public)
    assert run("detect", EXAMPLES / "cat", *words) == 0
    assert len(list((tmp_path / "maps").iterdir())) == 5
