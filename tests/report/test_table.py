"""The table, for terminals, as Markdown and as CSV."""

import csv
import io

import pytest
from rich.cells import cell_len

from compress.pareto import recommend, stage_effects
from compress.report.comparison import combined_columns
from compress.report.csv import csv_text
from compress.report.figures.pareto_data import pareto_info
from compress.report.figures.stages_data import stages_info
from compress.report.overlay import groups, overlay_info
from compress.report.page.details import row_facts
from compress.report.page.recommendation import tiles
from compress.report.sentences import findings
from compress.report.table import columns, markdown, render_table, text_table

pytestmark = pytest.mark.fast


def lines_of(text):
    return text.splitlines()


@pytest.mark.parametrize(
    "name", ["chain", "one_row", "failed", "lower_is_better", "adversarial", "clustered"]
)
@pytest.mark.parametrize("width", [100, 80, 60])
def test_no_line_is_wider_than_asked(name, width, request):
    record = request.getfixturevalue(name)
    shown = text_table(record, record.targets[0], width=width)
    assert max(cell_len(line) for line in lines_of(shown)) <= width


def test_the_table_shows_every_row_with_its_numbers(chain):
    shown = lines_of(text_table(chain, "laptop"))
    row = next(line for line in shown if line.startswith("2>"))
    for cell in (
        "distill",
        "91.96  [91.46, 92.46]",
        "64.0",
        "6.12 [6.00, 6.25]",
        "faster",
        "3.4",
        "220.6",
        "3.21x",
        "49.4k",
    ):
        assert cell in row
    assert next(line for line in shown if line.startswith("3 ")).split()[-2:] == ["97", "49.4k"]
    assert sum(line[:1].isdigit() for line in shown) == 5


def test_columns_stay_aligned_with_wide_characters(make):
    specs = make.four_rows()[1:3]
    specs[0].stage, specs[1].stage = "日本語", "plain"
    shown = lines_of(text_table(make.build(specs), "laptop"))
    rows = [line for line in shown if line[:1].isdigit()]
    ends = [cell_len(row[: row.index("]")]) for row in rows]
    assert ends[0] == ends[1]


def test_a_narrow_terminal_loses_the_least_important_columns_first(chain):
    wide, narrow = text_table(chain, "laptop"), text_table(chain, "laptop", width=70)
    assert "meters" in wide
    assert "meters" not in narrow
    assert "speedup" in narrow


def test_ascii_only_for_terminals_that_know_no_more(chain, adversarial):
    for record in (chain, adversarial):
        assert text_table(record, record.targets[0], ascii_only=True).isascii()
    assert render_table(chain, encoding="latin-1").isascii()
    assert "−1.56 pt" in render_table(chain, encoding="UTF-8")
    assert "-1.56 pt" in render_table(chain, encoding="ascii")


def test_no_escape_sequence_reaches_the_terminal(adversarial):
    shown = render_table(adversarial, encoding="utf-8")
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_sentences_follow_the_table(chain):
    shown = " ".join(text_table(chain, "laptop").split())
    assert "Ship row 2 (distill)" in shown
    assert "int8 row 3 (quantize) is 1.41x" in shown
    assert "Budget: met by row 2." in shown
    assert "Front (accuracy, p50 latency, artifact size): rows 1, 2, 3 and 4" in shown
    assert "Warning, row 3: 1 float operator" in shown


def test_a_missed_budget_is_told(make):
    record = make.build(make.four_rows(), baseline=1, budget={"artifact_kib": 10})
    shown = " ".join(text_table(record, "laptop").split())
    assert "Budget: missed by every row; row 4: artifact size 61.3 KiB, budget 10.0 KiB." in shown


