"""TensorRT 10, TensorRT 11 and TensorRT for RTX: one Python interface, and the few things in which they differ.

Precision is the graph's in all of them: networks are strongly typed, which TensorRT 11 and RTX always are and TensorRT
10 is when asked. No builder flag asks for FP16 or INT8 here; TensorRT 11 has none left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.tensorrt_library import INSTALL, load_tensorrt
from gconet.runtime.tensorrt_library import Product as ProductName

if TYPE_CHECKING:
    from gconet.engines.target import EngineSpec  # which asks this file whether a specification can be built


@dataclass(frozen=True)
class Product:
    """What one of them is called, can be asked for, and needs.

    Attributes
    ----------
    target : its name on the command line.
    name : as its maker writes it.
    oldest : first version, (major, minor), that has all of what is used.
    precisions : the safest first.
    compute_capabilities : GPUs it can be told to build for; empty where it builds for the GPU of the machine.
    default_capabilities : GPUs that a plan is for where none is named; empty likewise.
    builds_without_gpu : whether the machine that builds may be without one.
    refit_flag : builder flag that goes with stripped weights.
    has_timing_cache : whether measured kernels can be kept for the next build.
    refused : options of a plan, by their names on the command line, that mean nothing to it, and why.
    note : said after the command that installs it.
    """

    target: ProductName
    name: str
    oldest: tuple[int, int]
    precisions: tuple[str, ...]
    compute_capabilities: tuple[str, ...]
    default_capabilities: tuple[str, ...]
    builds_without_gpu: bool
    refit_flag: str
    has_timing_cache: bool
    refused: Mapping[str, str]
    note: str = ""


TENSORRT = Product(
    target="tensorrt",
    name="TensorRT",
    oldest=(10, 0),
    precisions=("fp16", "fp32", "int8"),
    compute_capabilities=(),
    default_capabilities=(),
    builds_without_gpu=False,
    refit_flag="REFIT_IDENTICAL",  # plain REFIT, for other weights, loses biases in TensorRT 11.3 by its release notes
    has_timing_cache=True,
    refused={},
    note="which fetches the library from NVIDIA; where it cannot, see docs.nvidia.com/deeplearning/tensorrt",
)

TENSORRT_RTX = Product(
    target="tensorrt-rtx",
    name="TensorRT for RTX",
    oldest=(1, 1),
    precisions=("fp16", "fp32", "int8"),
    compute_capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    default_capabilities=("8.0", "8.6", "8.9", "12.0", "12.1"),  # Turing only by name
    builds_without_gpu=True,
    refit_flag="REFIT",  # the only kind its documentation offers
    has_timing_cache=False,
    refused={
        "--timing-cache": "its kernels are compiled on the user's GPU, and a timing cache has no effect on its plans",
        "--hardware-compatible": "it names its GPUs by --compute-capability, several in one plan",
        "--version-compatible": "it has no lean runtime, which such plans need",
        "--affinity-plugin": "it has no Python plugins",
    },
)

PRODUCTS: Mapping[str, Product] = {product.target: product for product in (TENSORRT, TENSORRT_RTX)}


def load(product: Product) -> ModuleType:
    """Import a product's Python module.

    Raises
    ------
    TargetError
        With the command that mends it, if it is missing, incomplete, or too old.
    """
    try:
        module = load_tensorrt(product.target)
    except TargetError as error:
        raise TargetError(f"{error} ({product.note})" if product.note else str(error)) from error
    version = str(getattr(module, "__version__", ""))
    if not hasattr(module, "Builder") or not version:
        raise TargetError(f"{product.name} is installed without its library: {_install(product)}")
    if tuple(int(part) for part in version.split(".")[:2]) < product.oldest:
        oldest = ".".join(map(str, product.oldest))
        raise TargetError(f"{product.name} {version} is too old, {oldest} is needed: {_install(product)}")
    return module


def check_plan_options(target: str, spec: EngineSpec) -> None:
    """Raise UsageError if `spec` asks for something that plans of this target, or what else it builds, cannot have."""
    given = spec.plan.given()
    if target not in PRODUCTS:
        if given:
            raise UsageError(f"{given[0]} is for TensorRT plans, not for target {target}: leave it out")
        return
    product = PRODUCTS[target]
    for flag in given:
        if flag in product.refused:
            raise UsageError(f"{flag} is not for target {target}, {product.refused[flag]}: leave it out")
    if spec.compute_capabilities and not product.compute_capabilities:
        raise UsageError(
            f"--compute-capability: {product.name} builds for the GPU of this machine; leave it out, or take "
            "--target tensorrt-rtx, which builds for GPUs that are elsewhere"
        )
    if len(set(spec.compute_capabilities)) < len(spec.compute_capabilities):
        raise UsageError(f"--compute-capability {' '.join(spec.compute_capabilities)}: each only once")


def _install(product: Product) -> str:
    return f"{INSTALL[product.target]}{f' ({product.note})' if product.note else ''}"
