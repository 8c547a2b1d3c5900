"""Gold labels: answers are graded against a known right answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_args

from routellm_core.checks import imported_object, is_number
from routellm_core.data.records import AnsweredPrompt, Outcome
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.labelling.reading.forms import GoldKind, form_of
from routellm_core.labelling.reading.phrases import normal_words, without_refusals, without_thinking
from routellm_core.policy.refusals import refuses

Gold: TypeAlias = str | Sequence[str]
Grader: TypeAlias = Callable[..., float | bool | None]


@dataclass(frozen=True)
class Grade:
    """How an answer compares with the right one.

    Attributes:
        right: Whether it agrees; None when it contains no recognisable answer.
        kind: The kind that the right answer was read as.
        says_more: Whether it agrees and is not the right answer alone.
        mentions_gold: Whether the right answer occurs in it although it does not agree.
        refuses: Whether it does not agree and says that it cannot or will not answer.
    """

    right: bool | None
    kind: str
    says_more: bool
    mentions_gold: bool
    refuses: bool


def grade(answer: str, gold: Gold, kind: GoldKind = "auto", *, prompt: str = "") -> bool | None:
    r"""Whether an answer agrees with the right one.

    An answer may reason first; what it concludes with counts: ``<answer>``, ``\boxed{}``, ``####``, "the answer is".

    Args:
        answer: The model's answer. The thoughts of a reasoning model (``<think>``) are left out.
        gold: The right answer, or several that are accepted.
        kind: How to compare.

            - ``"choice"``: one letter; the answer may name the option by its letter or, where `prompt` lists the
              options, by its text.
            - ``"yes_no"``: yes or no, true or false.
            - ``"number"``: by value, whatever the separators; 3/4, ``\frac{3}{4}``, 0.75 and 75 % are equal. Units are
              converted where both sides have one, and ignored where one side has none.
            - ``"date"``: in any usual way of writing, to the precision of `gold`.
            - ``"text"``: the right answer stands in the answer as a whole phrase, but for case, accents, punctuation
              and articles, and is neither denied ("not in Paris") nor one of several ("Paris or Rome").
            - ``"exact"``: the answer is the right one and nothing else, but for case, punctuation and spacing.
            - ``"auto"``: the first of choice, yes_no, number, date and text whose form `gold` has.
        prompt: The question, for its options.

    Returns:
        True or False; None when the answer contains no recognisable answer of that kind.

    Raises:
        ConfigurationError: An unknown kind.
        DataError: `gold` is empty or does not have the form that `kind` asks for.
    """
    return grade_in_detail(answer, gold, kind, prompt=prompt).right


def grade_in_detail(answer: str, gold: Gold, kind: GoldKind = "auto", *, prompt: str = "") -> Grade:
    """Like `grade`, with what an answer does beside being right or wrong; arguments and errors are the same."""
    if kind not in get_args(GoldKind):
        raise ConfigurationError(f"kind={kind!r}: expected one of {', '.join(get_args(GoldKind))}")
    accepted = [gold] if isinstance(gold, str) else list(gold)
    if not any(text.strip() for text in accepted):
        raise DataError("field 'gold': is empty")
    forms = [form_of(text, kind, prompt) for text in accepted if text.strip()]
    text = without_thinking(answer)
    # where the right answer is that there is none, saying so is no refusal
    declines = refuses(text) and not any(refuses(right) for right in accepted)
    stated = without_refusals(text) if declines else text
    verdicts = [form.agrees(stated) for form in forms]
    right = True if True in verdicts else False if False in verdicts else None
    return Grade(
        right=right,
        kind=forms[0].kind,
        says_more=right is True and all(normal_words(text) != normal_words(form) for form in accepted),
        mentions_gold=right is not True and any(form.mentioned(text) for form in forms),
        refuses=right is not True and declines,
    )


@dataclass
class GoldTally:
    """The grades of one model's answers of one source.

    Attributes:
        answers: Answers that have a score.
        score: Sum of the scores.
        says_more: Right answers that say more than the right answer.
        mentions_gold: Wrong answers in which the right answer occurs; worth a look, since the reading may be wrong.
        refused: Answers that refuse; they count as wrong.
        unreadable: Answers that contain no recognisable answer and do not refuse; they count as wrong.
        ungraded: Answers that the user's grader gave no score; they have none.
    """

    answers: int = 0
    score: float = 0.0
    says_more: int = 0
    mentions_gold: int = 0
    refused: int = 0
    unreadable: int = 0
    ungraded: int = 0

    @property
    def mean(self) -> float:
        """Mean score; NaN without answers."""
        return self.score / self.answers if self.answers else float("nan")

    def add(self, grade: Grade) -> float:
        """Count a grade and return its score."""
        self.says_more += grade.says_more
        self.mentions_gold += grade.mentions_gold
        self.refused += grade.refuses
        self.unreadable += grade.right is None and not grade.refuses
        return self.add_score(float(grade.right is True))

    def add_score(self, score: float) -> float:
        """Count a score and return it."""
        self.answers += 1
        self.score += score
        return score

    def to_dict(self) -> dict[str, Any]:
        """All counts and the mean as JSON values; the mean is None without answers."""
        return {**vars(self), "mean": self.mean if self.answers else None}


@dataclass
class GoldReport:
    """What gold labelling did.

    Attributes:
        rows: Rows labelled.
        without_gold: Rows left out because they have no right answer, or none of the form asked for.
        without_answers: Rows left out because they have no answers.
        ungraded: Rows left out because the user's grader gave none of their answers a score.
        kinds: Rows by the kind that their right answer was read as.
        tallies: The grades by model, then by source; rows without a source have the source "gold".
    """

    rows: int = 0
    without_gold: int = 0
    without_answers: int = 0
    ungraded: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    tallies: dict[str, dict[str, GoldTally]] = field(default_factory=dict)

    @property
    def unreadable(self) -> dict[str, int]:
        """Answers without a recognisable answer by model, where there are any."""
        counts = {model: sum(t.unreadable for t in sources.values()) for model, sources in self.tallies.items()}
        return {model: count for model, count in counts.items() if count}

    def tally(self, model: str, source: str) -> GoldTally:
        """The tally of a model and a source, to count in."""
        return self.tallies.setdefault(model, {}).setdefault(source, GoldTally())

    def to_dict(self) -> dict[str, Any]:
        """All counts as JSON values."""
        return {
            "rows": self.rows,
            "without_gold": self.without_gold,
            "without_answers": self.without_answers,
            "ungraded": self.ungraded,
            "unreadable": self.unreadable,
            "kinds": dict(self.kinds),
            "models": {
                model: {source: tally.to_dict() for source, tally in sources.items()}
                for model, sources in self.tallies.items()
            },
        }


def gold_outcomes(
    rows: Iterable[AnsweredPrompt],
    *,
    kind: GoldKind = "auto",
    grader: Grader | str | None = None,
    report: GoldReport | None = None,
) -> Iterator[Outcome]:
    """Score answers 1 where they agree with the right one and 0 where they do not, row by row.

    Args:
        rows: Prompts with `answers` and `gold`; read once.
        kind: See `grade`.
        grader: A function of your own instead, or its name as ``"package.module:function"``; for example one that runs
            code. It is called with an answer and the row's gold (None where it has none), and with ``prompt=`` where it
            has a parameter of that name. It returns a score, higher is better, or None for an answer that it cannot
            grade; such an answer gets no score.
        report: Where to count what was done and left out; complete when the iteration ends.

    Yields:
        An outcome for each row that has answers and, without `grader`, a right one.

    Raises:
        ConfigurationError: An unknown kind, or a grader that is not a function, fails, or returns no number.
        DataError: No row could be graded. It is raised at the end of the iteration, so that `write_records` keeps an
            older file.
    """
    if kind not in get_args(GoldKind):
        raise ConfigurationError(f"kind={kind!r}: expected one of {', '.join(get_args(GoldKind))}")
    if isinstance(grader, str):
        grader = imported_object(grader, "grader")
    if grader is not None and not callable(grader):
        raise ConfigurationError(
            f"grader={grader!r:.80}: expected a function of an answer and its gold, or package.module:function"
        )
    # checked when called, not when first advanced
    return _outcomes(rows, kind, None if grader is None else _UserGrader(grader), report or GoldReport())


def _outcomes(
    rows: Iterable[AnsweredPrompt], kind: GoldKind, grader: _UserGrader | None, report: GoldReport
) -> Iterator[Outcome]:
    labelled = 0
    for row in rows:
        if not row.answers:
            report.without_answers += 1
            continue
        scores = _graded(row, kind, report) if grader is None else _scored(row, grader, report)
        if scores:
            labelled += 1
            report.rows += 1
            yield Outcome(
                prompt=row.prompt,
                scores=scores,
                id=row.id,
                source=row.source or "gold",
                weight=row.weight,
                costs={model: row.costs[model] for model in scores if model in row.costs},
                tokens={model: row.tokens[model] for model in scores if model in row.tokens},
            )
    if not labelled:
        raise DataError(
            f"no row could be graded: {report.without_answers} without answers, {report.without_gold} without a usable "
            f"right answer (field 'gold'), {report.ungraded} that the grader gave no score"
        )


def _graded(row: AnsweredPrompt, kind: GoldKind, report: GoldReport) -> dict[str, float]:
    """The scores by the right answer; empty, and counted, when the row has none that is usable."""
    try:
        if row.gold is None:
            raise DataError("field 'gold': missing")
        grades = {
            model: grade_in_detail(answer, row.gold, kind, prompt=row.prompt) for model, answer in row.answers.items()
        }
    except DataError:
        report.without_gold += 1
        return {}
    read_as = next(iter(grades.values())).kind
    report.kinds[read_as] = report.kinds.get(read_as, 0) + 1
    source = row.source or "gold"
    return {model: report.tally(model, source).add(graded) for model, graded in grades.items()}


def _scored(row: AnsweredPrompt, grader: _UserGrader, report: GoldReport) -> dict[str, float]:
    """The scores by the user's grader; empty, and counted, when it gives none."""
    scores = {}
    for model, answer in row.answers.items():
        tally = report.tally(model, row.source or "gold")
        score = grader(answer, row)
        if score is None:
            tally.ungraded += 1
        else:
            scores[model] = tally.add_score(score)
    if not scores:
        report.ungraded += 1
    return scores


class _UserGrader:
    """A grader of the user, whose failures are reported as such."""

    def __init__(self, function: Grader) -> None:
        self._function = function
        self._name = getattr(function, "__qualname__", type(function).__name__)
        try:
            self._takes_prompt = "prompt" in inspect.signature(function).parameters
        except (TypeError, ValueError):  # some built-in functions have no signature
            self._takes_prompt = False

    def __call__(self, answer: str, row: AnsweredPrompt) -> float | None:
        where = f"grader={self._name}, row with id {row.id!r}"
        try:
            score: Any = self._function(answer, row.gold, **({"prompt": row.prompt} if self._takes_prompt else {}))
        except Exception as exc:
            called = "answer, gold" if row.gold is not None else "answer, None"
            called += ", prompt=prompt" if self._takes_prompt else ""
            hint = "; expected def grade(answer, gold, prompt), or without prompt" if isinstance(exc, TypeError) else ""
            raise ConfigurationError(
                f"{where}: it failed with {type(exc).__name__} when called with ({called}){hint}"
            ) from exc
        if score is None:
            return None
        if not isinstance(score, bool) and not is_number(score):
            raise ConfigurationError(f"{where}: it returned {score!r:.60}; expected a number, True, False or None")
        return float(score)
