"""What a run comes to, in a few sentences."""

from __future__ import annotations

from gconet.bench.latency_run import LatencyRun


def verdict_lines(run: LatencyRun) -> list[str]:
    """Everything that failed, each in a line; that all is well, or was not checked, else."""
    lines = [
        f"over budget: {row.engine} needs {row.p50_ms:.1f} ms for a group of {row.group}, "
        f"the budget is {run.facts.budget_ms:g} ms"
        for row in run.late
    ]
    lines += [
        f"outside the tolerance: {row.engine}, {row.target} {row.precision}, for a group of {row.group}; its time "
        "counts for nothing until `gconet parity` is content"
        for row in run.wrong
    ]
    unchecked = sorted({row.engine for row in run.rows if row.parity is None or row.parity.status == "not checked"})
    if run.parity_missing:
        lines.append(f"parity not checked: {run.parity_missing}")
    elif unchecked:
        lines.append(f"parity not checked for {', '.join(unchecked)}")
    elif not run.wrong:
        lines.append("all that was timed has passed parity in this run")
    lines += [f"left out: {name}: {why}" for name, why in run.left_out.items()]
    return lines


def machine(run: LatencyRun) -> str:
    """Processor and its cores; the GPUs too, if an engine was timed on one."""
    environment, gpus = run.facts.environment, run.facts.clocks.get("before", {}).get("gpus")
    names = [f"{environment.get('cpu')}, {environment.get('cores')} cores"]
    if isinstance(gpus, list) and any(row.gpu for row in run.rows):
        names += [gpu["name"] for gpu in gpus]
    return ", ".join(names)


def machine_line(run: LatencyRun) -> str:
    """Machine, threads, rounds, libraries."""
    facts = run.facts
    environment = facts.environment
    libraries = ", ".join(f"{name} {version}" for name, version in environment.get("libraries", {}).items())
    threads = f"{facts.threads} threads" if facts.threads else "each engine's choice of threads"
    return (
        f"{machine(run)}, {environment.get('os')}; {threads}; "
        f"{facts.rounds} interleaved rounds on {facts.images}; {libraries}"
    )
