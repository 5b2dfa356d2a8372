"""One method on a group of one size, in a process of its own; prints JSON. `group_sizes.py` is what people run."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

from gconet.bench.peak_memory import peak_rss_bytes
from gconet.bench.peers import PEERS, PeerRequest
from gconet.bench.photo_groups import read_group, variant
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run
from gconet.runtime.detector import load
from gconet.runtime.preprocess import FloatArray, Photo, resize_map, to_input

WARM_UP_GROUP = 17  # compiles all that a group done in blocks needs
REPEATS, BUDGET_S = 3, 100.0  # as many as fit


class PhotoRow(Sequence[Photo]):
    """Any number of photos, mirrored and turned where they come again, each made when it is asked for."""

    def __init__(self, photos: Sequence[Photo], count: int) -> None:
        self._photos, self._count = photos, count

    def __len__(self) -> int:
        """How many they are."""
        return self._count

    def __getitem__(self, index: int) -> Photo:  # type: ignore[override] # slices are not needed
        """The photo at `index`."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        return variant(self._photos[index % len(self._photos)], index // len(self._photos))


def main(arguments: Sequence[str]) -> int:
    """Print seconds for the group, photos in and maps of their sizes out, and the peak memory of the process."""
    parser = Parser("group_size_run.py", "Time one method on a group, and print its peak memory, as JSON.")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle to run")
    parser.add_argument("--group", type=positive, required=True, help="photos in the group")
    parser.add_argument("--peer", choices=PEERS, help="run the bundle's network in this peer instead")
    parser.add_argument("--checkpoint", type=Path, help="what the bundle was built from, for a peer")
    parser.add_argument("--graphs", type=Path, default=Path(), help="folder of exported networks, for a peer")
    parser.add_argument("--memory-mb", type=positive, help="fail with more data than this")
    options = parser.parse_args(arguments)
    if options.memory_mb:
        resource.setrlimit(resource.RLIMIT_DATA, (options.memory_mb * 10**6,) * 2)
    photos = read_group(None)
    maps: Callable[[PhotoRow], Iterator[FloatArray]]
    if options.peer:
        # The bundle's engine is not loaded: its memory would count as the peer's.
        manifest = open_bundle(options.bundle).manifest
        preprocessing = manifest.preprocessing
        infer = PEERS[options.peer].load(PeerRequest(manifest, options.checkpoint, None, options.graphs))

        def in_one_piece(group: PhotoRow) -> Iterator[FloatArray]:
            found = infer(to_input(iter(group), preprocessing, len(group)))
            return (resize_map(saliency[0], *photo.shape[:2]) for saliency, photo in zip(found, group, strict=True))

        maps, warm_up = in_one_piece, options.group
    else:
        detector = load(options.bundle)
        maps = detector.stream
        warm_up = WARM_UP_GROUP if detector.streams(options.group) else options.group
    print(json.dumps(_measure(maps, photos, options.group, warm_up)))
    return EXIT_DONE


def _measure(
    maps: Callable[[PhotoRow], Iterator[FloatArray]], photos: Sequence[Photo], group: int, warm_up: int
) -> dict[str, object]:
    def seconds(count: int) -> float:
        start = time.perf_counter()
        for _ in maps(PhotoRow(photos, count)):
            pass
        return time.perf_counter() - start

    first = seconds(warm_up)
    # A long first run is itself the measurement: what it does once is lost in it.
    samples = [first] if warm_up == group and first > BUDGET_S else []
    while len(samples) < REPEATS and (not samples or sum(samples) + samples[-1] < BUDGET_S):
        samples.append(seconds(group))
    return {"seconds": statistics.median(samples), "samples": samples, "peak_rss_mb": peak_rss_bytes() / 1e6}


if __name__ == "__main__":
    sys.exit(run(main))
