"""From a typed ONNX graph to a TensorRT plan: one builder for TensorRT 10, TensorRT 11 and TensorRT for RTX.

Beside `detect.plan` the bundle gets `detect.layers.json`, the layers of the network with their types, the audit and the
choices of the build; `detect.engine.json`, the engine inspector's output, where a GPU can open the plan; and for plans
without weights `weights.onnx`, which they are refitted from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from gconet.engines.gpu_generations import why_not
from gconet.engines.plan_options import profiles_for
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_config import Job, configure, timing_cache
from gconet.engines.tensorrt_gpu import present_gpus
from gconet.engines.tensorrt_network import audit, check_audit, describe_layers
from gconet.engines.tensorrt_products import PRODUCTS, Product, load
from gconet.engines.tensorrt_progress import ProgressBar
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.manifest import WEIGHTS_NAME
from gconet.runtime.tensorrt_library import collecting_logger

if TYPE_CHECKING:
    import onnx

PLAN_NAME, LAYERS_NAME, INSPECTOR_NAME = "detect.plan", "detect.layers.json", "detect.engine.json"
# What the builder is known to complain of, and what mends it.
REMEDIES = (
    ("within workspace limit", "a kernel needs more scratch memory: raise --workspace, or leave it out"),
    ("FP32 GEMM is not supported", "leave out --compute-capability 7.5: RTX has no fp32 matrix product for it"),
)


def build_plan(job: Job, graph: onnx.ModelProto, folder: Path) -> list[Path]:
    """Compile a graph and write the plan and what belongs to it into `folder`.

    Parameters
    ----------
    job : what to build.
    graph : `images` (group, 3, S, S) → `maps` (group, 1, S, S), both float32; its inner types are the precision.
    folder : of the bundle.

    Returns
    -------
    The files written.

    Raises
    ------
    TargetError
        If the library, the GPU or the graph cannot have that precision, or the library refuses the graph.
    UsageError
        If the profiles or the timing cache are not usable.
    """
    _check(job)
    trt = load(job.product)
    stripped = job.spec.plan.strip_weights
    if stripped:
        import onnx.inliner

        graph = onnx.inliner.inline_local_functions(graph)  # refitting does not look for weights inside functions
    if job.spec.plan.affinity_plugin:
        from gconet.engines.affinity_plugin import call_plugin, register_plugin  # only here: it brings Triton

        register_plugin(trt, job.gpus[0].compute_capability)
        graph = call_plugin(graph)
    logger, errors = collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.SerializeToString()):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise TargetError(f"{job.product.name} {trt.__version__} refuses the graph: {reasons}")
    layers = describe_layers(trt, network)
    found = audit(layers)
    check_audit(found, job.spec.precision)

    config = configure(trt, job, builder, network.get_input(0))
    with timing_cache(trt, job, config, folder):
        plan = _compile(trt, job, builder, network, config, errors)
    files = [folder / PLAN_NAME, folder / LAYERS_NAME]
    files[0].write_bytes(plan)
    facts = {
        "profiles": profiles_for(job.spec.plan, job.spec.max_group),
        "weights_stripped": stripped,
        "audit": found.document(),
        "plan_options": job.spec.plan.as_built(),
        "compute_capabilities": job.compute_capabilities,
    }
    files[1].write_text(json.dumps({**facts, "layers": layers}, indent=1) + "\n", "utf-8")
    if stripped:
        files.append(folder / WEIGHTS_NAME)
        files[-1].write_bytes(graph.SerializeToString())
    elif inspected := _inspect(trt, job, plan, logger, errors):
        files.append(folder / INSPECTOR_NAME)
        files[-1].write_text(inspected, "utf-8")
    return files


def plan_facts(folder: Path) -> dict[str, Any]:
    """What the manifest tells of the plan in a bundle's folder, by `Manifest`'s names; empty where there is none."""
    path = folder / LAYERS_NAME
    if not path.exists():
        return {}
    facts = json.loads(path.read_text("utf-8"))
    del facts["layers"]
    lists = {key: tuple(facts[key]) for key in ("profiles", "compute_capabilities")}
    return {**facts, **lists, "profiles": tuple(map(tuple, facts["profiles"]))}


def not_for_this_gpu(target: str, spec: EngineSpec) -> str | None:
    """Why this machine's GPU cannot open a plan that others can; None if it can, or if there is none."""
    if target not in PRODUCTS:
        return None
    job = Job(PRODUCTS[target], spec, tuple(present_gpus()))
    if not job.gpus or job.opens_here:
        return None
    named = ", ".join(job.compute_capabilities or job.product.default_capabilities)
    here = job.gpus[0].compute_capability
    return (
        f"the plan is for {named}, this machine's GPU has {here}: build with --compute-capability {here} to run it here"
    )


def _check(job: Job) -> None:
    product, spec = job.product, job.spec
    if not (job.gpus or product.builds_without_gpu):
        raise TargetError(no_gpu(product))
    capabilities = spec.compute_capabilities
    if not product.builds_without_gpu:
        capabilities = (job.gpus[0].compute_capability,)
    for capability in capabilities:
        if problem := why_not(capability, product.target, spec.precision):
            raise TargetError(f"{product.name} {spec.precision} for compute capability {capability}: {problem}")
    if spec.plan.hardware == "ampere+" and capabilities[0].startswith("7."):
        raise UsageError("--hardware-compatible ampere+ needs an Ampere GPU or newer to build on: leave it out")
    if spec.plan.strip_weights and not job.gpus:
        raise TargetError(
            f"{product.name} lays out weights that are put in later on the GPU: build with --strip-weights on a "
            "machine that has one, or leave it out"
        )


def no_gpu(product: Product) -> str:
    """Why a product that tunes on the GPU cannot build here, and what can."""
    return (
        f"{product.name} builds on the GPU that will run the plan, and this machine has none (or no driver: see "
        "`nvidia-smi`): build there, or with --target tensorrt-rtx, which needs none"
    )


def _compile(trt: ModuleType, job: Job, builder: Any, network: Any, config: Any, errors: Iterable[str]) -> bytes:
    """Run the builder on a thread of its own: it takes minutes, and Ctrl-C reaches the main thread only."""
    with (
        tqdm(total=1.0, desc="build", disable=None, leave=False, bar_format="{l_bar}{bar}| {elapsed}") as bar,
        ThreadPoolExecutor(1) as thread,
    ):
        progress = ProgressBar(trt, bar)
        config.progress_monitor = progress.monitor
        try:
            plan = thread.submit(builder.build_serialized_network, network, config).result()
        except KeyboardInterrupt:
            progress.stop()  # and the thread is waited for
            raise
    if plan is None:
        said = "; ".join(errors) or "it gives no reason"
        mend = [f"{remedy}; " for complaint, remedy in REMEDIES if complaint in said]
        raise TargetError(f"{job.product.name} {trt.__version__} built no plan: {''.join(mend)}it says: {said}")
    return bytes(plan)


def _inspect(trt: ModuleType, job: Job, plan: bytes, logger: Any, errors: Iterable[str]) -> str | None:
    """The engine inspector's JSON; None where no GPU of this machine can open the plan."""
    if not job.opens_here:
        return None
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = job.spec.plan.version_compatible  # such plans carry their runtime
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise TargetError(f"{job.product.name} {trt.__version__} cannot open its own plan: {'; '.join(errors)}")
    information = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return str(information)