def test_ties_are_told_and_many_are_summed_up(clustered):
    shown = text_table(clustered, "laptop")
    assert "Tie: what was measured cannot tell row 1 from rows 2, 3" in shown
    assert "more pairs, all in record.json" in shown


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failed", "The run failed: stages[3] prune: nothing was pruned. What was measured"),
        ("interrupted", "The run was interrupted: stages[3]"),
        ("running", "The run is still going: stages[3]"),
    ],
)
def test_an_unfinished_run_says_so(failed, status, words):
    failed.status = status
    assert words in " ".join(text_table(failed, "laptop").split())


def test_what_was_not_measured_is_a_dash(failed):
    row = next(line for line in lines_of(text_table(failed, "laptop")) if line.startswith("2 "))
    assert row.split("]")[1].split()[:4] == ["-", "-", "-", "-"]


def test_a_record_without_measurements_has_a_sentence_instead(chain):
    chain.rows, chain.status = [], "running"
    assert "Nothing has been measured yet." in render_table(chain)


def test_every_target_gets_its_table(two_targets):
    shown = render_table(two_targets, width=100, encoding="utf-8")
    assert "prune on laptop" in shown
    assert "prune on raspberry pi" in shown


def test_markdown_escapes_what_would_break_it(chain, adversarial):
    shown = lines_of(markdown(chain, "laptop"))
    assert shown[0].startswith("| row | stage | accuracy % | \\[95 %\\] | p50 µs |")
    assert sum(line.startswith("| ") for line in shown) == 7
    assert "<script>" not in markdown(adversarial, adversarial.targets[0]).replace("\\<", "")


def test_only_a_terminal_is_too_narrow_for_the_name_of_a_metric(chain):
    chain.task.metric = "similarity_spearman"
    assert "similarity…" in text_table(chain, "laptop")
    assert "| similarity\\_spearman | \\[95 %\\] |" in markdown(chain, "laptop")


def test_csv_has_unrounded_numbers_in_base_units(chain):
    rows = list(csv.DictReader(io.StringIO(csv_text([("run", chain)]))))
    assert len(rows) == 5
    quantized = rows[3]
    assert quantized["stage"] == "quantize"
    assert float(quantized["p50_s"]) == 90e-6
    assert float(quantized["speedup"]) == 392 / 90
    assert (quantized["ship"], rows[2]["ship"], rows[1]["baseline"]) == ("False", "True", "True")
    assert quantized["p99_s"] == ""


def test_csv_of_a_partial_record_leaves_cells_empty(failed):
    rows = list(csv.DictReader(io.StringIO(csv_text([("run", failed)]))))
    assert (rows[2]["p50_s"], rows[2]["speedup"], rows[2]["model_peak_bytes"]) == ("", "", "")


def test_csv_disarms_what_a_spreadsheet_would_run(make):
    specs = make.four_rows()[1:2]
    specs[0].stage = "=HYPERLINK(1)"
    [row] = csv.DictReader(io.StringIO(csv_text([("-run", make.build(specs))])))
    assert (row["stage"], row["run"]) == ("'=HYPERLINK(1)", "'-run")


def test_latency_shares_one_unit_in_a_column(lower_is_better):
    p50 = next(c for c in columns(lower_is_better, "laptop") if c.heading == "p50")
    assert (p50.unit, p50.cells) == ("µs", ("1900", "1100", "700"))


def test_warnings_that_differ_in_numbers_alone_are_told_once(make):
    specs = make.four_rows()[1:4]
    for number, spec in enumerate(specs):
        spec.warnings = [f"the load reached {number}.5"]
    specs[0].warnings.append("denormals")
    shown = text_table(make.build(specs), "laptop")
    assert "Warning, rows 0, 1 and 2 (most in row 2): the load reached 2.5" in shown
    assert "Warning, row 0: denormals" in shown
    assert shown.count("the load") == 1


def test_an_interval_that_leans_to_one_side_is_shown_with_both_ends(make):
    record = make.build(make.four_rows()[1:3])
    found = record.rows[0].measurements[0].accuracy
    found.value, found.ci95 = 1.0, (0.9124, 1.0)
    assert "100.00  [91.24, 100.00]" in text_table(record, "laptop")
    assert "| 100.00 | \\[91.24, 100.00\\] |" in markdown(record, "laptop")
    assert "±" not in text_table(record, "laptop")


