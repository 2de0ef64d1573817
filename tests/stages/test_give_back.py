"""``quantize: {max_drop: ...}``: as few layers as needed stay what they were."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from compress import Candidate, QuantizeStage, Recipe, ReplayTarget, Task
from compress.errors import NoEffect, RecipeError, SettingsError
from compress.quantization.sensitivity import output_errors
from compress.stage import EVALUATION_PARTS, Evaluation, LayerSeconds, formats_of, ranges_of
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context


@pytest.fixture
def start():
    case = NETS["resnet"]
    return Candidate.of(case.build(), case.example())


def quantized(candidate):
    return [name for name, format in formats_of(candidate).items() if not format.is_float32]


@dataclass
class Losing:
    """Each layer that is quantized loses what is told of it, and the others nothing."""

    by_layer: dict[str, float]
    metric: str = "accuracy"
    higher_is_better: bool = True
    scored: list[list[str]] = field(default_factory=list)

    def measure(self, candidate, parts=EVALUATION_PARTS):
        names = quantized(candidate)
        self.scored.append(names)
        lost = sum(self.by_layer.get(name, 0.0) for name in names)
        score = 0.9 - lost if self.higher_is_better else 0.9 + lost
        return Evaluation(1, score, (score, score), self.higher_is_better, metric=self.metric)


def run(start, losing, folder, **settings):
    context = replace(bench_context(start, folder), evaluator=losing)
    return QuantizeStage(**{"max_drop": 0.01, **settings}).run(start, context)


def ordered(start, folder):
    """The layers by the error that each makes, the largest first."""
    after = QuantizeStage().run(start, bench_context(start, folder / "order"))
    formats, context = formats_of(after), bench_context(start, folder / "order")
    ranges = ranges_of(after.module, formats, context.task)
    rows = context.task.validation
    inputs = torch.stack([rows[place][0] for place in range(len(rows))])
    errors = output_errors(after.module, formats, ranges, [inputs])
    return sorted(errors, key=errors.__getitem__, reverse=True)


def test_where_all_keep_the_bound_none_is_given_back(start, tmp_path):
    losing = Losing({"head": 0.009})
    made = run(start, losing, tmp_path)
    assert quantized(made) == quantized(QuantizeStage().run(start, bench_context(start, tmp_path)))
    assert made.notes[-1] == (
        "quantize: max_drop 0.01: all layers lose 0.009 of accuracy on validation, and none was "
        "given back"
    )


@pytest.mark.parametrize("place", [0, 1, 3, 6])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_layer_that_loses_is_given_back_and_only_that(start, place, higher_is_better, tmp_path):
    order = ordered(start, tmp_path)
    losing = Losing({order[place]: 0.2}, higher_is_better=higher_is_better)
    made = run(start, losing, tmp_path)
    assert set(order) - set(quantized(made)) == {order[place]}
    given = f"given back to what they were: {order[place]!r} (1 of {len(order)} layers), and 0 is"
    assert given in made.notes[-1]


def test_several_that_lose_together_are_given_back(start, tmp_path):
    order = ordered(start, tmp_path)
    losing = Losing(dict.fromkeys(order[:5], 0.004))
    made = run(start, losing, tmp_path)
    assert len(set(order) - set(quantized(made))) == 3  # two of them lose 0.008
    assert len(losing.scored) < 25


def test_what_was_excluded_and_what_was_quantized_before_stays(start, tmp_path):
    order = ordered(start, tmp_path)
    before = QuantizeStage(weights="float16").run(start, bench_context(start, tmp_path))
    made = run(before, Losing({}), tmp_path, exclude=(order[1],))
    assert formats_of(made)[order[1]] == formats_of(before)[order[1]]
    assert formats_of(made)[order[2]].weights == "int8"


def test_a_bound_that_no_layer_keeps_is_an_error(start, tmp_path):
    losing = Losing(dict.fromkeys(ordered(start, tmp_path), 0.5))
    said = (
        r"quantize: max_drop 0\.01: all layers lose [\d.]+ of accuracy, and no selected layer can "
        r"be quantized within it: with '.*' alone 0\.5 is lost; allow more, or take a finer format"
    )
    with pytest.raises(NoEffect, match=said):
        run(start, losing, tmp_path)


def test_one_selected_layer_that_loses_is_an_error(start, tmp_path):
    with pytest.raises(NoEffect, match="no selected layer can be quantized within it"):
        run(start, Losing({"head": 0.5}), tmp_path, select=("head",))


def test_a_drop_has_to_fit_the_metric(start, tmp_path):
    with pytest.raises(RecipeError, match=r"max_drop: points are of a rate such as accuracy"):
        run(start, Losing({}, metric="mse"), tmp_path, max_drop="1pt")
    with pytest.raises(RecipeError, match=r"max_drop: 2 would be more than all of the accuracy"):
        run(start, Losing({}), tmp_path, max_drop=2)
    with pytest.raises(SettingsError, match="is neither a number nor points of accuracy"):
        QuantizeStage(max_drop="little")


def test_a_stage_without_it_is_identified_as_before():
    assert "max_drop" not in QuantizeStage().model_dump()
    assert QuantizeStage(max_drop="1pt").model_dump()["max_drop"] == 0.01
    assert not QuantizeStage().uses_evaluator()


class Outlying(torch.nn.Module):
    """One input channel of its middle layer has enormous values, which it hardly reads."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(8, 16)
        self.middle = torch.nn.Linear(16, 16)
        self.last = torch.nn.Linear(16, 4)
        with torch.no_grad():
            self.first.weight[0] *= 3000
            self.middle.weight[:, 0] /= 3000

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


