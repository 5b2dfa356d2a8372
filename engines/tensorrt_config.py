"""The builder's configuration: profiles over the group axis, tuning, compatibility, and the cache of timings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gconet.engines.plan_options import Profile, profiles_for
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_gpu import Gpu
from gconet.engines.tensorrt_products import Product
from gconet.runtime.atomic import replacing
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.paths import reason

MIB = 1 << 20
HARDWARE_LEVELS = {"same-capability": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}


@dataclass(frozen=True)
class Job:
    """A build: what it is for, and the GPUs of this machine."""

    product: Product
    spec: EngineSpec
    gpus: tuple[Gpu, ...]

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """GPUs the plan is for, as the manifest has it: empty for a product's default, or for any from Ampere on."""
        if self.product.builds_without_gpu or self.spec.plan.hardware == "ampere+":
            return self.spec.compute_capabilities
        return (self.gpus[0].compute_capability,)

    @property
    def opens_here(self) -> bool:
        """Whether this machine's first GPU, the one libraries take by themselves, can open the plan."""
        if not self.gpus or not self.product.builds_without_gpu:
            return bool(self.gpus)
        return self.gpus[0].compute_capability in (self.compute_capabilities or self.product.default_capabilities)


def configure(trt: ModuleType, job: Job, builder: Any, images: Any) -> Any:
    """The configuration of a job; `images` is the network's input (group, 3, S, S).

    Raises
    ------
    TargetError, UsageError
        If the library has no such choice, or the profiles do not cover the groups.
    """
    config, options = builder.create_builder_config(), job.spec.plan
    for groups in profiles_for(options, job.spec.max_group):
        if config.add_optimization_profile(optimization_profile(builder, images, groups)) < 0:
            raise TargetError(f"{job.product.name} {trt.__version__} refuses the profile {groups}: change --profile")
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: TF32 keeps 10 bits of the mantissa
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the engine inspector; costs nothing
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # else RTX plans cannot be captured as CUDA graphs
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(getattr(trt.BuilderFlag, job.product.refit_flag))
    if options.hardware is not None:
        level = getattr(trt.HardwareCompatibilityLevel, HARDWARE_LEVELS[options.hardware], None)
        if level is None:
            raise TargetError(
                f"{job.product.name} {trt.__version__} has no --hardware-compatible {options.hardware}: update it, "
                "or leave that out"
            )
        config.hardware_compatibility_level = level
    if job.spec.compute_capabilities:
        config.num_compute_capabilities = len(job.spec.compute_capabilities)
        for index, capability in enumerate(job.spec.compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}"), index)
    return config


def optimization_profile(builder: Any, images: Any, groups: Profile) -> Any:
    """TensorRT's profile for a range of groups, and images as large as the network's input `images` says."""
    profile = builder.create_optimization_profile()
    _, *image = images.shape
    profile.set_shape(images.name, *((group, *image) for group in groups))
    return profile


@contextlib.contextmanager
def timing_cache(trt: ModuleType, job: Job, config: Any, folder: Path) -> Iterator[None]:
    """Let a build that ends well reuse and extend what earlier ones measured."""
    if not job.product.has_timing_cache:
        yield
        return
    path = job.spec.plan.timing_cache or folder.parent / f"{job.product.target}-{trt.__version__}.timing-cache"
    try:
        earlier = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UsageError(f"--timing-cache {path}: {reason(error)}") from error
    cache = config.create_timing_cache(earlier)
    if cache is None or not config.set_timing_cache(cache, False):  # of another GPU or version: measured anew
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    yield
    with replacing(path) as temporary:
        temporary.write_bytes(config.get_timing_cache().serialize())
