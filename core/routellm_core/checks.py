"""What every room shares: checks of parameters and results, imports by name, `Progress`, atomic JSON files."""

from __future__ import annotations

import json
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from routellm_core.errors import ConfigurationError, PromptError, RouteLLMError, RouterError

Side: TypeAlias = Literal["strong", "weak"]


class Progress(Protocol):
    """A function that long work calls after each step to say how far it is; any ``f(done, total)`` will do.

    Both numbers count the same unit, which the work names: prompts, calls, optimizer steps, or bytes of a file. `done`
    never falls, and reaches `total` unless the work stops early; a run that resumes starts from what is already done.
    An exception that the function raises ends the work. ``commands/progress.py`` draws such calls as a bar.
    """

    def __call__(self, done: int, total: int, /) -> None:
        """Take note that `done` of `total` steps are done."""


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real number; booleans are rejected, since they are usually mistakes."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def checked_fraction(value: Any, parameter: str) -> float:
    """Return a number in [0, 1] as float, or raise a `ConfigurationError` that names the parameter."""
    if not is_number(value) or not 0.0 <= value <= 1.0:
        hint = f"; write {value / 100:g} for {value:g} %" if is_number(value) and 1 < value <= 100 else ""
        raise ConfigurationError(f"{parameter}={value!r:.80}: expected a number between 0 and 1{hint}")
    return float(value)


def checked_count(value: Any, parameter: str, *, least: int = 1, unit: str = "") -> int:
    """Return an integer >= `least`, or raise a `ConfigurationError` that names the parameter.

    Args:
        value: The value to check; booleans are rejected, since they are usually mistakes.
        parameter: Its name in the message.
        least: The smallest allowed value.
        unit: What is counted, for the message, such as ``"prompts"``.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        what = f"a number of {unit}, an integer" if unit else "an integer"
        raise ConfigurationError(f"{parameter}={value!r:.80}: expected {what} >= {least}")
    return int(value)


def checked_flag(value: Any, parameter: str) -> bool:
    """Return True or False, or raise a `ConfigurationError` that names the parameter."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{parameter}={value!r:.80}: expected True or False")
    return value


def checked_seconds(value: Any, parameter: str, *, without: str) -> float | None:
    """Return a finite number of seconds > 0, or None, or raise a `ConfigurationError` that names the parameter.

    Args:
        value: The value to check.
        parameter: Its name in the message.
        without: What None means, for the message, such as ``"to wait"``.
    """
    if value is None:
        return None
    if not is_number(value) or not value > 0:
        raise ConfigurationError(f"{parameter}={value!r:.80}: expected a number of seconds > 0, or None {without}")
    return float(value)


def checked_side(value: Any, parameter: str) -> Side:
    """Return ``"strong"`` or ``"weak"``, or raise a `ConfigurationError` that names the parameter."""
    if value == "strong":
        return "strong"
    if value == "weak":
        return "weak"
    raise ConfigurationError(f"{parameter}={value!r:.80}: expected 'strong' or 'weak'")


def other_side(side: Side) -> Side:
    """Return the opposite side."""
    return "weak" if side == "strong" else "strong"


def checked_prompts(prompts: Any) -> list[str]:
    """Return `prompts` as a list of str, or raise a `PromptError` that says which item is wrong."""
    if isinstance(prompts, str | bytes):
        raise PromptError(
            f"prompts={type(prompts).__name__}: expected a sequence of strings; "
            "wrap a single prompt in a list: [prompt]"
        )
    try:
        out = list(prompts)
    except TypeError:
        raise PromptError(f"prompts={prompts!r:.80}: expected a non-empty sequence of strings") from None
    if not out:
        raise PromptError("prompts is empty: give at least one prompt")
    for i, prompt in enumerate(out):
        if not isinstance(prompt, str):
            raise PromptError(f"prompts[{i}] is {type(prompt).__name__}, expected str; decode or convert it first")
    return out


def checked_win_rates(values: Any, count: int, router: str) -> npt.NDArray[np.float64]:
    """Return a router's output as float64 (count,), or raise a `RouterError`.

    Real numbers of any type are accepted in a list, a tuple or an array. Text and complex numbers are rejected, never
    converted, and so is everything outside [0, 1]: no prompt is routed on a number that is not a win rate.

    Args:
        values: What the router returned.
        count: Number of prompts that it was asked about.
        router: Its name, for the message.
    """
    try:
        out = np.asarray(values)
    except Exception as exc:  # ragged lists, tensors on a GPU, objects whose __array__ fails
        raise RouterError(
            f"router {router!r} returned a {type(values).__name__} that is not an array of numbers: "
            f"{type(exc).__name__}; expected {count} numbers in [0, 1]"
        ) from exc
    if out.shape != (count,):
        raise RouterError(
            f"router {router!r} returned a {type(values).__name__} of shape {out.shape} for {count} prompts; "
            f"expected ({count},)"
        )
    if out.dtype == object and all(hasattr(value, "__float__") for value in out):
        out = np.array([float(value) for value in out])  # Decimal, Fraction and other numbers that numpy does not know
    if out.dtype.kind not in "fiub":
        raise RouterError(f"router {router!r} returned values of type {out.dtype}; expected real numbers in [0, 1]")
    out = out.astype(np.float64, copy=False)
    inside = (out >= 0.0) & (out <= 1.0)
    if not inside.all():
        bad = int(np.flatnonzero(~inside)[0])
        raise RouterError(
            f"router {router!r} returned win rate {out[bad]} for prompt {bad}; expected a number in [0, 1]"
        )
    return out


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view of `array` that cannot be written to: what callers share must not change under them."""
    view = array.view()
    view.flags.writeable = False
    return view


def imported_object(value: str, parameter: str) -> Any:
    """Return what ``"package.module:attribute"`` names, or raise a `ConfigurationError` that names the parameter.

    The module is looked for wherever Python looks for modules, and then in the working directory, where the script of a
    command does not look.
    """
    name, _, attribute = value.partition(":")
    top = name.partition(".")[0]
    try:
        try:
            found: Any = import_module(name)
        except ModuleNotFoundError as exc:
            here = Path.cwd()
            if exc.name != top or not ((here / f"{top}.py").is_file() or (here / top).is_dir()):
                raise
            sys.path.append(str(here))
            found = import_module(name)
    except RouteLLMError:
        raise
    except Exception as exc:
        raise ConfigurationError(
            f"{parameter}={value!r}: module {name} cannot be imported: {type(exc).__name__}: {exc}"
        ) from exc
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigurationError(f"{parameter}={value!r}: module {name} has no attribute {attribute!r}") from None
    return found


def write_json(target: Path, data: Any) -> None:
    """Write `data` to `target` as one line of JSON; the file appears whole or not at all."""
    part = target.with_name(target.name + ".part")
    part.write_text(json.dumps(data) + "\n", encoding="utf-8")
    part.replace(target)


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file, also through a symbolic or a hard link."""
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))
