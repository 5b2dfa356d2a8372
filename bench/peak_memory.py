"""Peak memory of one engine, in a process of its own: `python bench/peak_memory.py --bundle B --group 2`.

Prints the peak resident set size in MB, the interpreter and the engine's libraries included. Without --bundle, that of
the eager PyTorch network.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import subprocess
from collections.abc import Sequence

import numpy as np

from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run

REPEATS = 3


def measure_peak_rss_mb(bundle: Path | None, group: int, size: int, threads: int | None) -> float:
    """Run a bundle, or eager PyTorch for None, in a fresh process; peak resident set size in MB (10⁶ bytes)."""
    command = [sys.executable, __file__, "--group", str(group), "--size", str(size)]
    command += ["--bundle", str(bundle)] if bundle else []
    command += ["--threads", str(threads)] if threads else []
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


def main(arguments: Sequence[str]) -> int:
    """Run a few inferences on zeros and print this process's peak."""
    parser = Parser("peak_memory.py", "Print the peak resident set size of one engine in MB.")
    parser.add_argument("--bundle", type=Path, help="bundle to run (default: eager PyTorch)")
    parser.add_argument("--group", type=positive, default=2, help="photos in the group (default: %(default)s)")
    parser.add_argument("--size", type=positive, default=224, help="input size (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    options = parser.parse_args(arguments)
    images = np.zeros((options.group, 3, options.size, options.size), np.float32)
    if options.bundle:
        from gconet.runtime.bundle import open_bundle
        from gconet.runtime.session import open_session

        session = open_session(open_bundle(options.bundle), "auto", options.threads)
        for _ in range(REPEATS):
            session.infer({"images": images})
    else:
        import torch

        from gconet.train.model import GCoNet

        if options.threads:
            torch.set_num_threads(options.threads)
        model = GCoNet().eval()
        with torch.inference_mode():
            for _ in range(REPEATS):
                model(torch.from_numpy(images))
    print(f"{_peak_rss_bytes() / 1e6:.1f}")
    return EXIT_DONE


def _peak_rss_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's memory too: it survives exec
        for line in status.read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(run(main))
