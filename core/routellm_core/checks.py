"""Shared by all packages: checks of parameters and results, imports by name, `Progress`, reading and writing files."""

from __future__ import annotations

import math
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from routellm_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigurationError,
    PromptError,
    RouteLLMError,
    RouterError,
)

Side: TypeAlias = Literal["strong", "weak"]
T = TypeVar("T")

# Shares of more prompts than this would not be exact in floats; a larger count comes from a damaged file.
MAX_COUNT = 2**53
# Parsed JSON takes up to twenty times its size in memory.
MAX_CONFIG_BYTES = 16 * 1024 * 1024
MAX_STATE_BYTES = 256 * 1024 * 1024
_PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})
# Names of attributes, options and HTTP headers that hold a secret, and those that only look alike.
_SECRET_NAME = re.compile(
    r"api[-_]?(?:key|token)|access[-_]?(?:key|token)|auth[-_]?token|private[-_]?key|authorization|cookie|passw|secret"
    r"|(?:^|[-_])(?:key|token|token[-_]provider|auth|credentials?|credentials?[-_](?:info|json)|headers?)$",
    re.IGNORECASE,
)
_PUBLIC_NAME = re.compile(
    r"(?:^|[-_])(?:bos|eos|pad|unk|sep|cls|mask|stop|image)_token$|(?:^|[-_])(?:input|output|text|memory|cache)_key$",
    re.IGNORECASE,
)
# What reading a damaged or hostile file can raise; an error of the program itself keeps its cause in the chain.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


class Progress(Protocol):
    """A callback for the progress of a long task, called after each step; any ``f(done, total)`` will do.

    Both numbers count the same unit, which depends on the task: prompts, calls, optimizer steps, or bytes of a file.
    `done` never decreases, and reaches `total` unless the task stops early; a resumed run starts from what is already
    done. An exception in the callback ends the task. ``commands/progress.py`` shows such calls as a bar.
    """

    def __call__(self, done: int, total: int, /) -> None:
        """Report that `done` of `total` steps are complete."""


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real number; booleans are rejected, since they are usually mistakes."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def checked_fraction(value: Any, parameter: str) -> float:
    """Return a number in [0, 1] as float, or raise a `ConfigurationError` that names the parameter."""
    if not is_number(value) or not 0.0 <= value <= 1.0:
        hint = ""
        if is_number(value) and 1 < value <= 100:
            hint = f"; write {value / 100:g} for {value:g} %"
        elif isinstance(value, str):
            hint = ", not a string; write 0.3 for 30 %"
        raise ConfigurationError(f"{parameter}={shown(value)}: expected a number between 0 and 1{hint}")
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
        raise ConfigurationError(f"{parameter}={shown(value)}: expected {what} >= {least}")
    return int(value)


def checked_flag(value: Any, parameter: str) -> bool:
    """Return True or False, or raise a `ConfigurationError` that names the parameter."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{parameter}={shown(value)}: expected True or False")
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
        raise ConfigurationError(f"{parameter}={shown(value)}: expected a number of seconds > 0, or None {without}")
    return float(value)


def checked_side(value: Any, parameter: str) -> Side:
    """Return ``"strong"`` or ``"weak"``, or raise a `ConfigurationError` that names the parameter."""
    if value == "strong":
        return "strong"
    if value == "weak":
        return "weak"
    raise ConfigurationError(f"{parameter}={shown(value)}: expected 'strong' or 'weak'")


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
        raise PromptError(f"prompts={shown(prompts)}: expected a non-empty sequence of strings") from None
    if not out:
        raise PromptError("prompts is empty: pass at least one prompt")
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
        count: Number of prompts that were scored.
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
    out = _of_known_numbers(out)
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


def _of_known_numbers(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert Decimal, Fraction and other number types that numpy does not support to floats."""
    if array.dtype == object and array.ndim == 1 and all(hasattr(value, "__float__") for value in array):
        return np.array([float(value) for value in array])
    return array


def checked_real_numbers(values: Any, parameter: str) -> npt.NDArray[np.float64]:
    """Return real numbers in one dimension as float64 (n,), or raise a `ConfigurationError` that names the parameter.

    Text and complex numbers are rejected, never converted.
    """
    try:
        out = _of_known_numbers(np.asarray(values))
    except _DAMAGE as exc:
        raise ConfigurationError(
            f"{parameter}: expected a one-dimensional array of numbers ({type(exc).__name__})"
        ) from None
    if out.ndim != 1 or not out.size:
        raise ConfigurationError(
            f"{parameter} of shape {out.shape}: expected a one-dimensional array of numbers, at least one"
        )
    if out.dtype.kind not in "fiub":
        raise ConfigurationError(f"{parameter} of type {out.dtype}: expected a one-dimensional array of real numbers")
    return out.astype(np.float64, copy=False)


