"""TensorRT for RTX: a `.plan` for NVIDIA RTX GPUs, compiled ahead of time on a machine with or without a GPU.

Kernels are compiled just in time on the user's GPU, so one plan serves several compute capabilities.
"""

from __future__ import annotations

from gconet.engines.tensorrt_products import TENSORRT_RTX
from gconet.engines.tensorrt_target import TensorRtTarget
from gconet.runtime.tensorrt_library import RTX_BINDINGS, RTX_LIBRARIES


class TensorRtRtxTarget(TensorRtTarget):
    """Builds TensorRT for RTX plans; see `Target`."""

    product = TENSORRT_RTX
    packages = (RTX_BINDINGS, RTX_LIBRARIES)