@pytest.fixture
def drifted(make):
    """The second row was timed while the machine was slow, and so was the baseline beside it."""
    record = make.build(make.four_rows()[1:3])
    latency = record.rows[1].measurements[0].latency
    latency.p50_s, latency.ci95_p50_s = 500e-6, (490e-6, 510e-6)
    return record


def test_the_table_has_the_latency_of_the_figures(drifted):
    (p50,) = (column for column in columns(drifted, "laptop") if column.heading == "p50")
    assert p50.cells == ("392", "64.0")
    points = pareto_info(drifted, "laptop").points
    assert [p.values["latency_p50_s"].value for p in points] == [392e-6, 64e-6]
    panel = next(p for p in stages_info(drifted, "laptop").panels if p.name == "latency_p50_s")
    assert [p.value for p in panel.points] == [392e-6, 64e-6]
    effects = stage_effects(drifted, "laptop")[1]
    assert ("p50 latency", "64.0 µs", "6.12x faster than the baseline") in tiles(drifted, effects)
    told = dict(row_facts(drifted, drifted.rows[1], "laptop"))["Latency"]
    assert told.startswith("p50 64.0 µs, beside the baseline's; as timed 500 µs, 95 % interval")


def test_a_budget_is_held_against_the_latency_that_is_shown(drifted):
    drifted.recipe["budget"] = {"latency_p50_ms": 0.1, "accuracy_drop": 0.02}
    assert recommend(drifted, "laptop").meets_budget


def test_csv_has_the_latency_as_timed_and_the_one_that_is_shown(drifted):
    row = list(csv.DictReader(io.StringIO(csv_text([("run", drifted)]))))[1]
    assert (float(row["p50_s"]), float(row["p50_paired_s"])) == (500e-6, 64e-6)


def test_runs_side_by_side_show_latencies_as_timed_in_table_and_figure(drifted, make):
    other = make.build(make.four_rows()[1:3])
    other.rows[0].measurements[0].artifact.sha256 = "1" * 64  # of another baseline
    other.rows[1].fingerprint = "another"
    (group,) = groups([drifted, other])
    (p50,) = (column for column in combined_columns(group) if column.heading == "p50")
    assert p50.cells == ("392", "500", "392", "64.0")
    drawn = [p.values["latency_p50_s"].value for p in overlay_info(group).points]
    assert drawn == [392e-6, 500e-6, 392e-6, 64e-6]


def test_a_tie_says_in_what_and_which_file_is_smaller(make):
    specs = make.four_rows()[1:4]
    specs[2].seconds, specs[2].flips = 64.5e-6, (351, 194)
    record = make.build(specs)
    (said,) = (s for s in findings(record, "laptop") if s.startswith("Tie"))
    assert said == (
        "Tie: what was measured cannot tell row 1 from row 2 in accuracy and speed; the file of "
        "row 2 is 2.44x smaller."
    )


def test_a_tie_of_many_names_the_smallest_file(clustered):
    said = next(s for s in findings(clustered, "laptop") if s.startswith("Tie"))
    assert "; the smallest file is that of row 1, 1.13x smaller than that of row 13." in said


def test_a_tie_of_equal_files_says_nothing_of_them(make):
    specs = make.four_rows()[1:4]
    specs[2].seconds, specs[2].flips, specs[2].bytes = 64.5e-6, (351, 194), specs[1].bytes
    assert "in accuracy and speed." in " ".join(findings(make.build(specs), "laptop"))


def test_the_legend_says_against_what(chain):
    assert "speedup, smaller: against the baseline; 95 % intervals" in text_table(chain, "laptop")


def test_what_stands_for_labels_is_said(perfect, lower_is_better):
    said = "Metric: mse is scored against row 0, and not against labels."
    assert said in findings(perfect, "laptop")
    assert not any(s.startswith("Metric:") for s in findings(lower_is_better, "laptop"))
