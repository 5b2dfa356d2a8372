"""Maps of a single-image salient object detector, as a baseline that knows nothing of the group.

    python bench/single_image.py PHOTOS… --model u2netp.onnx --out maps

For networks of the U²-Net family (Qin et al., Pattern Recognition 2020) exported to ONNX. Input is (1, 3, S, S), RGB
divided by its maximum, then ImageNet mean and standard deviation; the first output (1, 1, S, S) is stretched to [0, 1].
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from gconet.engines.installed import import_or_explain
from gconet.runtime.command_line import EXIT_DONE, Parser, run
from gconet.runtime.errors import UsageError, one_line
from gconet.runtime.map_files import plan_maps, write_maps
from gconet.runtime.photos import find_groups, read_photo
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing, resize_map


def detect_salient(session: Any, photo: Photo) -> FloatArray:
    """Map (H, W) in [0, 1] of one photo (H, W, 3) uint8; `session` is ONNX Runtime's."""
    (model_input,) = session.get_inputs()
    size = model_input.shape[-1]
    pixels = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR), np.float32)
    constants = Preprocessing()
    normalised = (pixels / max(float(pixels.max()), 1.0) - constants.mean) / constants.std
    images = normalised.astype(np.float32).transpose(2, 0, 1)[None]
    saliency = session.run(None, {model_input.name: images})[0][0, 0]
    low, high = float(saliency.min()), float(saliency.max())
    stretched = (saliency - low) / (high - low) if high > low else np.zeros_like(saliency)
    return resize_map(stretched.astype(np.float32), *photo.shape[:2])


def open_model(path: Path) -> Any:
    """ONNX Runtime's session; raises UsageError if the file is no network of one fixed, square RGB image."""
    ort = import_or_explain("onnxruntime", ("onnxruntime",))
    try:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
        raise UsageError(f"cannot load {path}: {one_line(error)}") from error
    inputs = [(model_input.type, *model_input.shape) for model_input in session.get_inputs()]
    size = inputs[0][-1] if inputs else None
    if not isinstance(size, int) or inputs != [("tensor(float)", 1, 3, size, size)]:
        raise UsageError(f"{path} takes {inputs}: export it with one float input (1, 3, S, S) of a fixed size S")
    return session


def main(arguments: Sequence[str]) -> int:
    """Write a map for every photo, mirroring the tree; errors as raised by the functions called here."""
    parser = Parser("single_image.py", "Write the maps of a single-image salient object detector.")
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos, or folders of photos")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file of the U²-Net family")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--overwrite", action="store_true", help="replace maps that exist already; with "
                        "--skip-existing only those of groups that are incomplete")  # fmt: skip
    parser.add_argument("--skip-existing", action="store_true", help="leave out groups whose maps all exist already")
    options = parser.parse_args(arguments)
    plan = plan_maps(find_groups(options.photos), options.out, options.overwrite, options.skip_existing)
    session = open_model(options.model)
    for group, paths in tqdm(plan, unit="group", disable=None):
        write_maps(paths, (detect_salient(session, read_photo(photo)) for photo in group.photos))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run(main))
