"""The affinity kernel compiled to PTX, without a GPU: what launchers other than Triton's need."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from gconet.engines import affinity_ptx
from gconet.engines.affinity_ptx import CompiledKernel, compile_attention, drop_parameters
from gconet.runtime.errors import TargetError

HEAD = ".version 8.0\n.visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u32 k_param_1"
ENTRY = f"{HEAD},\n\t.param .u64 k_param_2\n)\n"

COMPILE = """
import json, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gconet.engines.affinity_kernels import LAUNCH, TILES, constants, logits_kernel
from gconet.engines.affinity_ptx import compile_attention

kernels = {}
for operand, bias in (("fp16", "fp32"), ("bf16", "bf16"), ("fp32", "fp32")):
    kernel = compile_attention(512, 196, operand, bias)
    kernels[operand] = vars(kernel)
    for tool, architecture in ((triton.knobs.nvidia.ptxas, "sm_89"), (triton.knobs.nvidia.ptxas_blackwell, "sm_120")):
        with tempfile.TemporaryDirectory() as folder:
            (source := Path(folder, "kernel.ptx")).write_text(kernel.ptx)
            subprocess.run([tool.path, f"-arch={architecture}", source, "-o", source.with_suffix(".o")], check=True)
for capability, operand, size in ((80, "fp32", 4), (90, "bf16", 2), (120, "fp16", 2)):
    channels_last = 512 * 196, 1, 512
    fixed = constants(512, 196, channels_last, channels_last, TILES[size])
    types = {"query": f"*{operand}", "key": f"*{operand}", "pixel_bias": "*fp32", "photos": "i32", "logits": "*fp32"}
    source = ASTSource(logits_kernel, {**types, **dict.fromkeys(fixed, "constexpr")}, fixed)
    triton.compile(source, GPUTarget("cuda", capability, 32), dict(LAUNCH))
print(json.dumps(kernels))
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CompiledKernel]:
    """The kernel by the type of its operands, each accepted by NVIDIA's assembler for two later GPUs.

    Compiled in a process of its own: in this one Triton may interpret. So is PyTorch's kernel, for three GPUs.
    """
    pytest.importorskip("triton", reason="needs Triton, which is made for Linux on x86-64: pip install triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    result = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return {operand: CompiledKernel(**kernel) for operand, kernel in json.loads(result.stdout).items()}


@pytest.mark.parametrize("operand", ["fp32", "fp16", "bf16"])
def test_ptx_is_compiled_for_what_it_says(kernels: dict[str, CompiledKernel], operand: str) -> None:
    ptx = kernels[operand].ptx
    assert ".version 8.0\n.target sm_80\n" in ptx
    assert f".reqntid {kernels[operand].threads}\n" in ptx
    products = {"fp16": "mma.sync.aligned.m16n8k16.row.col.f32.f16", "bf16": ".row.col.f32.bf16", "fp32": "fma.rn.f32"}
    assert products[operand] in ptx
    assert "tf32" not in ptx
    assert kernels[operand].shared_bytes <= affinity_ptx.MAX_SHARED_BYTES


@pytest.mark.parametrize("operand", ["fp32", "fp16", "bf16"])
def test_ptx_takes_what_tensorrt_passes_and_no_more(kernels: dict[str, CompiledKernel], operand: str) -> None:
    """Query, key, bias; the number of photos; the attention."""
    _, _, rest = kernels[operand].ptx.partition(f".entry {kernels[operand].name}(")
    declared, _, body = rest.partition(")")
    assert [line.split()[1] for line in declared.split(",")] == [".u64", ".u64", ".u64", ".u32", ".u64"]
    assert all(f"[{line.split()[-1]}]" in body for line in declared.split(","))


def test_nothing_of_the_building_machine_is_in_the_ptx(kernels: dict[str, CompiledKernel]) -> None:
    assert not any(".py" in kernel.ptx or ".file" in kernel.ptx for kernel in kernels.values())


def test_unused_parameters_are_dropped() -> None:
    body = "{\n\tld.param.b64 %rd1, [k_param_0];\n\tld.param.b32 %r1, [k_param_1];\n}\n"
    dropped = drop_parameters(ENTRY + body, "k", keep=2)
    assert dropped == f"{HEAD}\n)\n{body}"
    assert drop_parameters(dropped, "k", keep=2) == dropped


@pytest.mark.parametrize(
    ("ptx", "name", "keep"),
    [
        (ENTRY + "{\n\tld.param.b64 %rd1, [k_param_2];\n}\n", "k", 2),
        (ENTRY + "{}\n", "other", 2),
        (ENTRY + "{}\n", "k", 4),
    ],
    ids=["used", "no entry", "too few"],
)
def test_unexpected_ptx_is_refused(ptx: str, name: str, keep: int) -> None:
    with pytest.raises(TargetError, match=r"unexpected PTX of .*: pip install -c constraints.txt triton"):
        drop_parameters(ptx, name, keep)


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles where there is a GPU")
def test_an_interpreting_triton_is_told() -> None:
    pytest.importorskip("triton", reason="needs Triton, which is made for Linux on x86-64: pip install triton")
    with pytest.raises(TargetError, match="unset TRITON_INTERPRET"):
        compile_attention(512, 196, "fp16", "fp16")


def test_photos_of_too_many_pixels_are_refused() -> None:
    with pytest.raises(TargetError, match="up to 4096 pixels per photo, not 4356: build without it"):
        compile_attention(512, 66 * 66, "fp16", "fp16")


def test_missing_triton_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TargetError, match="pip install triton"):
        compile_attention(512, 196, "fp16", "fp16")
