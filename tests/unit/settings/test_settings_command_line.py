from pathlib import Path

import pytest

from settings import CommandLine
from settings.command_line import port_number, seconds, whole_number


def line(**environment: str) -> CommandLine:
    made = CommandLine("program", environment={f"SEKISHO_{name.upper()}": text for name, text in environment.items()})
    made.option("--admin-port", default=8081, type=port_number, help="the admin port")
    made.option("--config", type=Path, help="the routes")
    made.option("--once", action="store_true", help="end after one round")
    made.option("--level", choices=("low", "high"), default="low", help="how much")
    made.option("--share", default="50%", help="a share")
    made.option("--pair", nargs=2, default=[1, 2], type=int, help="two numbers")
    made.option("--names", nargs="+", help="names")
    return made


def refusal(capsys: pytest.CaptureFixture[str], made: CommandLine, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        made.parse_args(arguments)
    told = capsys.readouterr()
    assert (caught.value.code, told.out) == (2, "")
    usage, _, message = told.err.rstrip().rpartition("\n")
    assert usage.startswith("usage: program")
    assert message.startswith("program")
    return message.partition(": error: ")[2]


def test_a_flag_wins_over_its_variable_and_that_over_the_default():
    assert line().parse_args([]).admin_port == 8081
    assert line(admin_port="9000").parse_args([]).admin_port == 9000
    assert line(admin_port="9000").parse_args(["--admin-port", "9001"]).admin_port == 9001


def test_a_flag_wins_even_over_a_wrong_variable():
    assert line(admin_port="x").parse_args(["--admin-port", "9001"]).admin_port == 9001


def test_a_variable_is_read_as_the_flag_would_be():
    assert line(config="a b.yaml").parse_args([]).config == Path("a b.yaml")
    assert line(level=" high ").parse_args([]).level == "high"


def test_an_empty_variable_counts_as_not_given():
    given = line(admin_port="", config=" ", once="", names="", pair="").parse_args([])
    assert (given.admin_port, given.config, given.once, given.names, given.pair) == (8081, None, False, None, [1, 2])


@pytest.mark.parametrize(("text", "on"), [("1", True), ("Yes", True), ("on", True), ("TRUE", True)])
def test_a_switch_is_set_by_a_word_for_yes(text: str, on: bool):
    assert line(once=text).parse_args([]).once is on


@pytest.mark.parametrize("text", ["0", "no", "off", "False"])
def test_a_switch_is_left_by_a_word_for_no_and_set_by_its_flag_all_the_same(text: str):
    assert line(once=text).parse_args([]).once is False
    assert line(once=text).parse_args(["--once"]).once is True


def test_a_switch_that_nobody_set_is_false():
    assert line().parse_args([]).once is False


def test_several_values_of_a_variable_are_separated_by_spaces():
    given = line(pair="3  4", names="a b c").parse_args([])
    assert (given.pair, given.names) == ([3, 4], ["a", "b", "c"])
    assert line(names="a").parse_args(["--names", "a"]).names == ["a"]


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({"admin_port": "x"}, [], "SEKISHO_ADMIN_PORT=x: 'x' is not a port: give a number from 1 to 65535"),
        ({"once": "maybe"}, [], "SEKISHO_ONCE=maybe: give 1, true, yes or on; or 0, false, no or off"),
        ({"level": "hihg"}, [], "SEKISHO_LEVEL=hihg: choose one of low, high"),
        ({"pair": "3"}, [], "SEKISHO_PAIR=3: give 2 values, separated by spaces"),
        ({"pair": "3 x"}, [], "SEKISHO_PAIR=3 x: 'x' is not a valid int"),
        ({}, ["--admin-port", "0"], "'0' is not a port: give a number from 1 to 65535"),
        ({}, ["--pair", "3", "x"], "invalid int value: 'x'"),
        ({"pair": "3 4"}, ["--pair", "3", "x"], "invalid int value: 'x'"),
        ({}, ["--level", "hihg"], "invalid choice: 'hihg'"),
        ({}, ["--admin", "9000"], "unrecognized arguments: --admin 9000"),
        ({}, ["--config"], "expected one argument"),
    ],
)
def test_bad_usage_exits_with_2_usage_and_what_was_wrong(
    capsys: pytest.CaptureFixture[str], environment: dict[str, str], arguments: list[str], said: str
):
    assert said in refusal(capsys, line(**environment), *arguments)


