"""Cleaning: remove rows that repeat an evaluation prompt or an earlier row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from routellm_core.checks import checked_count
from routellm_core.data.contamination import ContaminationIndex, DuplicateFinder
from routellm_core.data.records import AnsweredPrompt, Battle, Outcome

Record = TypeVar("Record", Battle, Outcome, AnsweredPrompt, Battle | Outcome)


@dataclass(frozen=True)
class Finding:
    """A row that was removed.

    Attributes:
        row: Its position among the records, from 0.
        id: Its `id`, if it has one.
        kind: ``"contaminated"`` (repeats an evaluation prompt) or ``"duplicates"`` (repeats an earlier row).
        of: Position of what it repeats, in the evaluation set or among the records, from 0.
        similarity: How much of the text they share, in [0, 1]; see `Match` and `Duplicate`.
    """

    row: int
    id: str | None
    kind: Literal["contaminated", "duplicates"]
    of: int
    similarity: float


@dataclass
class CleaningReport:
    """What `clean_records` removed; complete once all records have been read.

    Attributes:
        limit: Maximum number of findings in `found`.
        rows: Records read.
        contaminated: Records removed because they repeat an evaluation prompt.
        contaminated_exact: How many of those are the same text except for case, punctuation and spacing.
        duplicates: Records removed because they repeat an earlier one.
        duplicates_exact: How many of those are the same record.
        kept: Records that remain.
        evaluation_prompts: Size of the evaluation set.
        found: The first `limit` findings.
    """

    limit: int = 10
    rows: int = 0
    contaminated: int = 0
    contaminated_exact: int = 0
    duplicates: int = 0
    duplicates_exact: int = 0
    kept: int = 0
    evaluation_prompts: int = 0
    found: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        checked_count(self.limit, "limit", least=0, unit="findings")

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and findings as JSON scalars, lists and objects."""
        return {name: value for name, value in asdict(self).items() if name != "limit"}

    def _left_out(self, finding: Finding, exact: bool) -> None:
        if finding.kind == "contaminated":
            self.contaminated += 1
            self.contaminated_exact += exact
        else:
            self.duplicates += 1
            self.duplicates_exact += exact
        if len(self.found) < self.limit:
            self.found.append(finding)


def clean_records(
    records: Iterable[Record],
    *,
    against: Iterable[str] = (),
    threshold: float = 0.8,
    duplicates: bool = True,
    report: CleaningReport | None = None,
) -> Iterator[Record]:
    """Remove records that repeat an evaluation prompt or an earlier record, exactly or nearly.

    Records are read one at a time. Equal prompts with other models, scores or winners are separate votes and stay: a
    record is a duplicate only if it equals an earlier one except for its `id`, or if its prompt nearly repeats an
    earlier one. `ContaminationIndex` and `DuplicateFinder` define what counts as a repeat.

    Args:
        records: Battles, outcomes or answers; read once.
        against: Prompts of the evaluation set that training must not have seen; read when this is called.
        threshold: Similarity from which two prompts count as repeats, > 0 and <= 1.
        duplicates: Whether to look for repeats among the records as well.
        report: Counts what was removed, and why.

    Yields:
        The remaining records, in their order.

    Raises:
        ConfigurationError: `threshold` is out of range.
    """
    tally = report if report is not None else CleaningReport()
    index = ContaminationIndex(against, threshold=threshold)
    finder = DuplicateFinder(threshold=threshold) if duplicates else None
    tally.evaluation_prompts = index.count
    # checked when called, not when first advanced
    return _clean(records, index, finder, tally)


def _clean(
    records: Iterable[Record], index: ContaminationIndex, finder: DuplicateFinder | None, tally: CleaningReport
) -> Iterator[Record]:
    seen: set[bytes] = set()
    rows: list[int] = []  # the row of each prompt that the finder has been asked about
    for number, record in enumerate(records):
        tally.rows += 1
        if (match := index.match(record.prompt)) is not None:
            finding = Finding(number, record.id, "contaminated", match.position, match.similarity)
            tally._left_out(finding, match.exact)
            continue
        if finder is not None:
            # the same prompt with other models or another winner is another vote: the whole record must be the same
            key = hashlib.blake2b(record.model_dump_json(exclude={"id"}).encode(), digest_size=16).digest()
            same = key in seen
            seen.add(key)
            repeat = finder.add(record.prompt)
            rows.append(number)
            if repeat is not None and (same or not repeat.exact):
                finding = Finding(number, record.id, "duplicates", rows[repeat.position], repeat.similarity)
                tally._left_out(finding, repeat.exact)
                continue
        tally.kept += 1
        yield record
