"""Raw samples of a run as JSON Lines, and what is needed to tell later what they are samples of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gconet.bench.latency_run import LatencyRun
from gconet.runtime.atomic import replacing
from gconet.runtime.bundle import Bundle, describe_file
from gconet.runtime.command_line import write_json
from gconet.runtime.manifest import MANIFEST_NAME

SAMPLES_NAME, META_NAME = "samples.jsonl", "meta.json"


def write_samples(folder: Path, run: LatencyRun, bundles: Sequence[Bundle], created: str) -> None:
    """Write `samples.jsonl`, a line for each call in order, warm-up included, and `meta.json` beside it.

    Parameters
    ----------
    created : ISO 8601.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    with replacing(folder / SAMPLES_NAME) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in _samples(run))
    write_json(folder / META_NAME, meta_document(run, bundles, created))


def meta_document(run: LatencyRun, bundles: Sequence[Bundle], created: str) -> dict[str, Any]:
    """Model, hashes of bundles and weights, machine, libraries, threads, clocks."""
    facts = run.facts
    return {
        "created": created,
        "samples": SAMPLES_NAME,
        "bundles": [_bundle(bundle) for bundle in bundles],
        "left_out": dict(run.left_out),
        "images": facts.images,
        "rounds": facts.rounds,
        "warm_up": dataclasses.asdict(facts.warm_up),
        "threads": facts.threads,
        "clocks": facts.clocks,
        "environment": facts.environment,
    }


def _bundle(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "engine": bundle.folder.name.removesuffix(".gconet"),
        "model": manifest.model,
        "architecture": dict(manifest.architecture),
        "size": manifest.preprocessing.size,
        "target": manifest.target,
        "target_version": manifest.target_version,
        "precision": manifest.precision,
        "weights": dict(manifest.checkpoint),
        "manifest_sha256": describe_file(bundle.folder / MANIFEST_NAME).sha256,
        "files": {name: dataclasses.asdict(entry) for name, entry in manifest.files.items()},
    }


def _samples(run: LatencyRun) -> Iterator[dict[str, Any]]:
    for row in run.rows:
        facts = {"engine": row.engine, "target": row.target, "precision": row.precision, "group": row.group}
        for warm_up, samples in ((True, row.warm_up_ms), (False, row.samples_ms)):
            for index, value in enumerate(samples):
                yield {**facts, "warm_up": warm_up, "round": index, "ms": value}
