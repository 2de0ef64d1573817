"""Paths that are too long, of files in place of folders, or with anything in them."""

import pytest

from compress.cli import main

LONG = "n" * 300
ODD = 'x "q" \'é日\n\x1b[2J'


@pytest.mark.parametrize(
    "path", [LONG, f"{LONG}/below", "file/below", ODD, "gone/..", "file/", " "]
)
@pytest.mark.parametrize(
    "command",
    [
        "report {}",
        "report {} other",
        "merge {} result.json",
        "merge file {}",
        "bundle {}",
        "bundle file -o {}/b.zip",
        "run {}",
        "plan {}",
        "bench {} --quick",
        "bench file --inputs {}",
        "bench file --json {}/r.json --quick",
        "bench file --raw {}/r.jsonl --quick",
        "bench --suite tiny --weights {}",
        "new {}/recipe.yaml",
        "run recipe.yaml --out {}",
    ],
)
def test_any_path_works_or_gets_one_sentence(command, path, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("theirs")
    monkeypatch.chdir(tmp_path)
    code = main([word.replace("{}", path) for word in command.split(" ")])
    out, err = capsys.readouterr()
    said = (err or out).strip().splitlines()
    assert code in (1, 2)
    assert code == 2 or command.startswith(("bench", "new"))
    assert "unexpected" not in err
    if err:
        assert len(said) == 1, said
        assert said[0].startswith("compresskit: ")
        assert "\x1b" not in err
    assert (tmp_path / "file").read_text() == "theirs"
