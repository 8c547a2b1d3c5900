"""Benchmarks with known outcomes: MMLU, GSM8K and MT-Bench as the paper used them, or outcomes of your own."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from routellm_core.data.files import FileReader, kind_of, shown_names
from routellm_core.data.sources import sources_of
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.statistics.metrics import Floats

if TYPE_CHECKING:
    from routellm_core.data.files import FileFormat, Row, SkippedRows
    from routellm_core.data.joining import JoinReport
    from routellm_core.data.records import Record
    from routellm_core.data.sources import Data

STRONG = "gpt-4-1106-preview"
WEAK = "mixtral-8x7b-instruct-v0.1"
# A sample of this size decides whatever can be decided; more would only fill the memory.
MAX_PROMPT_CHARS = 400_000_000
BENCHMARKS = ("mmlu", "gsm8k", "mt-bench")
TITLES = {"mmlu": "MMLU", "gsm8k": "GSM8K", "mt-bench": "MT-Bench"}
# All that is kept of a row, so that answers stored beside the scores cost no memory.
_FIELDS = ("prompt", "turns", "scores", "contaminated", "split", "_costs", "_tokens", "_accepted")
# A row with its place, for messages.
Located = tuple[str, "Row"]
_TIDY_FILES = {"mmlu": "mmlu.jsonl", "gsm8k": "gsm8k.jsonl", "mt-bench": "mt_bench.jsonl"}

# RouteLLM (arXiv 2406.18665 v4), tables 1 to 3: CPT(50%), CPT(80%), APGR by training data and router.
PUBLISHED: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "mt-bench": {
        "random": (0.4903, 0.7808, 0.500),
        "bert, Arena": (0.7809, 0.8764, 0.391),
        "causal_llm, Arena": (0.2882, 0.7753, 0.573),
        "mf, Arena": (0.2532, 0.7426, 0.580),
        "sw_ranking, Arena": (0.3785, 0.5899, 0.610),
        "bert, Arena + judge": (0.1958, 0.3402, 0.751),
        "causal_llm, Arena + judge": (0.3150, 0.4875, 0.679),
        "mf, Arena + judge": (0.1340, 0.3131, 0.802),
        "sw_ranking, Arena + judge": (0.2321, 0.3604, 0.759),
    },
    "mmlu": {
        "random": (0.5007, 0.7993, 0.500),
        "bert, Arena": (0.4943, 0.7780, 0.502),
        "causal_llm, Arena": (0.4888, 0.7793, 0.499),
        "mf, Arena": (0.4500, 0.7686, 0.524),
        "sw_ranking, Arena": (0.5582, 0.8025, 0.473),
        "bert, Arena + gold": (0.4130, 0.7220, 0.572),
        "causal_llm, Arena + gold": (0.3549, 0.7031, 0.600),
        "mf, Arena + gold": (0.3546, 0.7140, 0.597),
        "sw_ranking, Arena + gold": (0.3540, 0.7155, 0.603),
    },
    "gsm8k": {
        "random": (0.5000, 0.8008, 0.497),
        "bert, Arena": (0.5878, 0.8384, 0.438),
        "causal_llm, Arena": (0.5609, 0.8356, 0.461),
        "mf, Arena": (0.5359, 0.8524, 0.475),
        "sw_ranking, Arena": (0.5443, 0.8211, 0.475),
        "bert, Arena + judge": (0.4476, 0.7909, 0.531),
        "causal_llm, Arena + judge": (0.3364, 0.6326, 0.622),
        "mf, Arena + judge": (0.3882, 0.7262, 0.565),
        "sw_ranking, Arena + judge": (0.4121, 0.7220, 0.568),
    },
}


@dataclass(frozen=True)
class Benchmark:
    """Prompts with the scores of a strong and a weak model, and of others where they are known.

    Attributes:
        name: ``"mmlu"``, ``"gsm8k"``, ``"mt-bench"``, or the name of the user's file.
        prompts: What is routed on, n of them (MT-Bench: the first turn).
        scores: Score of each model's answer, (n,) each, higher is better.
        strong: Name of the strong model, a key of `scores`.
        weak: Name of the weak model.
        split: ``"test"``, ``"gold"`` or ``"all"``.
        dropped: How many rows were left out as contaminated.
        incomplete: How many rows were left out because they lack a score of the strong or the weak model.
        first_incomplete: The place of the first of them.
        costs: Cost of the call (n,) of each model whose costs are known in some rows; NaN where it is not.
        tokens: Input and output tokens of the call (n, 2), likewise.
        seen: How many rows were left out because a router was trained on their prompts, by its name; see
            `leave_out_seen`.
        accepted: What a check says of the weak model's answer (n,), a score that is 1 for true and 0 for false, and NaN
            where it is not known; None where it is known of no row.
    """

    name: str
    prompts: tuple[str, ...]
    scores: Mapping[str, Floats]
    strong: str
    weak: str
    split: str = "all"
    dropped: int = 0
    incomplete: int = 0
    first_incomplete: str = ""
    costs: Mapping[str, Floats] = field(default_factory=dict)
    tokens: Mapping[str, Floats] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)
    accepted: Floats | None = None

    @property
    def strong_scores(self) -> Floats:
        """Scores (n,) of the strong model."""
        return self.scores[self.strong]

    @property
    def weak_scores(self) -> Floats:
        """Scores (n,) of the weak model."""
        return self.scores[self.weak]

    def only(self, keep: npt.NDArray[np.bool_], **changes: Any) -> Benchmark:
        """The benchmark with the prompts that `keep` (n,) marks, and other changes of its attributes."""
        parts: dict[str, Any] = {
            name: {model: values[keep] for model, values in getattr(self, name).items()}
            for name in ("scores", "costs", "tokens")
        }
        if self.accepted is not None:
            parts["accepted"] = self.accepted[keep]
        prompts = tuple(prompt for prompt, kept in zip(self.prompts, keep, strict=True) if kept)
        return replace(self, prompts=prompts, **parts, **changes)

    @property
    def title(self) -> str:
        """Name, split and size, as tables give it."""
        name = TITLES.get(self.name, self.name)
        split = f" {self.split}" if self.split != "all" else ""
        return f"{name}{split}, {len(self.prompts):,} {'prompt' if len(self.prompts) == 1 else 'prompts'}"


def load_benchmark(
    name: str, path: str | Path, *, strong: str = STRONG, weak: str = WEAK, split: str = "test"
) -> Benchmark:
    """Load one of the paper's benchmarks, without its contaminated rows.

    Args:
        name: ``"mmlu"``, ``"gsm8k"`` or ``"mt-bench"``.
        path: Tidy JSON lines (rows with ``prompt`` or ``turns``, ``scores``, ``contaminated``, ``split``), or a folder
            with such files, or a checkout of the authors' repository (found by its ``routellm/evals``).
        strong: Name of the strong model in the data; case and an organisation before a slash do not matter.
        weak: Name of the weak model.
        split: ``"test"``, ``"gold"`` or ``"all"``. The authors' files know no split: all rows are ``"test"``.

    Raises:
        ConfigurationError: Unknown `name` or `split`.
        DataError: Nothing found at `path`, a malformed row (named), a model without scores, or no rows left.
    """
    key = name.lower().replace("_", "-").replace("mtbench", "mt-bench")
    if key not in BENCHMARKS:
        raise ConfigurationError(f"benchmark={name!r}: expected one of {', '.join(BENCHMARKS)}, or an outcomes file")
    if split not in {"test", "gold", "all"}:
        raise ConfigurationError(f"split={split!r}: expected 'test', 'gold' or 'all'")
    root = Path(path)
    tidy = _find_tidy(root, key)
    if tidy is not None:
        return _from_rows(key, _bounded(tidy, _rows(tidy)), tidy, strong, weak, split)
    evals = next(
        (p for p in (root / "routellm" / "evals", root / "evals", root) if (p / _evals_dir(key)).is_dir()), None
    )
    if evals is None:
        raise DataError(
            f"no {key} data in {str(root)!r}: expected {_TIDY_FILES[key]}[.gz] or a checkout of lm-sys/RouteLLM"
        )
    if split == "gold":
        raise DataError(f"{str(evals)!r} has no 'gold' split; its rows are all 'test'")
    rows = {"mmlu": _mmlu, "gsm8k": _gsm8k, "mt-bench": _mt_bench}[key](evals / _evals_dir(key))
    return _from_rows(key, rows, evals / _evals_dir(key), strong, weak, split)


def load_outcomes(
    data: Data,
    *,
    strong: str | None = None,
    weak: str | None = None,
    form: str | None = None,
    skip_bad: SkippedRows | None = None,
    joined: JoinReport | None = None,
) -> Benchmark:
    """Load outcomes of your own: whatever `routellm_core.data.read_preferences` reads.

    Rows hold ``prompt`` and ``scores`` {model: number}, or are battles, which count as 1 for the winner and 0 for the
    loser, a tie as 0.5 each. Rows that are marked ``"contaminated": true`` are left out, and so are rows without a
    score of both models; both are counted. With more than two models, name the pair; the others that have a score in
    every row stand as alternatives in the verdict. Costs and tokens of calls are kept where rows have them.

    Args:
        data: The file: JSON lines, JSON, CSV, TSV or parquet, plain or gzip; or several that are about one model each,
            as for `routellm_core.data.read_preferences`.
        strong: Name of the strong model; may be left out where exactly two models have a score in most rows (then it
            is the better one on average).
        weak: Name of the weak model.
        form: Name of the foreign form of its rows; None finds it out by the content.
        skip_bad: Where to count malformed rows; None raises at the first.
        joined: Notes how rows about one model each were joined.

    Raises:
        DataError: No such file, an empty one, a malformed row (named by its place), or no row with the pair's scores.
        ConfigurationError: `strong` or `weak` is needed, or is not in the file.
    """
    from routellm_core.data.joining import JoinReport  # loads pydantic

    file, report = sources_of(data)[0].path, JoinReport() if joined is None else joined
    pair = None if strong is None or weak is None else (strong, weak)
    rows, dropped = _outcome_rows(data, pair, form, skip_bad, report)
    rows, lacking = _complete(rows, pair or _usual_models(rows, only=2), _bare)
    _count_lacking(file, lacking, skip_bad, report)
    if not rows:
        raise DataError(f"{file}: no rows left ({dropped} contaminated, {skip_bad.count if skip_bad else 0} malformed)")
    models = _models(rows, file)
    if (strong is None) != (weak is None):
        raise ConfigurationError(
            f"strong={strong!r}, weak={weak!r}: name both models or neither; the file has {shown_names(models)}"
        )
    if strong is None or weak is None:
        if len(models) != 2:
            raise ConfigurationError(
                f"{file} has scores of {len(models)} models: name strong= and weak= (--strong and --weak) among "
                f"{shown_names(models)}"
            )
        means = {m: float(np.mean([row["scores"][m] for _, row in rows])) for m in models}
        strong, weak = sorted(models, key=lambda m: -means[m])
    benchmark = _benchmark(_stem(file), rows, file, (strong, weak), "all", dropped)
    return _with_incomplete(benchmark, lacking, report)


def load_scores(
    data: Data,
    *,
    models: Collection[str] = (),
    form: str | None = None,
    skip_bad: SkippedRows | None = None,
    joined: JoinReport | None = None,
) -> Benchmark:
    """Load outcomes of many models, to choose among them: see `routellm_core.evaluation.pairs`.

    Args:
        data: As for `load_outcomes`, likewise `form`, `skip_bad` and `joined`.
        models: Only rows with a score of each of these are kept, and the others are counted; empty: all models that
            have a score in most rows.
        form: See there.
        skip_bad: See there.
        joined: See there.

    Returns:
        The rows with the scores of these models. The strong model is the one with the best mean score, the weak one
        that with the worst.

    Raises:
        DataError: As for `load_outcomes`.
        ConfigurationError: A model is not in the file.
    """
    from routellm_core.data.joining import JoinReport  # loads pydantic

    file, report = sources_of(data)[0].path, JoinReport() if joined is None else joined
    rows, dropped = _outcome_rows(data, None, form, skip_bad, report)
    known = dict.fromkeys(model for _, row in rows for model in row["scores"])
    for model in models:
        if model not in known:
            raise ConfigurationError(f"models={model!r}: {file} has scores of {shown_names(known)}")
    wanted = tuple(models) or _usual_models(rows)
    rows, lacking = _complete(rows, wanted)
    _count_lacking(file, lacking, skip_bad, report)
    if lacking and len(rows) == 0:
        raise DataError(f"{file}: no row has a score of each of {shown_names(wanted)}; leave some of them out")
    if len(wanted) < 2 or not rows:
        raise DataError(f"{file}: scores of {len(wanted)} models in {len(rows)} rows: at least 2 models are needed")
    for _, row in rows:
        row["scores"] = {model: row["scores"][model] for model in wanted}
    means = {m: float(np.mean([row["scores"][m] for _, row in rows])) for m in wanted}
    best, worst = max(wanted, key=means.__getitem__), min(reversed(wanted), key=means.__getitem__)
    benchmark = _benchmark(_stem(file), rows, file, (best, worst), "all", dropped)
    return _with_incomplete(benchmark, lacking, report)


def _stem(file: Path) -> str:
    return re.sub(r"(\.(jsonl|json|ndjson|csv|tsv|parquet))?(\.gz)?$", "", file.name, flags=re.IGNORECASE)


def _with_incomplete(benchmark: Benchmark, lacking: Sequence[tuple[str, str]], report: JoinReport) -> Benchmark:
    """The benchmark with the number of rows that lack a score; joined rows count theirs in the report."""
    if report.joined or not lacking:
        return benchmark
    return replace(benchmark, incomplete=len(lacking), first_incomplete=lacking[0][0])


def _outcome_rows(
    data: Data,
    pair: tuple[str, str] | None,
    form: str | None,
    skip_bad: SkippedRows | None,
    report: JoinReport,
) -> tuple[list[Located], int]:
    """The rows of a file that are not contaminated, and how many are; with a pair, without battles of other models."""
    from routellm_core.data.convert import scores_of  # these load pydantic
    from routellm_core.data.reading import preferences_of
    from routellm_core.data.records import Battle

    dropped = 0

    def clean(row: Row) -> bool:
        nonlocal dropped
        marked = _is_marked(row)
        dropped += marked
        return not marked

    asked = None if pair is None else {*map(_bare, pair)}

    def of_others(record: Record) -> bool:
        """Whether a record is a battle of other models: such data hold many pairs."""
        return asked is not None and isinstance(record, Battle) and {*map(_bare, scores_of(record))} != asked

    found = preferences_of(data, form=form, skip_bad=skip_bad, joined=report, keep=clean)
    scored = ((where, _outcome_row(record, scores_of(record))) for where, record in found if not of_others(record))
    return _bounded(sources_of(data)[0].path, scored), dropped


def _count_lacking(
    file: Path, lacking: Sequence[tuple[str, str]], skip_bad: SkippedRows | None, report: JoinReport
) -> None:
    """Count rows that were left out because they lack a score."""
    if report.joined:  # joined rows are expected to lack models: they count like those that only one model has
        report.matched -= len(lacking)
        report.dropped += len(lacking)
    elif skip_bad is not None:
        for where, model in lacking:
            skip_bad.add(f"{file}, {where}: no score of {shown_names([model])}; every row needs one of both models")


def benchmark_of(records: Iterable[Record], *, name: str, strong: str, weak: str) -> Benchmark:
    """Records in memory as a benchmark; each has to score both models.

    Args:
        records: Outcomes or battles, as `load_outcomes` counts them.
        name: What a report calls them.
        strong: Name of the strong model.
        weak: Name of the weak model.

    Raises:
        DataError: There is no record, or one without the pair's scores.
    """
    from routellm_core.data.convert import scores_of

    rows = [(f"record {i}", _outcome_row(record, scores_of(record))) for i, record in enumerate(records)]
    pair = (strong, weak)
    for _, row in rows:
        row["scores"] = {model: score for model, score in row["scores"].items() if model in pair}
    return _benchmark(name, rows, Path(name), pair, "all", 0)


def _outcome_row(record: Any, scores: dict[str, float]) -> Row:
    """What is kept of a record; tokens as pairs, NaN where one of the two is not known."""
    tokens = {
        model: tuple(math.nan if count is None else count for count in (used.input, used.output))
        for model, used in record.tokens.items()
    }
    accepted = getattr(record, "accepted", None)
    known = {"_costs": record.costs, "_tokens": tokens, "_accepted": math.nan if accepted is None else accepted}
    return {"prompt": record.prompt, "scores": scores, **known}


def _usual_models(rows: Sequence[Located], only: int | None = None) -> tuple[str, ...]:
    """The models that most rows have a score of; none unless they are `only` so many."""
    counts = Counter(model for _, row in rows for model in row["scores"])
    models = tuple(model for model, count in counts.items() if 2 * count >= len(rows))
    return models if only in (None, len(models)) else ()


def _complete(
    rows: list[Located], models: Sequence[str], name: Callable[[str], str] = str
) -> tuple[list[Located], list[tuple[str, str]]]:
    """The rows with a score of each of these models; and the place of each other row, with a model that it lacks.

    All rows are kept where none has all of them, as it is said elsewhere which models there are. Names are compared as
    `name` gives them.
    """
    kept, lacking = [], []
    for where, row in rows:
        has = {*map(name, row["scores"])}
        missing = next((model for model in models if name(model) not in has), None)
        if missing is None:
            kept.append((where, row))
        else:
            lacking.append((where, missing))
    return (kept, lacking) if kept else (rows, [])


def _is_marked(row: Row) -> bool:
    value = row.get("contaminated", False)
    return value.strip().lower() in ("true", "1", "yes") if isinstance(value, str) else bool(value)


def _models(rows: Sequence[Located], file: Path) -> list[str]:
    """Models that every row has a score of, in the order of the first row."""
    for where, row in rows:
        if not isinstance(row.get("scores"), dict) or not row["scores"]:
            got = kind_of(row.get("scores"))
            raise DataError(f"{file}, {where}: field 'scores': expected an object of model: number, got {got}")
    first = [str(m) for m in rows[0][1]["scores"]]
    common = set(first).intersection(*(row["scores"] for _, row in rows))
    if len(common) < 2:
        raise DataError(
            f"{file}: models with a score in every row: {shown_names(common)}; at least 2 are needed ({_gaps(rows)})"
        )
    return [m for m in first if m in common]


def _gaps(rows: Sequence[Located]) -> str:
    """Says of the models that have most scores where they lack the first."""
    counts: dict[str, int] = {}
    for _, row in rows:
        for model in row["scores"]:
            counts[model] = counts.get(model, 0) + 1
    out = []
    for model in sorted(counts, key=lambda m: -counts[m])[:3]:
        where = next((where for where, row in rows if model not in row["scores"]), None)
        out.append(
            f"{shown_names([model])} in {counts[model]:,} of {len(rows):,} rows"
            + (f", not in {where}" if where else "")
        )
    return "; ".join(out)


def _from_rows(name: str, rows: Sequence[Located], file: Path, strong: str, weak: str, split: str) -> Benchmark:
    if not rows:
        raise DataError(f"{file}: is empty; expected rows with 'prompt' and 'scores'")
    clean = [(where, row) for where, row in rows if not _is_marked(row)]
    kept = [(where, row) for where, row in clean if split == "all" or row.get("split", "test") == split]
    if not kept:
        raise DataError(f"{file}: no rows left of {len(rows)} (split {split!r}, contaminated rows left out)")
    return _benchmark(name, kept, file, (strong, weak), split, len(rows) - len(clean))


def _benchmark(
    name: str, rows: Sequence[Located], file: Path, pair: tuple[str, str], split: str, dropped: int
) -> Benchmark:
    models = _models(rows, file)
    strong, weak = (_find_model(m, models, side, file, rows) for m, side in zip(pair, ("strong", "weak"), strict=True))
    if strong == weak:
        raise ConfigurationError(f"strong={pair[0]!r} and weak={pair[1]!r} are the same model")
    scores = {m: np.array([_score(row, m, where, file) for where, row in rows], dtype=np.float64) for m in models}
    prompts = tuple(_prompt(row, where, file) for where, row in rows)
    costs, tokens = (_known(rows, models, kind, shape) for kind, shape in (("_costs", ()), ("_tokens", (2,))))
    verdicts = np.array([row.get("_accepted", np.nan) for _, row in rows], dtype=np.float64)
    accepted = None if np.isnan(verdicts).all() else verdicts
    return Benchmark(name, prompts, scores, strong, weak, split, dropped, costs=costs, tokens=tokens, accepted=accepted)


def _known(rows: Sequence[Located], models: Sequence[str], field: str, shape: tuple[int, ...]) -> dict[str, Floats]:
    """The numbers (n, *shape) of each model that has any, NaN where they are not known."""
    out = {}
    for model in models:
        if any(model in row.get(field, ()) for _, row in rows):
            unknown = np.full(shape, np.nan)
            out[model] = np.array([row.get(field, {}).get(model, unknown) for _, row in rows], dtype=np.float64)
    return out


def _prompt(row: Row, where: str, file: Path) -> str:
    turns = row.get("turns")
    prompt = turns[0] if isinstance(turns, list) and turns else row.get("prompt")
    if not isinstance(prompt, str):
        raise DataError(
            f"{file}, {where}: field 'prompt': expected a text (or 'turns', a list of them), got {kind_of(prompt)}"
        )
    return prompt


def _score(row: Row, model: str, where: str, file: Path) -> float:
    value = row["scores"].get(model)
    try:
        score = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        score = math.inf
    if not math.isfinite(score):
        got = repr(value) if isinstance(value, float) else kind_of(value)
        raise DataError(f"{file}, {where}: field 'scores.{model}': expected a finite number, got {got}")
    return score


def _find_model(wanted: str, models: Sequence[str], side: str, file: Path, rows: Sequence[Located]) -> str:
    """The model by its name, else by its name without organisation and case, as published files differ in those."""
    if wanted in models:
        return wanted
    matches = [m for m in models if _bare(m) == _bare(wanted)]
    if len(matches) == 1:
        return matches[0]
    lacking = [where for where, row in rows if not any(_bare(m) == _bare(wanted) for m in row["scores"])]
    if lacking and len(lacking) < len(rows) and not matches:
        raise DataError(
            f"{file}, {lacking[0]}: no score of {side}={wanted!r}, which has one in {len(rows) - len(lacking):,} of "
            f"{len(rows):,} rows; every row needs a score of both models, so leave the others out"
        )
    raise ConfigurationError(f"{side}={wanted!r}: {file} has scores of {shown_names(models)}")


def _bare(model: str) -> str:
    return model.rsplit("/", 1)[-1].lower()


def _rows(file: Path, format: FileFormat = "auto") -> Iterator[Located]:
    """Rows of a published file, of which none may be left out."""
    return FileReader(file, format=format, advice=False).rows()


def _bounded(file: Path, rows: Iterable[Located]) -> list[Located]:
    """All rows of a file, or a `DataError` before they fill the memory."""
    kept, chars = [], 0
    for where, row in rows:
        chars += len(str(row.get("prompt") or row.get("turns") or ""))
        if chars > MAX_PROMPT_CHARS:
            example = f": shuf -n 50000 {file.name} > sample.jsonl" if file.suffix == ".jsonl" else ""
            raise DataError(
                f"{file}, {where}: more than {MAX_PROMPT_CHARS:,} characters of prompts. A random sample of 50,000 "
                f"rows is measured to within half a point{example}"
            )
        kept.append((where, {key: row[key] for key in _FIELDS if key in row}))
    return kept


def _find_tidy(root: Path, key: str) -> Path | None:
    if root.is_file():
        return root
    names = [_TIDY_FILES[key], key + ".jsonl"]
    places = [folder / (n + end) for folder in (root, root / "benchmarks") for n in names for end in ("", ".gz")]
    return next((p for p in places if p.is_file()), None)


def _evals_dir(key: str) -> str:
    return {"mmlu": "mmlu", "gsm8k": "gsm8k", "mt-bench": "mt_bench"}[key]


def _contaminated(folder: Path) -> set[str]:
    file = folder / "contaminated_prompts.jsonl"
    if not file.is_file():
        raise DataError(f"{file}: no such file; the authors' list of contaminated prompts belongs to the benchmark")
    return {_field(row, "eval_prompt", where, file) for where, row in _rows(file)}


def _field(row: Row, name: str, where: str, file: Path) -> Any:
    """A field that a file of the authors has in every row."""
    if name not in row:
        raise DataError(f"{file}, {where}: no field {name!r}; is it the file of lm-sys/RouteLLM?")
    return row[name]


_TRUTH = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


def _graded(file: Path, dirty: set[str]) -> Iterator[Located]:
    """Rows of a response file: a prompt, and a True/False column for each model (their answers are passed over)."""
    for where, row in _rows(file, format="csv"):
        scores = {m: _TRUTH[v.strip().lower()] for m, v in row.items() if v.strip().lower() in _TRUTH}
        prompt = row.get("prompt")
        yield where, {"prompt": prompt, "scores": scores, "contaminated": prompt in dirty}


def _mmlu(folder: Path) -> list[Located]:
    dirty = _contaminated(folder)
    files = sorted((folder / "responses").glob("mmlu_*.csv"))
    if not files:
        raise DataError(f"no mmlu_*.csv in {str(folder / 'responses')!r}")
    return [(f"{file.name}, {where}", row) for file in files for where, row in _graded(file, dirty)]


def _gsm8k(folder: Path) -> list[Located]:
    return list(_graded(folder / "gsm8k_responses.csv", _contaminated(folder)))


def _mt_bench(folder: Path) -> list[Located]:
    """Questions with the mean of their judged turns; a question goes when either of its turns is contaminated."""
    dirty = _contaminated(folder)
    judgements, questions = folder / "judgements.jsonl", folder / "question.jsonl"
    judged: dict[str, dict[str, list[float]]] = {}
    for where, row in _rows(judgements):
        question, model = (_field(row, name, where, judgements) for name in ("question_id", "model"))
        score = _score({"scores": row}, "score", where, judgements)
        judged.setdefault(str(question), {}).setdefault(str(model), []).append(score)
    out = []
    for where, row in _rows(questions):
        turns = _field(row, "turns", where, questions)
        scores = judged.get(str(_field(row, "question_id", where, questions)), {})
        dirty_turn = isinstance(turns, list) and any(turn in dirty for turn in turns if isinstance(turn, str))
        means = {m: float(np.mean(s)) for m, s in scores.items()}
        out.append((where, {"turns": turns, "scores": means, "contaminated": dirty_turn}))
    return out
