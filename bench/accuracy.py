"""Score a folder of maps, by any method, against the truth: `python bench/accuracy.py --pred maps --gt gts/CoCA`.

The JSON report holds `toolbox`, `dataset`, `rows` (the data set first, then its groups if asked for: `name`, `maps`,
`mae`, `max_f`, `mean_f`, `max_e`, `mean_e`, `s`, `ap`, `auc`), `curves` of the data set over rising thresholds
(`threshold`, `precision`, `recall`, `false_positive_rate`, `f`, `e`), `published` (`model`, `dataset`, `max_e`, `s`,
`max_f`, `mae`), `sources` of those by model, and `libraries` with their versions.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    from gconet.runtime.cli import run_script

    run_script("evaluate")

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tqdm import tqdm

from gconet.bench.environment import installed_libraries
from gconet.bench.map_pairs import MapPair, damage_report, find_pairs, read_pair
from gconet.bench.output_files import check_output
from gconet.bench.published import PUBLISHED, SOURCES, Published, published_on
from gconet.bench.toolboxes import (
    ACCURACY_EXTRA,
    TOOLBOXES,
    Figures,
    Scores,
    Toolbox,
    load_toolbox,
    mean_figures,
    scores,
)
from gconet.engines.installed import import_or_explain
from gconet.runtime.command_line import EXIT_DONE, Parser, write_json
from gconet.runtime.errors import PhotoError

DESCRIPTION = "Score co-saliency maps against the truth: MAE, F, E, S, average precision and area under the ROC curve."
EPILOG = """\
examples:
  gconet evaluate --pred maps/CoCA --gt gts/CoCA
  gconet evaluate --pred maps/CoCA --gt gts/CoCA --per-group --json coca.json --plots plots

--gt holds one picture per photo, in a folder per group; --pred the same tree of maps, as `gconet detect` writes it.
eval-co-sod is the convention of the tables in papers. Means are over maps, not groups; curves are averaged before their
maximum is taken."""

COLUMNS: Mapping[str, str] = {
    "mae": "MAE",
    "max_f": "max-F",
    "mean_f": "mean-F",
    "max_e": "max-E",
    "mean_e": "mean-E",
    "s": "S",
    "ap": "AP",
    "auc": "AUC",
}  # of Scores, and their headings


@dataclass(frozen=True)
class AccuracyRow:
    """A data set or a group: how many maps it has, their mean figures and the scores made of those."""

    name: str
    maps: int
    figures: Figures

    @property
    def scores(self) -> Scores:
        """The numbers of a table."""
        return scores(self.figures)


def measure_accuracy(pairs: Sequence[MapPair], toolbox: Toolbox, progress: tqdm[Any]) -> dict[str, list[Figures]]:
    """Measure all pairs, by group; one progress step a map.

    Raises
    ------
    PhotoError
        When all are looked at, naming those that cannot be read or are of a size the toolbox does not take.
    """
    figures: dict[str, list[Figures]] = {}
    errors = []
    for pair in pairs:
        try:
            figures.setdefault(pair.group, []).append(toolbox.measure(*read_pair(pair, toolbox.resizes)))
        except PhotoError as error:
            errors.append(error)
        progress.update()
    if errors:
        raise damage_report(errors)
    return figures


def accuracy_rows(dataset: str, figures: Mapping[str, Sequence[Figures]]) -> tuple[AccuracyRow, list[AccuracyRow]]:
    """The data set's row, its mean over all maps, and a row for each group."""
    every = [one for group in figures.values() for one in group]
    groups = [AccuracyRow(name, len(group), mean_figures(group)) for name, group in figures.items()]
    return AccuracyRow(dataset, len(every), mean_figures(every)), groups


def accuracy_table(rows: Sequence[AccuracyRow], published: Sequence[Published], heading: str) -> str:
    """A table for people: our rows, then under a heading those of others."""
    names = [row.name for row in rows] + [f"{row.model} on {row.dataset}" for row in published]
    width = max(map(len, names))
    lines = [f"{'':<{width}} {'maps':>6} " + " ".join(f"{title:>6}" for title in COLUMNS.values())]
    lines += [_line(width, row.name, str(row.maps), dataclasses.asdict(row.scores)) for row in rows]
    lines.append(heading)
    lines += [_line(width, f"{row.model} on {row.dataset}", "", dataclasses.asdict(row)) for row in published]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run `gconet evaluate`; errors as raised by `find_pairs`, `measure_accuracy` and `load_toolbox`."""
    parser = Parser("gconet evaluate", DESCRIPTION, EPILOG)
    parser.add_argument("--pred", type=Path, required=True, help="folder of maps")
    parser.add_argument("--gt", type=Path, required=True, help="folder of truths, white where the shared object is")
    parser.add_argument("--toolbox", choices=TOOLBOXES, default="eval-co-sod", help="convention (default: %(default)s)")
    parser.add_argument("--per-group", action="store_true", help="also score every group by itself")
    parser.add_argument("--json", type=Path, help="write scores and curves to this file")
    parser.add_argument("--plots", type=Path, help="write precision-recall and F-measure curves to this folder")
    options = parser.parse_args(arguments)

    check_output(options.json)
    toolbox = load_toolbox(options.toolbox)
    plots = _load_plots() if options.plots else None
    pairs = find_pairs(options.pred, options.gt)
    with tqdm(total=len(pairs), desc="accuracy", unit="map", disable=None) as progress:
        figures = measure_accuracy(pairs, toolbox, progress)
    whole, groups = accuracy_rows(options.gt.resolve().name, figures)
    rows = [whole, *groups] if options.per_group else [whole]

    published = published_on(whole.name)
    heading = "published, by eval-co-sod:" if published else "published, by eval-co-sod, on other data sets:"
    print(f"{options.toolbox}, {len(groups)} group{'s' if len(groups) > 1 else ''} of {options.gt}")
    print(accuracy_table(rows, published or PUBLISHED, heading))
    if options.json:
        write_json(options.json, _document(options.toolbox, toolbox, rows, published or PUBLISHED))
    if plots:
        group_figures = [row.figures for row in rows[1:]]
        for path in plots.write_plots(options.plots, whole.name, whole.figures, group_figures, toolbox.thresholds):
            print(path)
    return EXIT_DONE


def _line(width: int, name: str, maps: str, values: Mapping[str, float]) -> str:
    cells = (f"{values[key]:>6.3f}" if key in values else f"{'-':>6}" for key in COLUMNS)
    return f"{name:<{width}} {maps:>6} " + " ".join(cells)


def _document(
    toolbox_name: str, toolbox: Toolbox, rows: Sequence[AccuracyRow], published: Sequence[Published]
) -> dict[str, Any]:
    figures = dataclasses.asdict(rows[0].figures)
    curves = {name: figures[name].tolist() for name in ("precision", "recall", "false_positive_rate", "f", "e")}
    return {
        "toolbox": toolbox_name,
        "dataset": rows[0].name,
        "rows": [{"name": row.name, "maps": row.maps, **dataclasses.asdict(row.scores)} for row in rows],
        "curves": {"threshold": toolbox.thresholds.tolist(), **curves},
        "published": [dataclasses.asdict(row) for row in published],
        "sources": dict(SOURCES),
        "libraries": installed_libraries(),
    }


def _load_plots() -> ModuleType:
    import_or_explain("matplotlib", (ACCURACY_EXTRA,))
    from gconet.bench import accuracy_plots  # only here, so that scores need no matplotlib

    return accuracy_plots
