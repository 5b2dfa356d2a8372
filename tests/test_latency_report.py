"""What reports of a run say: verdicts, JSON, Markdown, and the page with its plots."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise
from typing import Any

import pytest
from html_page import Page
from latency_examples import EAGER_ROW, FAILED, ON_GPU, ROW, UNCHECKED, make_run

from gconet.bench.latency_markdown import markdown_report
from gconet.bench.latency_plots import LEFT, _spread, _ticks
from gconet.bench.latency_report import html_report
from gconet.bench.latency_run import LatencyRun
from gconet.bench.latency_tables import latency_table
from gconet.bench.latency_verdict import machine, verdict_lines
from gconet.bench.peers import PEERS

FIVE = dataclasses.replace(ROW, group=5, p50_ms=125.0, p90_ms=130.0)
EAGER_FIVE = dataclasses.replace(EAGER_ROW, group=5, p50_ms=550.0, p90_ms=600.0)


@pytest.fixture
def run() -> LatencyRun:
    return make_run(ROW, EAGER_ROW, FIVE, EAGER_FIVE, left_out={"torch.compile": "no compiler"})


def test_verdicts_name_what_failed_and_what_was_not_looked_at() -> None:
    assert verdict_lines(make_run(ROW)) == ["all that was timed has passed parity in this run"]
    late = make_run(ROW, EAGER_ROW, budget_ms=16.0)
    assert verdict_lines(late)[0] == "over budget: ours & <best> needs 50.0 ms for a group of 2, the budget is 16 ms"
    assert [row.engine for row in late.late] == [ROW.engine]  # peers have no budget
    wrong = make_run(dataclasses.replace(ROW, parity=FAILED))
    assert "outside the tolerance: ours & <best>, openvino bf16, for a group of 2" in verdict_lines(wrong)[0]
    assert not any("has passed" in line for line in verdict_lines(wrong))
    unknown = make_run(dataclasses.replace(ROW, parity=UNCHECKED), parity_missing="the weights are unknown")
    assert verdict_lines(unknown) == ["parity not checked: the weights are unknown"]
    assert verdict_lines(make_run(ROW, dataclasses.replace(EAGER_ROW, parity=UNCHECKED))) == [
        "parity not checked for eager PyTorch"
    ]
    assert verdict_lines(make_run(ROW, left_out={"torch.compile": "no compiler"}))[-1] == (
        "left out: torch.compile: no compiler"
    )


def test_the_json_document_has_latency_and_parity_side_by_side(run: LatencyRun) -> None:
    document = json.loads(json.dumps(run.document(), allow_nan=False))
    row = document["rows"][0]
    assert (row["p50_ms"], row["speedup_over_eager"], row["samples_ms"]) == (50, 4, [45, 50, 60])
    assert row["parity"] == row["parity"] | {"status": "passed", "max_abs": 0.0, "mask_iou": 1.0}
    assert row["parity"]["limits"]["reason"] == "tests"
    assert row["roofline"]["share_of_peak"] == 0.62
    assert row["phases"] == {
        "decode_ms": 3, "pre_ms": 2, "h2d_ms": None, "compute_ms": 50, "d2h_ms": None, "post_ms": 1,
    }  # fmt: skip
    assert "not_measured" in row["gpu"]
    assert "not_measured" in row["projection"]
    assert document["left_out"] == {"torch.compile": "no compiler"}
    assert document["roofline"]["rates"]["bf16"] == {"gflops": 3840.0, "by": "tests, matrices of 512"}
    assert document["passed"] is True
    assert document["parity"] == {"reference": "eager PyTorch, fp32"}


def test_the_json_document_says_what_was_not_done() -> None:
    row = dataclasses.replace(ROW, parity=UNCHECKED, roofline=None)
    document = make_run(row, roofline="not asked for", parity_missing="the weights are unknown").document()
    assert document["roofline"] == {"not_measured": "not asked for"}
    assert document["parity"] == {"not_checked": "the weights are unknown"}
    assert document["rows"][0]["parity"] == {"status": "not checked", "reason": "the weights are unknown"}
    assert not make_run(dataclasses.replace(ROW, parity=FAILED)).document()["passed"]


def test_the_machine_is_named_with_its_gpus_where_one_was_used() -> None:
    clocks = {"before": {"gpus": [{"name": "Imaginary GPU"}]}}
    on_gpu = dataclasses.replace(ROW, gpu=ON_GPU)
    assert machine(make_run(on_gpu, clocks=clocks)) == "Imaginary <CPU>, 2 cores, Imaginary GPU"
    assert machine(make_run(ROW, clocks=clocks)) == "Imaginary <CPU>, 2 cores"
    assert machine(make_run(on_gpu, clocks={"before": {"gpus": "no nvidia-smi"}})) == "Imaginary <CPU>, 2 cores"


def test_names_of_peers_have_room_beside_their_bars() -> None:
    longest = max(len(f"{peer.engine}, group of 40") for peer in PEERS.values())
    assert longest * 7.5 <= LEFT  # pixels a letter takes, on the average, where it is widest


def test_a_gpu_row_tells_events_graphs_and_a_projection_labelled_as_one() -> None:
    row = dataclasses.replace(ROW, gpu=ON_GPU, projected_ms=14.5, device_memory_mb=640.0)
    run = make_run(row)
    document = run.document()["rows"][0]
    assert document["gpu"]["enqueue_plain_ms"] == 1.5
    assert document["projection"] == {
        "ms": 14.5, "card": {"name": "1080Ti-class", "tflops": 11.3, "gb_per_s": 484.0},
    }  # fmt: skip
    text = markdown_report(run)
    assert "| ours & <best> | 2 | 4.00 | 0.10 | 5.00 | 1.50 | 14.50 |" in text
    assert "a projection, not a measurement: 11.3 TFLOP/s and 484 GB/s" in text
    assert "| 640 |" in text


def test_markdown_tables_are_rectangular(run: LatencyRun) -> None:
    text = markdown_report(run)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(cells) == 1, block
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == ["Latency and parity", "Parity", "Stationarity", "Phases", "Roofline", "GPU", "Left out"]
    assert "| mean \\|Δ\\| |" in text
    assert "Not measured: only for bundles that run on a GPU." in text
    assert "| ours & <best> | 2 | 3.0 | 2.0 | - | 50.0 | - | 1.0 | 56.0 |" in text


def test_rows_that_failed_stand_out() -> None:
    failed = make_run(dataclasses.replace(ROW, parity=FAILED), EAGER_ROW)
    assert "**failed**" in markdown_report(failed)
    assert "**eager PyTorch**" not in markdown_report(failed)
    page = html_report(failed)
    assert "<tr class=outside>" in page
    assert "50.0 ms, fails parity" in page


def test_the_page_needs_nothing_else_and_its_plots_show_every_engine(run: LatencyRun) -> None:
    page = Page(html_report(run))
    assert page.links == []
    assert "url(" not in html_report(run)
    assert len(page.attributes_of("svg")) == 4  # bars of two groups, lines, shares
    assert "Imaginary <CPU>" in page.text
    assert page.text.count("ours & <best>") >= 4
    assert "left out: torch.compile: no compiler" in page.text
    assert "prefers-color-scheme: dark" in html_report(run)
    assert all(attributes["aria-label"] for attributes in page.attributes_of("svg"))


def test_bars_and_lines_stay_within_their_drawing(run: LatencyRun) -> None:
    def inside(attributes: dict[str, Any]) -> bool:
        x = [float(attributes[name]) for name in ("x", "cx", "x1", "x2") if name in attributes]
        width = float(attributes.get("width", 0))
        return all(0 <= value <= value + width <= 960 for value in x)

    shapes = Page(html_report(run)).attributes_of("rect", "line", "circle", "text")
    assert shapes
    assert all(inside(attributes) for attributes in shapes)


def test_one_group_or_no_roofline_leaves_its_plot_out() -> None:
    page = Page(html_report(make_run(dataclasses.replace(ROW, roofline=None), roofline="not asked for")))
    assert len(page.attributes_of("svg")) == 1


def test_labels_are_moved_apart_and_ticks_are_round() -> None:
    heights = _spread([(100.0, "a"), (101.0, "b"), (310.0, "c"), (312.0, "d")])
    assert all(after - before >= 16 for before, after in pairwise(heights))
    assert heights[-1] <= 320 - 8
    assert _ticks(1474.0) == [0, 500, 1000]
    assert _ticks(8.3) == [0, 2.5, 5, 7.5]


def test_the_table_for_a_terminal_does_without_what_was_not_measured() -> None:
    bare = dataclasses.replace(ROW, peak_rss_mb=None, speedup_over_eager=None, parity=None, roofline=None, phases=None)
    lines = latency_table([ROW, bare]).splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("62% passed")
    assert lines[2].endswith("- not checked")


def test_a_build_which_has_judged_parity_before_does_not_say_that_it_was_not_checked() -> None:
    timed_only = dataclasses.replace(ROW, parity=None, roofline=None)
    assert "parity" in latency_table([ROW])
    assert "parity" not in latency_table([timed_only])
    assert "not checked" not in latency_table([timed_only])
