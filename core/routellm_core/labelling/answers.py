"""Answers: any number of chat models answer prompts; each answer is paid for once and serves gold and judge alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from routellm_core.data.records import AnsweredPrompt, Tokens
from routellm_core.errors import ConfigurationError
from routellm_core.labelling.chat_models import ChatModel, Reply, settings_of
from routellm_core.labelling.journal import Journal, call_key, read_journal, valid_value
from routellm_core.labelling.paid_calls import (
    Call,
    CallEstimate,
    CallLimits,
    CallTally,
    ReplyLength,
    estimate_calls,
    estimated_tokens,
    make_calls,
)
from routellm_core.policy.setups import Setup, is_on_purpose

if TYPE_CHECKING:
    from routellm_core.checks import Progress
    from routellm_core.policy.savings import Price

Instructions: TypeAlias = str | Mapping[str, str] | None


@dataclass
class AnswerReport:
    """What answering did. All mappings are by the name that the answers get.

    Attributes:
        rows: Rows, answered or not.
        calls: Totals of the calls to each model.
        missing: Rows that still lack the model's answer: the call failed, or all replies were empty. Another run tries
            the failed ones again.
        truncated: Answers that the model broke off at a limit of tokens.
        served_by: The names that each service gave for its model, with the number of answers.
        same_model: Names of answers that come from one model, by the name that the services gave for it: most likely a
            mistake, since some servers answer to any name. Not one that was asked for by its name under different
            instructions or settings, or at different URLs.
    """

    rows: int = 0
    calls: dict[str, CallTally] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    served_by: dict[str, dict[str, int]] = field(default_factory=dict)
    same_model: dict[str, list[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All counts as JSON values."""
        return asdict(self)


async def generate_answers(
    rows: Sequence[AnsweredPrompt],
    models: Mapping[str, ChatModel],
    *,
    journal: str | Path,
    instructions: Instructions = None,
    progress: Progress | None = None,
    **limits: Unpack[CallLimits],
) -> tuple[list[AnsweredPrompt], AnswerReport]:
    """Let models answer the prompts that they have not answered yet.

    Every answer is in the journal before it is used: a run that crashed continues where it was and pays nothing twice.
    (A call that was cut off after the service had worked on it may be charged by the service; that cannot be known.) A
    model is known to the journal by its name at its service, its settings and its instructions; changing one of these
    asks anew, another URL or key does not. Answers that judging had written to its journal are found there as well.

    Args:
        rows: Prompts, with or without some answers.
        models: Chat model by the name that its answers get.
        journal: File that keeps the answers; created when absent.
        instructions: System message for all models, or for each by name; None sends none.
        progress: Called with the numbers of calls done and in all.
        **limits: See `CallLimits`; an empty reply is asked for again.

    Returns:
        The rows in their order with the answers added (absent where the call failed or the answer was empty), and with
        the tokens that they took, as far as the service reported them; and the report.

    Raises:
        CallError: Every further call would fail in the same way; what has been paid for is in the journal.
        ConfigurationError: A limit is out of range, or instructions are for a model that is not in `models`.
        DataError: The journal is another file, or another run is writing it.
    """
    askers = _askers(models, instructions)
    calls = [asker.call(row.prompt) for row in rows for asker in askers if asker.name not in row.answers]
    with Journal(journal) as opened:
        results, tallies = await make_calls(calls, opened, read=_value, progress=progress, **limits)
    report = AnswerReport(len(rows), calls={name: tallies.get(name, CallTally()) for name in models})
    answered = [_with_answers(row, askers, results.get) for row in rows]
    for asker in askers:
        values = [results.get(asker.key(row.prompt)) for row in rows if asker.name not in row.answers]
        report.missing[asker.name] = sum(value is None for value in values)
        report.truncated[asker.name] = sum(value is not None and bool(value.get("truncated")) for value in values)
        served = Counter(value["served_by"] for value in values if value is not None and value.get("served_by"))
        report.served_by[asker.name] = dict(served)
    report.same_model = _same_model(askers, report.served_by)
    return answered, report


def estimate_answers(
    rows: Sequence[AnsweredPrompt],
    models: Mapping[str, ChatModel],
    *,
    journal: str | Path | None = None,
    instructions: Instructions = None,
    answer_tokens: int = 400,
    tries: int = 2,
    prices: Mapping[str, Price] | None = None,
) -> dict[str, CallEstimate]:
    """Estimate the calls, tokens and cost of `generate_answers`; asks nothing.

    Args:
        rows: As for `generate_answers`.
        models: As for `generate_answers`.
        journal: Journal of an earlier run, whose answers are not paid for again; may be absent.
        instructions: As for `generate_answers`.
        answer_tokens: Tokens that an answer usually takes; less where the model's settings limit them to less.
        tries: See `CallLimits`.
        prices: Price of each model, by the name of its answers.

    Returns:
        The estimate for each model, by the name of its answers.

    Raises:
        ConfigurationError: Instructions or a price are for a model that is not in `models`.
        DataError: The journal is another file.
    """
    prices = prices or {}
    _check_names("prices", prices, models)
    known = read_journal(journal)
    estimates = {}
    for asker in _askers(models, instructions):
        overhead = estimated_tokens(asker.instructions or "")
        estimates[asker.name] = estimate_calls(
            ((asker.key(r.prompt), overhead + estimated_tokens(r.prompt)) for r in rows if asker.name not in r.answers),
            known,
            rows=len(rows),
            reply=reply_length(asker.model, answer_tokens),
            tries=tries,
            price=prices.get(asker.name),
        )
    return estimates


