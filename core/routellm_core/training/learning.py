"""From a traffic log to a better router, with proof: labels, a correction, a verdict, and the files that an app uses.

The pairs of a log are a random sample of its traffic that both models have answered. Those without a label are labelled
once, and the labels go back into the log. A correction of the router in use is learned from them, from 800 pairs on
routers from nothing too, and what is recommended is proved on pairs that it was not learned from.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import numpy as np

from routellm_core.checks import Progress, Side, checked_fraction, is_number
from routellm_core.data.contamination import prompt_key
from routellm_core.data.records import AnsweredPrompt, Outcome, Record
from routellm_core.data.seen_prompts import SeenPrompts
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.evaluation.benchmarks import Benchmark
from routellm_core.labelling import gold_outcomes, judge_battles
from routellm_core.labelling.journal import call_key
from routellm_core.labelling.judge import JUDGE_INSTRUCTIONS
from routellm_core.log.rows import Label, LoggedCall, LoggedPair
from routellm_core.log.vectors import EMBEDDER_STATE
from routellm_core.report import evaluate_benchmark, save_evaluation
from routellm_core.routers.background import run_sync
from routellm_core.routers.base import Router
from routellm_core.routers.corrected import CorrectedRouter, logits
from routellm_core.routers.folder import RouterFolder
from routellm_core.routers.registry import load_router
from routellm_core.statistics.intervals import Estimate
from routellm_core.statistics.off_policy import one_sided_differences, one_sided_refusal, principal_features
from routellm_core.statistics.sequential import (
    FIRST_LOOK,
    Finding,
    Gain,
    finding,
    gain_over_mix,
    gain_over_router,
    next_look,
    pairs_needed,
    share_saved,
)
from routellm_core.training import auto
from routellm_core.training.correction import (
    MIN_PAIRS,
    Correction,
    corrected_router,
    fit_correction,
    out_of_fold_logits,
)
from routellm_core.training.embedding_task import EmbeddingTask, PromptVectors
from routellm_core.training.logged_prompts import LoggedPrompts
from routellm_core.training.logistic import Floats, Ints, sigmoid
from routellm_core.training.proof import out_of_fold_win_rates
from routellm_core.training.summary import EVALUATION_FOLDER, Trained, check_output, finish_training

if TYPE_CHECKING:
    from routellm_core.labelling.chat_models import ChatModel
    from routellm_core.labelling.gold import Grader
    from routellm_core.labelling.paid_calls import CallEstimate
    from routellm_core.log.database import TrafficDatabase

FROM_NOTHING = 800
FIRST_ONE_SIDED_LOOK = 5_000
VERDICT_FILE = "verdict.json"
_FOLDS = 10
# Fold fits of routers from nothing take longer, and there are several of them.
_FOLDS_FROM_NOTHING = 5
_LATEST = 5_000
_STATE = "learn"
_MOST_FAILED = 0.10
_STRONG, _WEAK = "strong", "weak"

Advice = Literal["gains", "keep", "not yet"]


class LearnOptions(TypedDict, total=False):
    """Options of `learn`."""

    router: Router | None
    """The router in use; None: the one at `out` where it decided the latest calls, else the bundled one."""

    strong_fraction: float | None
    """Share of strong calls at which gains are measured; None: that of the log."""

    judge: ChatModel | None
    """Labels pairs that have no label, in both orders. None judges nothing."""

    grader: Grader | str | None
    """Scores an answer, a function of (answer, None) with ``prompt=`` where it takes that, and 0 to 1; or its name as
    ``"package.module:function"``. It comes before `judge`."""

    journal: str | Path | None
    """File that keeps what a judge was paid for; None: ``OUT.journal``."""

    since: float | None
    """Learn from calls from this moment on, in seconds since 1970."""

    key: str
    """Feedback of this key counts, ``"score"`` by default."""

    seed: int
    """Seed of folds, 0 by default."""

    draws: int
    """Bootstrap draws of the report, 1,000 by default."""

    progress: Progress | None
    """Called with the numbers of judge's calls done and in all."""


