"""What a run shows while it goes on: progress bar, TensorBoard scalars and pictures, a log that outlives both."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from gconet.runtime.atomic import replacing
from gconet.runtime.errors import UsageError
from gconet.runtime.preprocess import FloatArray, Photo, to_bytes
from gconet.train.config import TrainingConfig
from gconet.train.groups import LabelledGroup, read_pictures
from gconet.train.model import GCoNet
from gconet.train.validation import predict

LOG_NAME = "log.jsonl"
LOSS_NAMES = ("total", "saliency", "collaborating", "classification")
PICTURE_GROUPS, PICTURE_PHOTOS = 3, 5


class Observer:
    """Writes into `out`; close it, or use it in a `with` block. Raises UsageError if `out` cannot be written.

    What earlier parts of the run wrote of steps after `step` is dropped: those steps come again.
    """

    def __init__(self, out: Path, step: int, steps: int) -> None:
        self._out = out
        try:
            out.mkdir(parents=True, exist_ok=True)
            _drop_records(out / LOG_NAME, step)
            self._log = (out / LOG_NAME).open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written ({error.strerror}): choose another folder") from error
        self._progress = tqdm(total=steps, initial=step, unit="step", disable=None, smoothing=0.05)
        self._board = _summary_writer(out, step)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
        self._log.close()
        if self._board:
            self._board.close()

    def step(self, step: int, losses: Sequence[float], rate: float) -> None:
        """After every step: weighted losses in the order of `Losses`, and the learning rate."""
        terms = dict(zip(LOSS_NAMES, losses, strict=True))
        self._progress.update()
        self._progress.set_postfix({name[:3]: f"{value:.2f}" for name, value in terms.items()})
        self._record(step, {f"loss/{name}": value for name, value in terms.items()} | {"rate": rate})

    def validation(self, step: int, scores: dict[str, float]) -> None:
        """After a validation on the held-out groups; nothing without any."""
        if scores:
            text = " ".join(f"{name} {value:.4f}" for name, value in scores.items())
            tqdm.write(f"step {step}: held out {text}")
            self._record(step, {f"held_out/{name}": value for name, value in scores.items()})

    def picture(
        self,
        step: int,
        model: GCoNet,
        groups: Sequence[LabelledGroup],
        size: int,
        config: TrainingConfig,
        finest: int = 1,
    ) -> None:
        """A sheet of photos, masks and maps of the first groups, as PNG and for TensorBoard."""
        rows = []
        for group in groups[:PICTURE_GROUPS]:
            few = LabelledGroup(group.name, group.samples[:PICTURE_PHOTOS])
            maps, masks = predict(model, few, size, config, finest)
            rows.append(_sheet_rows(few, maps, masks))
        width = max(row.shape[1] for row in rows)
        sheet = np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
        with replacing(self._out / f"maps-{step:06d}.png") as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")
        if self._board:
            self._board.add_image("maps", sheet, step, dataformats="HWC")

    def _record(self, step: int, values: dict[str, float]) -> None:
        rounded = {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}
        self._log.write(json.dumps({"step": step, **rounded}) + "\n")
        self._log.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


def _sheet_rows(group: LabelledGroup, maps: FloatArray, masks: FloatArray) -> Photo:
    size = maps.shape[1:]
    photos = [np.asarray(read_pictures(sample)[0].resize(size, Image.Resampling.BILINEAR)) for sample in group.samples]
    grey = [np.repeat(to_bytes(np.concatenate(list(rows), axis=1))[..., None], 3, axis=2) for rows in (masks, maps)]
    return np.concatenate([np.concatenate(photos, axis=1), *grey])


def _drop_records(log: Path, step: int) -> None:
    """Leave out the records of later steps, and a line that was cut off: a run that was killed had not saved them."""
    if not log.exists():
        return
    lines = log.read_text("utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) <= step]
    if kept != lines:
        with replacing(log) as temporary:
            temporary.write_text("".join(kept), "utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _summary_writer(out: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write("no TensorBoard log: pip install 'gconet-deploy[train]' for one")
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)  # the first that comes again
