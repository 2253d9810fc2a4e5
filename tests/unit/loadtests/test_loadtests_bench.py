from pathlib import Path

import pytest

from loadtests.bench import command_line

PAGE = Path(__file__).parents[3] / "docs" / "performance.md"


def test_every_option_and_its_variable_is_in_the_documentation():
    page = PAGE.read_text()
    options = [each for each in command_line()._actions if each.dest != "help"]
    assert options
    for option in options:
        assert f"`{option.option_strings[0]}" in page
        assert f"`SEKISHO_{option.dest.upper()}`" in page


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--seconds", "0"], ["--stacks", "nginx"], ["--rates", "-1"], ["--unknown"]]
)
def test_bad_usage_is_exit_code_2_and_a_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line().parse_args(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
