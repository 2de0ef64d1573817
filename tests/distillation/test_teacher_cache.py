"""The teacher cache: outputs are computed once, and never those of another teacher, or damaged."""

import resource
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress import Candidate, DistillStage, PruneStage
from compress.distillation import teacher_cache
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError, SettingsError, StageError, StorageError
from compress.stages import fit as fitting
from compress.tasks.arrays import ArrayDataset
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context

CASE = NETS["mlp"]
TASK = CASE.make_task()
SAMPLES = len(TASK.train)
STAGE = DistillStage(epochs=4, batch_size=100, views=2)
HINT = {"kind": "hint", "student": "layers.0", "teacher": "layers.0"}


@pytest.fixture
def start():
    return Candidate.of(CASE.build(), CASE.example())


def counting(module):
    """The module as a teacher, and how many samples it ran on, without the examples."""
    calls = []
    module.register_forward_pre_hook(
        lambda _, args: calls.append(len(args[0])) if len(args[0]) > 4 else None
    )
    return frozen_teacher(module), calls


@pytest.fixture
def place(start, tmp_path):
    """What a stage is given, the calls of its teacher, and the events that it reports."""
    teacher, calls = counting(CASE.build(seed=1))
    events = []
    context = bench_context(start, tmp_path / "stage")
    return replace(context, task=TASK, teacher=teacher, report=events.append), calls, events


def files(context, pattern="*.npy"):
    return sorted((context.workdir / "answers").rglob(pattern))


def warnings(events):
    return [event["text"] for event in events if event["event"] == "warning"]


def noise(inputs, generator):
    return inputs + torch.randn(inputs.shape, generator=generator)


def without_a_cache(monkeypatch):
    cached_teacher = fitting.cached_teacher
    monkeypatch.setattr(
        fitting,
        "cached_teacher",
        lambda context, losses, data, _, cache: cached_teacher(context, losses, data, None, cache),
    )


@pytest.mark.parametrize("loss", [{"kind": "response"}, HINT], ids=lambda loss: loss["kind"])
@pytest.mark.parametrize("mix", [None, {"kind": "mixup"}], ids=["plain", "mixed"])
def test_cached_outputs_give_the_same_student_as_no_cache(loss, mix, start, place, monkeypatch):
    context = replace(place[0], task=replace(TASK, augment=noise))
    stage = DistillStage(epochs=4, batch_size=100, views=2, losses=[loss], mix=mix)
    kept = stage.run(start, context)
    assert len(files(context)) == (2 if loss["kind"] == "response" else 4)
    without_a_cache(monkeypatch)
    assert stage.run(start, context).fingerprint == kept.fingerprint


def test_a_second_run_does_not_run_the_teacher(start, place):
    context, calls, events = place
    first = STAGE.run(start, context)
    assert sum(calls) == 2 * SAMPLES
    assert [e["number"] for e in events if e["event"] == "progress"] == [1, 2]
    again = STAGE.run(start, context)
    assert sum(calls) == 2 * SAMPLES
    assert again.fingerprint == first.fingerprint
    assert not warnings(events)


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.1}, {"epochs": 7}, {"losses": [{"kind": "hard"}]}], ids=str
)
def test_cached_outputs_serve_another_student(change, start, place):
    context, calls, _ = place
    STAGE.run(start, context)
    settings = {"epochs": 4, "batch_size": 100, "views": 2, **change}
    DistillStage(
        student={"arch": "mlp", "in_features": 24, "width": 8, "classes": 4}, **settings
    ).run(start, context)
    assert sum(calls) == 2 * SAMPLES


def test_more_views_run_the_teacher_on_the_new_ones_only(start, place):
    context, calls, _ = place
    STAGE.run(start, context)
    DistillStage(epochs=4, batch_size=100, views=3).run(start, context)
    assert sum(calls) == 3 * SAMPLES