@dataclass(frozen=True)
class Learned:
    """What was learned from a log, and what to do with it.

    Attributes:
        outcome: ``"gains"``: the new router beats the static mix of the same cost, is at least as good as the router in
            use, and was written; ``"keep"``: it beats the mix, but the router in use is better; ``"not yet"``.
        sentence: The verdict in words.
        pairs: Pairs that the verdict rests on; with one-sided feedback, scored calls.
        needed: How many more of them would probably tell; None unless the outcome is ``"not yet"``.
        strong_fraction: Share of strong calls that the gains are measured at.
        candidate: Name of the best new router; None with too few pairs.
        gain: Its gain over the static mix, out of fold, in scores.
        in_use_gain: The same of the router in use.
        over_in_use: Gain of the new router over the router in use, paired.
        saving: Money of one call that the new router saves against the static mix of the same quality, with its
            interval; None where costs are not logged or nothing is saved. Without costs see `saved_share`.
        saved_share: Share of calls that need not go to strong for the quality of that mix, with its interval; None
            where nothing is saved, or strong is not clearly better than weak.
        looked: Whether this run was one of the looks at which a verdict is given.
        counts: Pairs by what became of them: ``labelled``, ``duplicates``, ``without_label``, ``seen`` by the router in
            use, ``without_text``, ``new_labels``.
        one_sided: Whether all of this rests on scores of the answering model alone.
        out: Where the router was written; None where it was not.
        notes: What a reader must know.
    """

    outcome: Advice
    sentence: str
    pairs: int
    needed: int | None
    strong_fraction: float
    candidate: str | None = None
    gain: Gain | None = None
    in_use_gain: Gain | None = None
    over_in_use: Gain | None = None
    saving: Estimate | None = None
    saved_share: Estimate | None = None
    looked: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    one_sided: bool = False
    out: Path | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; gains as ``{"value", "low", "high"}``."""
        out: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("gain", "in_use_gain", "over_in_use"):
            out[name] = None if out[name] is None else out[name].estimate().to_dict()
        for name in ("saving", "saved_share"):
            out[name] = None if out[name] is None else out[name].to_dict()
        return {
            **out,
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "out": None if self.out is None else str(self.out),
        }


@dataclass(frozen=True)
class _Evidence:
    """Prompts with what strong is better by: scored pairs, or pseudo-outcomes of one-sided feedback."""

    prompts: list[str]
    differences: Floats
    groups: Ints
    strong: str
    weak: str
    # scores of both sides; None for pseudo-outcomes
    scores: tuple[Floats, Floats] | None = None
    costs: tuple[float, float] | None = None
    one_sided: bool = False

    @property
    def first_look(self) -> int:
        return FIRST_ONE_SIDED_LOOK if self.one_sided else FIRST_LOOK

    @property
    def unit(self) -> str:
        return "scored calls" if self.one_sided else "pairs"

    @property
    def records(self) -> list[Record]:
        """The pairs as outcomes; empty for pseudo-outcomes."""
        return [
            Outcome(prompt=prompt, scores={self.strong: s, self.weak: w})
            for prompt, s, w in zip(self.prompts, *(self.scores or ((), ())), strict=self.scores is not None)
        ]


@dataclass(frozen=True)
class _Candidate:
    """A router learned from the evidence, and its scores (n,) of prompts by routers that had not seen them."""

    name: str
    router: Router
    unseen: Floats
    folds: int
    settings: Mapping[str, Any]
    correction: Correction | None = None


def learn(data: str | TrafficDatabase, out: str | Path, **options: Unpack[LearnOptions]) -> Learned:
    """Label the pairs of a traffic log, learn a router from them, and prove it.

    Below 100 labelled pairs nothing is learned, and below 400 there is no verdict: it would be wrong too often. After
    that a verdict is given at doublings of the pairs only, which is counted in the log, since whoever looks often
    enough finds a gain that is not there. What is written to `out` beats the static mix by that bound, and its paired
    difference to the router in use is not below 0. Prompts that the router in use was trained on, which includes what
    was learned last time, are left out: next week's run is about what is new.

    Args:
        data: Address of the log, such as ``"sqlite:///traffic.db"``, or an open `TrafficDatabase`.
        out: A `RouterFolder`, which gets a new version only where it is recommended: with its calibration on the latest
            traffic, model card, report and verdict.json. Apps that follow it use it from then on.
        **options: See `LearnOptions`.

    Returns:
        The verdict.

    Raises:
        ConfigurationError: An option is not allowed, or the router in use is not known.
        DataError: The log cannot be read, or more than a tenth of the shadow answers failed.
        CallError: The judge's service fails for good; what was paid for is in the journal.
        MissingExtraError: An optional dependency is not installed.
    """
    from routellm_core.log.database import TrafficDatabase as Database

    unknown = sorted(options.keys() - LearnOptions.__annotations__.keys())
    if unknown:
        raise ConfigurationError(
            f"learn has no option {', '.join(unknown)}; it has {', '.join(LearnOptions.__annotations__)}"
        )
    if options.get("strong_fraction") is not None:
        checked_fraction(options["strong_fraction"], "strong_fraction")
    path = check_output(out, overwrite=True)
    if not isinstance(data, str):
        return _Learning(data, path, options).run()
    with Database(data) as database:
        return _Learning(database, path, options).run()


def estimate_labels(
    data: TrafficDatabase,
    *,
    judge: str,
    since: float | None = None,
    journal: str | Path | None = None,
    price: Any = None,
) -> CallEstimate:
    """What judging the pairs without a label will take; asks nothing.

    Args:
        data: The log.
        judge: Name of the judge.
        since: As for `learn`.
        journal: As for `learn`.
        price: Price of the judge, or None.
    """
    from routellm_core.labelling import estimate_judging

    rows = [_answered(pair) for pair in _distinct(data.pairs(since=since, without_label=True))[0]]
    return estimate_judging(
        [row for row in rows if row is not None], strong=_STRONG, weak=_WEAK, judge=judge, journal=journal, price=price
    )


class _Learning:
    """One run of `learn`."""

    def __init__(self, database: TrafficDatabase, out: Path, options: LearnOptions) -> None:
        self.database, self.out, self.options = database, out, options
        self.started = time.monotonic()
        self.since, self.seed = options.get("since"), options.get("seed", 0)
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.latest = list(database.calls(since=self.since, newest_first=True, limit=_LATEST))
        if not self.latest:
            raise DataError("the log holds no calls of this period: an app writes them with log=TrafficLog(...)")
        self.in_use = self._router_in_use()
        self.prompts = LoggedPrompts(self.in_use, _version(self.in_use), database.load_state(EMBEDDER_STATE))

    def run(self) -> Learned:
        evidence = self._pairs()
        if len(evidence.prompts) < MIN_PAIRS:
            one_sided = self._one_sided()
            if one_sided is None:
                return self._too_few(len(evidence.prompts))
            evidence = one_sided
        share = self._share_to_measure_at()
        x = self.prompts.embed(evidence.prompts)
        z = self.prompts.logits_in_use(evidence.prompts, x)
        candidates = [self._correction(evidence, x, z)]
        if len(evidence.prompts) >= FROM_NOTHING and evidence.scores is not None:
            if self.prompts.all_texts(evidence.prompts):
                candidates.append(self._from_nothing(evidence))
            else:
                self.notes.append(
                    "not all prompts have a stored text: the router in use was corrected, nothing else tried"
                )
        best = min(candidates, key=lambda candidate: _loss(candidate.unseen, evidence.differences))
        gain = gain_over_mix(best.unseen, evidence.differences, share)
        in_use = gain_over_mix(z, evidence.differences, share)
        over = gain_over_router(best.unseen, z, evidence.differences, share)
        looks = self._looks(evidence)
        count = len(evidence.prompts)
        due = next_look(looks, first=evidence.first_look)
        looked = count >= due
        outcome = advice(gain, over, looked=looked)
        total = max(
            due if not looked else next_look([*looks, count], first=evidence.first_look), pairs_needed(gain) or 0
        )
        saved, money = _savings(gain, best.unseen, evidence, share)
        learned = Learned(
            outcome=outcome,
            sentence="",
            pairs=count,
            needed=max(total - count, 1) if outcome == "not yet" else None,
            strong_fraction=share,
            candidate=best.name,
            gain=gain,
            in_use_gain=in_use,
            over_in_use=over,
            saving=money,
            saved_share=saved,
            looked=looked,
            counts=dict(self.counts),
            one_sided=evidence.one_sided,
            out=self.out if outcome == "gains" else None,
            notes=tuple(self.notes),
        )
        if outcome == "gains" and isinstance(best.router, CorrectedRouter) and not best.router.loads_alone:
            self.notes.append(
                f"the router in use, {self.in_use.name}, has no saved form: load the new one with "
                f"load_router({str(self.out)!r}, base=that router)"
            )
            learned = replace(learned, notes=tuple(self.notes))
        learned = _with_sentence(learned, evidence, finding(in_use))
        if outcome == "gains":
            self._write(learned, best, evidence, z)
        if looked:
            self._save_look(learned, evidence, looks, best.router)
        return learned

    # --- what is in the log ---

    def _router_in_use(self) -> Router:
        """The router that decided the latest calls: whatever is corrected must be what the app runs."""
        logged = next((call.router for call in self.latest if call.win_rate is not None), None)
        given = self.options.get("router")
        choices = [given] if given is not None else [*self._at_out(), load_router()]
        for router in choices:
            # a log of an older version of this package names the router alone
            if logged in (None, router.name, _version(router)):
                return router
        older = ""
        if given is None and logged is not None and logged.partition(":")[0] == load_router().name:
            older = (
                ". If that is the bundled router of another release of this package: save it there with "
                "load_router().save_pretrained('bundled'), and learn with --router bundled; or let the app run this "
                "release, and learn from its calls alone with --since"
            )
        raise ConfigurationError(
            f"the latest calls were decided by the router {logged}, and "
            f"{'router=' if given is not None else 'the router at out= or the bundled one'} is "
            f"{', '.join(map(_version, choices))}: pass router= (--router), the one that the app runs{older}"
        )

    def _at_out(self) -> list[Router]:
        """The versions that were learned before, the newest first: an app may have gone back to an older one."""
        folder = RouterFolder(self.out)
        return [folder.load(version) for version in reversed(folder.versions)]

    def _strong_fraction(self) -> float:
        """The share that was asked for, or else that of the log, which may be 0 or 1."""
        given = self.options.get("strong_fraction")
        if given is not None:
            return float(given)
        decided = [call.win_rate >= call.threshold for call in self.latest if call.win_rate is not None]
        return float(np.mean(decided)) if decided else 0.0

    def _share_to_measure_at(self) -> float:
        share = self._strong_fraction()
        if self.options.get("strong_fraction") is None and not 0.0 < share < 1.0:
            raise ConfigurationError(
                f"the logged calls would all go one way (a share of {share:.0%} strong): pass strong_fraction=, the "
                "share at which gains are to be measured"
            )
        return share

    def _pairs(self) -> _Evidence:
        """The distinct labelled pairs that the router in use was not trained on."""
        labelled = {label.call_id for label in self.database.labels()}
        # of duplicates one that is paid for already
        found = sorted(self.database.pairs(since=self.since), key=lambda pair: pair.call.id not in labelled)
        pairs, duplicates = _distinct(found)
        self.counts["duplicates"] = duplicates
        self._check_failures()
        trained_on = self.in_use.trained_on
        new = []
        for pair in pairs:
            name = self.prompts.name(pair.call)
            if name is not None and trained_on is not None and bool(trained_on.marks([name])[0]):
                self.counts["seen"] += 1
            elif self.prompts.usable(pair.call) is None:
                self.counts["without_text"] += 1
            else:
                new.append(pair)
        scores = self._labels(new)
        scored = [pair for pair in new if pair.call.id in scores]
        self.counts["labelled"] = len(scored)
        self.counts["without_label"] = len(new) - len(scored)
        if self.counts["without_text"]:
            self.notes.append(
                f"{self.counts['without_text']:,} pairs have no stored text and cannot be learned from: "
                "TrafficLog(texts='pairs') or texts='all' keeps them; with texts='none', embedder= keeps vectors, "
                "which are enough if it is the router's embedder, for calls that the router in use decided"
            )
        s = np.array([scores[pair.call.id][0] for pair in scored], dtype=np.float64)
        w = np.array([scores[pair.call.id][1] for pair in scored], dtype=np.float64)
        strong, weak = _side_names(scored)
        return _Evidence(
            prompts=[self.prompts.name(pair.call) or "" for pair in scored],
            differences=s - w,
            groups=_groups(pair.call for pair in scored),
            strong=strong,
            weak=weak,
            scores=(s, w),
            costs=_mean_costs(scored),
        )

    def _check_failures(self) -> None:
        """Failed shadow answers are not random: the pairs that are left are easier than the traffic."""
        sides = self.database.summary(since=self.since).sides.values()
        failed, all_shadows = sum(side.shadow_errors for side in sides), sum(side.shadows for side in sides)
        if all_shadows and failed / all_shadows > _MOST_FAILED:
            raise DataError(
                f"{failed:,} of {all_shadows:,} shadow answers failed ({failed / all_shadows:.0%}, at most "
                f"{_MOST_FAILED:.0%} are allowed): failures are not random, so the pairs are not like the traffic. "
                "Find out why they fail (routellm traffic summary), and learn from calls after that with since="
            )
        if failed:
            self.notes.append(
                f"{failed / all_shadows:.1%} of the shadow answers failed and are missing among the pairs"
            )

    def _labels(self, pairs: Sequence[LoggedPair]) -> dict[str, tuple[float, float]]:
        """Scores of strong and weak by call: labels of the log, else feedback on both, else new labels."""
        wanted = {pair.call.id for pair in pairs}
        best: dict[str, Label] = {}
        for label in self.database.labels():
            before = best.get(label.call_id)
            if label.call_id in wanted and (before is None or _rank(label) > _rank(before)):
                best[label.call_id] = label
        scores = {call: (label.strong_score, label.weak_score) for call, label in best.items()}
        side_of = {pair.call.id: pair.call.side for pair in pairs}
        given: dict[str, dict[Side, list[float]]] = {}
        for row in self.database.feedback():
            if row.call_id in side_of and row.key == self.options.get("key", "score"):
                side = row.side or side_of[row.call_id]
                given.setdefault(row.call_id, {}).setdefault(side, []).append(row.score)
        for call, by_side in given.items():
            if call not in scores and len(by_side) == 2:
                scores[call] = (float(np.mean(by_side["strong"])), float(np.mean(by_side["weak"])))
        new = self._new_labels([pair for pair in pairs if pair.call.id not in scores])
        self.counts["new_labels"] = len(new)
        return {**scores, **{label.call_id: (label.strong_score, label.weak_score) for label in new}}

    def _new_labels(self, pairs: Sequence[LoggedPair]) -> list[Label]:
        """Labels by the grader, and by the judge for what it leaves; they are in the log when this returns."""
        rows = [row for row in map(_answered, pairs) if row is not None]
        labels: list[Label] = []
        grader = self.options.get("grader")
        if grader is not None and rows:
            labels = _graded(rows, grader)
            self.database.add_labels(labels)
            done = {label.call_id for label in labels}
            rows = [row for row in rows if row.id not in done]
        judge = self.options.get("judge")
        if judge is not None and rows:
            journal = self.options.get("journal") or self.out.with_name(self.out.name + ".journal")
            battles, report = run_sync(
                judge_battles(
                    rows, judge, strong=_STRONG, weak=_WEAK, journal=journal, progress=self.options.get("progress")
                )
            )
            labeller = judge_name(judge.name)
            points = {"model_a": (1.0, 0.0), "tie": (0.5, 0.5), "model_b": (0.0, 1.0)}
            judged = [Label(str(b.id), labeller, *points[b.winner], created=time.time()) for b in battles]
            self.database.add_labels(judged)
            labels += judged
            if report.labelled:
                self.notes.append(
                    f"the judge {judge.name} contradicted itself on {report.disagreements:,} of {report.labelled:,} "
                    "pairs when the answers changed places; they count as ties"
                )
            if report.unusable:
                raise DataError(
                    f"the judge {judge.name} gave {report.labelled} labels and none to {report.invalid} pairs: it "
                    "does not understand its task, so use another model"
                )
        return labels

    def _one_sided(self) -> _Evidence | None:
        """Pseudo-outcomes of scores of the answering side alone; None, with a note, where they cannot be had."""
        rows = [
            row
            for row in self.database.outcomes(since=self.since, key=self.options.get("key", "score"))
            if row.call.side in row.scores
            and row.call.reason in ("win_rate", "explored")
            and row.call.failover is None
            and self.prompts.usable(row.call) is not None
        ]
        if not rows:
            return None
        is_strong = np.array([row.call.side == "strong" for row in rows])
        p = np.array([row.call.p_strong for row in rows], dtype=np.float64)
        refusal = one_sided_refusal(is_strong, p)
        if refusal is not None:
            self.notes.append(f"one-sided feedback cannot be learned from: {refusal}")
            return None
        prompts = [self.prompts.name(row.call) or "" for row in rows]
        features = principal_features(self.prompts.embed(prompts))
        groups = _groups(row.call for row in rows)
        scores = np.array([row.scores[row.call.side] for row in rows], dtype=np.float64)
        tau = one_sided_differences(is_strong, p, scores, features=features, groups=groups, seed=self.seed)
        self.notes.append(
            "learned from scores of the answering model alone: a few hundred pairs (shadow=0.05) would tell more"
        )
        return _Evidence(prompts, tau, groups, _STRONG, _WEAK, one_sided=True)

    # --- candidates ---

    def _correction(self, evidence: _Evidence, x: Floats, z: Floats) -> _Candidate:
        labels = (1.0 + evidence.differences) / 2.0
        fitted = fit_correction(x, z, labels, groups=evidence.groups, seed=self.seed)
        unseen = out_of_fold_logits(x, z, labels, groups=evidence.groups, folds=_FOLDS, seed=self.seed)
        router = corrected_router(self.in_use, fitted, x, strong=evidence.strong, weak=evidence.weak)
        settings = {"corrects": _version(self.in_use), "slope": round(fitted.slope, 4), "l2": fitted.l2}
        return _Candidate(f"correction of {self.in_use.name}", router, unseen, _FOLDS, settings, fitted)

    def _from_nothing(self, evidence: _Evidence) -> _Candidate:
        """The router that ``train auto`` chooses; every fold chooses anew, so that the choice is proved, too."""
        records = evidence.records
        embedder = self.prompts.embedder
        task = EmbeddingTask(
            strong=evidence.strong,
            weak=evidence.weak,
            embedder=embedder,
            vectors=PromptVectors(embedder, evidence.prompts),
            seed=self.seed,
        )
        rates = out_of_fold_win_rates(
            lambda rows: auto.fit_records(rows, task).router,
            records,
            folds=_FOLDS_FROM_NOTHING,
            seed=self.seed,
            groups=[str(group) for group in evidence.groups],
        )
        fitted = auto.fit_records(records, task)
        unseen = logits([rates[prompt] for prompt in evidence.prompts])
        return _Candidate(f"new {fitted.router.name}", fitted.router, unseen, _FOLDS_FROM_NOTHING, fitted.settings)

    # --- the verdict ---

    def _looks(self, evidence: _Evidence) -> list[int]:
        """Numbers of pairs at the looks so far, at this router in use and this kind of evidence."""
        state = self.database.load_state(_STATE) or {}
        looks = state.get("looks", {}).get(self._series(evidence), [])
        return [int(look) for look in looks]

    def _series(self, evidence: _Evidence) -> str:
        return f"{_version(self.in_use)} {evidence.unit}"

    def _save_look(self, learned: Learned, evidence: _Evidence, looks: Sequence[int], router: Router) -> None:
        state = self.database.load_state(_STATE) or {}
        told = {name: learned.to_dict()[name] for name in ("outcome", "pairs", "sentence", "candidate", "gain")}
        version = None if learned.out is None else _version(router)
        entry = {"at": time.time(), "router": version, "in_use": _version(self.in_use), **told}
        self.database.save_state(
            _STATE,
            {
                "looks": {**state.get("looks", {}), self._series(evidence): [*looks, learned.pairs]},
                "history": [*state.get("history", []), entry],
            },
        )

    def _too_few(self, count: int) -> Learned:
        waiting = self.counts["without_label"]
        hint = ""
        if waiting:
            hint = f" {waiting:,} pairs have no label: pass judge= or grader= (--judge, --grader)."
        elif not count:
            hint = " Pairs are collected with shadow=0.05 in the app."
        needed = FIRST_LOOK - count
        return Learned(
            outcome="not yet",
            sentence=f"not yet: about {needed:,} more pairs would tell. Labelled pairs so far: {count:,}.{hint}",
            pairs=count,
            needed=needed,
            strong_fraction=self._strong_fraction(),
            counts=dict(self.counts),
            notes=tuple(self.notes),
        )

    # --- what is written ---

    def _write(self, learned: Learned, best: _Candidate, evidence: _Evidence, in_use: Floats) -> None:
        """Put a new version into use; running apps that follow the folder pick it up.

        What cannot be loaded without ``base=`` cannot be followed, and is written to `out` itself.
        """
        if isinstance(best.router, CorrectedRouter) and not best.router.loads_alone:
            self._write_to(self.out, learned, best, evidence, in_use)
            return
        with RouterFolder(self.out).new_version() as folder:
            self._write_to(folder, learned, best, evidence, in_use)

    def _latest_win_rates(self, best: _Candidate, evidence: _Evidence) -> Floats:
        """Of the router as it will run, on the traffic as it is now: folds, whose penalties differ, would spread."""
        latest = [name for call in self.latest if (name := self.prompts.usable(call)) is not None] or evidence.prompts
        if best.correction is None or self.prompts.all_texts(latest):
            texts = [name for name in latest if self.prompts.all_texts([name])] or evidence.prompts
            return best.router.win_rates(texts)
        x = self.prompts.embed(latest)
        return sigmoid(best.correction.logits(x, self.prompts.logits_in_use(latest, x)))

    def _write_to(self, folder: Path, learned: Learned, best: _Candidate, evidence: _Evidence, in_use: Floats) -> None:
        trained = Trained(
            router=best.router,
            strong=evidence.strong,
            weak=evidence.weak,
            measure_on=evidence.records,
            calibrate_on=(),
            rows={"train": len(evidence.prompts), "held_out": 0, "skipped": self.counts["duplicates"]},
            sources={"traffic log": len(evidence.prompts)},
            settings={"learned_from": evidence.unit, **best.settings, "seed": self.seed},
            unseen=dict(zip(evidence.prompts, sigmoid(best.unseen).tolist(), strict=True)),
            folds=best.folds,
            # a correction rests on what the router in use was trained on, too
            trained_on=SeenPrompts.of(evidence.prompts) | (self.in_use.trained_on or SeenPrompts()),
            calibration=self._latest_win_rates(best, evidence),
        )
        draws = self.options.get("draws", 1000)
        finish_training(trained, folder, started=self.started, draws=draws)
        (folder / VERDICT_FILE).write_text(json.dumps(learned.to_dict(), indent=2) + "\n", encoding="utf-8")
        if evidence.scores is not None:
            s, w = evidence.scores
            strong_cost, weak_cost = evidence.costs or (None, None)
            models = {evidence.strong: s, evidence.weak: w}
            result = evaluate_benchmark(
                Benchmark("traffic", tuple(evidence.prompts), models, evidence.strong, evidence.weak),
                {best.name: sigmoid(best.unseen), f"{self.in_use.name} (in use)": sigmoid(in_use)},
                strong_cost=strong_cost,
                weak_cost=weak_cost,
                draws=draws,
            )
            save_evaluation([result], folder / EVALUATION_FOLDER)


def advice(gain: Gain, over_in_use: Gain, *, looked: bool) -> Advice:
    """What to do: a new router has to beat the static mix for certain, and must not seem worse than the one in use."""
    if not looked or finding(gain) != "gains":
        return "not yet"
    return "gains" if over_in_use.value >= 0 else "keep"


def judge_name(model: str, instructions: str = JUDGE_INSTRUCTIONS) -> str:
    """The labeller under which a judge's labels are in the log: other instructions are another judge."""
    return f"judge:{model}:{call_key(instructions)[:8]}"


