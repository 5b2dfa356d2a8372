"""The processes that train together: those that torchrun started, or this one alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together. Rank 0 is the one that writes, shows and prints."""

    rank: int
    count: int

    @staticmethod
    def current() -> Processes:
        """As set up by torchrun, or alone."""
        return Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes(0, 1)

    def say(self, text: str, file: TextIO | None = None) -> None:
        """Print a line, once for all of them."""
        if self.rank == 0:
            print(text, file=file)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any of them: one answer for all, which all have to ask for."""
        if self.count == 1:
            return flag
        flags = torch.tensor(float(flag), device=device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)
