"""Inspect's .eval files: zip archives with one JSON file for the run and one for each sample."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from typing import IO, Any

_RUN = ("header.json", "_journal/start.json")
_SAMPLES = "samples/"


class EvalLogError(ValueError):
    """An archive that cannot be read any further; the message says why and what to do."""


def is_eval_log(file: IO[bytes]) -> bool:
    """Whether a zip archive is a log of Inspect; the position in the file stays where it was."""
    position = file.tell()
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name in _RUN or name.startswith(_SAMPLES) for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return False
    finally:
        file.seek(position)


def samples_of(file: IO[bytes], most: int) -> Iterator[dict[str, Any] | str]:
    """Yield each sample as a log of its own, ``{"eval": ..., "samples": [sample]}``; a str is what is wrong with one.

    Args:
        file: The archive.
        most: Bytes of a sample above which it is refused.

    Raises:
        EvalLogError: The archive is damaged or packed in a way that Python cannot unpack.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            head = next((_member(archive, name, most) for name in _RUN if name in names), None)
            run = head.get("eval") if isinstance(head, dict) else None
            if not isinstance(run, dict):
                raise EvalLogError("holds no header.json that says which model ran; get it again")
            for name in names:
                if name.startswith(_SAMPLES) and name.endswith(".json"):
                    sample = _member(archive, name, most)
                    yield {"eval": run, "samples": [sample]} if isinstance(sample, dict) else sample
    except NotImplementedError:
        raise EvalLogError(
            "is packed with a method that Python cannot unpack (zstd?); write it as JSON: inspect log convert --to json"
        ) from None
    except (zipfile.BadZipFile, RuntimeError, EOFError) as exc:
        raise EvalLogError(f"is a damaged zip archive ({exc}); get it again") from exc


def _member(archive: zipfile.ZipFile, name: str, most: int) -> dict[str, Any] | str:
    with archive.open(name) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        return f"longer than {most:,} bytes"
    try:
        value = json.loads(content)
    except RecursionError:
        return "nested too deeply"
    except ValueError:
        return "not JSON"
    return value if isinstance(value, dict) else "expected a JSON object"
