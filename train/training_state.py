"""What a run needs to go on exactly where it stopped, and the checkpoints it leaves."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gconet.runtime.atomic import replacing
from gconet.runtime.errors import CheckpointError, one_line
from gconet.train.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from gconet.train.failures import short_of_memory
from gconet.train.model import GCoNet

STATE_NAME, LAST_NAME, BEST_NAME = "state.pt", "last.safetensors", "best.safetensors"
NAMED_AT_MOST = 5  # settings an error lists before it only counts


@dataclass
class TrainingState:
    """Model, optimizer, loss scaler and counters of a run in folder `out`.

    `settings` is a JSON document of all that must not change between the parts of a run. `size` is the input size the
    weights are for at this step, `best` the highest S-measure on the held-out groups at the final size so far.
    `average` is the running mean of the weights, where one is kept: it is what is scored and exported.
    """

    out: Path
    model: GCoNet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    info: CheckpointInfo
    settings: str
    size: int
    step: int = 0
    best: float = -1.0
    average: GCoNet | None = None

    @property
    def scored(self) -> GCoNet:
        """The network that scores, pictures and checkpoints are of."""
        return self.average or self.model

    def averages(self) -> list[GCoNet]:
        """The running mean, if there is one."""
        return [self.average] if self.average else []

    def update_average(self, steps: int) -> None:
        """Take the weights of the step just done into the running mean over about `steps`; 0 keeps none.

        Early on it is the plain mean of all steps so far, so that the start is soon forgotten.
        """
        if not steps:
            return
        if self.average is None:
            self.average = copy.deepcopy(self.model)
        share = 1 / min(self.step, steps)
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, share)

    @property
    def fingerprint(self) -> str:
        """Short hash of the settings."""
        return hashlib.sha256(self.settings.encode()).hexdigest()[:16]

    def save(self) -> None:
        """Write `last.safetensors`, then `state.pt`, each atomically: what the state calls done is in the other too."""
        self._export(LAST_NAME)
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "size": self.size,
            "best": self.best,
            "average": self.average.state_dict() if self.average else None,
            "settings": self.settings,
            "fingerprint": self.fingerprint,
        }
        with replacing(self.out / STATE_NAME) as temporary, temporary.open("wb") as file:
            torch.save(content, file)  # by a path, a full disk would be an error of torch's own

    def resume(self) -> bool:
        """Load `state.pt` if there is one.

        Raises
        ------
        CheckpointError
            If the file cannot be read, is damaged, or is of a run with other settings.
        MemoryError, RuntimeError
            If memory is short.
        """
        path = self.out / STATE_NAME
        if not path.is_file():
            return False
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            fingerprint, settings = content["fingerprint"], content.get("settings")
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({one_line(error)}): make it readable") from error
        except Exception as error:  # a damaged file can raise anything
            if short_of_memory(error):
                raise
            raise CheckpointError(f"{path} is damaged: remove it to start again") from error
        if fingerprint != self.fingerprint:
            raise CheckpointError(
                f"{self.out} holds a run with other settings ({_differences(settings, self.settings)}): repeat those, "
                "or choose another --out"
            )
        try:
            self.model.load_state_dict(content["model"])
            if content["average"]:
                self.average = copy.deepcopy(self.model)
                self.average.load_state_dict(content["average"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            self.step, self.size, self.best = int(content["step"]), int(content["size"]), float(content["best"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            if short_of_memory(error):
                raise
            raise CheckpointError(f"{path} is damaged: remove it to start again") from error
        return True

    def note_validation(self, scores: dict[str, float], final: bool) -> None:
        """Keep the checkpoint that is best on the held-out groups, of those at the final input size."""
        if final and scores and scores["s_measure"] > self.best:
            self.best = scores["s_measure"]
            self._export(BEST_NAME)

    def _export(self, name: str) -> None:
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in self.scored.state_dict().items()}
        preprocessing = dataclasses.replace(self.info.preprocessing, size=self.size)
        info = dataclasses.replace(self.info, preprocessing=preprocessing)
        save_checkpoint(Checkpoint(state, info), self.out / name)


def _differences(there: object, here: str) -> str:
    """Which settings differ, as far as those of the file can be read."""
    try:
        earlier, now = (dict(_flat(json.loads(str(text)))) for text in (there, here))
    except (ValueError, AttributeError):
        return "made by another version"
    names = [name for name in sorted(earlier.keys() | now.keys()) if earlier.get(name) != now.get(name)]
    shown = [
        f"{name} is {earlier.get(name, 'absent')} there, {now.get(name, 'absent')} here"
        for name in names[:NAMED_AT_MOST]
    ]
    return "; ".join(shown) + (f"; {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else "")


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
