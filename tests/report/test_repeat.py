"""A recipe over seeds: what its records say together, the table, the page, what is refused."""

import math
from html.parser import HTMLParser
from pathlib import Path

import pytest

from compress.errors import RecordError
from compress.record import Record
from compress.report.repeat.compare import compare, comparison
from compress.report.repeat.facts import REPEAT_NAME, Repeat
from compress.report.repeat.page import repeat_page, write_repeat
from compress.report.repeat.summary import (
    gather,
    is_repeat,
    seed_folder,
    summary,
)
from compress.report.repeat.table import (
    repeat_columns,
    repeat_markdown,
    repeat_sentences,
    repeat_text,
)

pytestmark = pytest.mark.fast

HOSTILE = "<script>alert(1)</script>|`\x1b[31m"


def seeded(record: Record, seed: int, shifts: dict[int, float] | None = None) -> Record:
    """A copy as another seed might have given: the scores of some rows are moved."""
    copy = record.model_copy(deep=True)
    copy.seed = copy.recipe["seed"] = seed
    for row in copy.rows:
        shift = (shifts or {}).get(row.index, 0.0)
        row.fingerprint += f"-{seed}" if row.index else ""
        for found in row.measurements:
            if found.accuracy is None:
                continue
            found.accuracy.value += shift
            found.accuracy.ci95 = tuple(end + shift for end in found.accuracy.ci95)
            versus = found.accuracy.versus_baseline
            for name in ("delta", "delta_ci_lo", "delta_ci_hi") if versus else ():
                versus[name] += shift
    return copy


@pytest.fixture
def three(chain):
    """Row 4 varies by half a point to a point, the others not at all."""
    return [seeded(chain, seed, {4: shift}) for seed, shift in enumerate((-0.005, 0.0, 0.01))]


# -- from records -----------------------------------------------------------------------------


def test_a_summary_has_every_row_with_each_seed(three):
    repeat = summary(three, {7: "it burned."})
    assert repeat.seeds == [0, 1, 2]
    assert [(each.seed, each.error) for each in repeat.failed] == [(7, "it burned.")]
    assert "seed" not in repeat.recipe
    (target,) = repeat.targets
    row, base = repeat.rows[4].on(target), repeat.rows[repeat.baseline].on(target)
    originals = [record.rows[4].on(target) for record in three]
    assert row.score.values == [m.accuracy.value for m in originals]
    assert row.score.own_ci95 == [m.accuracy.ci95 for m in originals]
    assert row.change.values == [m.accuracy.versus_baseline["delta"] for m in originals]
    assert base.change is None
    assert base.speedup.low == base.speedup.high == 1.0
    assert row.artifact_bytes.values == [float(m.artifact.bytes) for m in originals]
    assert [row.same_model for row in repeat.rows] == [True, False, False, False, False]
    assert len(repeat.choices[0].rows) == 3


def test_changes_are_paired_within_a_run(chain):
    # A seed that moves the baseline and the row alike moves no change.
    records = [seeded(chain, seed) for seed in range(3)]
    for record, shift in zip(records, (-0.03, 0.0, 0.03), strict=True):
        for row in record.rows:
            row.measurements[0].accuracy.value += shift
    found = summary(records).rows[4].measurements[0]
    assert found.score.sd_seeds == pytest.approx(0.03)
    assert found.change.sd_seeds == pytest.approx(0, abs=1e-12)


def test_what_one_run_lacks_is_not_made_up(three):
    three[1].rows[2].measurements[0].accuracy = None
    three[1].rows[3].measurements[0].latency = None
    three[2].rows[3].measurements[0].accuracy.versus_baseline = None
    three[2].rows[4].measurements[0].accuracy.value = math.nan
    three[0].rows[1].measurements = []
    rows = summary(three).rows
    assert rows[1].measurements == []
    assert rows[2].measurements[0].score is rows[2].measurements[0].change is None
    assert rows[3].measurements[0].p50_s is None
    assert rows[3].measurements[0].change is None
    assert rows[4].measurements[0].score is None


@pytest.mark.parametrize("damage", ["recipe", "task", "rows"])
def test_runs_that_differ_in_more_than_the_seed_are_refused(damage, three):
    if damage == "recipe":
        three[2].recipe["stages"] = []
    elif damage == "task":
        three[2].task.test_samples += 1
    else:
        three[2].rows.pop()
    message = "seed 0 and seed 2 differ in more than the seed .*; repeat the run of all seeds"
    with pytest.raises(RecordError, match=message):
        summary(three)


def test_one_run_has_no_spread(three):
    with pytest.raises(RecordError, match=r"needs 2 finished seeds at least; got 1\."):
        summary(three[:1])


def test_targets_that_some_runs_lack_are_left_out(two_targets):
    records = [seeded(two_targets, seed) for seed in range(2)]
    for row in records[1].rows:
        row.measurements = row.measurements[:1]
    assert summary(records).targets == records[0].targets[:1]


