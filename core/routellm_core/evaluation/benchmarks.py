"""Benchmarks with known outcomes: MMLU, GSM8K and MT-Bench as the paper used them, or outcomes of your own."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from routellm_core.data.prompts import MAX_RECORD_CHARS
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.statistics.metrics import Floats

STRONG = "gpt-4-1106-preview"
WEAK = "mixtral-8x7b-instruct-v0.1"
# A sample of this size decides whatever can be decided; more would only fill the memory.
MAX_PROMPT_CHARS = 400_000_000
BENCHMARKS = ("mmlu", "gsm8k", "mt-bench")
TITLES = {"mmlu": "MMLU", "gsm8k": "GSM8K", "mt-bench": "MT-Bench"}
# All that is kept of a row, so that answers stored beside the scores cost no memory.
_FIELDS = ("prompt", "turns", "scores", "contaminated", "split", "question_id", "model", "score", "eval_prompt")
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
    """

    name: str
    prompts: tuple[str, ...]
    scores: Mapping[str, Floats]
    strong: str
    weak: str
    split: str = "all"
    dropped: int = 0

    @property
    def strong_scores(self) -> Floats:
        """Scores (n,) of the strong model."""
        return self.scores[self.strong]

    @property
    def weak_scores(self) -> Floats:
        """Scores (n,) of the weak model."""
        return self.scores[self.weak]

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


def load_outcomes(path: str | Path, *, strong: str | None = None, weak: str | None = None) -> Benchmark:
    """Load outcomes of your own: rows with ``prompt`` and ``scores`` {model: number}.

    JSON lines (whatever the file is called), or what training reads as well: CSV and parquet by the file's name, see
    `routellm_core.data.read_outcomes`. Rows of JSON lines that are marked ``"contaminated": true`` are left out.
    With more than two models, name the pair; the others stand as alternatives in the verdict.

    Args:
        path: The file; JSON lines and CSV plain or gzip.
        strong: Name of the strong model; may be left out with exactly two models (then the better one on average).
        weak: Name of the weak model.

    Raises:
        DataError: No such file, an empty one, a malformed row (named by its line), a missing or NaN score.
        ConfigurationError: `strong` or `weak` is needed, or is not in the file.
    """
    file = Path(path)
    rows = _bounded(file, _outcome_rows(file))
    stem = re.sub(r"(\.(jsonl|json|ndjson|csv|parquet))?(\.gz)?$", "", file.name)
    if not rows:
        raise DataError(f"{file} is empty: expected rows with 'prompt' and 'scores'")
    models = _models(rows, file)
    if (strong is None) != (weak is None):
        raise ConfigurationError(
            f"strong={strong!r}, weak={weak!r}: name both models or neither; the file has {models}"
        )
    if strong is None or weak is None:
        if len(models) != 2:
            raise ConfigurationError(
                f"{file} has scores of {len(models)} models: name strong= and weak= (--strong and --weak) among "
                f"{', '.join(models)}"
            )
        means = {m: _mean_score(rows, m, file) for m in models}
        strong, weak = sorted(models, key=lambda m: -means[m])
    return _from_rows(stem, rows, file, strong, weak, "all")


def _mean_score(rows: Sequence[tuple[int, dict[str, Any]]], model: str, file: Path) -> float:
    return float(np.mean([_score(row, model, number, file) for number, row in rows]))


def _models(rows: Sequence[tuple[int, dict[str, Any]]], file: Path) -> list[str]:
    """Models that every row has a score of, in the order of the first row."""
    for number, row in rows:
        if not isinstance(row.get("scores"), dict) or not row["scores"]:
            raise DataError(
                f"{file}, row {number}: 'scores' must be an object of model: number, got {row.get('scores')!r:.80}"
            )
    first = [str(m) for m in rows[0][1]["scores"]]
    common = set(first).intersection(*(row["scores"] for _, row in rows))
    if len(common) < 2:
        raise DataError(f"{file}: {len(common)} models have a score in every row; at least 2 are needed")
    return [m for m in first if m in common]


def _from_rows(
    name: str, rows: list[tuple[int, dict[str, Any]]], file: Path, strong: str, weak: str, split: str
) -> Benchmark:
    if not rows:
        raise DataError(f"{file} is empty: expected rows with 'prompt' and 'scores'")
    clean = [(n, row) for n, row in rows if not row.get("contaminated", False)]
    kept = [(n, row) for n, row in clean if split == "all" or row.get("split", "test") == split]
    if not kept:
        raise DataError(f"{file}: no rows left of {len(rows)} (split {split!r}, contaminated rows left out)")
    models = _models(kept, file)
    pair = [_find_model(m, models, side, file) for m, side in ((strong, "strong"), (weak, "weak"))]
    if pair[0] == pair[1]:
        raise ConfigurationError(f"strong={strong!r} and weak={weak!r} are the same model")
    scores = {m: np.array([_score(row, m, n, file) for n, row in kept], dtype=np.float64) for m in models}
    prompts = tuple(_prompt(row, n, file) for n, row in kept)
    return Benchmark(name, prompts, scores, pair[0], pair[1], split, len(rows) - len(clean))


def _prompt(row: dict[str, Any], number: int, file: Path) -> str:
    turns = row.get("turns")
    prompt = turns[0] if isinstance(turns, list) and turns else row.get("prompt")
    if not isinstance(prompt, str):
        raise DataError(
            f"{file}, row {number}: 'prompt' must be a string (or 'turns' a list of them), got {prompt!r:.80}"
        )
    return prompt


def _score(row: dict[str, Any], model: str, number: int, file: Path) -> float:
    value = row["scores"].get(model)
    try:
        score = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        score = math.inf
    if not math.isfinite(score):
        raise DataError(f"{file}, row {number}: the score of {model!r} is {value!r:.80}; expected a finite number")
    return score


