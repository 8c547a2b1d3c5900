"""The `routellm` command: puts the subcommands of `routellm_core.commands` together."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any

from routellm_core import __version__
from routellm_core.errors import MissingExtraError, RouteLLMError
from routellm_core.report.escaping import printable

_HELP = """Send prompts to a strong or a weak model, by the win rate that a router predicts.

The way to a router of your own: answers -> label -> train -> evaluate -> use.

\b
routellm label gold --data answers.jsonl --out outcomes.jsonl
routellm train mf --data outcomes.jsonl --strong gpt-4.1 --weak gpt-4.1-mini --out my-router
routellm evaluate --data outcomes.jsonl --router my-router
routellm route --data prompts.jsonl --router my-router --strong-fraction 0.3
"""


def build_app() -> Any:
    """The typer application with all subcommands.

    Raises:
        MissingExtraError: typer or rich is not installed.
    """
    try:
        import rich  # noqa: F401 - the commands' output needs it; better said here than midway
        import typer
    except ImportError:
        raise MissingExtraError("The routellm command", "cli") from None
    from routellm_core.commands import data, label, traffic, train
    from routellm_core.commands.calibrate import calibrate
    from routellm_core.commands.evaluate import evaluate
    from routellm_core.commands.explain import explain
    from routellm_core.commands.learn import learn
    from routellm_core.commands.options import Command, root
    from routellm_core.commands.replay import replay
    from routellm_core.commands.route import route
    from routellm_core.commands.serve import serve

    app = typer.Typer(
        name="routellm",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    app.callback()(root)
    # in the order of the way
    app.command(cls=Command)(route)
    app.command(cls=Command)(explain)
    app.command(cls=Command)(calibrate)
    for module in (label, data, train):
        app.add_typer(module.app)
    app.command(cls=Command)(evaluate)
    app.add_typer(traffic.app)
    app.command(cls=Command)(learn)
    app.command(cls=Command)(replay)
    app.command(cls=Command)(serve)
    return app


def main(argv: list[str] | None = None) -> None:
    """Run the command line; an error that the user can mend is one line on stderr and exit code 2."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' bars as well: none in a pipe
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # no terminal or pipe is too old for a prompt
    if (sys.argv[1:] if argv is None else argv) == ["--version"]:
        print(f"routellm-adapters {__version__}")  # without the extra cli, too
        return
    try:
        build_app()(argv)
    except RouteLLMError as exc:
        print(f"routellm: {printable(str(exc))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # the reader of a pipe went away (`| head`): not an error; keep the interpreter from flushing into it
        sys.stderr.close()
        sys.exit(141)
    except OSError as exc:
        # a full disk, a file without permission: the user can mend it, and a traceback would hide what it is
        where = exc.filename2 or exc.filename
        reason = " ".join(str(exc.strerror or exc).split()) or type(exc).__name__
        print(printable(f"routellm: {where}: {reason}" if where else f"routellm: {reason}"), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("routellm: stopped", file=sys.stderr)  # while the commands are loaded; later they say the same
        sys.exit(130)


if __name__ == "__main__":
    main()