# -- on disk ----------------------------------------------------------------------------------


def keep(folder: Path, records) -> None:
    for record in records:
        record.save(seed_folder(folder, record.seed))


def test_the_file_reads_back_as_it_was_written(three, tmp_path):
    repeat = summary(three)
    repeat.save(tmp_path)
    assert Repeat.load(tmp_path).dumps() == repeat.dumps()
    assert (tmp_path / REPEAT_NAME).read_text().startswith('{\n "schema": 1,')


def test_a_repeated_run_is_found_in_its_folder(three, tmp_path):
    assert not is_repeat(tmp_path)
    keep(tmp_path, three[:2])
    assert is_repeat(tmp_path)
    assert gather(tmp_path).seeds == [0, 1]
    keep(tmp_path, three)
    assert gather(tmp_path).seeds == [0, 1, 2]
    summary(three[:2]).save(tmp_path)  # the last command asked for two
    assert gather(tmp_path).seeds == [0, 1]


def test_a_run_that_failed_stays_named(three, tmp_path):
    three[1].status, three[1].error = "failed", "the loss became nan."
    keep(tmp_path, three)
    found = gather(tmp_path)
    assert found.seeds == [0, 2]
    assert [(each.seed, each.error) for each in found.failed] == [(1, "the loss became nan.")]
    summary([three[0], three[2]], {5: "it burned."}).save(tmp_path)
    assert [each.seed for each in gather(tmp_path).failed] == [5]


def test_the_file_alone_will_do(three, tmp_path):
    repeat = summary(three)
    repeat.save(tmp_path)
    assert gather(tmp_path) == Repeat.load(tmp_path)


def test_too_few_finished_seeds_say_what_to_do(three, tmp_path):
    three[1].status = "interrupted"
    keep(tmp_path, three[:2])
    message = (
        "needs 2 finished seeds, and here is 1; repeat the command that started it, and it resumes"
    )
    with pytest.raises(RecordError, match=message):
        gather(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"not a repeated run of schema 1: name: Field required\."),
        ('{"schema": 2}', r"not a repeated run of schema 1: schema: "),
        ("\x00", r"not a repeated run of schema 1: the file: "),
        (None, r"the repeated run cannot be read \("),
    ],
)
def test_a_file_that_is_none_is_refused(content, message, tmp_path):
    if content is not None:
        (tmp_path / REPEAT_NAME).write_text(content)
    with pytest.raises(RecordError, match=rf"repeat\.json: {message}"):
        Repeat.load(tmp_path)


# -- shown ------------------------------------------------------------------------------------


def test_the_table_says_each_interval(three):
    repeat = summary(three)
    (target,) = repeat.targets
    cells = {f"{c.heading} {c.unit}".strip(): c.cells for c in repeat_columns(repeat, target)}
    row = repeat.rows[4].on(target)
    for name, ends in (
        ("± 95 % training", row.score.ci95_seeds),
        ("± 95 % sample", row.score.ci95_sample),
    ):
        down, up = (f"{100 * abs(end - row.score.mean):.2f}" for end in ends)
        assert cells[name][4] == (f"±{up}" if down == up else f"−{down}/+{up}")
    low, high = row.score.ci95
    shown = f"{100 * row.score.mean:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    assert cells["accuracy % [both]"][4] == shown
    assert cells["row"][repeat.baseline].endswith("*")
    assert cells["change pt [both]"][repeat.baseline] == "-"


def test_no_rate_is_shown_beyond_all(chain):
    records = [seeded(chain, seed, {4: shift}) for seed, shift in enumerate((-0.9, 0.08))]
    repeat = summary(records)
    assert repeat.rows[4].measurements[0].score.ci95[1] > 1
    assert repeat_columns(repeat, "laptop")[2].cells[4].endswith(" [0.00, 100.00]")


def test_a_difference_that_only_single_runs_show_is_named(chain):
    shifts = [-0.001, 0.0, 0.03]
    records = [seeded(chain, seed, {4: shift}) for seed, shift in enumerate(shifts)]
    said = " ".join(repeat_sentences(summary(records), "laptop"))
    assert "row 4 (prune) is not shown to differ" in said
    assert "rows 2 (distill) and 3 (quantize) are shown to be worse" in said
    assert "Row 4 (prune): with seeds 0, 1 and 2, a run alone shows a difference" in said
    assert "Row 0: the same model with every seed" in said


def test_for_a_metric_where_lower_is_better_the_words_turn(lower_is_better):
    records = [seeded(lower_is_better, seed) for seed in range(3)]
    repeat = summary(records)
    found = [(row.index, row.measurements[0].change) for row in repeat.rows]
    up = [index for index, change in found if change and change.ci95[0] > 0]
    said = " ".join(repeat_sentences(repeat, repeat.targets[0]))
    assert up
    worse = said.partition("shown to be worse")[0].partition("samples: ")[2]
    assert all(f"{index} (" in worse for index in up if index > repeat.baseline)
    assert "pt" not in repeat_columns(repeat, repeat.targets[0])[5].unit