@pytest.mark.parametrize(
    ("context_change", "stage_change"),
    [
        ({"seed": 1}, {}),
        ({"task": replace(TASK, augment=noise)}, {}),
        ({"task": CASE.make_task(seed=4)}, {}),
        ({}, {"batch_size": 50}),
        ({}, {"mix": {"kind": "mixup"}}),
        ({}, {"losses": [HINT]}),
        ({}, {"cache": {"dtype": "float16"}}),
    ],
    ids=["seed", "augment", "data", "batch_size", "mix", "features", "dtype"],
)
def test_outputs_for_anything_else_are_computed_anew(context_change, stage_change, start, place):
    context, calls, _ = place
    STAGE.run(start, context)
    settings = {"epochs": 4, "batch_size": 100, "views": 2, **stage_change}
    other = replace(context, **context_change)
    expected = DistillStage(**settings).run(start, replace(other, workdir=context.workdir / "new"))
    calls.clear()
    assert DistillStage(**settings).run(start, other).fingerprint == expected.fingerprint
    assert sum(calls) == 2 * SAMPLES


@pytest.mark.parametrize("kind", ["module", "structure", "callable", "onnx", "weights of several"])
def test_outputs_of_another_teacher_are_never_used(kind, start, place, tmp_path):
    context, _, events = place
    teachers = two_teachers(kind, tmp_path)
    fresh = []
    for number, (teacher, settings) in enumerate(teachers):
        alone = replace(context, workdir=tmp_path / str(number))
        stage = DistillStage(epochs=4, batch_size=100, views=2, losses=RESPONSE, **settings)
        prepared(settings, number, tmp_path)
        fresh.append(stage.run(start, replace(alone, teacher=teacher)).fingerprint)
        shared = stage.run(start, replace(context, teacher=teacher))
        assert shared.fingerprint == fresh[-1]
        assert len({path.parents[1] for path in files(context)}) == 1  # the others are gone
    assert len(set(fresh)) == 2
    assert not warnings(events)


RESPONSE = [{"kind": "response"}]


def two_teachers(kind, folder):
    """Two teachers of one kind that differ as little as they can, with their settings."""
    a, b = CASE.build(seed=1), CASE.build(seed=1)
    if kind == "module":
        with torch.no_grad():
            next(b.parameters())[0, 0] += 0.5
        return [(frozen_teacher(net), {}) for net in (a, b)]
    if kind == "structure":
        nets = [nn.Sequential(net, act) for net, act in ((a, nn.Tanh()), (b, nn.Softsign()))]
        return [(frozen_teacher(net), {}) for net in nets]
    if kind == "callable":
        return [(lambda x, f=factor: f * x[:, :4], {}) for factor in (1, 2)]
    path = folder / "t.onnx"
    if kind == "onnx":
        return [(None, {"teacher": {"onnx": path}})] * 2
    members = [{"onnx": path}, {"onnx": folder / "u.onnx"}]
    return [
        (None, {"teacher": [{**members[0], "weight": weight}, members[1]]}) for weight in (1, 2)
    ]


