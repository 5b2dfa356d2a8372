"""The forms in which a group can be asked for: do they agree, and what do they cost? `python bench/group_forms.py`.

In one call, in blocks, against a kept consensus, photo by photo: each form of the answer beside that of one call.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from gconet.bench.environment import describe_bundle, describe_environment
from gconet.bench.output_files import check_output
from gconet.bench.photo_groups import extend_photos, read_group
from gconet.bench.timing import answer_once, time_interleaved
from gconet.runtime import ConsensusBuilder
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run, write_json
from gconet.runtime.detector import Detector, load
from gconet.runtime.encoded_group import block_size, blocks, graph_session
from gconet.runtime.large_groups import stream_maps
from gconet.runtime.preprocess import Photo, to_input
from gconet.runtime.session import GraphSession

EPILOG = """\
examples:
  python bench/group_forms.py --bundle build/gconet.gconet --json forms.json

`blocks` is the largest difference of maps computed in blocks from those of one call; `builder` that of the consensus of
photos added one by one, relative to its largest number; `segment` that of maps against the group's own consensus. The
cost is compute only, interleaved, medians: one photo against a kept consensus beside a pair that is detected."""


def main(arguments: Sequence[str]) -> int:
    """Compare and time the forms of a bundle; errors as raised by `load`."""
    parser = Parser("group_forms.py", "Agreement and cost of the forms in which a group can be asked for.", EPILOG)
    parser.add_argument("--bundle", type=Path, default=Path("build/gconet.gconet"), help="(default: %(default)s)")
    parser.add_argument(
        "--sizes", type=positive, nargs="+", default=[1, 2, 7, 33, 64], help="photos of a group (default: 1 2 7 33 64)"
    )
    parser.add_argument("--rounds", type=positive, default=20, help="samples of each time (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures")
    options = parser.parse_args(arguments)
    detector = load(options.bundle)
    check_output(options.json)
    photos = read_group(None)

    rows = [
        _agreement(detector, extend_photos(photos, size))
        for size in tqdm(sorted(options.sizes), desc="agreement", unit="group", disable=None, leave=False)
    ]
    print("| photos | blocks | builder | segment |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['photos']} | {row['blocks']:.1e} | {row['builder']:.1e} | {row['segment']:.1e} |")
    cost = _cost(detector, photos[:2], options.rounds)
    print(f"segment one photo {cost['segment_one_ms']:.1f} ms, detect a pair {cost['detect_pair_ms']:.1f} ms: "
          f"{cost['ratio']:.0%}")  # fmt: skip
    if options.json:
        manifest = detector.bundle.manifest
        engine = {"target": manifest.target, "precision": manifest.precision, "version": manifest.target_version}
        facts = {"bundle": describe_bundle(detector.bundle), "environment": describe_environment()}
        write_json(options.json, {"engine": engine, "agreement": rows, "cost": cost, **facts})
    return EXIT_DONE


def _agreement(detector: Detector, photos: Sequence[Photo]) -> dict[str, Any]:
    session, manifest = _graphs(detector), detector.bundle.manifest
    images = to_input(photos, manifest.preprocessing)
    whole = session.infer({"images": images})["maps"][:, 0]
    consensus = session.run("consensus", {"images": images})["consensus"].reshape(-1)

    inputs = (images[start:stop] for start, stop in blocks(len(images), block_size(manifest.preprocessing.size)))
    in_blocks = np.stack(list(stream_maps(session, manifest, inputs, len(images))))
    builder = ConsensusBuilder(detector)
    for photo in photos:
        builder.add(photo)
    segmented = session.run("segment", {"images": images, "consensus": consensus.reshape(1, -1, 1, 1)})["maps"][:, 0]
    return {
        "photos": len(photos),
        "blocks": _largest(in_blocks - whole),
        "builder": _largest(builder.consensus() - consensus) / _largest(consensus),
        "segment": _largest(segmented - whole),
    }


def _cost(detector: Detector, pair: Sequence[Photo], rounds: int) -> dict[str, Any]:
    session = _graphs(detector)
    images = to_input(pair, detector.bundle.manifest.preprocessing)
    consensus = session.run("consensus", {"images": images})["consensus"]
    contenders = {
        "detect_pair": lambda: session.infer({"images": images}),
        "segment_one": lambda: session.run("segment", {"images": images[:1], "consensus": consensus}),
    }
    with tqdm(total=rounds, desc="cost", unit="round", disable=None, leave=False) as bar:
        timings = time_interleaved(contenders, rounds, bar.update, before=partial(answer_once, contenders))
    medians = {f"{name}_ms": timing.percentile(50) for name, timing in timings.items()}
    samples = {name: list(timing.samples_ms) for name, timing in timings.items()}
    return {**medians, "ratio": medians["segment_one_ms"] / medians["detect_pair_ms"], "samples_ms": samples}


def _graphs(detector: Detector) -> GraphSession:
    return graph_session(detector.session, "segment")


def _largest(values: np.ndarray[Any, Any]) -> float:
    return float(np.abs(values).max())


if __name__ == "__main__":
    sys.exit(run(main))