def _version(router: Router) -> str:
    return f"{router.name}:{router.fingerprint[:12]}"


def _distinct(pairs: Iterable[LoggedPair]) -> tuple[list[LoggedPair], int]:
    """Pairs whose prompts differ by more than case, punctuation and spacing, the first of each; and how many others."""
    first: dict[bytes | str, LoggedPair] = {}
    count = 0
    for pair in pairs:
        count += 1
        call = pair.call
        first.setdefault(call.prompt_hash or call.id if call.prompt is None else prompt_key(call.prompt), pair)
    return list(first.values()), count - len(first)


def _answered(pair: LoggedPair) -> AnsweredPrompt | None:
    """A pair as labellers take it; None where a text is not stored or blank."""
    prompt, s, w = pair.call.prompt, pair.strong.text, pair.weak.text
    if prompt is None or not prompt.strip() or s is None or w is None:
        return None
    return AnsweredPrompt(prompt=prompt, answers={_STRONG: s, _WEAK: w}, id=pair.call.id)


def _graded(rows: Sequence[AnsweredPrompt], grader: Grader | str) -> list[Label]:
    labels = []
    try:
        for outcome in gold_outcomes(rows, grader=grader):
            if outcome.scores.keys() != {_STRONG, _WEAK}:
                continue  # it could grade one of the answers only
            scores = outcome.scores[_STRONG], outcome.scores[_WEAK]
            if not all(is_number(score) and 0.0 <= score <= 1.0 for score in scores):
                raise ConfigurationError(f"grader: it returned scores {scores}; expected numbers in [0, 1]")
            labels.append(Label(str(outcome.id), "gold", *scores, created=time.time()))
    except DataError:
        return labels  # no row could be graded: the judge may
    return labels


