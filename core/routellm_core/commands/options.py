"""What the commands share: options of one name and one meaning, and how their values are read."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from routellm_core import __version__
from routellm_core.checks import is_number, same_file
from routellm_core.errors import ConfigurationError
from routellm_core.policy.savings import Price

if TYPE_CHECKING:
    from routellm_core.data.files import SkippedRows
    from routellm_core.data.joining import JoinReport

Row = TypeVar("Row")

SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave malformed rows out; count and report them.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Form of the file, such as routerbench; 'routellm data forms' lists them.",
        show_default="by its content",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for a program.")]
RouterName = Annotated[
    str,
    typer.Option(
        "--router",
        "-r",
        help="Router: a name, the directory of a saved one, or your own as package.module:Class.",
    ),
]
Embedding = Annotated[
    str,
    typer.Option(
        help="bundled (no key, no network), openai:MODEL, the directory of a static embedder, or your own as "
        "package.module:Class."
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", help="Read at most this many prompts or rows.", min=1)]
Shard = Annotated[
    str | None,
    typer.Option("--shard", help="K/N: only every N-th prompt, from the K-th on; each of N machines takes a K."),
]
Prices = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        help="MODEL=IN/OUT: money per million input and output tokens of a model, such as gpt-4.1=2/8; MODEL=N for "
        'both. May be given again. Or a .json file of them: {"gpt-4.1": [2, 8], ...}.',
    ),
]
Currency = Annotated[
    str | None, typer.Option("--currency", help="Currency of prices and costs, for the report, such as USD.")
]
TokensOfACall = Annotated[
    str | None,
    typer.Option("--tokens", help="Mean tokens of a call: IN/OUT, such as 220/310, or one number for both together."),
]


class Command(TyperCommand):
    """A command as all of these are: it names all missing options at once, and ends with a word on Ctrl-C.

    Its help has each example on one line, to be pasted.
    """

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:
        paragraphs = (help or "").split("\n\n")
        # \b: this paragraph is not wrapped
        kept = ["\b\n" + " ".join(p.split()) if p.startswith("Example: ") else p for p in paragraphs]
        super().__init__(*args, help="\n\n".join(kept), **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C is one line and exit code 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("routellm: stopped", file=sys.stderr)
            raise typer.Exit(130) from None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as exc:
            # by name: some versions of typer bring a click of their own, which cannot be imported from outside
            if type(exc).__name__ != "MissingParameter":
                raise
            values, _, _ = self.make_parser(ctx).parse_args(args=given)
            missing = [
                param.opts[0]
                for param in self.get_params(ctx)
                if param.required and param.value_is_missing(param.consume_value(ctx, values)[0])
            ]
            if len(missing) < 2:
                raise
            usage_error: Any = typer.BadParameter.__bases__[0]
            raise usage_error(f"Missing options: {', '.join(missing)}.", ctx) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"routellm-adapters {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Hold the options of `routellm` itself."""


def command_line() -> str:
    """The command as it was typed, for a report."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def parse_shard(value: str | None) -> tuple[int, int]:
    """The index of the first row of a shard, and the step to the next; all rows without one.

    Raises:
        ConfigurationError: The value is not K/N with K from 1 to N.
    """
    if value is None:
        return 0, 1
    part, _, parts = value.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigurationError(f"--shard {value!r:.80}: expected K/N with K from 1 to N, such as 3/16")
    return int(part) - 1, int(parts)


def shard_of(rows: Sequence[Row], value: str | None) -> list[Row]:
    """The rows of a shard; all rows without one.

    Raises:
        ConfigurationError: The value is not K/N with K from 1 to N.
    """
    first, step = parse_shard(value)
    return list(rows[first::step])


def parse_prices(values: Sequence[str] | None) -> dict[str, Price]:
    """The prices that ``--price`` gives, by model.

    Raises:
        ConfigurationError: A value is neither MODEL=IN/OUT nor a file of prices, or a model has two prices.
    """
    out: dict[str, Price] = {}
    for value in values or ():
        if "=" not in value and value.lower().endswith(".json"):
            found = _prices_of_file(Path(value))
        else:
            model, sep, amounts = value.rpartition("=")
            numbers = _numbers(amounts)
            if not sep or not model or not 1 <= len(numbers) <= 2:
                raise ConfigurationError(
                    f"--price {value!r}: expected MODEL=IN/OUT, money per million tokens >= 0, such as gpt-4.1=2/8, or "
                    "a .json file"
                )
            found = {model: Price(numbers[0], numbers[-1])}
        for model in found.keys() & out.keys():
            raise ConfigurationError(f"--price {value!r}: {model} has a price already; give one for each model")
        out |= found
    return out


def _prices_of_file(file: Path) -> dict[str, Price]:
    """The prices of a JSON file: one number for input and output tokens, or both."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"--price {file}: cannot be read ({exc.strerror})") from None
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, dict) or not rows:
        raise ConfigurationError(f'--price {file}: expected a JSON object of prices, such as {{"gpt-4.1": [2, 8]}}')
    out = {}
    for model, price in rows.items():
        numbers = price if isinstance(price, list) else [price]
        if not 1 <= len(numbers) <= 2 or not all(is_number(n) and 0 <= n < float("inf") for n in numbers):
            raise ConfigurationError(
                f"--price {file}: {model!r:.80} has the price {price!r:.80}; expected money per million tokens, a "
                "number >= 0 or [input, output]"
            )
        out[model] = Price(float(numbers[0]), float(numbers[-1]))
    return out


def parse_tokens(value: str | None) -> tuple[float, float] | None:
    """The mean input and output tokens of a call that ``--tokens`` gives; half of one number each.

    Raises:
        ConfigurationError: The value is not IN/OUT or one number, above 0.
    """
    if value is None:
        return None
    numbers = _numbers(value)
    if not 1 <= len(numbers) <= 2 or not sum(numbers) > 0:
        raise ConfigurationError(f"--tokens {value!r}: expected mean tokens of a call, IN/OUT such as 220/310, above 0")
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (numbers[0] / 2, numbers[0] / 2)


def _numbers(text: str) -> list[float]:
    """Numbers >= 0 with slashes between them; none where one is not."""
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        return []
    return numbers if all(0.0 <= number < float("inf") for number in numbers) else []


def report_bad(bad: SkippedRows) -> None:
    """Say on stderr which rows were left out, if any."""
    if bad.count:
        print(f"left out {bad.count} malformed rows; the first:", file=sys.stderr)
        for message in bad.first:
            print(f"  {message}", file=sys.stderr)


def report_joined(report: JoinReport) -> None:
    """Say on stderr how rows about one model each were joined, and how many had no label, if there were any."""
    if report.joined:
        print(f"routellm: {report.sentence()}", file=sys.stderr)
    if report.unlabelled:
        print(f"routellm: left out rows without a score or verdict: {report.unlabelled:,}", file=sys.stderr)


def check_output(out: Path, data: Sequence[Path]) -> None:
    """Refuse an output that could not be written, or that would replace a file that is read."""
    from routellm_core.data.sources import sources_of
    from routellm_core.data.writing import format_of

    format_of(out)
    if any(same_file(out, source.path) for source in sources_of(data)):
        raise ConfigurationError(f"--out {out} is the input file: give another file")


def console_for_tables() -> Any:
    """A rich console; in a pipe, which has no width, it is wide enough that tables do not wrap."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)
