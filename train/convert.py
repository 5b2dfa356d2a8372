"""`gconet convert`: the authors' `.pth` to our self-describing safetensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from gconet.runtime.command_line import EXIT_DONE, Parser
from gconet.runtime.errors import UsageError
from gconet.runtime.paths import kind_of
from gconet.train.checkpoint import inference_only, read_checkpoint, save_checkpoint

EPILOG = """\
example:
  gconet convert final_gconet.pth gconet.safetensors
  gconet convert runs/paper/best.safetensors gconet.safetensors --inference --half     a trained one, to pass on

The original is read as plain tensors (weights_only), never unpickled into code. Parameters the network does not use are
left out and listed."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet convert`; errors as raised by `read_checkpoint` and `save_checkpoint`."""
    parser = Parser(
        "gconet convert", "Turn the authors' checkpoint, or one of our own, into our safetensors format.", EPILOG
    )
    parser.add_argument("source", type=Path, help="official .pth, or .safetensors of ours")
    parser.add_argument("destination", type=Path, help=".safetensors to write")
    parser.add_argument("--provenance", help="where the weights come from, kept in the file (default: the file's name)")
    parser.add_argument("--inference", action="store_true", help="leave out the heads that only training uses")
    parser.add_argument("--half", action="store_true", help="store fp16, half the size")
    parser.add_argument("--overwrite", action="store_true", help="replace the destination if it exists")
    options = parser.parse_args(arguments)

    if options.destination.suffix != ".safetensors":
        raise UsageError(f"the destination {options.destination} must end in .safetensors")
    if kind_of(options.destination) is not None and not options.overwrite:
        raise UsageError(f"{options.destination} exists already: choose another name or pass --overwrite")
    checkpoint = read_checkpoint(options.source)
    if options.provenance:
        info = dataclasses.replace(checkpoint.info, provenance=options.provenance)
        checkpoint = dataclasses.replace(checkpoint, info=info)
    if options.inference:
        checkpoint = inference_only(checkpoint)
    save_checkpoint(checkpoint, options.destination, torch.float16 if options.half else torch.float32)

    parameters = sum(tensor.numel() for tensor in checkpoint.state.values())
    print(f"{options.destination}: {len(checkpoint.state)} tensors, {parameters:,} parameters")
    if checkpoint.dropped:
        print(f"left out, unused by the network: {', '.join(checkpoint.dropped)}")
    return EXIT_DONE