def required(**environment: str) -> CommandLine:
    made = CommandLine("program", environment={f"SEKISHO_{name.upper()}": text for name, text in environment.items()})
    made.option("--config", required=True, help="the routes")
    return made


def test_what_is_required_is_given_by_flag_or_variable():
    assert required().parse_args(["--config", "a"]).config == "a"
    assert required(config="a").parse_args([]).config == "a"


@pytest.mark.parametrize("environment", [{}, {"config": ""}])
def test_what_is_required_and_not_given_is_told_with_its_variable(
    capsys: pytest.CaptureFixture[str], environment: dict[str, str]
):
    assert refusal(capsys, required(**environment)) == "--config is required (or set SEKISHO_CONFIG)"


def commands(**environment: str) -> CommandLine:
    made = CommandLine("program", environment={f"SEKISHO_{name.upper()}": text for name, text in environment.items()})
    added = made.add_subparsers(required=True, metavar="COMMAND")
    load = added.add_parser("load")
    load.option("--rows", type=int, required=True, help="rows")
    added.add_parser("get")
    return made


def test_a_command_reads_the_environment_that_its_program_was_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEKISHO_ROWS", "5")
    assert commands(rows="7").parse_args(["load"]).rows == 7


def test_a_command_refuses_what_it_requires_and_was_not_given(capsys: pytest.CaptureFixture[str]):
    assert refusal(capsys, commands(), "load") == "--rows is required (or set SEKISHO_ROWS)"


def test_a_wrong_variable_of_one_command_hurts_no_other(capsys: pytest.CaptureFixture[str]):
    made = commands(rows="many")
    made.parse_args(["get"])
    assert "SEKISHO_ROWS=many: 'many' is not a valid int" in refusal(capsys, made, "load")


def test_the_real_environment_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEKISHO_ADMIN_PORT", "9000")
    made = CommandLine("program")
    made.option("--admin-port", default=8081, type=port_number, help="the admin port")
    assert made.parse_args([]).admin_port == 9000


def test_help_names_variable_and_default_of_every_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        line(admin_port="x").parse_args(["--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in (
        "the admin port [SEKISHO_ADMIN_PORT; default 8081]",
        "the routes [SEKISHO_CONFIG]",
        "end after one round [SEKISHO_ONCE]",
        "a share [SEKISHO_SHARE; default 50%]",
        "two numbers [SEKISHO_PAIR; default 1 2]",
    ):
        assert said in shown


@pytest.mark.parametrize("text", ["0", "65536", "-1", "8080.0", " 80", "\uff18\uff10", "9" * 5_000, ""])
def test_what_is_no_port_is_refused(capsys: pytest.CaptureFixture[str], text: str):
    assert "port" in refusal(capsys, line(), f"--admin-port={text}")


@pytest.mark.parametrize(
    ("reader", "right", "wrong"),
    [
        (whole_number(1, 10), ["1", "10"], ["0", "11", "1.5", "x", "", "9" * 5_000]),
        (seconds(0, 2.5), ["0", "2.5", "1e-3"], ["-0.1", "2.6", "nan", "inf", "x", ""]),
    ],
)
def test_a_number_is_read_within_its_limits(
    capsys: pytest.CaptureFixture[str], reader: object, right: list[str], wrong: list[str]
):
    made = CommandLine("program", environment={})
    made.option("--limit", type=reader, help="a limit")
    assert [made.parse_args(["--limit", text]).limit for text in right] == [float(text) for text in right]
    for text in wrong:
        assert "give" in refusal(capsys, made, f"--limit={text}")
