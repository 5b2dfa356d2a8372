"""Optimisation profiles of a plan: the ranges of group sizes that its kernels were chosen for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gconet.runtime.errors import UsageError


@dataclass(frozen=True)
class Profile:
    """Groups of `smallest` to `largest` photos, fastest at `usual`; `index` is its number in the plan."""

    index: int
    smallest: int
    usual: int
    largest: int


def read_profiles(engine: Any, name: str) -> tuple[Profile, ...]:
    """The profiles of a TensorRT engine, from the first axis of its input `name`."""
    return tuple(
        Profile(index, *(int(next(iter(shape))) for shape in engine.get_tensor_profile_shape(name, index)))
        for index in range(engine.num_optimization_profiles)
    )


def choose_profile(profiles: Sequence[Profile], count: int, where: str) -> Profile:
    """The profile for groups of `count`: the narrowest that takes them, of those the one chosen for the nearest size.

    Raises
    ------
    UsageError
        If none does; `where` names the bundle.
    """
    fitting = [profile for profile in profiles if profile.smallest <= count <= profile.largest]
    if fitting:
        return min(fitting, key=lambda p: (p.largest - p.smallest, abs(p.usual - count), p.index))
    largest = max(profile.largest for profile in profiles)
    if count > largest:
        raise UsageError(
            f"a group of {count} photos: {where} takes up to {largest}; for more, build with `--max-group {count}`"
        )
    ranges = ", ".join(f"{profile.smallest} to {profile.largest}" for profile in profiles)
    raise UsageError(f"a group of {count} photos: {where} takes groups of {ranges} only; build it again")