def _rank(label: Label) -> tuple[bool, float]:
    """Gold before judges, and the later of equals."""
    return label.labeller == "gold", label.created


def _groups(calls: Iterable[LoggedCall]) -> Ints:
    names = [call.conversation or call.id.partition("-")[0] for call in calls]
    at = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([at[name] for name in names], dtype=np.int64)


def _name(models: Iterable[str | None], default: str) -> str:
    named = Counter(model for model in models if model)
    return named.most_common(1)[0][0] if named else default


def _side_names(pairs: Sequence[LoggedPair]) -> tuple[str, str]:
    """The models of the two sides; the sides' own names where both are one model, such as with two efforts."""
    strong = _name((pair.strong.model for pair in pairs), _STRONG)
    weak = _name((pair.weak.model for pair in pairs), _WEAK)
    return (_STRONG, _WEAK) if strong == weak else (strong, weak)


def _mean_costs(pairs: Sequence[LoggedPair]) -> tuple[float, float] | None:
    """Mean money of a call by side, on the same prompts; None unless both are known and strong costs more."""
    both = [(p.strong.cost, p.weak.cost) for p in pairs if p.strong.cost is not None and p.weak.cost is not None]
    if not both:
        return None
    s, w = np.mean(np.array(both, dtype=np.float64), axis=0)
    return (float(s), float(w)) if s > w else None


