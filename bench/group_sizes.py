"""Time per photo and peak memory over the size of the group: `python bench/group_sizes.py --bundle B`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from gconet.bench.environment import describe_bundle, describe_environment
from gconet.bench.output_files import check_output
from gconet.bench.peers import EAGER, PEERS, PeerRequest
from gconet.runtime.atomic import replacing
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run, write_json
from gconet.runtime.errors import TargetError, UsageError

SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
MEMORY_SHARE = 0.8  # of the machine's; a process that asks for more has run out
OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "can't allocate memory", "Failed to allocate", "bad allocation", "Killed")


@dataclass(frozen=True)
class Method:
    """What is measured: its name in the table, what `group_size_run.py` is told, and the peer's key if it is one."""

    engine: str
    arguments: Sequence[str]
    peer: str | None = None


EPILOG = """\
examples:
  python bench/group_sizes.py --bundle build/gconet.gconet --json sizes.json --plot sizes.png
  python bench/group_sizes.py --bundle build/gconet.gconet --sizes 2 16 256 --peers none

Each figure is of a process of its own: photos in, maps of the photos' sizes out; the median of up to three runs. A peer
stops where it runs out of memory, which is 80 % of the machine's, or at --peer-limit."""


def main(arguments: Sequence[str]) -> int:
    """Measure every method at every size; errors as raised by `open_bundle`, and UsageError."""
    parser = Parser("group_sizes.py", "Time per photo and peak memory over the size of the group.", EPILOG)
    parser.add_argument("--bundle", action="append", type=Path, required=True, metavar="B", help="repeatable")
    parser.add_argument(
        "--sizes",
        type=positive,
        nargs="+",
        default=list(SIZES),
        help=f"group sizes (default: {' '.join(map(str, SIZES))})",
    )
    parser.add_argument("--peers", nargs="+", default=[EAGER, "onnxruntime"], choices=[*PEERS, "none"], metavar="PEER",
                        help="what else to measure: %(choices)s (default: eager and onnxruntime)")  # fmt: skip
    parser.add_argument(
        "--peer-limit", type=positive, default=256, help="largest group of peers (default: %(default)s)"
    )
    parser.add_argument("--checkpoint", type=Path, help="what the bundles were built from (default: the demo)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw them, as PNG")
    options = parser.parse_args(arguments)
    if options.plot:
        _check_plots()
    check_output(options.json, options.plot)
    peers = [] if "none" in options.peers else options.peers
    bundles = [open_bundle(path) for path in options.bundle]
    methods = [_bundle_method(bundle) for bundle in bundles]
    methods += [_peer_method(name, bundles[0], options.checkpoint) for name in peers]
    rows: list[dict[str, Any]] = []
    total = len(bundles) * len(options.sizes) + len(peers) * sum(size <= options.peer_limit for size in options.sizes)
    with tempfile.TemporaryDirectory() as graphs, tqdm(total=total, unit="run", disable=None) as bar:
        for method in methods:
            for group in sorted(options.sizes):
                if method.peer and group > options.peer_limit:
                    break
                bar.set_description(f"{method.engine}, {group} photos")
                if method.peer and method.peer != EAGER:
                    _export(bundles[0], options.checkpoint, group, Path(graphs))
                figures = _measure([*method.arguments, "--graphs", graphs], group)
                rows.append({"engine": method.engine, "group": group, **figures})
                bar.update()
                if "failed" in rows[-1]:
                    break
    print(table(rows))
    facts = {"environment": describe_environment(), "bundles": [describe_bundle(bundle) for bundle in bundles]}
    if options.json:
        write_json(options.json, {**facts, "rows": rows})
    if options.plot:
        plot(rows, options.plot)
    return EXIT_DONE


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures as a Markdown table."""
    lines = ["| engine | photos | ms per photo | peak RSS, MB |", "| --- | --- | --- | --- |"]
    for row in rows:
        figures = f"{row['failed']} | " if "failed" in row else f"{row['ms_per_photo']:.0f} | {row['peak_rss_mb']:.0f}"
        lines.append(f"| {row['engine']} | {row['group']} | {figures} |")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw both figures over the size of the group; readable without colour."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    styles = [("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-")]
    for index, engine in enumerate(dict.fromkeys(row["engine"] for row in rows)):
        marker, line = styles[index % len(styles)]
        done = [row for row in rows if row["engine"] == engine and "failed" not in row]
        groups = [row["group"] for row in done]
        for axis, key in zip(axes, ("ms_per_photo", "peak_rss_mb"), strict=True):
            axis.plot(groups, [row[key] for row in done], marker=marker, linestyle=line, label=engine)
    sizes = sorted({row["group"] for row in rows})
    # Times lie within a few octaves, memory does not.
    for axis, label, scale in zip(axes, ("ms per photo", "peak RSS, MB"), ("linear", "log"), strict=True):
        axis.set(xscale="log", yscale=scale, xlabel="photos in the group", ylabel=label)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[1].legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)


def _bundle_method(bundle: Bundle) -> Method:
    return Method(f"{bundle.manifest.target} {bundle.manifest.precision}", ["--bundle", str(bundle.folder)])


def _peer_method(name: str, bundle: Bundle, checkpoint: Path | None) -> Method:
    more = ["--checkpoint", str(checkpoint)] if checkpoint else []
    return Method(PEERS[name].engine, ["--bundle", str(bundle.folder), "--peer", name, *more], name)


def _measure(arguments: Sequence[str], group: int) -> dict[str, Any]:
    memory_mb = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE / 1e6)
    script = Path(__file__).with_name("group_size_run.py")
    command = [sys.executable, str(script), *arguments, "--group", str(group), "--memory-mb", str(memory_mb)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != EXIT_DONE:
        if _ran_out(result):
            return {"failed": "out of memory"}
        if result.returncode < 0:
            return {"failed": f"ended by {signal.Signals(-result.returncode).name}"}
        raise TargetError(f"a group of {group} failed: {(result.stderr.strip() or 'no reason given').splitlines()[-1]}")
    figures = json.loads(result.stdout.splitlines()[-1])
    return {**figures, "ms_per_photo": figures["seconds"] / group * 1000}


def _export(bundle: Bundle, checkpoint: Path | None, group: int, graphs: Path) -> None:
    """Write the graph that a plain engine loads, which would else be made, in much memory, where memory is measured."""
    from gconet.bench.eager import peer_network
    from gconet.bench.plain_graph import export_plain

    path = graphs / f"reference-{group}.onnx"
    if not path.exists():
        network = peer_network(PeerRequest(bundle.manifest, checkpoint, None, graphs))
        export_plain(network, bundle.manifest.preprocessing.size, group, path)


def _ran_out(result: subprocess.CompletedProcess[str]) -> bool:
    killed = result.returncode == -signal.SIGKILL  # as the system does where memory is short
    return killed or any(sign in result.stderr for sign in OUT_OF_MEMORY)


def _check_plots() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install 'gconet-deploy[accuracy]'") from error


if __name__ == "__main__":
    sys.exit(run(main))
