"""Peak memory of one engine, in a process of its own: `python bench/peak_memory.py --bundle B --group 2`.

Prints the peak resident set size in MB, the interpreter and the engine's libraries included. With --eager, that of
eager PyTorch running the bundle's network.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import subprocess
from collections.abc import Callable, Sequence

import numpy as np

from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import open_session

REPEATS = 3


def measure_peak_rss_mb(bundle: Path, group: int, threads: int | None, eager: bool) -> float | None:
    """Run a bundle, or its network in eager PyTorch, in a fresh process; peak resident set size in MB (10⁶ bytes).

    None where the process fails, for want of memory say, or the system does not tell: a measurement of time must not be
    lost for it.
    """
    command = [sys.executable, __file__, "--bundle", str(bundle), "--group", str(group)]
    command += ["--eager"] if eager else []
    command += ["--threads", str(threads)] if threads else []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(result.stdout) if result.returncode == EXIT_DONE else None


def main(arguments: Sequence[str]) -> int:
    """Run a few inferences on zeros and print this process's peak."""
    parser = Parser("peak_memory.py", "Print the peak resident set size of one engine in MB.")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle to run")
    parser.add_argument("--group", type=positive, default=2, help="photos in the group (default: %(default)s)")
    parser.add_argument("--eager", action="store_true", help="run the bundle's network in eager PyTorch instead")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    options = parser.parse_args(arguments)
    bundle = open_bundle(options.bundle)
    size = bundle.manifest.preprocessing.size
    images = np.zeros((options.group, 3, size, size), np.float32)
    infer = _eager(bundle, options.threads) if options.eager else _session(bundle, options.threads)
    for _ in range(REPEATS):
        infer(images)
    print(f"{_peak_rss_bytes() / 1e6:.1f}")
    return EXIT_DONE


def _session(bundle: Bundle, threads: int | None) -> Callable[[FloatArray], object]:
    session = open_session(bundle, "auto", threads)
    return lambda images: session.infer({"images": images})


def _eager(bundle: Bundle, threads: int | None) -> Callable[[FloatArray], object]:
    from gconet.bench.eager import eager_network  # needs torch, which an engine's process must not load

    return eager_network(bundle.manifest, threads)


def _peak_rss_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's memory too: it survives exec
        for line in status.read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(run(main))
