"""Rows about one model each, of one file or of several, put together by their prompt or id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from routellm_core.data.files import FileReader, Row

# Fields of a row that hold something for each model.
_BY_MODEL = ("scores", "answers", "costs", "tokens")


@dataclass
class JoinReport:
    """How rows about one model each were put together; complete once the records have all been read.

    Attributes:
        joined: Whether there were such rows at all.
        by: ``"prompt"`` or ``"id"``: what they were matched by.
        rows: Rows that were read.
        prompts: Different prompts among them.
        matched: Prompts for which at least two models (of answers: one) have something.
        dropped: Prompts that were left out, because a model that is needed has nothing for them.
        without_prompt: Rows that were left out, because no row with their id has a prompt.
        models: For each model the number of prompts for which it has something.
        unlabelled: Rows of files that need no joining, left out because they have neither a score nor a verdict.
    """

    joined: bool = False
    by: str = "prompt"
    rows: int = 0
    prompts: int = 0
    matched: int = 0
    dropped: int = 0
    without_prompt: int = 0
    models: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON scalars and objects."""
        return {name: value for name, value in vars(self).items() if name not in ("joined", "unlabelled")}

    def sentence(self) -> str:
        """What happened, for a person."""
        lost = [f"{self.dropped:,} without an answer or score of a second model dropped"] if self.dropped else []
        if self.without_prompt:
            lost.append(f"{self.without_prompt:,} rows without a prompt dropped")
        return (
            f"joined {self.rows:,} rows by {self.by}: {self.matched:,} of {self.prompts:,} prompts matched"
            f"{''.join(f', {text}' for text in lost) or ', none dropped'}"
        )


class Entry(NamedTuple):
    """A row that waits to be put together with others: the file, its place in it, and the row."""

    file: FileReader
    where: str
    row: Row


class Joiner:
    """Collects rows about one model each and puts those of a prompt together.

    Rows belong together when their prompts are the same but for spaces. A row without a prompt takes that
    of the rows with its id. Where no two models share a prompt at all, rows are matched by their ids, unless those are
    row numbers, which any two files have in common.

    Args:
        least: Of how many models a prompt must have something.
        fields: What counts as something: ``("scores",)`` or ``("answers",)``.

    Attributes:
        report: What happened, once `rows` has ended.
    """

    def __init__(self, report: JoinReport, *, least: int, fields: tuple[str, ...]) -> None:
        self.report = report
        self._least = least
        self._fields = fields
        self._entries: list[Entry] = []

    def add(self, file: FileReader, where: str, row: Row) -> None:
        """Keep a row for later."""
        self._entries.append(Entry(file, where, row))

    def answered(self) -> list[str]:
        """The models of which there are answers."""
        found = (entry.row.get("answers") for entry in self._entries)
        return list(dict.fromkeys(model for answers in found if isinstance(answers, dict) for model in answers))

    def rows(self) -> Iterator[Entry]:
        """The rows that were put together, each at the place of its first; battles stay alone, with their prompts."""
        if not self._entries:
            return
        report = self.report
        report.joined, report.rows = True, len(self._entries)
        groups = self._groups()
        report.prompts = len(groups)
        models: Counter[str] = Counter()
        for entries in groups.values():
            battles = [entry for entry in entries if "winner" in entry.row]
            merged = _merged([entry.row for entry in entries if "winner" not in entry.row])
            prompt = merged.get("prompt") or next((e.row["prompt"] for e in battles if e.row.get("prompt")), None)
            named = {name for field in self._fields for name in merged.get(field, ())}
            models.update(named | {e.row[side] for e in battles for side in ("model_a", "model_b") if side in e.row})
            if len(named) >= self._least:
                yield Entry(entries[0].file, entries[0].where, {**merged, "prompt": prompt})
            elif not battles:
                report.dropped += 1
            report.matched += bool(battles) or len(named) >= max(self._least, 1)
            for entry in battles:
                yield Entry(entry.file, entry.where, {**entry.row, "prompt": prompt})
        report.models = dict(models.most_common())

    def _groups(self) -> dict[str, list[Entry]]:
        """The entries of each prompt, by a key, in the order of the first."""
        prompts = [_key(entry.row.get("prompt")) for entry in self._entries]
        ids = [_id(entry.row) for entry in self._entries]
        of_id: dict[str, str | None] = {}  # None: rows with this id have different prompts
        for prompt, name in zip(prompts, ids, strict=True):
            if prompt is not None and name is not None:
                of_id[name] = prompt if of_id.get(name, prompt) == prompt else None
        by_prompt: dict[str, list[Entry]] = {}
        lost = 0
        for entry, prompt, name in zip(self._entries, prompts, ids, strict=True):
            key = prompt if prompt is not None or name is None else of_id.get(name)
            if key is None:
                lost += 1
            else:
                by_prompt.setdefault(key, []).append(entry)
        if not self._shared(by_prompt):
            by_id: dict[str, list[Entry]] = {}
            for entry, name in zip(self._entries, ids, strict=True):
                if name is not None and not name.isdecimal():
                    by_id.setdefault(name, []).append(entry)
            with_prompt = {key: rows for key, rows in by_id.items() if any(e.row.get("prompt") for e in rows)}
            if self._shared(with_prompt):
                self.report.by = "id"
                self.report.without_prompt = len(self._entries) - sum(map(len, with_prompt.values()))
                return with_prompt
        self.report.without_prompt = lost
        if lost < len(self._entries) and any(prompt is None for prompt in prompts):
            self.report.by = "id"
        return by_prompt

    def _shared(self, groups: dict[str, list[Entry]]) -> bool:
        """Whether any two models, or the two of a battle, have a prompt in common."""
        return any(
            any("winner" in entry.row for entry in entries)
            or len({name for entry in entries for field in self._fields for name in entry.row.get(field) or ()}) > 1
            for entries in groups.values()
        )


def _key(prompt: Any) -> str | None:
    if not isinstance(prompt, str):
        return None
    return " ".join(prompt.split()) or None


def _id(row: Row) -> str | None:
    value = row.get("id")
    return value if isinstance(value, str) else None


def _merged(rows: list[Row]) -> Row:
    """One row of several about one prompt: the first value of each field; of scores, costs and tokens the mean."""
    out: Row = {}
    found: dict[str, dict[str, list[Any]]] = {name: {} for name in _BY_MODEL}
    for row in rows:
        for name, value in row.items():
            if name not in _BY_MODEL:
                out.setdefault(name, value)
            elif isinstance(value, dict):
                for model, item in value.items():
                    found[name].setdefault(model, []).append(item)
    for name, models in found.items():
        if models:
            out[name] = {model: _together(name, values) for model, values in models.items()}
    return out


def _together(name: str, values: list[Any]) -> Any:
    """What several samples of one model are together; what is wrong with a value is left for its validation."""
    if len(values) == 1 or name == "answers":
        return values[0]
    if name == "tokens":
        if not all(isinstance(value, dict) for value in values):
            return values[0]
        sides = {side: [value[side] for value in values if side in value] for side in ("input", "output")}
        return {side: _together("", counts) for side, counts in sides.items() if counts}
    try:
        return sum(map(float, values)) / len(values)
    except (TypeError, ValueError, OverflowError):
        return next((value for value in values if not isinstance(value, int | float)), values[0])
