"""What can end a run that had started well, in one line each: a loss without a value, no memory, a worker that died."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from gconet.runtime.errors import GconetError, PhotoError, one_line

OVERFLOWS = ("can't allocate memory", "not enough memory")  # so torch says it of the CPU's, in a plain RuntimeError
DEATHS = ("is killed by signal", "exited unexpectedly")  # of a process that prepares photos, as torch says it
SMALLEST_SCALE = 1.0  # of fp16 losses, which starts at 65536 and is halved when a step overflows


class TrainingError(GconetError):
    """A run that cannot go on with its settings, or on its machine."""


def check_losses(losses: Sequence[float], step: int, scaler: torch.amp.GradScaler) -> None:
    """Raise TrainingError if the losses of a step are not finite, before such weights are saved.

    In fp16 single steps may overflow: the scaler leaves them out. It is an error if that does not end.
    """
    if all(map(math.isfinite, losses)) or (scaler.is_enabled() and scaler.get_scale() >= SMALLEST_SCALE):
        return
    raise TrainingError(
        f"the loss is no number any more at step {step}: start again, in another --out, with a lower --learning-rate, "
        "a --warm-up or, after --fp16, with --bf16; what was saved before is as it was"
    )


def short_of_memory(error: Exception) -> bool:
    """Whether memory of the CPU or a GPU was short, as far as the error tells."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in OVERFLOWS)


@contextlib.contextmanager
def explained(state: Path, device: str) -> Iterator[None]:
    """Turn what torch raises of the machine in the block into a TrainingError.

    Parameters
    ----------
    state : file that the run goes on from.
    device : where it computes.

    Raises
    ------
    TrainingError
        If memory is short, or one of the processes that prepare photos has died.
    PhotoError
        If a photo can no longer be read.
    """
    try:
        yield
    except PhotoError as error:  # one from a worker has the worker's traceback before it
        raise PhotoError(str(error).strip().rpartition("PhotoError: ")[2]) from error
    except (RuntimeError, MemoryError) as error:
        if short_of_memory(error):
            raise TrainingError(
                f"out of memory on {device}: lower --group-size or --sizes, or pass --bf16 (in another --out)"
            ) from error
        if not any(text in str(error) for text in DEATHS):
            raise
        raise TrainingError(
            f"a process that prepares photos has died ({one_line(error)}), often for want of memory: pass --workers 0, "
            f"or give it more (in Docker, --shm-size); the run goes on from {state}, if it was saved"
        ) from error