def test_two_seeds_and_failed_ones_come_with_a_caution(three):
    said = repeat_sentences(summary(three[:2], {4: "it burned."}), "laptop")
    assert any(sentence.startswith("Two seeds say little") for sentence in said)
    assert said[-1] == (
        "Seed 4 failed and is in no number here, which may flatter the recipe: it burned."
    )


def test_the_budget_is_met_or_missed_by_seed(three):
    for record in three:
        record.recipe["budget"] = {"accuracy_drop": 0.012}
    repeat = summary(three)
    repeat.choices[0].meets_budget = [True, False, True]
    assert repeat.misses_budget
    said = " ".join(repeat_sentences(repeat, "laptop"))
    assert "the budget is missed with seed 1." in said
    repeat.choices[0].meets_budget = [True] * 3
    repeat.choices[0].rows = [4, 3, 4]
    said = " ".join(repeat_sentences(repeat, "laptop"))
    assert "The runs say to ship row 3 with seed 1, row 4 with seeds 0 and 2; the budget is" in said


@pytest.mark.parametrize("name", ["chain", "one_row", "lower_is_better", "two_targets"])
@pytest.mark.parametrize("width", [40, 80, 100])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_text_fits_the_terminal(name, width, encoding, request):
    records = [seeded(request.getfixturevalue(name), seed) for seed in range(3)]
    text = repeat_text(summary(records), width=width, encoding=encoding)
    text.encode(encoding)
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "path", "circle", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "name", ["chain", "one_row", "lower_is_better", "two_targets", "adversarial"]
)
def test_the_page_is_whole_and_asks_nobody(name, request):
    records = [seeded(request.getfixturevalue(name), seed) for seed in range(3)]
    repeat = summary(records, {9: HOSTILE})
    text = repeat_page(repeat)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    tags = [tag for tag, _ in reader.tags]
    assert "script" not in tags
    assert not {"img", "link"} & set(tags)
    for _, attributes in reader.tags:
        assert not any(key.startswith("on") or key in ("src", "style") for key in attributes)
        assert attributes.get("href", "seed-").startswith("seed-")
    scored = sum(
        len(m.score.values)
        for row in repeat.rows
        for m in row.measurements
        if m.score and row.index >= repeat.baseline
    )
    assert tags.count("circle") == scored


def test_nothing_from_a_record_breaks_markdown(adversarial):
    records = [seeded(adversarial, seed) for seed in range(2)]
    text = repeat_markdown(summary(records, {9: HOSTILE}), records[0].targets[0])
    assert "\x1b" not in text
    assert "<script" not in text.replace("\\<", "")


def test_the_files_lie_beside_the_runs(three, tmp_path):
    written = write_repeat(summary(three), tmp_path)
    assert [path.name for path in written] == ["repeat.html", "repeat.md", "repeat.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in written)


# -- two recipes ------------------------------------------------------------------------------


def named(records, name):
    for record in records:
        record.name = name
    return summary(records)


def test_a_recipe_is_better_where_seeds_and_samples_do_not_explain_it(chain):
    first = named([seeded(chain, s, {4: x}) for s, x in enumerate((-0.001, 0.0, 0.001))], "a")
    better = named([seeded(chain, s, {4: x}) for s, x in enumerate((0.029, 0.03, 0.031))], "b")
    (gap,) = compare(first, better)
    assert gap.value == pytest.approx(0.03)
    half = 2.776445 * math.sqrt(2 * 0.001**2 / 3)
    assert gap.ci95_seeds == pytest.approx((0.03 - half, 0.03 + half), rel=1e-5)
    # Each recipe's own sample counts: half a point each way.
    assert gap.ci95[0] == pytest.approx(0.03 - math.hypot(half, 0.005, 0.005), rel=1e-5)
    assert gap.verdict == "better"
    assert compare(better, first)[0].verdict == "worse"
    assert compare(first, first)[0].verdict == "not shown to differ"
    said = comparison([first, better])
    assert "b is better than a: +3.00 pt [+2.77, +3.23] [" in said[0]
    assert "not shown to differ from" in comparison([first, first])[0]


def test_scores_of_two_tasks_do_not_compare(three, chain):
    other = [seeded(chain, seed) for seed in range(2)]
    for record in other:
        record.task.test_samples = 99
    with pytest.raises(RecordError, match=r"accuracy on 99 samples of .*do not compare; give runs"):
        compare(summary(three), summary(other))


def test_recipes_on_two_devices_do_not_compare(three, chain):
    other = [seeded(chain, seed) for seed in range(2)]
    for record in other:
        for row in record.rows:
            row.measurements[0].target = "phone"
    with pytest.raises(RecordError, match=r"scores on laptop, .* on phone: nothing to compare"):
        compare(summary(three), summary(other))