def prepared(settings, number, folder):
    """Write the files of a teacher: the one of a single file changes under its name."""
    if isinstance(settings.get("teacher"), list):
        number = 0
    for name, scale in (("t.onnx", 1.0 + number), ("u.onnx", -2.0)):
        weight = scale * np.eye(24, 4, dtype=np.float32)
        ports = [
            helper.make_tensor_value_info(port, TensorProto.FLOAT, ["n", width])
            for port, width in (("in", 24), ("out", 4))
        ]
        node, tensor = helper.make_node("MatMul", ["in", "w"], ["out"]), numpy_helper.from_array
        graph = helper.make_graph([node], "t", ports[:1], ports[1:], [tensor(weight, "w")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.save(model, folder / name)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def swap(path):
    other = path.parents[1] / "0001" / path.name
    path.write_bytes(other.read_bytes())


def reshape(path):
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize("damage", [flip, truncate, swap, reshape], ids=lambda d: d.__name__)
def test_damaged_outputs_are_computed_again_with_a_warning(damage, start, place):
    context, calls, events = place
    whole = STAGE.run(start, context)
    damage(files(context)[0])
    calls.clear()
    assert STAGE.run(start, context).fingerprint == whole.fingerprint
    assert sum(calls) == SAMPLES
    (text,) = warnings(events)
    assert text.endswith("; the teacher's outputs are computed again.")


def test_outputs_moved_here_from_another_teacher_are_found(start, place, tmp_path):
    context, calls, events = place
    whole = STAGE.run(start, context)
    other = replace(context, teacher=lambda x: x[:, :4], workdir=tmp_path / "other")
    STAGE.run(start, other)
    (own,), (foreign,) = ({f.parents[1] for f in files(c)} for c in (context, other))
    shutil.rmtree(own)
    shutil.copytree(foreign, own)
    calls.clear()
    assert STAGE.run(start, context).fingerprint == whole.fingerprint
    assert sum(calls) == 2 * SAMPLES
    assert all("belongs to another teacher" in text for text in warnings(events))


def test_data_that_changed_in_place_are_found(start, place):
    context, calls, events = place
    STAGE.run(start, context)
    inputs = TASK.train.inputs.clone()
    inputs[17] += 1
    changed = replace(TASK, train=ArrayDataset(inputs, TASK.train.labels))
    calls.clear()
    STAGE.run(start, replace(context, task=changed))
    assert sum(calls) == 2 * SAMPLES
    assert all("belongs to other inputs" in text for text in warnings(events))
    assert len(warnings(events)) == 2


def test_a_run_that_stops_in_the_second_view_keeps_the_first(start, place):
    context, calls, _ = place
    expected = STAGE.run(start, replace(context, workdir=context.workdir / "apart"))
    calls.clear()

    class Stop(BaseException):
        pass

    def stopping(event):
        if event["event"] == "progress" and event["number"] == 2:
            raise Stop

    with pytest.raises(Stop):
        STAGE.run(start, replace(context, report=stopping))
    assert sum(calls) == SAMPLES
    assert STAGE.run(start, context).fingerprint == expected.fingerprint
    assert sum(calls) == 2 * SAMPLES


def test_a_teacher_that_fails_half_way_leaves_no_half_view(start, place):
    context, _, _ = place
    healthy, batches = context.teacher, []

    def failing(inputs):
        batches.extend([len(inputs)] * (len(inputs) > 2))  # and not of a probe
        return healthy(inputs) * (float("nan") if len(batches) == 3 else 1)

    with pytest.raises(StageError, match=r"not finite \(outputs\) for batch 3 of view 1"):
        STAGE.run(start, replace(context, teacher=failing))
    assert not files(context)


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(start, place):
    context, calls, _ = place
    expected = STAGE.run(start, replace(context, workdir=context.workdir / "apart"))
    calls.clear()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def filling(event):
        if event["event"] == "progress" and event["number"] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))

    try:
        with pytest.raises(StorageError, match=r"\(File too large\); what was finished .*float16"):
            STAGE.run(start, replace(context, report=filling))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    calls.clear()
    assert STAGE.run(start, context).fingerprint == expected.fingerprint
    assert sum(calls) == SAMPLES


@pytest.mark.parametrize("attempt", ["run", "rehearse"])
def test_outputs_beyond_the_limit_are_refused_before_any_is_computed(attempt, start, place):
    context, calls, _ = place
    big = replace(
        context, teacher=lambda x: calls.append(len(x)) or x.repeat(1, 9_000)[:, :200_000]
    )
    stage = DistillStage(
        epochs=4, views=2, cache={"most_mib": 100}, losses=[{"kind": "rkd-distance"}]
    )
    with pytest.raises(
        StageError,
        match=r"the teacher's outputs for 2 views would take 390\.6 MiB of disk; the limit "
        r"cache\.most_mib is 100\.0 MiB: set cache: \{dtype: float16\}, set fewer views, or",
    ):
        getattr(stage, attempt)(start, big)
    assert all(count <= 2 for count in calls)


