"""What `routellm` does with errors of the system: one line on stderr and an exit code, in every command."""

import errno

import pytest

from routellm_core import cli


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
    assert capsys.readouterr().err == ""


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["route", "--file", str(tmp_path / ("x" * 300))])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
