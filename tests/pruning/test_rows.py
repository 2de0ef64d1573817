"""What a prune did is in its row, in the table's notes and on the page."""

import shutil

import pytest

from compress import Candidate, PruneStage, QuantizeStage, Recipe, ReplayTarget
from compress.errors import NoEffect, SelectorError
from compress.record import Record
from compress.report.page.page import page
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context


def run(stages, folder, net="resnet"):
    case = NETS[net]
    start = Candidate.of(case.build(), case.example())
    recipe = Recipe(name="cut", stages=stages)
    return recipe.run(
        start,
        case.make_task(),
        targets=[ReplayTarget()],
        workdir=folder,
        mode="quick",
        cache="none",
        report=False,
    )


def test_every_layer_is_listed_and_one_sentence_says_asked_and_done(tmp_path):
    record = run([PruneStage(ratio=0.3, round_to=4)], tmp_path)
    (_, row) = record.rows
    widths = {width.layer: width for width in row.widths}
    assert (widths["stem"].before, widths["stem"].after) == (16, 12)
    assert widths["head"].is_output
    assert widths["head"].reason == "they are the model's outputs"
    (note,) = row.notes
    assert note.startswith("prune: 0.3 of the channels of each layer was requested, and 0.")
    shown = page(record)
    assert "Pruned layers" in shown
    assert "16 → 12" in shown
    assert note.split(" (")[0] in shown


def test_the_list_is_there_again_when_the_result_is_re_used(tmp_path):
    stages = [PruneStage(ratio=0.3)]
    first = run(stages, tmp_path)
    again = run(stages, tmp_path)
    assert again.rows[1].cached
    assert again.rows[1].widths == first.rows[1].widths
    assert Record.load(tmp_path).rows[1].widths == first.rows[1].widths


def test_what_stays_whole_is_said_with_its_reason(tmp_path):
    record = run([PruneStage(ratio=0.5, ignore=("blocks.1",))], tmp_path)
    ignored = [width for width in record.rows[1].widths if width.layer.startswith("blocks.1")]
    assert all(width.reason == "'blocks.1' is to be ignored" for width in ignored)


def test_a_pattern_of_ignore_that_names_nothing_is_an_error(tmp_path):
    case = NETS["resnet"]
    start = Candidate.of(case.build(), case.example())
    with pytest.raises(SelectorError, match="the pattern 'blok' matches no layer"):
        PruneStage(ignore=("blok",)).run(start, bench_context(start, tmp_path))


def test_nothing_left_to_cut_is_an_error_that_says_why(tmp_path):
    case = NETS["mlp"]
    start = Candidate.of(case.build(), case.example())
    with pytest.raises(NoEffect, match="no channel of any layer can be removed"):
        PruneStage(ignore=("layers",)).run(start, bench_context(start, tmp_path))


@pytest.mark.exhaustive  # as tests/running/test_kill.py does
@pytest.mark.parametrize("net", ["causal-lm", "resnet", "attention"])
def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted(net, tmp_path):
    stages = [PruneStage(ratio=0.25), QuantizeStage(), PruneStage(ratio=0.25)]
    whole = run(stages, tmp_path / "whole", net)
    run(stages, tmp_path / "resumed", net)
    (last,) = (tmp_path / "resumed" / "stages").glob("03-*")
    shutil.rmtree(last)
    resumed = run(stages, tmp_path / "resumed", net)
    assert [r.cached for r in resumed.rows] == [False, True, True, False]
    for row, other in zip(whole.rows, resumed.rows, strict=True):
        assert (row.fingerprint, row.parameters) == (other.fingerprint, other.parameters)
