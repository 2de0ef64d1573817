"""The page in a real browser: quiet, offline, interactive, and of one mind with Python."""

import json
import os
import random

import pytest

from compress.pareto import recommend
from compress.report import compared
from compress.report.page.budget import sliders_of
from compress.report.page.page import combined_page, page
from tests.tools.chromium import Chromium, find_chromium
from tests.tools.screenshots import take

if find_chromium() is None and not os.environ.get("COMPRESSKIT_BROWSER_REQUIRED"):
    pytest.skip("Chromium is not installed (apt install chromium)", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    with Chromium() as running:
        yield running


def page_of_several(records):
    return combined_page(compared(records))


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the page of a record, and checks afterwards that it was quiet and stayed at home."""
    tabs = []

    def open_page(record, width=1280, height=900, dark=False):
        path = tmp_path / "report.html"
        several = isinstance(record, list)
        path.write_text(page_of_several(record) if several else page(record), encoding="utf-8")
        context = browser.tab(path.as_uri(), width=width, height=height, dark=dark)
        tab = context.__enter__()
        tabs.append((context, tab, path.as_uri()))
        return tab

    yield open_page
    for context, tab, url in tabs:
        complaints = [*tab.events("Runtime.exceptionThrown"), *tab.events("Log.entryAdded")]
        complaints += tab.events("Runtime.consoleAPICalled")
        asked = [e["request"]["url"].split("#")[0] for e in tab.events("Network.requestWillBeSent")]
        context.__exit__(None, None, None)
        assert complaints == []
        assert asked == [url]


RECORDS = ["chain", "one_row", "failed", "lower_is_better", "two_targets", "adversarial"]
CHOICES = ["chain", "clustered", "lower_is_better", "failed", "two_targets", "perfect"]


@pytest.mark.parametrize("name", [*RECORDS, "clustered"])
def test_pages_run_without_a_word_or_a_request(name, opened, request):
    tab = opened(request.getfixturevalue(name))
    assert tab.run("document.documentElement.classList.contains('scripted')")
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert tab.run("[...document.querySelectorAll('svg.pareto')].every(s => s.getBBox().width > 0)")


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["chain", "adversarial", "clustered"])
def test_nothing_is_wider_than_the_window(name, width, opened, request):
    tab = opened(request.getfixturevalue(name), width=width)
    assert tab.run("document.documentElement.scrollWidth") <= width


def settings(record, target, count):
    """Stops of every slider, by chance: the recipe's own first, then all over the place."""
    chance = random.Random(5)
    sliders = sliders_of(record, target)
    yield [slider.start for slider in sliders]
    for _ in range(count):
        loose = chance.random() < 0.5
        yield [
            len(s.stops) - 1 if loose and chance.random() < 0.5 else chance.randrange(len(s.stops))
            for s in sliders
        ]


def answers(tab, number, positions):
    """What the page says for every list of slider positions."""
    return tab.run(f"""{json.dumps(positions)}.map(places => {{
      const section = document.querySelector('[data-plot="{number}"]');
      const inputs = [...section.querySelectorAll('.budget input')];
      inputs.forEach((input, k) => {{ input.value = places[k]; }});
      inputs[0].dispatchEvent(new Event('input', {{ bubbles: true }}));
      const box = section.querySelector('.recommendation');
      return [Number(box.dataset.row), box.querySelector('.verdict').textContent,
        box.classList.contains('met'), [...box.querySelectorAll('.misses li')].map(
          item => item.textContent),
        [...section.querySelectorAll('.row.ship')].length,
        section.querySelector('.tiles dd').firstChild.textContent];
    }})""")


def asked_of_python(record, target, places):
    sliders = sliders_of(record, target)
    budget = {
        slider.field: stop.value
        for slider, place in zip(sliders, places, strict=True)
        if (stop := slider.stops[place]).value is not None
    }
    changed = record.model_copy(deep=True)
    changed.recipe.pop("budget", None)
    if budget:
        changed.recipe["budget"] = budget
    return recommend(changed, target)


@pytest.mark.parametrize("name", CHOICES)
def test_sliders_give_the_answer_that_python_gives(name, opened, request):
    record = request.getfixturevalue(name)
    tab = opened(record)
    chosen = set()
    for number, target in enumerate(record.targets):
        positions = list(settings(record, target, 80))
        found = answers(tab, number, positions)
        for places, (row, reasons, met, missed, _, _) in zip(positions, found, strict=True):
            advice = asked_of_python(record, target, places)
            assert (row, reasons) == (advice.index, advice.reasons), places
            assert met == advice.meets_budget
            assert missed == list(advice.missed)
            chosen.add((row, met))
    assert len(chosen) > 2  # the settings asked for different things


def test_the_answer_moves_ring_tiles_table_and_budget_line(opened, chain):
    tab = opened(chain)
    shown = "document.querySelector('tr.ship').dataset.row"
    assert tab.run(shown) == "2"
    sliders = sliders_of(chain, "laptop")
    free = [len(slider.stops) - 1 for slider in sliders]
    [(row, _, _, _, ringed, score)] = answers(tab, 0, [[*free[:3], 0]])
    assert (row, ringed, score) == (1, 1, "93.52 %")
    assert tab.run(shown) == "1"
    assert tab.run("document.querySelector('tr.ship th').textContent") == "1*>"
    lines = "document.querySelectorAll('.limits .limit').length"
    assert tab.run(lines) == 1  # no drop at all, on the score's axis
    tab.run("document.querySelector('.budget').reset()")
    tab.run("new Promise(done => setTimeout(done, 50))")
    assert tab.run(shown) == "2"
    assert tab.run(lines) == 2


def test_a_slider_moves_by_keyboard_and_speaks_its_value(opened, chain):
    tab = opened(chain)
    tab.run("document.querySelector('[data-slider=\"0\"]').focus()")
    before = tab.run("document.activeElement.getAttribute('aria-valuetext')")
    tab.press("ArrowLeft")
    after = tab.run("document.activeElement.getAttribute('aria-valuetext')")
    assert before == "300 µs"
    assert after != before
    assert tab.run("document.activeElement.nextElementSibling.textContent") == after


def test_axes_can_be_chosen_and_never_be_the_same(opened, chain):
    tab = opened(chain)
    choose = """(axis, value) => {{
      const select = document.querySelector(`[data-axis="${{axis}}"]`);
      select.value = value;
      select.dispatchEvent(new Event('change'));
      return [...document.querySelectorAll('select')].map(s => s.value);
    }}"""
    choose = choose.replace("{{", "{").replace("}}", "}")
    first = tab.run("document.querySelector('.row').getAttribute('transform')")
    assert tab.run(f"({choose})('x', 'artifact_bytes')") == ["accuracy", "artifact_bytes"]
    assert tab.run("document.querySelector('.row').getAttribute('transform')") != first
    titles = "[...document.querySelectorAll('.pareto .title')].map(t => t.textContent)"
    assert tab.run(titles) == ["← smaller · artifact size (log scale)", "↑ better · accuracy"]
    assert tab.run(f"({choose})('y', 'artifact_bytes')") == ["artifact_bytes", "accuracy"]


def test_rows_that_an_axis_does_not_have_are_named(opened, make):
    specs = make.four_rows()[1:4]
    specs[1].peak_mib = None
    tab = opened(make.build(specs))
    tab.run("""(() => { const select = document.querySelector('[data-axis="x"]');
      select.value = 'model_peak_bytes'; select.dispatchEvent(new Event('change')); })()""")
    assert tab.run("document.querySelector('.absentees').textContent") == (
        "Not measured on these axes: 1 distill."
    )
    assert tab.run("document.querySelectorAll('.row.absent').length") == 1


def test_pointing_at_a_row_and_reaching_it_by_keyboard_tell_the_same(opened, chain):
    tab = opened(chain)
    place = tab.run("""(() => {
      const box = document.querySelector('[data-point="1"] .mark').getBoundingClientRect();
      window.scrollTo(0, box.top - 300);
      const at = document.querySelector('[data-point="1"] .mark').getBoundingClientRect();
      return [at.left + at.width / 2, at.top + at.height / 2];
    })()""")
    tab.move(*place)
    tip = "(t => t.hidden ? '' : t.textContent)(document.querySelector('.tip'))"
    pointed = tab.run(tip)
    assert pointed.startswith("Row 2 distill")
    assert "221 KiB" in pointed
    tab.press("Escape")
    assert tab.run(tip) == ""
    tab.run("document.querySelector('[data-point=\"0\"]').focus()")
    tab.press("Tab")
    assert tab.run("document.activeElement.dataset.point") == "1"
    assert tab.run(tip) == pointed
    tab.press("Tab")
    assert tab.run(tip).startswith("Row 3 quantize")


OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll('.pareto .row:not(.crowded):not(.absent) .name')]
    .map(name => name.getBoundingClientRect());
  const bad = [];
  for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
    const a = boxes[i], b = boxes[j];
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 3) bad.push([i, j]);
  }
  const frame = document.querySelector('.plot').getBoundingClientRect();
  const out = boxes.filter(b => b.left < frame.left - 1 || b.right > frame.right + 1).length;
  return [bad.length, out, boxes.length];
})()"""


BEYOND = """(() => {
  const limits = [...document.querySelectorAll('.outside')].map(x => x.getBoundingClientRect());
  const inside = (b, a) => b.right > a.left + 1 && b.left < a.right && b.bottom > a.top + 1 &&
    b.top < a.bottom;
  return [...document.querySelectorAll('.pareto .row:not(.crowded)')].filter((row) => {
    const mark = row.querySelector('.mark').getBoundingClientRect();
    const name = row.querySelector('.name').getBoundingClientRect();
    const middle = { left: mark.x + mark.width / 2, top: mark.y + mark.height / 2 };
    const at = { ...middle, right: middle.left, bottom: middle.top };
    return !limits.some(a => inside(at, a)) && limits.some(a => inside(name, a));
  }).length;
})()"""


@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_of_a_row_within_the_budget_stands_beyond_it(width, opened, chain, make):
    chain.recipe["budget"] = {"latency_p50_ms": 0.07, "accuracy_drop": 0.025}
    tab = opened(chain, width=width)
    assert tab.run("document.querySelectorAll('.outside').length") == 2
    assert tab.run(BEYOND) == 0
    other = make.build(make.four_rows(), baseline=1)
    other.recipe["budget"] = chain.recipe["budget"]
    tab = opened([chain, other], width=width)  # whose lines no slider moves
    assert tab.run("document.querySelectorAll('.outside').length") == 2
    assert tab.run(BEYOND) == 0


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["chain", "clustered", "lower_is_better"])
def test_labels_never_lie_on_one_another(name, width, opened, request):
    tab = opened(request.getfixturevalue(name), width=width)
    overlaps, outside, shown = tab.run(OVERLAPS)
    assert (overlaps, outside) == (0, 0)
    assert shown >= 2


def test_a_plot_follows_the_width_of_its_window(opened, chain):
    tab = opened(chain, width=1280)
    wide = tab.run("document.querySelector('.pareto').getAttribute('viewBox')")
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    tab.call("Emulation.setDeviceMetricsOverride", size)
    tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    narrow = tab.run("document.querySelector('.pareto').getAttribute('viewBox')")
    assert wide != narrow
    text = "getComputedStyle(document.querySelector('.pareto text')).fontSize"
    scale = tab.run("document.querySelector('.pareto').getScreenCTM().a")
    assert float(tab.run(text).removesuffix("px")) * scale >= 11.5


def test_hostile_text_stays_text(opened, adversarial):
    tab = opened(adversarial)
    assert "<script>alert(1)</script>" in tab.run("document.querySelector('h1').textContent")
    tab.run("document.querySelector('.row').focus()")
    assert "<script>" in tab.run("document.querySelector('.tip').textContent")
    assert tab.run("document.querySelectorAll('.tip script, .recommendation script').length") == 0


def test_the_policy_stops_what_was_slipped_in(browser, chain, tmp_path):
    path = tmp_path / "report.html"
    slipped = '<script>window.slipped = 1</script><img src="http://127.0.0.1:9/x.png"></main>'
    path.write_text(page(chain).replace("</main>", slipped), encoding="utf-8")
    with browser.tab(path.as_uri(), width=800, height=600) as tab:
        assert tab.run("window.slipped === undefined")
        said = [e["entry"]["text"] for e in tab.events("Log.entryAdded")]
        assert sum("Content Security Policy" in text for text in said) >= 2


def test_several_runs_have_a_plot_with_axes_but_no_budget(opened, make):
    slower = make.four_rows()
    for spec in slower:
        spec.seconds *= 1.5
    tab = opened([make.build(make.four_rows(), baseline=1), make.build(slower, baseline=1)])
    assert tab.run("document.querySelectorAll('select').length") == 2
    assert tab.run("document.querySelectorAll('.budget').length") == 0
    assert tab.run("document.querySelectorAll('.row').length") == 8


def test_dark_is_dark(opened, chain):
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened(chain, dark=True).run(background) == "rgb(21, 25, 30)"


def test_pictures_for_the_docs_are_taken(chain, tmp_path):
    written = take(page(chain), tmp_path)
    assert [path.name for path in written] == [
        *("report-wide-light.png", "report-wide-dark.png"),
        *("report-narrow-light.png", "report-narrow-dark.png"),
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