def recall_answers(
    rows: Sequence[AnsweredPrompt],
    models: Mapping[str, ChatModel],
    *,
    journal: str | Path,
    instructions: Instructions = None,
) -> list[AnsweredPrompt]:
    """Add the answers that an earlier `generate_answers` left in its journal; asks nothing.

    Args:
        rows: Prompts, with or without some answers.
        models: As for the earlier `generate_answers`; only names and settings count.
        journal: The journal; may be absent.
        instructions: As for the earlier `generate_answers`.

    Returns:
        The rows in their order with the answers added.

    Raises:
        ConfigurationError: Instructions are for a model that is not in `models`.
        DataError: The journal is another file.
    """
    known = read_journal(journal)
    askers = _askers(models, instructions)
    return [_with_answers(row, askers, lambda key: valid_value(known.get(key, ()))) for row in rows]


def reply_length(model: ChatModel, usual: int) -> ReplyLength:
    """How long the replies of a model are: as long as usual, but no longer than its settings allow."""
    settings = settings_of(model)
    limits = (settings.get(name) for name in ("max_completion_tokens", "max_tokens"))
    most = next((v for v in limits if isinstance(v, int)), None)
    return ReplyLength(usual, usual) if most is None else ReplyLength(min(usual, most), most)


@dataclass(frozen=True)
class _Asker:
    """A model and how it is asked."""

    name: str
    model: ChatModel
    instructions: str | None
    shares_name: bool

    @property
    def setup(self) -> Setup:
        return Setup(self.model.name, getattr(self.model, "base_url", None), self.manner)

    @property
    def manner(self) -> list[Any]:
        """What changes the answers beside the model and the prompt; empty for a model that is asked plainly."""
        settings = settings_of(self.model)
        return [self.instructions, settings] if settings or self.instructions is not None else []

    def key(self, prompt: str) -> str:
        # Plain questions have the keys that judging has always given them, so that its answers can be used again. Two
        # models that are called alike at their services are told apart by the names of their answers.
        name = [self.name] if self.shares_name else []
        return call_key("answer", self.model.name, prompt, *self.manner, *name)

    def call(self, prompt: str) -> Call:
        return Call(self.key(prompt), self.model, self.instructions, prompt, label=self.name)


def _askers(models: Mapping[str, ChatModel], instructions: Instructions) -> list[_Asker]:
    if isinstance(instructions, Mapping):
        _check_names("instructions", instructions, models)
    askers = []
    for name, model in models.items():
        own = instructions.get(name) if isinstance(instructions, Mapping) else instructions
        askers.append(_Asker(name, model, own, shares_name=False))
    kinds = Counter(asker.key("") for asker in askers)
    return [
        _Asker(asker.name, asker.model, asker.instructions, shares_name=kinds[asker.key("")] > 1) for asker in askers
    ]


def _check_names(parameter: str, values: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    unknown = [name for name in values if name not in models]
    if unknown:
        raise ConfigurationError(
            f"{parameter}: {unknown[0]!r} is not one of the models: {', '.join(map(repr, models)) or 'none'}"
        )


def _value(reply: Reply) -> dict[str, Any] | None:
    if not reply.text.strip():
        return None
    value: dict[str, Any] = {"text": reply.text}
    if reply.served_by is not None:
        value["served_by"] = reply.served_by
    if reply.truncated:
        value["truncated"] = True
    if reply.prompt_tokens or reply.completion_tokens:
        value["tokens"] = [reply.prompt_tokens, reply.completion_tokens]
    return value


def _with_answers(
    row: AnsweredPrompt, askers: Sequence[_Asker], look_up: Callable[[str], dict[str, Any] | None]
) -> AnsweredPrompt:
    answers, tokens = dict(row.answers), dict(row.tokens)
    for asker in askers:
        value = None if asker.name in answers else look_up(asker.key(row.prompt))
        if value is not None:
            answers[asker.name] = value["text"]
            if used := value.get("tokens"):
                tokens[asker.name] = Tokens(input=used[0], output=used[1])
    return row.model_copy(update={"answers": answers, "tokens": tokens})


def _same_model(askers: Sequence[_Asker], served_by: Mapping[str, Mapping[str, int]]) -> dict[str, list[str]]:
    """Names of answers by what served them, where one model served several that were not meant to be one."""
    found: dict[str, list[str]] = {}
    for served in dict.fromkeys(name for names in served_by.values() for name in names):
        those = [asker for asker in askers if served in served_by[asker.name]]
        alike = {
            asker.name: None
            for one, other in combinations(those, 2)
            if not is_on_purpose(served, one.setup, other.setup)
            for asker in (one, other)
        }
        if alike:
            found[served] = [asker.name for asker in those if asker.name in alike]
    return found
