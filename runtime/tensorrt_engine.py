"""Loading a TensorRT plan: the GPU, the library, the engine and its weights, and what to do if one does not fit."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gconet.runtime.bundle import Bundle
from gconet.runtime.cuda import Device
from gconet.runtime.errors import BundleError, GconetError, TargetError, one_line
from gconet.runtime.manifest import WEIGHTS_NAME
from gconet.runtime.tensorrt_kernels import KernelCache
from gconet.runtime.tensorrt_library import NAMES, Product, collecting_logger, load_tensorrt
from gconet.runtime.tensorrt_profiles import Profile, read_profiles

INPUT, OUTPUT = "images", "maps"
TENSORRT_OF_VERSION = "pip install tensorrt=={}"
OLDEST_CAPABILITY = (7, 5)  # Turing; TensorRT 8.6 was the last for Pascal


@dataclass(frozen=True)
class Engine:
    """A deserialised plan.

    Attributes
    ----------
    trt, runtime, logger : TensorRT's module, and what must outlive the engine.
    errors : what TensorRT complained of, the cause first.
    engine : TensorRT's ICudaEngine.
    profiles : the group sizes it takes.
    image_shape : (3, S, S).
    context_settings : what its execution contexts are made with.
    kernels : for TensorRT for RTX, whose kernels are compiled when they are first used.
    """

    trt: ModuleType
    runtime: Any
    logger: Any
    errors: deque[str]
    engine: Any
    profiles: tuple[Profile, ...]
    image_shape: tuple[int, ...]
    context_settings: Any
    kernels: KernelCache | None

    def reason(self) -> str:
        """What TensorRT said of a failure, one line; its later errors tell where it was, not why."""
        return _reason(self.errors)


def open_gpu(product: Product, index: int) -> tuple[Device, ModuleType]:
    """A GPU and the TensorRT that can use it.

    Raises
    ------
    TargetError
        If there is no such GPU, it is too old, or a library is missing.
    """
    device = Device(index)
    capability = tuple(int(part) for part in device.compute_capability.split("."))
    if capability < OLDEST_CAPABILITY:
        raise TargetError(
            f"{device} has compute capability {device.compute_capability}, {NAMES[product]} needs 7.5 or newer: "
            "build with `gconet build --target onnxruntime --precision fp32`"
        )
    return device, load_tensorrt(product)


def load_engine(bundle: Bundle, product: Product, device: Device, trt: ModuleType) -> Engine:
    """Deserialise a bundle's plan on a GPU, and refit it if it was built without weights.

    Raises
    ------
    TargetError
        If the plan is for another version of TensorRT, or another GPU.
    BundleError
        If it is damaged, or not a plan of this network.
    """
    path = bundle.file(".plan")
    logger, errors = collecting_logger(trt)
    with device:
        try:
            runtime = trt.Runtime(logger)
        except (RuntimeError, TypeError) as error:  # the latter is pybind's, where TensorRT returned nothing
            reason = _reason(errors) if errors else one_line(error)
            raise TargetError(f"{NAMES[product]} {trt.__version__} does not start on {device}: {reason}") from error
        if bundle.manifest.plan_options.get("version_compatible"):
            runtime.engine_host_code_allowed = True  # such plans bring TensorRT's own lean runtime with them
        plan = path.read_bytes()
        problems = _known_problems(trt, runtime, plan)
        engine = None if problems else runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise _explain(bundle, product, device, str(trt.__version__), problems or [_reason(errors)])
        if bundle.manifest.weights_stripped:
            _refit(bundle, trt, engine, logger, errors)
        settings, kernels = _context_settings(bundle, trt, engine, device)
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    if names != {INPUT, OUTPUT}:
        raise BundleError(f"{path} is no plan of GCoNet (it has {', '.join(sorted(names))}): {_rebuild(bundle)}")
    if any(engine.get_tensor_dtype(name) != trt.DataType.FLOAT for name in names):
        raise BundleError(f"{path} does not take and give float32: {_rebuild(bundle)}")
    image_shape = tuple(int(length) for length in tuple(engine.get_tensor_shape(INPUT))[1:])
    profiles = read_profiles(engine, INPUT)
    return Engine(trt, runtime, logger, errors, engine, profiles, image_shape, settings, kernels)


def _context_settings(bundle: Bundle, trt: ModuleType, engine: Any, device: Device) -> tuple[Any, KernelCache | None]:
    """Contexts without working memory of their own, which sessions give them."""
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    specialisation = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if specialisation is None:
        return strategy, None
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(strategy)
    # Not in the background: the kernels of a group size must be there when its first run is over, for a graph of it.
    config.dynamic_shapes_kernel_specialization_strategy = specialisation.EAGER
    (plan,) = (entry for name, entry in bundle.manifest.files.items() if name.endswith(".plan"))
    return config, KernelCache(config, plan.sha256, device.name)


def _known_problems(trt: ModuleType, runtime: Any, plan: bytes) -> list[str]:
    """What TensorRT for RTX finds in a plan's header that keeps it from running here; TensorRT cannot tell."""
    if not hasattr(runtime, "get_engine_validity"):
        return []
    validity, flags = runtime.get_engine_validity(plan)
    if validity != trt.EngineValidity.INVALID:
        return []
    known = trt.EngineInvalidityDiagnostics.__members__
    return [name for name, member in known.items() if int(member) & int(flags)]


