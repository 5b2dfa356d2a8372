"""The affinity kernel compiled ahead of time to PTX, on any machine, for a launcher that is not Triton's."""

from __future__ import annotations

from dataclasses import dataclass

from gconet.engines.installed import import_or_explain
from gconet.runtime.errors import TargetError

TRITON = ("triton",)  # what to install
# PTX of 8.0 is compiled to the GPU's own code when a plan is loaded, on 8.0 and every later GPU. Triton multiplies by
# the same instruction on 8.x and 12.x; the newer ones of 9.0 and 10.0 are given up for one kernel that runs everywhere.
CAPABILITY = 80
PTX_VERSION = 80  # CUDA 12.0's: newer PTX, which Triton would write, older drivers refuse
MAX_SHARED_BYTES = 48 * 1024  # what a kernel may have without a call to raise its limit
MAX_PIXELS = 4096  # their logits stay in the registers of one program


@dataclass(frozen=True)
class CompiledKernel:
    """PTX and what a launch needs.

    Attributes
    ----------
    name : of the entry in `ptx`.
    ptx : parameters are query, key, pixel_bias, photos (int32), attention; one block of threads per photo.
    threads : per block.
    shared_bytes : dynamic shared memory per block.
    """

    name: str
    ptx: str
    threads: int
    shared_bytes: int


def compile_attention(channels: int, pixels: int, operand_type: str, bias_type: str) -> CompiledKernel:
    """Compile `attention_kernel` for contiguous tensors of any number of photos.

    Parameters
    ----------
    channels, pixels : of each photo's features.
    operand_type : of query and key: "fp32", "fp16" or "bf16".
    bias_type : of pixel_bias and attention, likewise.

    Raises
    ------
    TargetError
        If Triton is missing, interprets, or compiles to something unexpected, or a photo has too many pixels.
    """
    if pixels > MAX_PIXELS:
        raise TargetError(
            f"the affinity plugin takes up to {MAX_PIXELS} pixels per photo, not {pixels}: build without it, "
            "or with a --size of at most 1024"
        )
    triton = import_or_explain("triton", TRITON)
    compiler = import_or_explain("triton.compiler", TRITON)
    backends = import_or_explain("triton.backends.compiler", TRITON)
    from gconet.engines import affinity_kernels

    if affinity_kernels.INTERPRETED:
        raise TargetError("Triton interprets its kernels here instead of compiling them: unset TRITON_INTERPRET")
    kernel = affinity_kernels.attention_kernel
    tile = affinity_kernels.TILES[4 if operand_type == "fp32" else 2]
    contiguous = channels * pixels, pixels, 1
    types = {"query": operand_type, "key": operand_type, "pixel_bias": bias_type, "attention": bias_type}
    pointers = {name: f"*{kind}" for name, kind in types.items()}
    constants = affinity_kernels.constants(channels, pixels, contiguous, contiguous, tile)
    constants["tiles"] = triton.next_power_of_2(triton.cdiv(pixels, tile.query))
    signature = {**pointers, "photos": "i32", **dict.fromkeys(constants, "constexpr")}
    source = compiler.ASTSource(
        fn=kernel,
        signature={name: signature[name] for name in kernel.arg_names},
        constexprs=constants,
        # TensorRT's buffers start at multiples of 256 bytes.
        attrs={(index,): [["tt.divisibility", 16]] for index, name in enumerate(kernel.arg_names) if name in pointers},
    )
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # it holds paths of this machine
        compiled = triton.compile(
            source,
            target=backends.GPUTarget("cuda", CAPABILITY, 32),
            options={**affinity_kernels.LAUNCH, "ptx_version": PTX_VERSION},
        )
    about = compiled.metadata
    if about.shared > MAX_SHARED_BYTES or about.global_scratch_size or about.profile_scratch_size:
        raise TargetError(
            f"Triton {triton.__version__} compiles the affinity to need more memory than a plugin gets "
            f"({about.shared} bytes shared): pip install -c constraints.txt triton"
        )
    ptx = drop_parameters(compiled.asm["ptx"], about.name, keep=len(pointers) + 1)
    return CompiledKernel(about.name, ptx, about.num_warps * 32, about.shared)


def drop_parameters(ptx: str, name: str, keep: int) -> str:
    """Remove the unused parameters after the first `keep` of an entry.

    Triton adds two pointers to scratch memory to every kernel. A launcher that knows of the declared ones only passes
    too few values, and the driver would read past their end.

    Raises
    ------
    TargetError
        If the PTX is not as expected, or uses what is to be removed.
    """
    before, entry, rest = ptx.partition(f".entry {name}(")
    declared, close, body = rest.partition(")")
    parameters = [line.strip() for line in declared.split(",")]
    removed = [parameter.split()[-1] for parameter in parameters[keep:] if parameter]
    if not close or len(parameters) < keep or any(parameter in body for parameter in removed):
        raise TargetError(f"unexpected PTX of {name}: pip install -c constraints.txt triton")
    return before + entry + "\n\t" + ",\n\t".join(parameters[:keep]) + "\n" + close + body