def test_an_outlying_channel_costs_its_reader_its_format(tmp_path):
    torch.manual_seed(0)
    net, x = Outlying().eval(), torch.randn(512, 8)
    with torch.no_grad():
        labels = net(x).argmax(1)
    rows = torch.utils.data.TensorDataset(x, labels)
    task = Task("outlying", rows, rows, rows)
    record = Recipe(name="o", stages=(QuantizeStage(max_drop="1pt"),)).run(
        net, task, targets=[ReplayTarget()], workdir=tmp_path, report=False
    )
    assert "given back to what they were: 'middle' (1 of 3 layers)" in record.rows[1].notes[-1]
    before, after = (row.measurements[0].accuracy.value for row in record.rows)
    assert before - after <= 0.01
    alone = Recipe(name="o", stages=(QuantizeStage(),)).run(
        net, task, targets=[ReplayTarget()], workdir=tmp_path / "all", report=False
    )
    assert before - alone.rows[1].measurements[0].accuracy.value > 0.01


def test_a_relative_drop_is_a_share_of_the_incoming_score(start, tmp_path):
    order = ordered(start, tmp_path)
    # Of a score of 0.9, a share of 0.1 is 0.09.
    kept = run(start, Losing({order[0]: 0.085}), tmp_path, max_drop=0.1, relative=True)
    assert set(order) == set(quantized(kept))
    assert "max_drop 0.1 of the score, which is 0.09: all layers lose 0.085" in kept.notes[-1]
    given = run(start, Losing({order[0]: 0.095}), tmp_path, max_drop=0.1, relative=True)
    assert set(order) - set(quantized(given)) == {order[0]}


@dataclass
class Timing(Losing):
    """Of each layer also what it wins in seconds."""

    won: dict[str, float] = field(default_factory=dict)

    def layer_seconds(self, candidate, layers):
        after = {layer: 1.0 - seconds for layer, seconds in self.won.items()}
        return LayerSeconds(dict.fromkeys(after, 1.0), after, 1.0, 1.0)


def test_of_layers_that_would_do_the_one_that_wins_least_time_goes_back(start, tmp_path):
    order = ordered(start, tmp_path)
    # Either of two would do; the second disturbs less, and wins nearly nothing.
    losing = dict.fromkeys(order[:2], 0.008)
    won = {**dict.fromkeys(order, 1e-3), order[1]: 1e-9}
    timed = run(start, Timing(losing, won=won), tmp_path, give_back="time")
    assert set(order) - set(quantized(timed)) == {order[1]}
    assert f"{len(order)} of {len(order)} layers win time" in timed.notes[-1]
    by_error = run(start, Timing(losing, won=won), tmp_path)
    assert set(order) - set(quantized(by_error)) == {order[0]}


def test_where_nothing_times_layers_the_note_says_so(start, tmp_path):
    order = ordered(start, tmp_path)
    made = run(start, Losing({order[0]: 0.2}), tmp_path, give_back="time")
    assert set(order) - set(quantized(made)) == {order[0]}
    assert "layers could not be timed (nothing times layers here)" in made.notes[-1]
    with pytest.raises(SettingsError, match="give_back is about max_drop"):
        QuantizeStage(give_back="time")