def checked_names(values: Any, parameter: str) -> tuple[str, ...]:
    """Return distinct, non-empty names as a tuple, or raise a `ConfigurationError` that names the parameter."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise ConfigurationError(f"{parameter} is a {type(values).__name__}: expected a list of names")
    for i, name in enumerate(values):
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{parameter}[{i}]={shown(name)}: expected a name, a non-empty string")
    if len(set(values)) != len(values):
        raise ConfigurationError(
            f"{parameter}: {len(values)} names, {len(set(values))} of them distinct; expected distinct names"
        )
    return tuple(values)


def shown(value: Any) -> str:
    """The beginning of a value's repr, for a message; works for any value."""
    try:
        return f"{value!r:.80}"
    except (RecursionError, ValueError, MemoryError):  # nested too deeply, or an integer with too many digits
        return f"a {type(value).__name__}"


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view of `array`: what several callers share must not change."""
    view = array.view()
    view.flags.writeable = False
    return view


def no_key_inside(*holders: Any, owner: str) -> None:
    """Refuse to pickle something with a key in it: pickles end up in files, in logs and on other machines.

    Args:
        *holders: What is about to be pickled. A key is a text or an object under the name of a secret, in an attribute
            or an entry (such as a header), and a URL with a password or a query.
        owner: What holds it, for the message.

    Raises:
        ConfigurationError: There is a key.
    """
    for holder in holders:
        name = _key_in(holder)
        if name is not None:
            raise ConfigurationError(
                f"{owner} cannot be pickled, because the key in its {name} would go with it: make it in each process, "
                "with the key from the environment of that process"
            )


def is_secret_name(name: Any) -> bool:
    """Whether an attribute, an option or an HTTP header of this name holds a secret, such as a key."""
    return bool(_SECRET_NAME.search(str(name)) and not _PUBLIC_NAME.search(str(name)))


def _can_hold_a_key(value: Any) -> bool:
    """Whether a value is a text, or an object such as a provider's credentials."""
    if isinstance(value, str | bytes):
        return bool(value)
    return hasattr(value, "__dict__") and not callable(value) and not isinstance(value, Mapping)


def _key_in(holder: Any) -> str | None:
    if isinstance(holder, str):
        return "URL" if "://" in holder and ("@" in urlsplit(holder).netloc or urlsplit(holder).query) else None
    entries = holder if isinstance(holder, Mapping) else getattr(holder, "__dict__", {})
    for name, value in entries.items():
        if hasattr(value, "get_secret_value") or (_can_hold_a_key(value) and is_secret_name(name)):
            return str(name)
        if isinstance(value, str | Mapping) and _key_in(value) is not None:
            return str(name)
    return None


def imported_object(value: str, parameter: str) -> Any:
    """Import what ``"package.module:attribute"`` names, or raise a `ConfigurationError` that names the parameter.

    The module is searched for on Python's path and then in the working directory, which is not on the path of an
    installed command.
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
    """Write `data` to `target` as one line of JSON; the file is written completely or not at all."""
    import json

    part = target.with_name(target.name + ".part")
    part.write_text(json.dumps(data) + "\n", encoding="utf-8")
    part.replace(target)


def read_file(file: Path, missing: str, *, max_bytes: int) -> bytes:
    """Read a regular file of limited size.

    Args:
        file: The file.
        missing: What to do if the file does not exist, for the message.
        max_bytes: A larger file is rejected before it is read.

    Raises:
        CheckpointNotFoundError: The file does not exist or is a folder.
        CheckpointError: It is not a regular file, is too large, or cannot be read.
    """
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise CheckpointNotFoundError(f"{file} is a folder: {missing}")
        if not stat.S_ISREG(mode):  # reading a pipe would block forever
            raise CheckpointError(f"{file} is not a regular file: {missing}")
        with file.open("rb") as handle:
            data = handle.read(max_bytes + 1)
    except RouteLLMError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFoundError(f"no file {str(file)!r}: {missing}") from None
    except (OSError, ValueError, MemoryError) as exc:  # ValueError: a NUL in the name
        raise CheckpointError(f"{str(file)!r} cannot be read: {_reason(exc)}") from exc
    if len(data) > max_bytes:
        raise CheckpointError(f"{file} is larger than {max_bytes // 2**20} MiB, the limit for such a file")
    return data


def read_json_object(file: Path, missing: str, *, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Read a file that holds one JSON object; the file is not trusted.

    Raises:
        CheckpointNotFoundError: The file does not exist or is a folder.
        CheckpointError: It cannot be read, is too large, or is not one JSON object in UTF-8.
    """
    import json

    data = read_file(file, missing, max_bytes=max_bytes)
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError, MemoryError) as exc:
        raise CheckpointError(f"{file} is not readable JSON: {_reason(exc)}") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} holds a {type(value).__name__}, expected an object")
    return value


