"""`gconet detect`: one 8-bit PNG map per photo, at the photo's own size, mirroring the tree of groups."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, add_signature_argument, positive, warn
from gconet.runtime.consensus_file import load_consensus
from gconet.runtime.detector import load
from gconet.runtime.group_sizes import check_size, note_size
from gconet.runtime.large_group_bar import LargeGroupBar
from gconet.runtime.map_files import counted, plan_maps, telling_what_is_done, write_maps
from gconet.runtime.photos import Group, find_groups, readable_groups
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.ray_cluster import ray_address
from gconet.runtime.ray_run import Plan, RayOptions, detect_on_ray

DESCRIPTION = "Find the object a group of photos shares and write one map per photo: white is the shared object."
EPILOG = """\
examples:
  gconet detect a.jpg b.jpg c.jpg --out maps       three photos, one group
  gconet detect photos/ --out maps                 a folder is a group; a folder of folders is many, mirrored in maps/
  gconet detect photos/ --skip-existing            go on where an earlier run stopped
  gconet detect new/ --consensus chair.safetensors find what `gconet consensus` kept, photo by photo
  gconet detect photos/ --ray --threads 4          many groups at once: a worker for every 4 cores of this machine
  gconet detect photos/ --ray head:6379            and of all the machines of a Ray cluster

Maps are 8-bit grey PNGs of the photo's size (upright, EXIF orientation applied). A group's maps are written when all of
them are computed, so a bad photo leaves nothing of its group behind; groups before it are kept. A group may have any
number of photos: large ones are done in blocks, with temporary files of up to 5 MB a photo where TMPDIR says.

With --ray a bad photo fails its own group only; failed groups are named at the end, with exit code 2. A worker that
dies is replaced and its group done again. On a cluster, photos, bundle and --out lie on storage that all machines
share, and gconet-deploy[ray] is installed on each. OUT/run.json tells what became of every group."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet detect`; errors as raised by `find_groups`, `plan_maps`, `load` and `Detector.detect`."""
    parser = Parser("gconet detect", DESCRIPTION, EPILOG)
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos, or folders of photos")
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("maps"), help="output folder (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    parser.add_argument("--overwrite", action="store_true", help="replace maps that exist already; with "
                        "--skip-existing only those of groups that are incomplete")  # fmt: skip
    parser.add_argument("--skip-existing", action="store_true", help="leave out groups whose maps all exist already")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave photos out that cannot be read, and name "
                        "them; else the first one ends the run")  # fmt: skip
    parser.add_argument("--consensus", type=Path, metavar="F", help="find what this file keeps in each photo by "
                        "itself, instead of what a group shares; see gconet consensus")  # fmt: skip
    parser.add_argument("--ray", type=ray_address, nargs="?", const="", metavar="ADDRESS", help="share the groups "
                        "among workers of Ray: at HOST:PORT or ray://HOST:PORT, auto to look for it, local to start it "
                        "here; without an address at RAY_ADDRESS, or else here")  # fmt: skip
    parser.add_argument("--workers", type=positive, metavar="N", help="with --ray: workers of --threads threads each "
                        "(default: what fits, with up to 4 threads, or one for each GPU)")  # fmt: skip
    add_signature_argument(parser)
    options = parser.parse_args(arguments)
    if options.workers is not None and options.ray is None:
        parser.error("--workers is for --ray")

    groups = find_groups(options.photos)
    if options.skip_unreadable:
        groups = readable_groups(groups, warn)
    plan = plan_maps(groups, options.out, options.overwrite, options.skip_existing)
    if options.ray is None:
        _detect_here(groups, plan, options)
    else:
        _detect_on_ray(groups, plan, options)

    skipped = len(groups) - len(plan)
    print(f"{counted(sum(len(paths) for _, paths in plan), 'map')} of {counted(len(plan), 'group')} in {options.out}"
          + (f"; {counted(skipped, 'group')} skipped, with maps already" if skipped else ""))  # fmt: skip
    return EXIT_DONE


def _detect_here(groups: Sequence[Group], plan: Plan, options: argparse.Namespace) -> None:
    detector = load(options.bundle, options.device, options.threads, require_signature=options.require_signature)
    skipped = len(groups) - len(plan)
    if options.consensus is None:
        for group, _ in plan:
            check_size(detector, group)
        with LargeGroupBar() as bar:
            _write_all(detector.stream_groups((group.photos for group, _ in plan), bar.update), plan, skipped)
    else:
        vector = load_consensus(options.consensus, detector.bundle).vector
        _write_all((detector.segment_stream(group.photos, vector) for group, _ in plan), plan, skipped)


def _detect_on_ray(groups: Sequence[Group], plan: Plan, options: argparse.Namespace) -> None:
    bundle = open_bundle(options.bundle, options.require_signature)
    vector = None if options.consensus is None else load_consensus(options.consensus, bundle).vector
    if vector is None:
        for group, _ in plan:
            note_size(bundle, len(group.photos))
    where = RayOptions(options.ray, options.workers, options.threads, options.device)
    detect_on_ray(groups, plan, options.out, bundle, where, vector)


def _write_all(maps: Iterator[Iterator[FloatArray]], plan: Plan, done: int) -> None:
    """Write the maps of every group; an error says how many groups are complete, those `done` before included."""
    with tqdm(total=sum(len(paths) for _, paths in plan), unit="photo", disable=None) as progress:
        for _, paths in plan:
            with telling_what_is_done(done):
                write_maps(paths, next(maps))
            done += 1
            progress.update(len(paths))
