"""The code of docs/python.md and the notebook of examples/, run as they stand but for the clock."""

import re
from pathlib import Path

import compress
from compress import Record, ReplayTarget

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text()
NOTEBOOK = (ROOT / "examples" / "notebook.py").read_text()


def executed(code, name):
    names = {"__name__": name}
    exec(compile(code, name, "exec", dont_inherit=True), names)
    return names


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Nothing waits for a clock.
    monkeypatch.setattr(compress, "LocalTarget", lambda threads: ReplayTarget(), raising=False)
    record = executed("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), "page")[
        "record"
    ]
    assert record.status == "done"
    assert (tmp_path / "runs" / "bright" / "report.html").exists()


def test_the_notebook_goes_from_a_module_to_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = NOTEBOOK.replace("EPOCHS = 10", "EPOCHS = 1")
    quick = quick.replace('mode="quick"', "targets=[ReplayTarget()]")
    assert quick.count("EPOCHS = 1\n") == quick.count("ReplayTarget") == 1
    names = executed(f"from compress import ReplayTarget\n{quick}", "notebook")
    assert isinstance(names["record"], Record)
    assert "Ship row" in capsys.readouterr().out
    assert (names["record"].ship / "run.py").is_file()


def test_the_notebook_is_short():
    cells = [cell.partition("\n") for cell in NOTEBOOK.split("# %%")]
    code = [line for kind, _, body in cells if not kind for line in body.splitlines() if line]
    statements = [line for line in code if not line.startswith((" ", ")", "from", "import"))]
    assert len(statements) <= 20
