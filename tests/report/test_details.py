"""What is said of a row beyond the table, and in the answer's tiles."""

import pytest

from compress.pareto import stage_effects
from compress.record import ParityFacts
from compress.report.page.details import row_facts
from compress.report.page.page import page
from compress.report.page.recommendation import tiles
from compress.report.provenance import caption

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": 20, "p90_s": None}, "p90 needs 29 timed runs, p99 needs 299 timed runs"),
        (
            {"samples": 6875, "p90_s": None, "runs_per_sample": 16},
            (
                "p90 and p99 not known, for runs were timed in groups; 7 processes, 6,875 timings "
                "of 16 runs each"
            ),
        ),
        (
            {"samples": 6875, "p90_s": None, "runs_per_sample": None},  # of an older record
            "p90 and p99 not known, for runs were timed in groups; 7 processes, 6,875 timings",
        ),
    ],
)
def test_what_is_counted_is_what_the_sentence_says(chain, changes, words):
    found = chain.rows[3].measurements[0]
    found.latency = found.latency.model_copy(update=changes)
    told = dict(row_facts(chain, chain.rows[3], "laptop"))["Latency"]
    assert words in told
    assert ("timed runs" in caption(chain, "laptop")) == (changes["samples"] == 20)


def test_what_took_no_time_says_nothing_of_it(chain):
    chain.rows[0].seconds = 0.0
    chain.rows[1].seconds = 3e-7
    assert "Took" not in dict(row_facts(chain, chain.rows[0], "laptop"))
    assert dict(row_facts(chain, chain.rows[1], "laptop"))["Took"] == "under 1 ms"


def test_the_exact_test_is_named_only_where_samples_are_right_or_wrong(chain):
    found = chain.rows[3].measurements[0].accuracy
    chain.task.metric = "binary-agreement"
    told = dict(row_facts(chain, chain.rows[3], "laptop"))["Against the baseline"]
    assert told.endswith("exact McNemar p = 0.012")
    found.versus_baseline["delta"] = -0.0123  # shares of many outputs: no whole samples
    told = dict(row_facts(chain, chain.rows[3], "laptop"))["Against the baseline"]
    assert told.endswith("; paired p = 0.012")


def test_what_stands_for_labels_is_said_on_the_page(perfect):
    text = page(perfect)
    assert "mse, lower is better, scored against row 0</dd>" in text
    assert "scored against row 0" in caption(perfect, "laptop")
    told = dict(row_facts(perfect, perfect.rows[1], "laptop"))["Mse"]
    assert told.endswith("10,000 samples, scored against row 0")


def test_a_tile_calls_nothing_faster_that_is_not_shown_to_be(make):
    specs = make.four_rows()[1:3]
    specs[1].seconds = specs[0].seconds / 1.002
    specs[1].accuracy = specs[0].accuracy - 1e-5
    record = make.build(specs)
    found = {name: note for name, _, note in tiles(record, stage_effects(record, "laptop")[1])}
    assert found["p50 latency"] == "not shown to differ from the baseline's"
    assert found["accuracy"] == "≈ 0.00 pt against the baseline"
    assert found["artifact size"] == "3.21x smaller than the baseline"


def test_parity_is_shown_of_each_output(chain):
    found = chain.rows[3].measurements[0]
    boxes = ParityFacts(max_error=0.25, sqnr_db=30.0, samples=9, r_squared=0.99)
    ids = ParityFacts(agreement=1.0, max_error=0.0, samples=9, r_squared=1.0)
    found.parity = boxes.model_copy(update={"outputs": {"boxes": boxes, "<ids>": ids}})
    told = dict(row_facts(chain, chain.rows[3], "laptop"))
    assert told["Parity with its module"] == "largest error 0.25, 30.0 dB, R² 0.99, 9 samples"
    assert told["Parity of boxes"] == "largest error 0.25, 30.0 dB, R² 0.99"
    last = told["Parity of <ids>"]
    assert last == "100.00 % same answer, largest error 0, bitwise equal, R² 1"
    again = ParityFacts.model_validate(found.parity.model_dump(mode="json"))
    assert again == found.parity
    assert "outputs" not in boxes.model_dump()
    assert "outputs" not in chain.rows[0].measurements[0].artifact.model_dump()
