"""Files that are damaged, hostile or odd, given to what reads them."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from gconet.bench.fault_commands import content, gconet, run_command
from gconet.bench.fault_rows import Fault
from gconet.bench.fuzz_photos import FORMATS
from gconet.bench.fuzz_targets import FUZZ_TARGETS
from gconet.bench.photo_groups import EXAMPLES
from gconet.runtime.bundle import open_bundle
from gconet.runtime.consensus_file import load_consensus, save_consensus
from gconet.runtime.detector import load
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.photos import MAX_PIXELS, read_photo

EITHER = ("accepted", "refused")
# Names that a file cannot be given on the way through JSON and back, or that show badly on a terminal.
ODD_NAMES = (b"a b.jpg", "ünïcödé 猫.jpg".encode(), "\U0001f408.jpg".encode(), b"new\nline.jpg", b"tab\tbell\a.jpg",
             b"\x1b[31mred.jpg", b"not-utf8-\xff\xfe.jpg", b"-x.jpg", b"--debug.jpg", b"'quo\"te.jpg", b"%s{0}.jpg",
             b"n" * 200 + b".jpg")  # fmt: skip


def damage(data: bytes, draw: random.Random) -> bytes:
    """The same bytes with some flipped, cut out, doubled or cut off."""
    altered = bytearray(data)
    kind = draw.randrange(4)
    if kind == 0:
        for _ in range(draw.randint(1, 8)):
            altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del altered[draw.randrange(len(altered)) :]
    else:
        start, length = draw.randrange(len(altered)), draw.randint(1, 64)
        altered[start : start + length] = b"" if kind == 2 else altered[start : start + length] * 2
    return bytes(altered)


def damage_files(folder: Path, tries: int, draw: random.Random) -> list[Fault]:
    """Files of each kind that is read, damaged at random: either read all the same, or refused."""
    faults = []
    for name, target in FUZZ_TARGETS.items():
        fault = Fault(f"damaged at random: {target.reads}")
        scratch = folder / f"damaged-{name}"
        scratch.mkdir()
        seeds = target.seeds(scratch)
        for seed in seeds:
            if b"PRIVATE" not in seed:  # a private key is a seed, too, and always refused
                target.check(seed, scratch)
        for number in range(tries):
            data = damage(seeds[number % len(seeds)], draw)
            fault.attempt(target.check, data, scratch, expected=EITHER)
        faults.append(fault)
    return faults


def bombs(bundle: Path, folder: Path) -> tuple[Fault, float]:
    """Small files that would fill the memory, and photos without area; and the peak memory of reading them, MB."""
    fault = Fault("decompression bombs, huge dimensions, photos without area")
    photos = folder / "bombs"
    photos.mkdir()
    for name, image in {
        "tall.png": Image.new("1", (10_000, 3 * MAX_PIXELS // 10_000)),
        "line.png": Image.new("1", (80_000_000, 1)),
        "flat.tif": Image.new("1", (20_000, 20_000)),
    }.items():
        image.save(photos / name, **({"compression": "tiff_adobe_deflate"} if name.endswith("tif") else {}))
    small = {name: _encoded(name) for name in FORMATS}
    png, bmp, jpeg, webp = (bytearray(small[name]) for name in ("PNG", "BMP", "JPEG", "WEBP"))
    at = jpeg.index(b"\xff\xc0") + 5
    for name, data, position, sides in (
        ("zero.png", png, 16, (bytes(4), (5).to_bytes(4, "big"))),
        ("huge.png", png, 16, (b"\x7f\xff\xff\xff", b"\x7f\xff\xff\xff")),
        ("zero.bmp", bmp, 18, (bytes(4), bytes(4))),
        ("huge.bmp", bmp, 18, (b"\xff\xff\xff\x7f", b"\xff\xff\xff\x7f")),
        ("zero.jpg", jpeg, at, (bytes(2), bytes(2))),
        ("huge.jpg", jpeg, at, (b"\xff\xff", b"\xff\xff")),
    ):
        altered = bytearray(data)
        altered[position : position + len(b"".join(sides))] = b"".join(sides)
        (photos / name).write_bytes(altered)
    (photos / "huge.webp").write_bytes(webp[:24] + b"\xff" * 6 + webp[30:])
    for path in sorted(photos.iterdir()):
        fault.attempt(read_photo, path)
    allowed = {"wide.png": Image.new("L", (65_535, 3)), "tall.png": Image.new("L", (1, 65_535))}
    for name, image in allowed.items():
        image.save(folder / name)
        fault.attempt(load(bundle, threads=1).detect, [folder / name], expected=("accepted",))
    words = gconet("detect", photos, "--bundle", bundle, "--skip-unreadable", "--out", folder / "bombed")
    probe = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], capture_output=True); "
    probe += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6, file=sys.stderr)"
    peak = float(run_command([sys.executable, "-c", probe, *words]).error)
    return fault, peak


def _encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(buffer, name)
    return buffer.getvalue()


def not_numbers(bundle: Path, folder: Path) -> Fault:
    """NaN and infinities wherever numbers come in."""
    fault = Fault("NaN and infinities: arrays, consensus, checkpoint, manifest")
    detector = load(bundle, threads=1)
    photo = next(EXAMPLES.glob("*/*.jpg"))
    vector = detector.consensus([photo])
    for value in (np.nan, np.inf, -np.inf):
        fault.attempt(detector.detect, [np.full((5, 5, 3), value, np.float32)])
        bad = vector.copy()
        bad[3] = value
        fault.attempt(detector.segment, [photo], bad)
        save_consensus(folder / "bad.safetensors", detector.bundle, bad)
        fault.attempt(load_consensus, folder / "bad.safetensors", detector.bundle)
        fault.attempt(_checkpoint_with, value, folder)
        copy = folder / "nan.gconet"
        shutil.copytree(bundle, copy, dirs_exist_ok=True)
        manifest = json.loads((bundle / MANIFEST_NAME).read_bytes())
        manifest["preprocessing"]["mean"][0] = value
        (copy / MANIFEST_NAME).write_text(json.dumps(manifest), "utf-8")
        fault.attempt(open_bundle, copy)
    return fault


def _checkpoint_with(value: float, folder: Path) -> None:
    from gconet.train.checkpoint import load_checkpoint, random_checkpoint, save_checkpoint
    from gconet.train.model import Architecture

    checkpoint = random_checkpoint(0, Architecture(True, False, False, 1, (1, 1, 1, 1, 2), 1))
    next(iter(checkpoint.state.values())).view(-1)[0] = value
    save_checkpoint(checkpoint, folder / "nan.safetensors")
    load_checkpoint(folder / "nan.safetensors")


def odd_names(bundle: Path, folder: Path) -> Fault:
    """Photos and folders with names of every kind; the maps are mirrored under the same names."""
    fault = Fault("unicode, newlines, control characters and bytes that are no text in names of photos and folders")
    photo = next(EXAMPLES.glob("*/*.jpg"))
    for name in ODD_NAMES:
        source, out = folder / "odd" / os.fsdecode(name[:-4]), folder / "odd-maps" / os.fsdecode(name[:-4])
        source.mkdir(parents=True)
        shutil.copyfile(photo, source / os.fsdecode(name))
        outcome = run_command(gconet("detect", source, "--bundle", bundle, "--threads", 1, "--out", out))
        fault.note("done" if outcome.code == 0 else "failed")
        wanted = {os.fsdecode(name[:-4]) + ".png"}
        if outcome.code or set(content(out)) != wanted:
            fault.lose(f"{name!r}: exit code {outcome.code}: {outcome.error.strip()}")
        outcome = run_command(gconet("detect", source, "--bundle", bundle, "--out", out))  # the maps exist: refused
        refused = outcome.code == 2 and outcome.error.count("\n") == 1
        fault.note("refused in one line" if refused else "failed")
        if not refused or not outcome.error.strip().isprintable():
            fault.lose(f"{name!r}: exit code {outcome.code}: {outcome.error.strip()}")
    return fault
