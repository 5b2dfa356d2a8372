"""`gconet consensus`: keep what a group of photos shares, to find it in other photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gconet.runtime.command_line import EXIT_DONE, Parser, add_signature_argument, positive, warn
from gconet.runtime.consensus_file import save_consensus
from gconet.runtime.detector import load
from gconet.runtime.errors import UsageError
from gconet.runtime.paths import kind_of
from gconet.runtime.photos import find_groups, readable_groups

DESCRIPTION = "Keep what a group of photos shares in a small file, to find it in other photos later."
EPILOG = """\
examples:
  gconet consensus chairs/ --out chair.safetensors
  gconet detect new.jpg --consensus chair.safetensors        is there such a chair in new.jpg, and where?

The file holds a vector, the names of the photos, and which network made it: other bundles of the same checkpoint and
input size take it too. From Python, `gconet.runtime.ConsensusBuilder` adds photos one by one."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet consensus`; errors as raised by `find_groups`, `load`, `Detector.consensus` and `save_consensus`."""
    parser = Parser("gconet consensus", DESCRIPTION, EPILOG)
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos of one group, or a folder of them")
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="file to write, such as chair.safetensors")
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists already")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave photos out that cannot be read")
    add_signature_argument(parser)
    options = parser.parse_args(arguments)

    if kind_of(options.out) is not None and not options.overwrite:
        raise UsageError(f"{options.out} exists already: choose another --out, or pass --overwrite")
    groups = find_groups(options.photos)
    if len(groups) > 1:
        raise UsageError(
            f"a consensus is of one group, these are {len(groups)}: name the photos, or one folder of them"
        )
    if options.skip_unreadable:
        groups = readable_groups(groups, warn)
    photos = groups[0].photos
    detector = load(options.bundle, options.device, options.threads, require_signature=options.require_signature)
    save_consensus(options.out, detector.bundle, detector.consensus(photos), photos)
    print(f"consensus of {len(photos)} photo{'' if len(photos) == 1 else 's'} in {options.out}")
    return EXIT_DONE
