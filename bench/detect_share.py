"""How much of `gconet detect` is the engine's compute: `python bench/detect_share.py --bundle B PHOTOS…`.

Runs the command itself, in this process, and adds up the time that the engine's session takes. Reading, resizing and
writing go on beside it, and what they leave over is how far the engine had to wait.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import tempfile
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

from gconet.bench.environment import describe_bundle, describe_environment
from gconet.bench.output_files import check_output
from gconet.runtime import detect_command
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, run, write_json
from gconet.runtime.detector import Detector, load
from gconet.runtime.errors import TargetError
from gconet.runtime.photos import find_groups
from gconet.runtime.session import GraphSession, PartTensors, Tensors

EPILOG = """\
example:
  python bench/detect_share.py --bundle build/gconet.gconet photos/ --json share.json

`whole` is the time of the command in this process: loading the bundle and compiling its engine included, starting
Python and importing its libraries not."""


class Stopwatch:
    """A session that adds up the time of its calls; the first of each shape compiles, and counts as start-up."""

    def __init__(self, session: GraphSession) -> None:
        self._session, self._seen = session, set[object]()
        self.max_group, self.graphs = session.max_group, session.graphs
        self.compute_s, self.first_calls_s = 0.0, 0.0

    def infer(self, inputs: Tensors) -> Tensors:
        """As the session's."""
        return self.run("detect", inputs)

    def run(self, graph: str, inputs: PartTensors) -> PartTensors:
        """As the session's."""
        key = graph, *(array.shape for array in inputs.values())
        start = time.perf_counter()
        outputs = self._session.run(graph, inputs)
        taken = time.perf_counter() - start
        if key in self._seen:
            self.compute_s += taken
        else:
            self.first_calls_s += taken
            self._seen.add(key)
        return outputs


def main(arguments: Sequence[str]) -> int:
    """Run the command and print the share; errors as raised by it."""
    parser = Parser("detect_share.py", "How much of `gconet detect` is the engine's compute.", EPILOG)
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos, or folders of photos")
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures")
    options = parser.parse_args(arguments)
    groups = find_groups(options.photos)
    check_output(options.json)
    watches: list[Stopwatch] = []

    def watched_load(*details: Any, **more: Any) -> Detector:
        detector = load(*details, **more)  # what the command gives
        if not isinstance(detector.session, GraphSession):
            raise TargetError(
                f"{options.bundle} has one graph only: build for openvino or onnxruntime, with this version"
            )
        watches.append(Stopwatch(detector.session))
        return Detector(detector.bundle, watches[0])

    with tempfile.TemporaryDirectory() as maps, mock.patch.object(detect_command, "load", watched_load):
        start = time.perf_counter()
        detect_command.main([*options.photos, "--bundle", options.bundle, "--out", maps])
        whole = time.perf_counter() - start
    watch = watches[0]
    figures = {
        "photos": sum(len(group.photos) for group in groups),
        "groups": len(groups),
        "whole_s": whole,
        "compute_s": watch.compute_s,
        "first_calls_s": watch.first_calls_s,
        "share": watch.compute_s / whole,
    }
    print(f"{figures['photos']} photos of {len(groups)} groups: {whole:.1f} s, of it {figures['share']:.0%} compute "
          f"({watch.compute_s:.1f} s), and {watch.first_calls_s:.1f} s first calls, which compile")  # fmt: skip
    if options.json:
        bundle = describe_bundle(open_bundle(options.bundle))
        write_json(options.json, {**figures, "bundle": bundle, "environment": describe_environment()})
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run(main))