def _loss(scores: Floats, differences: Floats) -> float:
    """Mean logistic loss of out-of-fold logits. Choosing by it, not by the gain, keeps the verdict on the gain fair."""
    return float(np.mean(np.logaddexp(0.0, scores) - (1.0 + differences) / 2.0 * scores))


def _savings(gain: Gain, unseen: Floats, evidence: _Evidence, at: float) -> tuple[Estimate | None, Estimate | None]:
    """Share of strong calls, and money a call, by which the static mix of the same quality is more expensive."""
    share = share_saved(unseen, evidence.differences, at) if gain.value > 0 else None
    if share is None or evidence.costs is None:
        return share, None
    more = evidence.costs[0] - evidence.costs[1]
    return share, Estimate(*(more * end for end in astuple(share)))


def _with_sentence(learned: Learned, evidence: _Evidence, in_use: Finding) -> Learned:
    """The verdict in words."""
    assert learned.gain is not None
    assert learned.in_use_gain is not None
    assert learned.over_in_use is not None
    at = f"at {learned.strong_fraction:.0%} strong calls, on {learned.pairs:,} {evidence.unit}"
    mix, over = _points(learned.gain), _points(learned.over_in_use)
    if learned.outcome == "gains":
        proved = finding(learned.over_in_use) == "gains"
        than = "" if proved else ": no worse in this sample, though not proved to be better"
        saves = ""
        if learned.saving is not None:
            costs = "{:.3g} [{:.3g}, {:.3g}]".format(*(1000 * end for end in astuple(learned.saving)))
            saves = f"; the static mix of its quality costs {costs} more per 1,000 calls"
        elif learned.saved_share is not None:
            saves = f"; the static mix of its quality needs {learned.saved_share.value:.0%} of all calls more on strong"
        sentence = (
            f"Use it: {at}, the {learned.candidate} gains {mix} over the static mix of the same cost{saves}. Over the "
            f"router in use: {over}{than}."
        )
    elif learned.outcome == "keep":
        own = "gains" if in_use == "gains" else "is measured at"
        sentence = (
            f"Keep the router in use: {at}, it {own} {_points(learned.in_use_gain)} over the static mix, and the best "
            f"new one, the {learned.candidate}, is {over} against it."
        )
    else:
        why = (
            f"the next look is due at {learned.pairs + (learned.needed or 0):,}" if not learned.looked
            else "no gain is proved"
        )  # fmt: skip
        sentence = (
            f"not yet: about {learned.needed:,} more {evidence.unit} would tell. {at[0].upper()}{at[1:]}, the "
            f"{learned.candidate} is {mix} against the static mix of the same cost, and {why}."
        )
    return replace(learned, sentence=sentence)


def _points(gain: Gain) -> str:
    e = gain.estimate()
    return f"{100 * e.value:+.1f} points ({100 * e.low:+.1f} to {100 * e.high:+.1f})"