@pytest.mark.parametrize("attempt", ["run", "rehearse"])
def test_outputs_beyond_the_disk_are_refused_before_any_is_computed(
    attempt, start, place, monkeypatch
):
    context, calls, _ = place
    usage = shutil.disk_usage("/")._replace(free=5_000)
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"2 views would take 0\.0 MiB, and .* 0\.0 MiB free"):
        getattr(STAGE, attempt)(start, context)
    assert not calls
    monkeypatch.undo()
    STAGE.run(start, context)
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda _: usage)
    getattr(STAGE, attempt)(start, context)  # they are there already


@pytest.mark.parametrize("kind", ["distill", "prune"])
def test_a_dry_run_reports_the_size_of_the_cache(kind, start, place):
    context, _, events = place
    settings = {"epochs": 4, "views": 2, "losses": [{"kind": "response"}]}
    stage = DistillStage(**settings) if kind == "distill" else PruneStage(finetune=settings)
    stage.rehearse(start, context)
    said, pace = (event for event in events if event["event"] not in ("widths", "warning"))
    assert pace["event"] == "pace"
    assert pace["seconds"] > 0
    assert said == {"event": "answers", "bytes": 2 * SAMPLES * 4 * 4}
    assert not context.workdir.joinpath("answers").exists()
    stage.run(start, context)
    held = sum(path.stat().st_size for path in files(context))
    assert said["bytes"] <= held <= said["bytes"] + 2 * 128


def test_half_precision_takes_half_and_teaches_nearly_the_same(start, place):
    context, _, _ = place
    exact = STAGE.run(start, context)
    size = sum(path.stat().st_size - 128 for path in files(context))
    half = DistillStage(epochs=4, batch_size=100, views=2, cache={"dtype": "float16"})
    rough = half.run(start, context)
    assert sum(path.stat().st_size - 128 for path in files(context)) == size / 2
    for one, other in zip(exact.module.parameters(), rough.module.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-2)


def test_what_half_precision_cannot_hold_is_refused(start, place):
    context = replace(place[0], teacher=lambda x: 1e6 * x[:, :4])
    half = DistillStage(epochs=4, views=2, cache={"dtype": "float16"})
    with pytest.raises(StageError, match=r"outputs reach .*, and float16 ends at 65504; set cache"):
        half.run(start, context)


def test_outputs_that_change_their_shape_cannot_be_cached(start, place):
    context = replace(place[0], teacher=lambda x: x[:, : 4 if len(x) == 2 else 5])
    with pytest.raises(StageError, match=r"are \(4,\) for one sample and \(5,\) for another"):
        STAGE.run(start, context)


def test_data_that_draw_their_own_random_numbers_are_refused(start, place):
    def restless(inputs, generator):
        return inputs + np.random.default_rng().normal()

    context = replace(place[0], task=replace(TASK, augment=restless))
    with pytest.raises(DataError, match=r"all randomness must come from the generator"):
        STAGE.run(start, context)


def test_dictionaries_of_inputs_are_kept_too(tmp_path):
    class Named:
        def __len__(self):
            return 20

        def __getitem__(self, index):
            inputs, label = TASK.train[index]
            return {"x": inputs, "scale": torch.tensor(float(index))}, label

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(24, 4)

        def forward(self, x, scale):
            return self.inner(x) + 0.01 * scale[:, None]

    torch.manual_seed(0)
    data = Named()
    start = Candidate.of(Net(), {"x": torch.ones(2, 24), "scale": torch.ones(2)})
    context = replace(
        bench_context(start, tmp_path),
        task=replace(TASK, train=data, validation=data, test=data),
        teacher=frozen_teacher(Net()),
    )
    stage = DistillStage(epochs=3, batch_size=8, views=1)
    assert stage.run(start, context).fingerprint == stage.run(start, context).fingerprint
    assert len(files(context)) == 1


def test_a_cache_without_views_is_refused():
    with pytest.raises(SettingsError, match="cache goes with views: without them the teacher"):
        DistillStage(epochs=4, cache={"dtype": "float16"})
