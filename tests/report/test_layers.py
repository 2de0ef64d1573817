"""What was found of layers: its file, its figure and its block on the page of a run."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from compress.errors import RecipeError, RecordError
from compress.layer_facts import (
    LAYERS_NAME,
    Change,
    Choice,
    LayerSensitivity,
    Sensitivity,
    Timed,
    read_sensitivity,
    write_sensitivity,
)
from compress.report.figures.layers_data import MOST_LAYERS, layers_info, shortened
from compress.report.layers import write_layer_figures
from compress.report.page.page import page


def found_of(count=3, *, timed=True, name="blocks.{}.conv", **facts):
    won = {"saved_s": 1e-4, "saved_s_ci95": (-1e-5, 2e-4)} if timed else {}
    layers = tuple(
        LayerSensitivity(
            name.format(k),
            "Conv2d",
            100 * k + 1,
            {"int8/int8": Change(10.0**-k if k < 9 else 0.0, 0.01, 3000 - k, **won)},
            None if k % 2 else Change(0.1, 0.0, 10),
        )
        for k in range(count)
    )
    where = Timed("local", {"": 1e-3, "int8/int8": 5e-4}, 3) if timed else None
    return Sensitivity("accuracy", 0.9, True, 64, layers, where, **facts)


def test_the_file_is_read_as_it_was_written(tmp_path):
    assert read_sensitivity(tmp_path) is None
    found = found_of(choices=(Choice("--budget a=1", ("- {kind: quantize}",), "said"),))
    assert write_sensitivity(found, tmp_path).name == LAYERS_NAME
    assert read_sensitivity(tmp_path) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(kind="other"), "kind"),
        (lambda c: c["found"].update(score="much"), "found.score"),
        (lambda c: c["found"]["layers"][0].update(layer="x" * 501), "found.layers.0.layer"),
        (lambda c: c["found"].pop("metric"), "found.metric"),
    ],
)
def test_a_file_that_is_none_is_a_sentence(tmp_path, change, said):
    path = write_sensitivity(found_of(), tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=said):
        read_sensitivity(tmp_path)
    path.write_text("{")
    with pytest.raises(RecordError, match="it is left as it is: remove it"):
        read_sensitivity(tmp_path)


def test_numbers_that_are_none_are_refused(tmp_path):
    path = write_sensitivity(found_of(), tmp_path)
    path.write_text(path.read_text().replace('"score": 0.9', '"score": NaN'))
    with pytest.raises(RecordError):
        read_sensitivity(tmp_path)


def test_a_figure_has_at_most_sixty_layers_and_says_what_is_left_out():
    info = layers_info(found_of(MOST_LAYERS + 5))
    assert len(info.layers) == MOST_LAYERS
    assert "5 layers with smaller errors are left out" in info.caption
    assert [panel.title for panel in info.panels][1:] == ["KiB won", "ms won"]
    assert len(layers_info(found_of(timed=False)).panels) == 2


def test_of_a_long_name_the_ends_stay():
    name = "encoder.layers.0.attention.self.query_key_value_projection"
    assert len(shortened(name)) == 38
    assert shortened(name).startswith("encoder.l")
    assert shortened(name).endswith("key_value_projection")
    assert shortened("head") == "head"


def test_names_end_where_the_bars_begin():
    from compress.report.figures.canvas import extent
    from compress.report.figures.layers import draw_layers

    figure = draw_layers(
        layers_info(found_of(4, name="a.module_of_a_very_very_long_name.{}.projection"))
    )
    first, second, *_ = figure.axes
    left = 720 * first.get_position().x0
    boxes = [extent(label) for label in first.get_yticklabels()]
    assert all(box.x0 >= 0 and box.x1 <= left for box in boxes)
    assert all(a.y0 >= b.y1 for a, b in pairwise(boxes))
    assert extent(first.title).x1 <= 720 * second.get_position().x0


def test_figures_are_written_and_written_again_and_replace_nothing_else(tmp_path):
    names = [path.name for path in write_layer_figures(found_of(), tmp_path)]
    pictures = [f"layers{dark}.{kind}" for dark in ("", "-dark") for kind in ("png", "svg")]
    assert names == [LAYERS_NAME, *pictures]
    assert write_layer_figures(found_of(timed=False), tmp_path)
    (tmp_path / LAYERS_NAME).unlink()
    with pytest.raises(RecipeError, match="that compresskit did not write"):
        write_layer_figures(found_of(), tmp_path)


def test_the_page_shows_what_was_found_of_its_own_model(chain, tmp_path):
    record = chain
    assert "Which layer hurts" not in page(record, folder=tmp_path)
    own = record.rows[1]
    choice = Choice("--budget artifact_kib=9", ("- {kind: <b>}",), "said of it")
    found = found_of(name="<i>{}", choices=(choice,), row=1, fingerprint=own.fingerprint)
    write_sensitivity(found, tmp_path)
    shown = page(record, folder=tmp_path)
    assert "Which layer hurts" in shown
    assert 'class="layers"' in shown
    assert "&lt;i&gt;0" in shown
    assert "- {kind: &lt;b&gt;}" in shown
    assert "<i>0" not in shown
    write_sensitivity(replace(found, fingerprint="another"), tmp_path)
    assert "is about another model than row 1 of this run" in page(record, folder=tmp_path)
    (tmp_path / LAYERS_NAME).write_text("[]")
    assert "it is left as it is" in page(record, folder=tmp_path)
