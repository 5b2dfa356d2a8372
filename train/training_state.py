"""What a run needs to go on exactly where it stopped, and the checkpoints it leaves."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch

from gconet.runtime.atomic import replacing
from gconet.runtime.errors import CheckpointError
from gconet.train.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from gconet.train.model import GCoNet

STATE_NAME, LAST_NAME, BEST_NAME = "state.pt", "last.safetensors", "best.safetensors"


@dataclass
class TrainingState:
    """Model, optimizer, loss scaler and counters of a run in folder `out`.

    `size` is the input size the weights are for at this step, `best` the highest S-measure on the held-out groups at
    the final size so far.
    """

    out: Path
    model: GCoNet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    info: CheckpointInfo
    fingerprint: str
    size: int
    step: int = 0
    best: float = -1.0

    def save(self) -> None:
        """Write `state.pt` and `last.safetensors`, each atomically."""
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "size": self.size,
            "best": self.best,
            "fingerprint": self.fingerprint,
        }
        with replacing(self.out / STATE_NAME) as temporary:
            torch.save(content, temporary)
        self._export(LAST_NAME)

    def resume(self) -> bool:
        """Load `state.pt` if there is one.

        Raises
        ------
        CheckpointError
            If the file is damaged, or is of a run with other settings.
        """
        path = self.out / STATE_NAME
        if not path.is_file():
            return False
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            fingerprint = content["fingerprint"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:
            raise CheckpointError(f"{path} is damaged: remove it to start again") from error
        if fingerprint != self.fingerprint:
            raise CheckpointError(
                f"{self.out} holds a run with other settings ({fingerprint}): repeat those, or choose another --out"
            )
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.size, self.best = content["step"], content["size"], content["best"]
        return True

    def note_validation(self, scores: dict[str, float], final: bool) -> None:
        """Keep the checkpoint that is best on the held-out groups, of those at the final input size."""
        if final and scores and scores["s_measure"] > self.best:
            self.best = scores["s_measure"]
            self._export(BEST_NAME)

    def _export(self, name: str) -> None:
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in self.model.state_dict().items()}
        preprocessing = dataclasses.replace(self.info.preprocessing, size=self.size)
        info = dataclasses.replace(self.info, preprocessing=preprocessing)
        save_checkpoint(Checkpoint(state, info), self.out / name)
