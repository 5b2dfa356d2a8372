"""What reads files that others made, each as one function of bytes: the bytes are read, or refused by a GconetError.

Anything else that comes out of `FuzzTarget.check` is a fault. The tests try them with hypothesis, `bench/fuzz.py` with
atheris for as long as one likes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gconet.bench import fuzz_bundles, fuzz_photos
from gconet.runtime.errors import GconetError


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


FUZZ_TARGETS: Mapping[str, FuzzTarget] = {
    "manifest": FuzzTarget("text of a manifest", fuzz_bundles.manifest_seeds, fuzz_bundles.check_manifest),
    "bundle": FuzzTarget("manifest.json in a bundle folder", fuzz_bundles.manifest_seeds, fuzz_bundles.check_bundle),
    "signature": FuzzTarget("manifest.sig", fuzz_bundles.signature_seeds, fuzz_bundles.check_signature),
    "key": FuzzTarget("public key in PEM", fuzz_bundles.key_seeds, fuzz_bundles.check_key),
    "safetensors": FuzzTarget("checkpoint of ours", _safetensors_seeds, _check_safetensors),
    "pth": FuzzTarget("PyTorch state dict", _pth_seeds, _check_pth),
    "photo": FuzzTarget("JPEG, PNG, WebP, BMP or TIFF", fuzz_photos.photo_seeds, fuzz_photos.check_photo),
    "calibration": FuzzTarget(
        "file in a folder of calibration photos", fuzz_photos.calibration_seeds, fuzz_photos.check_calibration
    ),
    "consensus": FuzzTarget("consensus file", fuzz_bundles.consensus_seeds, fuzz_bundles.check_consensus),
}