def _find_model(wanted: str, models: Sequence[str], side: str, file: Path) -> str:
    """The model by its name, else by its name without organisation and case, as published files differ in those."""
    if wanted in models:
        return wanted
    matches = [m for m in models if _bare(m) == _bare(wanted)]
    if len(matches) != 1:
        raise ConfigurationError(f"{side}={wanted!r}: {file} has scores of {', '.join(models)}")
    return matches[0]


def _bare(model: str) -> str:
    return model.rsplit("/", 1)[-1].lower()


def _open(file: Path) -> IO[str]:
    if not file.is_file():
        raise DataError(f"no file {str(file)!r}")
    with file.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    return gzip.open(file, "rt", encoding="utf-8") if zipped else file.open(encoding="utf-8")


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON lines file with their line numbers."""
    try:
        with _open(file) as lines:
            number = 0
            while line := lines.readline(MAX_RECORD_CHARS + 1):
                number += 1
                if len(line) > MAX_RECORD_CHARS:
                    raise DataError(
                        f"{file}, line {number}: longer than {MAX_RECORD_CHARS:,} characters; not JSON lines"
                    )
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as exc:
                    raise DataError(f"{file}, line {number}: not JSON ({exc})") from exc
                if not isinstance(row, dict):
                    raise DataError(f"{file}, line {number}: expected an object, got {type(row).__name__}")
                yield number, {key: row[key] for key in _FIELDS if key in row}
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as exc:
        raise DataError(f"{file} is damaged or not UTF-8: {exc}") from exc


def _outcome_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the user's file with their numbers: JSON lines, CSV or parquet."""
    if not {".csv", ".parquet"} & {suffix.lower() for suffix in file.suffixes}:
        return _rows(file)
    return _parsed_rows(file)


def _parsed_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from routellm_core.data.files import SkippedRows, read_outcomes  # loads pydantic, JSON lines do without

    bad = SkippedRows()  # a malformed row ends it; the reader's own words would advise an option that is not here
    for number, row in enumerate(read_outcomes(file, skip_bad=bad), start=1):
        if bad.count:
            break
        yield number, {"prompt": row.prompt, "scores": row.scores}
    if bad.count:
        raise DataError(bad.first[0])


def _bounded(file: Path, numbered: Iterator[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """All rows of a file, or a `DataError` before they fill the memory."""
    rows, chars = [], 0
    for number, row in numbered:
        chars += len(str(row.get("prompt") or row.get("turns") or ""))
        if chars > MAX_PROMPT_CHARS:
            raise DataError(
                f"{file}, line {number}: more than {MAX_PROMPT_CHARS:,} characters of prompts. A random sample of "
                f"50,000 rows is measured to within half a point: shuf -n 50000 {file.name} > sample.jsonl"
            )
        rows.append((number, row))
    return rows


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
        raise DataError(f"no {file}: the authors' list of contaminated prompts belongs to the benchmark")
    return {_field(row, "eval_prompt", number, file) for number, row in _rows(file)}


def _field(row: dict[str, Any], name: str, number: int, file: Path) -> Any:
    """A field that a file of the authors has in every row."""
    if name not in row:
        raise DataError(f"{file}, line {number}: no field {name!r}; is it the file of lm-sys/RouteLLM?")
    return row[name]


def _csv_rows(file: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(1 << 24)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            yield from csv.DictReader(lines)
    except (csv.Error, UnicodeDecodeError) as exc:
        raise DataError(f"{file} is not CSV in UTF-8: {exc}") from exc


_TRUTH = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


def _graded(rows: Iterator[dict[str, str]], dirty: set[str], start: int = 1) -> list[tuple[int, dict[str, Any]]]:
    """Rows of a response file: a prompt, and a True/False column for each model (their answers are passed over)."""
    out = []
    for number, row in enumerate(rows, start):
        scores = {m: _TRUTH[v.strip().lower()] for m, v in row.items() if m and v and v.strip().lower() in _TRUTH}
        prompt = row.get("prompt")
        out.append((number, {"prompt": prompt, "scores": scores, "contaminated": prompt in dirty}))
    return out


def _mmlu(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    dirty = _contaminated(folder)
    files = sorted((folder / "responses").glob("mmlu_*.csv"))
    if not files:
        raise DataError(f"no mmlu_*.csv in {str(folder / 'responses')!r}")
    rows: list[tuple[int, dict[str, Any]]] = []
    for file in files:
        rows += _graded(_csv_rows(file), dirty, len(rows) + 1)
    return rows


def _gsm8k(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    file = folder / "gsm8k_responses.csv"
    if not file.is_file():
        raise DataError(f"no {file}")
    return _graded(_csv_rows(file), _contaminated(folder))


def _mt_bench(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """Questions with the mean of their judged turns; a question goes when either of its turns is contaminated."""
    dirty = _contaminated(folder)
    judgements, questions = folder / "judgements.jsonl", folder / "question.jsonl"
    judged: dict[Any, dict[str, list[float]]] = {}
    for number, row in _rows(judgements):
        question, model = (_field(row, name, number, judgements) for name in ("question_id", "model"))
        score = _score({"scores": row}, "score", number, judgements)
        judged.setdefault(question, {}).setdefault(str(model), []).append(score)
    out = []
    for number, row in _rows(questions):
        turns = _field(row, "turns", number, questions)
        scores = judged.get(_field(row, "question_id", number, questions), {})
        dirty_turn = any(turn in dirty for turn in turns)
        means = {m: float(np.mean(s)) for m, s in scores.items()}
        out.append((number, {"turns": turns, "scores": means, "contaminated": dirty_turn}))
    return out
