"""Options that no command has: the sentence names the one that was meant."""

import pytest

from compress.cli import main

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["run", "r.yaml", "--quik"],
            "unrecognized arguments: --quik; did you mean --quick? (run --help lists all)",
        ),
        (["report", "a", "--ot=x"], "--ot=x; did you mean --out? (report --help lists all)"),
        (["runn", "r.yaml"], "there is no command 'runn'; did you mean run?"),
        (["schema", "--zzz"], "unrecognized arguments: --zzz\n"),
    ],
)
def test_an_option_that_is_like_another_names_it(typed, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
