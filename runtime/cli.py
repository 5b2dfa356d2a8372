"""The command `gconet`: each subcommand lives with the folder it belongs to and is imported only when called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import NoReturn

from gconet.runtime.command_line import Parser, run
from gconet.runtime.errors import TargetError


@dataclass(frozen=True)
class Command:
    """Where a subcommand's `main(arguments) -> exit code` lives, the extra it needs, and its line in the help."""

    entry: str
    extra: str
    summary: str


COMMANDS: Mapping[str, Command] = {
    "build": Command("gconet.export.build_engine:main", "build", "make a verified bundle from a checkpoint"),
    "detect": Command("gconet.runtime.detect_command:main", "", "write a map for each photo of one or many groups"),
    "consensus": Command("gconet.runtime.consensus_command:main", "", "keep what a group shares, to find it again"),
    "sign": Command("gconet.runtime.sign_command:main", "signing", "sign a bundle, so that others know it for yours"),
    "cutout": Command("gconet.runtime.cutout_command:main", "pictures", "cut out of each photo what a group shares"),
    "thumbnail": Command("gconet.runtime.thumbnail_command:main", "pictures", "crop each photo to what a group shares"),
    "show": Command("gconet.runtime.show_command:main", "pictures", "draw sheets, a gallery, and groups in the plane"),
    "demo": Command("gconet.runtime.demo_command:main", "demo", "serve a page to try a bundle on photos"),
    "train": Command("gconet.train.train_command:main", "train", "train the network on groups with masks"),
    "ablate": Command("gconet.bench.ablation:main", "train", "train and score it with its modules switched on and off"),
    "convert": Command("gconet.train.convert:main", "build", "turn the authors' .pth into our .safetensors"),
    "evaluate": Command("gconet.bench.accuracy:main", "", "score a folder of maps against the truth: MAE, F, E, S"),
    "audit": Command("gconet.export.audit_command:main", "build", "show what half precision does to a checkpoint"),
    "sensitivity": Command("gconet.export.sensitivity:main", "build", "show what INT8 costs, layer by layer"),
    "parity": Command("gconet.bench.parity:main", "build", "compare a bundle's answers with the eager network's"),
    "bench": Command("gconet.bench.latency:main", "", "measure latency of bundles, interleaved"),
    "profile": Command("gconet.bench.profile_layers:main", "", "show where a bundle's time goes, layer by layer"),
    "export-triton": Command(
        "gconet.engines.export_triton_command:main", "", "write a bundle as models of Triton Inference Server"
    ),
    "build-capi": Command(
        "gconet.runtime.capi.build_command:main", "capi", "compile the runtime for C and C++: libgconet.so and gconet.h"
    ),
    "doctor": Command("gconet.engines.doctor:main", "", "show what is installed and which targets work here"),
}


def main(arguments: Sequence[str]) -> int:
    """Dispatch to a subcommand and return its exit code."""
    listing = "\n".join(f"  {name:<15}{command.summary}" for name, command in COMMANDS.items())
    parser = Parser(
        "gconet",
        "Find the object that a group of photos shares.",
        f"commands:\n{listing}\n\n`gconet COMMAND --help` explains each.\n\n"
        "Exit codes: 0 done; 1 a check failed; 2 bad input, told in one line; 70 a fault of gconet's own; 130 Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=_version(), help="tell the version and exit")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="what to do, see below")
    command = COMMANDS[parser.parse_args(arguments[:1]).command]
    module, _, function = command.entry.partition(":")
    try:
        entry = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gconet") or not command.extra:
            raise
        raise TargetError(
            f"`gconet {arguments[0]}` needs {error.name}: pip install 'gconet-deploy[{command.extra}]'"
        ) from error
    return int(entry(arguments[1:]))


def _version() -> str:
    try:
        return f"gconet-deploy {metadata.version('gconet-deploy')}"
    except metadata.PackageNotFoundError:  # scripts also run from a source tree that nobody installed
        return "gconet-deploy, not installed"


def run_script(command: str) -> NoReturn:
    """What a script that is run by its path does: the subcommand, with the same errors and help."""
    sys.exit(run(main, [command, *sys.argv[1:]]))


def entry_point() -> None:
    """The console script."""
    sys.exit(run(main))


if __name__ == "__main__":
    entry_point()
