"""`gconet export-triton`: a bundle as models of Triton Inference Server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gconet.engines.triton_config import ServingOptions
from gconet.engines.triton_repository import write_repository
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, add_signature_argument, positive, warn
from gconet.runtime.session import DEVICES

DESCRIPTION = "Write a bundle as models of a repository for Triton Inference Server."
EPILOG = """\
examples:
  gconet export-triton --bundle build/gconet.gconet --repository models
  tritonserver --model-repository=models

Each graph becomes a model: NAME_detect (images -> maps), NAME_consensus (images -> consensus, attention) and
NAME_segment (images, consensus -> maps). A TensorRT plan has only the first. A request is one group of any size;
requests are never joined. The network's input is made by the client: see the parameter `preprocessing` of each model,
and gconet.runtime.preprocess. Targets onnxruntime, openvino and tensorrt run on Triton's backends of these names."""

# OpenVINO computes in bf16 wherever the CPU can, unless it is told otherwise, and the backend passes no such word on.
FP32_MAY_BE_BF16 = (
    "Triton's openvino backend cannot ask for fp32: on CPUs with bf16 units these models compute in bf16, whose parity "
    "this bundle was not judged by; for fp32 everywhere, build with `gconet build --target onnxruntime`"
)


def main(arguments: Sequence[str]) -> int:
    """Run `gconet export-triton`; errors as raised by `open_bundle` and `write_repository`."""
    parser = Parser("gconet export-triton", DESCRIPTION, EPILOG)
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to serve (default: %(default)s)")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="model repository to write to")
    parser.add_argument("--name", default="gconet", help="what the models' names start with (default: %(default)s)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto is the target's own (default: auto)"
    )
    parser.add_argument("--instances", type=positive, default=1, metavar="N", help="requests at a time (default: 1)")
    parser.add_argument("--threads", type=positive, help="CPU threads of an instance (default: the engine's choice)")
    parser.add_argument("--overwrite", action="store_true", help="replace models of these names")
    add_signature_argument(parser)
    options = parser.parse_args(arguments)

    bundle = open_bundle(options.bundle, options.require_signature)
    manifest = bundle.manifest
    usual_device = DEVICES.get(manifest.target, ("cpu",))[0]
    device = usual_device if options.device == "auto" else options.device
    serving = ServingOptions(options.name, device, options.instances, options.threads)
    names = write_repository(bundle, options.repository, serving, options.overwrite)
    if (manifest.target, manifest.precision) == ("openvino", "fp32"):
        warn(FP32_MAY_BE_BF16)
    print(f"{manifest.target} {manifest.precision} in {options.repository}: {', '.join(names)}")
    print(f"start: tritonserver --model-repository={options.repository}{_plan_options(bundle)}")
    return EXIT_DONE


def _plan_options(bundle: Bundle) -> str:
    """What a server needs to know of a plan: without it, only the TensorRT that built it opens it."""
    manifest = bundle.manifest
    if manifest.target != "tensorrt":
        return ""
    if manifest.plan_options.get("version_compatible"):
        return " --backend-config=tensorrt,version-compatible=true"
    return f" (of a Triton with TensorRT {manifest.target_version})"
