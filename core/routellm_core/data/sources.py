"""What ``--data`` names: files, each with the name of the model that it is about where the user gives one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from routellm_core.errors import ConfigurationError


@dataclass(frozen=True)
class Source:
    """A file of data.

    Attributes:
        path: The file.
        model: The model that its rows are about; None where the rows say that themselves.
    """

    path: Path
    model: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.model is None else f"{self.model}={self.path}"


# A file; "MODEL=FILE"; several of them; or {model: file}.
Data = str | Path | Source | Sequence[str | Path | Source] | Mapping[str, str | Path]


def sources_of(data: Data) -> list[Source]:
    """The files that `data` names, in their order; each file once.

    Raises:
        ConfigurationError: There is none, or a model's name is empty.
    """
    if isinstance(data, Mapping):
        found = [Source(Path(path), model) for model, path in data.items()]
    else:
        found = [_source(item) for item in ([data] if isinstance(data, str | Path | Source) else data)]
    if not found:
        raise ConfigurationError("data=[]: expected at least one file")
    return list(dict.fromkeys(found))


def _source(item: str | Path | Source) -> Source:
    if isinstance(item, Source):
        return item
    text = str(item)
    model, equals, path = text.partition("=")
    # a file whose own name holds "=", as in a partitioned folder, is a file
    if not equals or Path(text).exists():
        return Source(Path(item))
    if not model.strip() or not path:
        raise ConfigurationError(f"--data {text}: expected FILE or MODEL=FILE")
    return Source(Path(path), model.strip())
