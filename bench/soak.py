"""Many threads on one detector for a long time: is an answer ever wrong, does memory grow? `python bench/soak.py`.

Every answer is compared with what one thread got before the others started. Growth is judged after a warm-up, in which
engines compile, threads get their arenas, and caches fill.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from tqdm import tqdm

from gconet.bench.environment import describe_bundle, describe_environment
from gconet.bench.memory_growth import growth, resident_mb
from gconet.bench.output_files import check_output
from gconet.bench.photo_groups import find_photos
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, positive, positive_float, run, write_json
from gconet.runtime.detector import Detector, load
from gconet.runtime.errors import UsageError
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import GraphSession

EPILOG = """\
examples:
  python bench/soak.py --bundle build/gconet.gconet --minutes 30 --threads 8 --json soak.json

Growth is the median resident memory of the last tenth of the samples after the warm-up over that of their first tenth;
the slope is a line through all of them (Theil and Sen's).

Exit codes: 0 all answers right, growth within the limit; 1 not; 2 bad input."""
SIZES = (1, 2, 3, 5)  # photos in a group; few, so that engines hold all of them compiled
GROUPS_OF_A_SIZE = 3

Answer = list[FloatArray]


@dataclass(frozen=True)
class Question:
    """Something to ask a detector, and what it said when nobody else asked."""

    kind: str
    size: int
    ask: Callable[[], Answer]
    expected: Answer


@dataclass
class Tally:
    """What came of the questions so far; threads hold the lock to write."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: dict[str, int] = field(default_factory=dict)
    equal: int = 0
    wrong: int = 0
    largest: float = 0.0
    failure: BaseException | None = None

    def note(self, question: Question, difference: float, tolerance: float) -> None:
        """Count one answer and how far it was off."""
        with self.lock:
            name = f"{question.kind} {question.size}"
            self.asked[name] = self.asked.get(name, 0) + 1
            self.equal += difference == 0
            self.wrong += not difference <= tolerance  # a NaN is wrong, too
            self.largest = max(self.largest, difference)

    @property
    def total(self) -> int:
        """Answers so far."""
        return sum(self.asked.values())


@dataclass(frozen=True)
class SoakRequest:
    """How long, by how many, and what counts as wrong; `every` and `minutes` in seconds and minutes."""

    minutes: float
    warm_up_minutes: float
    threads: int
    tolerance: float
    every: float
    seed: int


def main(arguments: Sequence[str]) -> int:
    """Run the soak; exit code 1 on a wrong answer or growth beyond the limit."""
    parser = Parser("python bench/soak.py", "Ask one detector from many threads for a long time.", EPILOG)
    parser.add_argument("--bundle", type=Path, default=Path("build/gconet.gconet"), help="(default: %(default)s)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of photos (default: the example photos)")
    parser.add_argument("--minutes", type=positive_float, default=30.0, help="in all (default: %(default)s)")
    parser.add_argument("--warm-up-minutes", type=positive_float, help="of these, before growth is judged (default: a "
                        "fifth)")  # fmt: skip
    parser.add_argument("--threads", type=positive, default=8, help="that ask (default: %(default)s)")
    parser.add_argument("--engine-threads", type=positive, help="CPU threads of the engine (default: its choice)")
    parser.add_argument("--tolerance", type=float, default=0.0, help="largest difference from the answer of one thread "
                        "(default: %(default)s, equal to the bit)")  # fmt: skip
    parser.add_argument("--limit", type=positive_float, default=1.0, help="growth in per cent that fails (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--every", type=positive_float, default=5.0, help="seconds between samples of memory (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=positive, default=1, help="of the order of questions (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write counts, samples and environment to this file")
    options = parser.parse_args(arguments)
    warm_up = options.minutes / 5 if options.warm_up_minutes is None else options.warm_up_minutes
    if not warm_up < options.minutes:
        raise UsageError("--warm-up-minutes must be fewer than --minutes")
    if 60 * (options.minutes - warm_up) < 2 * options.every:
        raise UsageError("too short to judge memory: more --minutes, or fewer seconds --every")
    if not 0 <= options.tolerance < float("inf"):
        raise UsageError(f"--tolerance {options.tolerance}: a difference is 0 or more")
    check_output(options.json)
    request = SoakRequest(options.minutes, warm_up, options.threads, options.tolerance, options.every, options.seed)

    detector = load(options.bundle, threads=options.engine_threads)
    questions = make_questions(detector, find_photos(options.images), options.seed)
    tally, memory = soak(questions, request)
    judged = [mb for second, mb in memory if second >= 60 * warm_up]
    manifest = detector.bundle.manifest
    document = {
        "engine": {"target": manifest.target, "precision": manifest.precision, "version": manifest.target_version},
        "bundle": describe_bundle(detector.bundle),
        "engine_threads": options.engine_threads,
        "minutes": options.minutes,
        "warm_up_minutes": warm_up,
        "threads": options.threads,
        "tolerance": options.tolerance,
        "answers": tally.total,
        "equal_to_the_bit": tally.equal,
        "wrong": tally.wrong,
        "largest_difference": tally.largest,
        "asked": dict(sorted(tally.asked.items())),
        **growth(judged, options.every),
        "rss_mb": [[round(second), round(mb, 1)] for second, mb in memory],
        "environment": describe_environment(),
    }
    print(f"{tally.total} answers of {options.threads} threads in {options.minutes:g} minutes: {tally.wrong} wrong, "
          f"{tally.equal} equal to the bit, largest difference {tally.largest:.1e}")  # fmt: skip
    print(f"resident memory {document['first_mb']:.1f} MB after the warm-up, {document['last_mb']:.1f} MB at the end: "
          f"{document['growth_percent']:+.2f} %, {document['slope_mb_per_hour']:+.1f} MB an hour")  # fmt: skip
    if options.json:
        write_json(options.json, document)
    return EXIT_CHECK_FAILED if tally.wrong or document["growth_percent"] >= options.limit else EXIT_DONE


def make_questions(detector: Detector, photos: Sequence[Path], seed: int) -> list[Question]:
    """Groups of several sizes to detect; of bundles that can, also consensus and segmentation. One thread answers.

    Photos are given as paths, so that reading and resizing them is part of it.
    """
    draw = random.Random(seed)
    questions = []
    sizes = [size for size in SIZES if size <= min(detector.bundle.manifest.max_group, len(photos))]
    if not sizes:
        raise UsageError("a soak needs photos")

    def add(kind: str, size: int, ask: Callable[[], Answer]) -> None:
        questions.append(Question(kind, size, ask, ask()))

    for size in sizes:
        for _ in range(GROUPS_OF_A_SIZE):
            group = draw.sample(list(photos), size)
            add("detect", size, partial(detector.detect, group))
    if isinstance(detector.session, GraphSession) and {"consensus", "segment"} <= detector.session.graphs:
        group, room = draw.sample(list(photos), sizes[-1]), photos[0]
        vector = detector.consensus(group)
        add("consensus", len(group), lambda: [detector.consensus(group)])
        add("segment", 1, lambda: detector.segment([room], vector))
    return questions


def soak(questions: Sequence[Question], request: SoakRequest) -> tuple[Tally, list[tuple[float, float]]]:
    """Ask from many threads until the time is over.

    Returns
    -------
    What came of it, and the resident memory in MB by seconds since the start.

    Raises
    ------
    GconetError
        Of the first question that fails.
    """
    tally, over = Tally(), threading.Event()
    threads = [
        threading.Thread(target=_ask, args=(questions, random.Random(f"{request.seed} {number}"), tally, over, request))
        for number in range(request.threads)
    ]
    memory: list[tuple[float, float]] = []
    start = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        with tqdm(total=round(60 * request.minutes), unit="s", desc="soak", disable=None, leave=False) as bar:
            while (elapsed := time.monotonic() - start) < 60 * request.minutes and not over.wait(request.every):
                memory.append((time.monotonic() - start, resident_mb()))
                bar.update(round(time.monotonic() - start - elapsed))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if tally.failure is not None:
        raise tally.failure
    return tally, memory


def _ask(
    questions: Sequence[Question], draw: random.Random, tally: Tally, over: threading.Event, request: SoakRequest
) -> None:
    while not over.is_set():
        question = draw.choice(questions)
        try:
            difference = largest_difference(question.ask(), question.expected)
        except BaseException as error:
            tally.failure = error
            over.set()
            return
        tally.note(question, difference, request.tolerance)


def largest_difference(answer: Answer, expected: Answer) -> float:
    """Between two answers; infinite if they are not of the same shapes, NaN if there is one in either."""
    if [array.shape for array in answer] != [array.shape for array in expected]:
        return float("inf")
    # numpy's maximum: Python's passes over a NaN that does not come first.
    return float(np.max([np.abs(one - other).max() for one, other in zip(answer, expected, strict=True)]))


if __name__ == "__main__":
    sys.exit(run(main))
