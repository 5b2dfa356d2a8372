"""Peak memory of one engine, in a process of its own: `python bench/peak_memory.py --bundle B --group 2`.

Prints JSON: `peak_rss_mb`, the peak resident set size, the interpreter and the engine's libraries included, and
`device_memory_mb`, what the engine took of a GPU's memory, null without one. MB are 10⁶ bytes. With --peer, those of a
peer running the bundle's network.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gconet.bench.peers import PEERS, PeerRequest
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run
from gconet.runtime.large_groups import infer_group
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import open_session, runs_on_gpu

REPEATS = 3


@dataclass(frozen=True)
class PeakMemory:
    """In MB (10⁶ bytes); None where it was not measured."""

    peak_rss_mb: float | None = None
    device_memory_mb: float | None = None


def measure_peak_memory(arguments: Sequence[str], group: int) -> PeakMemory:
    """Run this file with `arguments`, those that name the engine, in a fresh process.

    Nothing is measured where the process fails, for want of memory say, or the system does not tell: a measurement of
    time must not be lost for it.
    """
    command = [sys.executable, __file__, *arguments, "--group", str(group)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != EXIT_DONE:
        return PeakMemory()
    return PeakMemory(**json.loads(result.stdout.splitlines()[-1]))


def main(arguments: Sequence[str]) -> int:
    """Run a few inferences on zeros and print what this process took."""
    parser = Parser("peak_memory.py", "Print the peak memory of one engine in MB, as JSON.")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle to run")
    parser.add_argument("--group", type=positive, default=2, help="photos in the group (default: %(default)s)")
    parser.add_argument("--peer", choices=PEERS, help="run the bundle's network in this peer instead")
    parser.add_argument("--checkpoint", type=Path, help="what the bundle was built from, for a peer")
    parser.add_argument("--graphs", type=Path, help="folder with the exported network, for a peer")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to run it (default: "
                        "where the bundle does)")  # fmt: skip
    options = parser.parse_args(arguments)
    bundle = open_bundle(options.bundle)
    size = bundle.manifest.preprocessing.size
    images = np.zeros((options.group, 3, size, size), np.float32)
    device = options.device
    if device == "auto" or not options.peer:  # PyTorch may run where the bundle does not
        device = "cuda" if runs_on_gpu(bundle.manifest.target, device) else "cpu"
    free = _free_device_memory(device)
    with tempfile.TemporaryDirectory() as scratch:
        infer: Callable[[FloatArray], object]
        if options.peer:
            graphs = options.graphs or Path(scratch)
            request = PeerRequest(bundle.manifest, options.checkpoint, options.threads, graphs, device)
            infer = PEERS[options.peer].load(request)
        else:
            session = open_session(bundle, options.device, options.threads)
            infer = partial(infer_group, session, bundle.manifest)
        for _ in range(REPEATS):
            infer(images)
        taken = None if free is None else (free - (_free_device_memory(device) or 0)) / 1e6
    print(json.dumps({"peak_rss_mb": peak_rss_bytes() / 1e6, "device_memory_mb": taken}))
    return EXIT_DONE


def _free_device_memory(device: str) -> int | None:
    """Bytes of the first GPU that nobody uses; None on a CPU. Other programs on the GPU disturb the difference."""
    if device != "cuda":
        return None
    from gconet.runtime.cuda import Device

    with Device(0) as gpu:
        return int(gpu.call("cuMemGetInfo"))  # the first of its values


def peak_rss_bytes() -> int:
    """Peak resident set size of this process so far."""
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