def _explain(bundle: Bundle, product: Product, device: Device, version: str, problems: list[str]) -> GconetError:
    """Why a plan was not deserialised. Only asked when it was not: some plans run on more than they were built for."""
    manifest = bundle.manifest
    if manifest.target_version != version:
        mend = f"{TENSORRT_OF_VERSION.format(manifest.target_version)}, or " if product == "tensorrt" else ""
        return TargetError(
            f"{bundle.folder} cannot run here: its plan is of {NAMES[product]} {manifest.target_version}, this is "
            f"{version}: {mend}{_rebuild(bundle)}"
        )
    reason = ", ".join(problems)
    if "OLD_CUDA" in reason or "driver version is insufficient" in reason:
        return TargetError(
            f"{bundle.folder} cannot run here: the NVIDIA driver is too old for {NAMES[product]} {version}: update it"
        )
    capabilities = manifest.compute_capabilities
    if "UNSUPPORTED_CC" in problems or (capabilities and device.compute_capability not in capabilities):
        option = f" --compute-capability {device.compute_capability}" if product == "tensorrt-rtx" else ""
        return TargetError(
            f"{bundle.folder} cannot run here: its plan is for compute capability "
            f"{', '.join(capabilities) or 'others'}, {device} has {device.compute_capability}: "
            f"{_rebuild(bundle, option)}"
        )
    return BundleError(
        f"{NAMES[product]} {version} cannot load {bundle.file('.plan')} on {device} ({reason}): {_rebuild(bundle)}"
    )


def _rebuild(bundle: Bundle, option: str = "") -> str:
    manifest = bundle.manifest
    return f"build it again with `gconet build --target {manifest.target} --precision {manifest.precision}{option}`"


def _refit(bundle: Bundle, trt: ModuleType, engine: Any, logger: Any, errors: deque[str]) -> None:
    """Give a weight-stripped engine the weights of the ONNX graph beside it."""
    path = bundle.file(WEIGHTS_NAME)
    refitter = trt.Refitter(engine, logger)
    if not trt.OnnxParserRefitter(refitter, logger).refit_from_file(str(path)) or not refitter.refit_cuda_engine():
        missing = refitter.get_missing_weights()
        reason = f"{len(missing)} are missing" if missing else _reason(errors)
        raise BundleError(f"the weights in {path} do not fit the plan beside them ({reason}): {_rebuild(bundle)}")


def _reason(errors: deque[str]) -> str:
    return one_line(RuntimeError(errors[0] if errors else "TensorRT gives no reason"))
