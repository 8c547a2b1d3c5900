"""What `routellm` does with errors of the system: one line on stderr and an exit code, in every command."""

import errno
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from routellm_core import __version__, cli
from routellm_core.commands.options import Command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "routellm: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), "routellm: a.json: Permission denied\n"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a.part", None, "a"), "routellm: a: Is a directory\n"),
        (OSError("no connection\n  try again"), "routellm: no connection try again\n"),
        (OSError(), "routellm: OSError\n"),
    ],
)
def test_an_error_of_the_system_is_one_line_and_exit_code_2(error, line, monkeypatch, capsys):
    def fails(argv):
        raise error

    monkeypatch.setattr(cli, "build_app", lambda: fails)
    with pytest.raises(SystemExit) as caught:
        cli.main(["route", "x"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == line


def test_ctrl_c_while_the_commands_are_loaded_is_exit_code_130_without_a_traceback(monkeypatch, capsys):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build_app", stopped)
    with pytest.raises(SystemExit) as caught:
        cli.main(["route", "x"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "routellm: stopped\n"


def test_ctrl_c_in_a_command_is_one_line_and_exit_code_130(monkeypatch, capsys):
    def stopped(self, prompts):
        raise KeyboardInterrupt

    monkeypatch.setattr("routellm_core.policy.policy.RoutingPolicy.decide_batch", stopped)
    with pytest.raises(SystemExit) as caught:
        cli.main(["route", "x"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "routellm: stopped\n"
    assert all(isinstance(command, Command) for _, command in _commands(cli.build_app()))


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["route", "--data", str(tmp_path / ("x" * 300))])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_all_missing_options_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "mf", "--data", "x.jsonl"])
    assert ended.value.code == 2
    assert "Missing options: --strong, --weak, --out." in capsys.readouterr().err


def test_one_missing_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "convert", "--data", "x.jsonl"])
    assert ended.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_help_tells_the_order_of_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "answers -> label -> train -> evaluate -> use" in text
    assert text.index("routellm label") < text.index("routellm train") < text.index("routellm evaluate")


def test_the_version_is_an_option_that_help_shows(capsys: pytest.CaptureFixture[str]) -> None:
    said = f"routellm-adapters {__version__}\n"
    cli.main(["--version"])
    assert capsys.readouterr().out == said
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version", "route"])
    assert (ended.value.code, capsys.readouterr().out) == (0, said)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "--version" in capsys.readouterr().out


def test_no_help_is_cut_off_in_a_terminal_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the name of an option nor what a command does; and an example can be pasted."""
    monkeypatch.setenv("COLUMNS", "80")
    commands = dict(_commands(cli.build_app()))
    for words in {words[:depth] for words in commands for depth in range(3)}:
        with pytest.raises(SystemExit):
            cli.main([*words, "--help"])
        shown = capsys.readouterr().out
        assert "…" not in shown, words
        assert "..." not in shown.partition("Commands:")[2], words
        if words in commands:
            examples = re.findall(r"Example: .*", commands[words].help)
            assert examples, words
            assert all(f"  {example}\n" in shown for example in examples), words
            options = {option for param in commands[words].params for option in param.opts if option.startswith("--")}
            assert all(option in shown for option in options), words


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_prompt_that_the_encoding_of_the_terminal_lacks_is_shown_all_the_same(encoding: str) -> None:
    """A pipe on Windows has the encoding of the system, which has no Chinese."""
    done = subprocess.run(
        [sys.executable, "-m", "routellm_core.cli", "route", "--data", "-", "--router", "random"],
        input="Grüße 你好\n".encode(),
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode(encoding)
    assert {"ascii": r"Gr\xfc\xdfe \u4f60\u597d", "cp1252": r"Grüße \u4f60\u597d"}.get(encoding, "Grüße 你好") in shown


def _commands(app: Any) -> Any:
    """Every command with its options, by its words."""
    import typer

    def walk(command: Any, words: tuple[str, ...]) -> Any:
        if hasattr(command, "commands"):
            for name, sub in command.commands.items():
                yield from walk(sub, (*words, name))
        else:
            yield words, command

    return walk(typer.main.get_command(app), ())


def test_one_word_for_one_thing() -> None:
    """What is read is --data, what is written is --out, and every help shows an example."""
    found = dict(_commands(cli.build_app()))
    assert len(found) >= 12
    for words, command in found.items():
        options = {option for param in command.params for option in param.opts}
        assert not options & {"--output", "--file", "--prompts", "--outcomes", "--input", "--resume"}, words
        assert not any("price" in option and option != "--price" for option in options), words
        assert "Example: routellm " + " ".join(words) in command.help, words
        assert "--json" in options or words == ("serve",), words  # which prints nothing of its own
