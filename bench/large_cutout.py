"""How long the cut-out of a large photo takes on one core, and its memory: `python bench/large_cutout.py --json F`.

Photos of 4000×3000 pixels are made from the example photos, enlarged and with a sensor's noise; maps from their masks,
as coarse and blurred as a network's. Each stage of `gconet cutout` beyond the engine is timed: reading the JPEG, the
map at the photo's size, the cut-out, the picture's colours, writing it. Every photo has a process of its own, on one
core; `_cpu_s` is the time that core worked for it, which other work on the machine does not lengthen, `_s` the time
that passed. Memory is its resident set: with photo and map loaded, its peak during the cut-out, and its peak with
writing.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageFilter

from gconet.bench.environment import describe_environment
from gconet.bench.output_files import check_output
from gconet.bench.peak_memory import peak_rss_bytes
from gconet.bench.photo_groups import find_photos
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run, write_json
from gconet.runtime.composition import rgba
from gconet.runtime.cutout import cutout
from gconet.runtime.errors import TargetError
from gconet.runtime.opencv import opencv
from gconet.runtime.photos import read_photo
from gconet.runtime.picture_batch import save_picture
from gconet.runtime.preprocess import resize_map

WIDTH, HEIGHT, NETWORK = 4000, 3000, 224
NOISE, BLUR = 4, 5  # standard deviations: grey values, pixels of the network's map
AS_PNG = ("read", "map", "cutout", "colours", "write_png")
Answer = TypeVar("Answer")


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; raises TargetError if a process fails."""
    parser = Parser("large_cutout.py", "Time cut-outs of 4000×3000 photos on one core, and measure their memory.")
    parser.add_argument("--photos", type=positive, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--one", type=Path, metavar="PHOTO", help="measure this photo here, with the map beside it, "
                        "and print JSON")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(_measure(options.one)))
        return EXIT_DONE
    check_output(options.json)
    rows = []
    for index, example in enumerate(find_photos(None)[: options.photos]):
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(_in_a_process(_enlarged(example, index, Path(scratch))))
    names = [name for name in rows[0] if name.endswith(("_s", "_mb"))]
    summary = {name: {"median": statistics.median(row[name] for row in rows), "most": max(row[name] for row in rows)}
               for name in names}  # fmt: skip
    for name, figures in summary.items():
        print(f"{name:<24} median {figures['median']:8.2f}   most {figures['most']:8.2f}")
    if options.json:
        document = {"environment": describe_environment(), "width": WIDTH, "height": HEIGHT, "cores_used": 1}
        write_json(options.json, {**document, "summary": summary, "photos": rows})
    return EXIT_DONE


def _enlarged(example: Path, index: int, folder: Path) -> Path:
    """An example photo and a map like a network's, written to a folder."""
    random = np.random.default_rng(index)
    size = (WIDTH, HEIGHT)
    large = np.asarray(Image.open(example).convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    large = large + random.normal(0, NOISE, large.shape).astype(np.float32)
    Image.fromarray(np.clip(large, 0, 255).astype(np.uint8)).save(folder / "photo.jpg", quality=92)
    mask = Image.open(example.parents[2] / "gts" / example.parent.name / f"{example.stem}.png").convert("L")
    coarse = mask.resize((NETWORK, NETWORK), Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(BLUR))
    np.save(folder / "photo.npy", np.asarray(coarse, np.float32) / 255)
    return folder / "photo.jpg"


def _in_a_process(photo: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(photo)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise TargetError(
            f"a process for one photo failed: {(result.stderr.strip() or 'it was killed').splitlines()[-1]}"
        )
    return dict(json.loads(result.stdout.splitlines()[-1]))


def _measure(path: Path) -> dict[str, Any]:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    opencv().setNumThreads(1)
    seconds: dict[str, float] = {}

    def timed(stage: str, call: Callable[[], Answer]) -> Answer:
        start, used = time.perf_counter(), time.process_time()
        answer = call()
        seconds[f"{stage}_s"] = time.perf_counter() - start
        seconds[f"{stage}_cpu_s"] = time.process_time() - used
        return answer

    photo = timed("read", lambda: read_photo(path))
    coarse = np.load(path.with_suffix(".npy"))
    saliency = timed("map", lambda: resize_map(coarse, HEIGHT, WIDTH))
    before = _forget_peak()
    alpha = timed("cutout", lambda: cutout(photo, saliency))
    if alpha is None:
        raise TargetError("nothing found in a photo whose object is known")
    after_cutout = peak_rss_bytes()
    picture = timed("colours", lambda: rgba(photo, alpha))
    timed("write_webp", lambda: save_picture(path.with_suffix(".webp"), path.with_suffix(".tmp"), picture))
    timed("write_png", lambda: save_picture(path.with_suffix(".png"), path.with_suffix(".tmp"), picture))
    return {
        **seconds,
        "all_as_png_s": sum(seconds[f"{stage}_s"] for stage in AS_PNG),
        "all_as_png_cpu_s": sum(seconds[f"{stage}_cpu_s"] for stage in AS_PNG),
        "object_share": float((alpha >= 128).mean()),
        "inputs_rss_mb": before / 1e6,
        "cutout_peak_rss_mb": after_cutout / 1e6,
        "peak_rss_mb": peak_rss_bytes() / 1e6,
    }


def _forget_peak() -> int:
    """The resident set in bytes; on Linux its peak is counted anew from here."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    return peak_rss_bytes()


if __name__ == "__main__":
    sys.exit(run(main))
