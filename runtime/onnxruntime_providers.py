"""ONNX Runtime's execution providers: which to ask for, and making sure that they are the ones that run."""

from __future__ import annotations

import contextlib
import io
import logging
from types import ModuleType
from typing import Any

from gconet.runtime.bundle import REBUILD, Bundle
from gconet.runtime.errors import BundleError, TargetError, one_line
from gconet.runtime.session import DETECT, SessionOptions
from gconet.runtime.vnni import has_vnni

LOG = logging.getLogger(__name__)
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
INSTALL_GPU = (
    "pip install 'onnxruntime-gpu[cuda,cudnn]' (CUDA 13; for a driver of CUDA 12 'onnxruntime-gpu[cuda,cudnn]==1.26.*')"
)
WEIGHTS_FILE = "weights.bin"  # of all graphs
USUAL_GROUP = 5  # what the TensorRT provider chooses kernels for


def create_session(ort: ModuleType, bundle: Bundle, options: SessionOptions, graph: str = DETECT) -> Any:
    """Load one of a bundle's graphs on the device that was asked for, and on no other.

    On a GPU, `detect` captures CUDA graphs if that is asked for and it can: see `captures_graphs`.

    Raises
    ------
    TargetError
        If ONNX Runtime lacks the provider, or could not start it, in which case it would go on with the CPU.
    BundleError
        If it cannot load the graph.
    """
    wanted = CPU if options.device == "cpu" else TENSORRT if options.provider == "tensorrt" else CUDA
    hints = ""
    if wanted != CPU:
        if bundle.manifest.precision == "int8":  # its integer convolutions are made for the CPU, and would run there
            raise TargetError(
                f"{bundle.folder} runs on the CPU only: for a GPU, `gconet build --target tensorrt --precision int8`"
            )
        if wanted not in ort.get_available_providers():
            raise TargetError(
                f"{bundle.folder} cannot run on the GPU: the installed ONNX Runtime {ort.__version__} has no {wanted}: "
                f"pip uninstall -y onnxruntime onnxruntime-gpu, then {INSTALL_GPU}"
            )
        hints = _preload_libraries(ort)
    settings = ort.SessionOptions()
    # x86 CPUs without VNNI add pairs of products of unsigned and signed bytes in 16 bits, where they saturate: maps are
    # wrong without a word. This makes weights unsigned, which takes CPUs with VNNI twice as long for the same maps.
    if not has_vnni():
        settings.add_session_config_entry("session.x64quantprecision", "1")
    settings.log_severity_level = 3  # errors only: warnings about unused initialisers help nobody
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    if options.layer_times is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(options.layer_times / "onnxruntime")
    path = bundle.file(f"{graph}.onnx")
    # ONNX Runtime reads weights by itself: only if the manifest vouches for that very file.
    if (bundle.folder / WEIGHTS_FILE).exists() and WEIGHTS_FILE not in bundle.manifest.files:
        raise BundleError(f"{bundle.folder} holds no {WEIGHTS_FILE} file that its manifest vouches for: {REBUILD}")

    # The optimiser would put biases back into convolutions, where they take the CUDA provider twice as long to add.
    untouched = ["ConvAddFusion"] if wanted == CUDA and bundle.manifest.precision == "fp16" else None

    def load(capture: bool) -> Any:
        # With a fallback it would print, not raise, and run on the CPU.
        providers = _providers(wanted, bundle, options, capture)
        return ort.InferenceSession(
            path, settings, providers=providers, enable_fallback=0, disabled_optimizers=untouched
        )

    # A graph that is launched as a whole has no layers to time.
    capture = wanted == CUDA and graph == DETECT and options.cuda_graphs and options.layer_times is None
    try:
        try:
            session = load(capture)
        except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
            if not capture or "graph capture" not in str(error):
                raise
            LOG.info("%s runs without CUDA graphs, as it was built for other versions: %s", path, REBUILD)
            session = load(False)
    except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
        if wanted != CPU and any(word in str(error) for word in ("CUDA", "cuda", "Provider", "TensorRT")):
            raise TargetError(_not_started(bundle, ort, wanted, options, one_line(error))) from error
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {path}: {one_line(error)}") from error
    if session.get_providers()[0] != wanted:
        raise TargetError(_not_started(bundle, ort, wanted, options, hints or "it was left out without a word"))
    return session


def captures_graphs(session: Any) -> bool:
    """Whether a session of ONNX Runtime captures CUDA graphs, so that it must be run as `OnnxRuntimeGraphs` does."""
    return str(session.get_provider_options().get(CUDA, {}).get("enable_cuda_graph", "0")) == "1"


def _providers(wanted: str, bundle: Bundle, options: SessionOptions, capture: bool) -> list[Any]:
    """The provider that was asked for, first, and those it needs for what is not its own, such as shapes."""
    gpu = {"device_id": str(options.device_index)}
    channels_last = wanted == CUDA and bundle.manifest.precision == "fp16"
    choices = {
        "use_tf32": "0",  # fp32 means fp32: TF32 keeps 10 bits of the mantissa
        # The default is to time all kernels there are for a convolution, anew for each group size and thread: it takes
        # long, and what it picked was 3.6 times as slow for a pair in half precision on an H200 as what this picks.
        "cudnn_conv_algo_search": "HEURISTIC",
        "prefer_nhwc": str(int(channels_last)),  # tensor cores want it, and float32 without TF32 has none
        "enable_cuda_graph": str(int(capture)),
    }
    cuda = (CUDA, gpu | choices)
    if wanted == CPU:
        return [CPU]
    if wanted == CUDA:
        return [cuda, CPU]
    size, largest = bundle.manifest.preprocessing.size, bundle.manifest.max_group
    groups = {"min": 1, "opt": min(USUAL_GROUP, largest), "max": largest}
    shapes = {f"trt_profile_{key}_shapes": f"images:{count}x3x{size}x{size}" for key, count in groups.items()}
    return [(TENSORRT, gpu | shapes), cuda, CPU]


def _preload_libraries(ort: ModuleType) -> str:
    """Load CUDA and cuDNN from NVIDIA's wheels, if there; what it says of failures, which it prints, in one line."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        getattr(ort, "preload_dlls", lambda: None)()
    return one_line(RuntimeError(said.getvalue())) if said.getvalue().strip() else ""


def _not_started(bundle: Bundle, ort: ModuleType, wanted: str, options: SessionOptions, why: str) -> str:
    return (
        f"{bundle.folder} cannot run on GPU {options.device_index}: {wanted} of ONNX Runtime {ort.__version__} did not "
        f"start ({why}): see `nvidia-smi` for the driver's CUDA, and {INSTALL_GPU}"
    )