def read_tensors(file: Path, names: Sequence[str], *, kinds: str = "f") -> dict[str, npt.NDArray[Any]]:
    """Read `names` from a safetensors file.

    Args:
        file: The file.
        names: The tensors that it must hold; others are ignored.
        kinds: Allowed kinds of numbers, as numpy's letters: f for floats, i and u for integers.

    Raises:
        CheckpointNotFoundError: The file does not exist; the message names pickled files beside it, which are rejected.
        CheckpointError: The file is corrupt, lacks one of `names`, or holds it as another type.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    with damage_named(file, "is not a readable safetensors file"):
        if not file.is_file():
            pickled = sorted(p.name for p in file.parent.glob("*") if p.suffix in _PICKLED)
            hint = (
                f" {', '.join(pickled)} exists, but pickled weights can run code when opened and are rejected; "
                "convert them to safetensors"
                if pickled
                else ""
            )
            raise CheckpointNotFoundError(f"no {file.name} in {str(file.parent)!r}.{hint}")
        try:
            tensors = load_file(file)
        except KeyError as exc:
            raise CheckpointError(f"{file} holds numbers of type {exc}, which numpy does not support") from exc
        except SafetensorError as exc:
            raise CheckpointError(f"{file} is not a readable safetensors file: {exc}") from exc
    missing = [name for name in names if name not in tensors]
    if missing:
        held = ", ".join(sorted(tensors)) or "nothing"
        raise CheckpointError(f"{file} lacks {', '.join(missing)}; it holds {held[:200]}")
    for name in names:
        if tensors[name].dtype.kind not in kinds:
            raise CheckpointError(f"{file}: {name} has type {tensors[name].dtype}, which such weights never have")
    return {name: tensors[name] for name in names}


@contextmanager
def damage_named(place: Path, problem: str) -> Iterator[None]:
    """Turn the exceptions that a damaged or hostile file causes into a `CheckpointError` that names the file.

    The project's own errors pass through, but a `ConfigurationError`, which names a parameter, also gets the name of
    the file that the parameter comes from.

    Args:
        place: The file, or a directory of files.
        problem: What is wrong with it, for the message.
    """
    try:
        yield
    except ConfigurationError as exc:
        raise ConfigurationError(f"{place}: {exc}") from exc
    except RouteLLMError:
        raise
    except _DAMAGE as exc:
        raise CheckpointError(f"{place} {problem}: {_reason(exc)}") from exc


def check_format(data: dict[str, Any], known: int, place: str) -> None:
    """Reject a saved form that this version does not know.

    Raises:
        CheckpointError: ``data["format"]`` is not `known`.
    """
    version = data.get("format")
    if type(version) is not int or version != known:
        raise CheckpointError(
            f"{place} format {shown(version)}: this version reads format {known}; update the package, or save it again"
        )


def _reason(exc: BaseException) -> str:
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    if isinstance(exc, MemoryError):
        return "it needs more memory than is available"
    if isinstance(exc, OSError):
        return exc.strerror or type(exc).__name__
    return f"{type(exc).__name__}: {exc}"[:200]


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to the same file, also through symbolic or hard links."""
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


def check_options(given: Iterable[str], *, known: Iterable[str], owner: str) -> None:
    """Refuse options that do not exist.

    Args:
        given: Names that a constructor received.
        known: Names that it has.
        owner: Name of the class, for the message.

    Raises:
        ConfigurationError: A name is unknown; the message suggests the closest one.
    """
    names = list(known)
    for name in given:
        if name not in names:
            from difflib import get_close_matches

            close = get_close_matches(name, names, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]}=?" if close else f"its options are {', '.join(sorted(names))}"
            raise ConfigurationError(f"{name}=: {owner} has no such option; {hint}")


def refuses_unknown_options(cls: type[T]) -> type[T]:
    """Class decorator: a keyword that the constructor lacks is refused by `check_options`, not by a TypeError."""
    wrapped: Any = vars(cls)["__init__"]
    known = list(signature(wrapped).parameters)[1:]

    @wraps(wrapped)
    def checked(self: Any, *args: Any, **options: Any) -> None:
        check_options(options, known=known, owner=cls.__name__)
        wrapped(self, *args, **options)

    # in place: a subclass would have another name, and pickles and isinstance go by this class
    cls.__init__ = checked  # type: ignore[method-assign]
    return cls
