"""`routellm evaluate`: routers on benchmarks or on outcomes of your own; table, JSON, figures and one HTML page."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routellm_core.checks import same_file
from routellm_core.commands.options import (
    AsJson,
    Currency,
    From,
    Prices,
    SkipBad,
    TokensOfACall,
    command_line,
    parse_prices,
    parse_tokens,
    report_bad,
    report_joined,
)
from routellm_core.commands.progress import progress_bar
from routellm_core.commands.verdicts import show_results
from routellm_core.errors import ConfigurationError, DataError, MissingExtraError
from routellm_core.policy.acceptance import checked_band
from routellm_core.report.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from routellm_core.evaluation.benchmarks import Benchmark
    from routellm_core.evaluation.costs import Money
    from routellm_core.policy.savings import Price
    from routellm_core.routers.base import Router

_BATCH = 512


def evaluate(
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            "-d",
            help="Your own results, outcomes or battles in any of 'routellm data forms'; may be given again. "
            "MODEL=FILE for a file that does not name its model; those are joined. With --benchmark, the "
            "first is a folder of tidy JSON lines or a checkout of lm-sys/RouteLLM.",
        ),
    ] = None,
    router: Annotated[
        list[str] | None,
        typer.Option(
            "--router",
            "-r",
            help="Router: a name, a directory, or package.module:Class; may be given again.",
            show_default="mf_vote, the bundled one",
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="mmlu, gsm8k or mt-bench, found in --data; may be given again."),
    ] = None,
    strong: Annotated[
        str | None,
        typer.Option(
            help="Strong (expensive) model, as the data names it.", show_default="of two, the one with better scores"
        ),
    ] = None,
    weak: Annotated[str | None, typer.Option(help="Weak (cheap) model, as the data names it.")] = None,
    split: Annotated[str, typer.Option(help="Rows of a benchmark: test, gold or all.")] = "test",
    price: Prices = None,
    tokens: TokensOfACall = None,
    currency: Currency = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            help="Money for 1,000 calls: name the best single model, pair and three of all models with a --price, in "
            "the place of judging one pair.",
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            help="With --budget, in the place of --router: order the prompts of each of so many folds by a router that "
            "is trained on the others; 0: no.",
            min=0,
            max=100,
        ),
    ] = 0,
    accept_threshold: Annotated[
        float,
        typer.Option(
            "--accept-threshold",
            help="Rows with 'accepted' (true, false or a score) say whether a check accepts the weak answer, and so "
            "whether a cascade pays; a score of at least this is accepted.",
        ),
    ] = 0.5,
    accept_band: Annotated[
        str | None,
        typer.Option(
            "--accept-band",
            help="LOW/HIGH: win rates within which weak answers are checked, such as 0.2/0.5.",
            show_default="the band that gains most",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for results.json, report.html and the figures.")
    ] = Path("evaluation"),
    draws: Annotated[int, typer.Option(help="Bootstrap draws.", min=10)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Measure routers on answers with known scores: a verdict.

    Shows PGR, APGR, CPT, cost, and whether routing pays, and writes a report.

    Example: routellm evaluate --router mf --router random --benchmark mmlu --benchmark gsm8k --data RouteLLM/

    Example: routellm evaluate --data results.jsonl --strong gpt-4.1 --weak gpt-4.1-mini --price gpt-4.1=2/8 --price
    gpt-4.1-mini=.4/1.6

    Example: routellm evaluate --data outcomes.jsonl --price prices.json --budget 0.6
    """
    from routellm_core.data.files import SkippedRows
    from routellm_core.data.joining import JoinReport
    from routellm_core.data.reading import joined_together
    from routellm_core.evaluation.benchmarks import STRONG, WEAK, load_benchmark, load_outcomes, load_scores
    from routellm_core.evaluation.costs import Money, call_costs
    from routellm_core.report.figures import save_figures
    from routellm_core.report.files import REPORT_FILE, RESULTS_FILE, save_evaluation
    from routellm_core.report.rendering import check_templates
    from routellm_core.report.results import evaluate_priced

    check_templates()  # before minutes of work
    benchmarks, files = _several(benchmark), list({file.resolve(): file for file in data or []}.values())
    if not files:
        what = f"--benchmark {benchmarks[0]} needs --data too" if benchmarks else "there is nothing to evaluate on"
        raise ConfigurationError(
            f"{what}: give --data FILE with outcomes, or --benchmark NAME with --data FOLDER of tidy JSON lines or a "
            "checkout of lm-sys/RouteLLM"
        )
    band = _parse_band(accept_band)
    money = Money(parse_prices(price), parse_tokens(tokens), currency or "")
    if tokens is not None and not money.prices:
        raise ConfigurationError("--tokens is of use with prices only: give --price MODEL=IN/OUT for both models")
    if budget is not None:
        _check_choice(benchmarks, router, strong, weak, folds)
    elif folds:
        raise ConfigurationError("--folds needs --budget: to train a router and judge it by folds, use routellm train")
    source = files.pop(0) if benchmarks else None
    loaded = [
        load_benchmark(name, source or "", strong=strong or STRONG, weak=weak or WEAK, split=split)
        for name in benchmarks
    ]
    bad = SkippedRows() if skip_bad else None
    joined = JoinReport()
    groups = joined_together(files, form=form) if files else []
    files = [group[0].path for group in groups]
    if budget is not None and len(groups) > 1:
        raise ConfigurationError(f"--budget takes one set of outcomes: give {files[0]} or {files[1]}")
    loaded += _told_apart(
        files,
        [
            load_outcomes(g, strong=strong, weak=weak, form=form, skip_bad=bad, joined=joined)
            if budget is None
            else load_scores(g, models=list(money.prices), form=form, skip_bad=bad, joined=joined)
            for g in groups
        ],
    )
    report_joined(joined)
    if bad is not None:
        report_bad(bad)
    _check_prices(money.prices, loaded)
    for found in loaded:
        call_costs(found, money)  # before minutes of work: a price may be missing
    for file in (*files, *([source] if source is not None else [])):
        for name in (RESULTS_FILE, REPORT_FILE):
            if same_file(out / name, file):
                raise ConfigurationError(f"--out {out} would replace {file}: give another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)  # before minutes of work: it may not be allowed
    except OSError as exc:
        raise ConfigurationError(f"--out {out}: the folder cannot be created ({exc.strerror})") from exc
    specs = _several(router)
    sources, routers = ({}, {}) if folds else _routers(specs or ["mf_vote"])
    if not specs:
        for name in routers:
            print(
                f"no --router given: this judges the bundled router ({name})",
                file=sys.stderr if as_json else sys.stdout,
            )
    loaded = [_unseen(found, routers, budget) for found in loaded]
    if budget is not None:
        _choose(loaded[0], routers, money, budget, out, folds=folds, draws=draws, seed=seed, as_json=as_json)
        return
    results = [
        evaluate_priced(
            found,
            _win_rates(routers, found),
            money=money,
            routers=routers,
            command=command_line(),
            sources=sources,
            accept_threshold=accept_threshold,
            accept_band=band,
            draws=draws,
            seed=seed,
        )
        for found in loaded
    ]
    written = ", ".join(map(str, save_evaluation(results, out)))
    try:
        save_figures(results, out)
        written += " and the figures beside them"
    except MissingExtraError as exc:
        print(f"routellm: no figures written. {exc}", file=sys.stderr)
    if as_json:
        print(json.dumps(results, indent=1, allow_nan=False))
    else:
        guessed = len(benchmarks) if strong is None and files else len(results)
        show_results(results, guessed=guessed)
        print(f"written: {printable(written)}")


def _several(values: Sequence[str] | None) -> list[str]:
    """Options given again or with commas, each once, in order."""
    return list(dict.fromkeys(part.strip() for value in values or [] for part in value.split(",") if part.strip()))


def _unseen(benchmark: Benchmark, routers: Mapping[str, Router], budget: float | None) -> Benchmark:
    """The benchmark without the prompts that a router was trained on."""
    from routellm_core.evaluation.overlap import leave_out_seen

    try:
        return leave_out_seen(benchmark, routers)
    except DataError as exc:
        if budget is not None:
            exc.add_note("or order the prompts by routers that are trained on other folds of these outcomes: --folds 5")
        raise


def _choose(
    benchmark: Benchmark,
    routers: Mapping[str, Router],
    money: Money,
    budget: float,
    out: Path,
    *,
    folds: int,
    draws: int,
    seed: int,
    as_json: bool,
) -> None:
    """Name the best models at a budget."""
    from routellm_core.commands.choices import choose, out_of_fold
    from routellm_core.report.results import trained_on_text

    if folds:
        name, trained_on = "mf routers", f"each trained on the other {folds - 1} of {folds} folds of these prompts"
        rates = out_of_fold(benchmark, money, budget, folds, seed)
    else:
        ((name, router),) = routers.items()
        trained_on = trained_on_text(router)
        rates = _win_rates(routers, benchmark)[name]
        name = f"the router {name}"
    choose(benchmark, rates, budget, money, name, trained_on, out, draws=draws, seed=seed, as_json=as_json)


def _check_choice(
    benchmarks: Sequence[str], router: Sequence[str] | None, strong: str | None, weak: str | None, folds: int
) -> None:
    """Refuse what has no meaning beside ``--budget``."""
    if folds == 1 or (folds and _several(router)):
        what = f"--folds {folds}" if folds == 1 else f"--folds {folds} --router {_several(router)[0]}"
        raise ConfigurationError(f"{what}: expected 2 folds or more, or one --router")
    if strong is not None or weak is not None:
        raise ConfigurationError(
            "--strong and --weak name one pair, --budget looks for the best: leave one of them out"
        )
    if benchmarks:
        raise ConfigurationError(f"--budget needs outcomes of many models: leave --benchmark {benchmarks[0]} out")
    if len(_several(router)) > 1:
        raise ConfigurationError("--budget takes one --router, by which the prompts are ordered for all pairs")


def _parse_band(value: str | None) -> tuple[float, float] | None:
    """The band of win rates that ``--accept-band`` gives."""
    if value is None:
        return None
    try:
        return checked_band([float(edge) for edge in value.split("/")])
    except (ValueError, ConfigurationError):
        raise ConfigurationError(
            f"--accept-band {value!r}: expected two win rates LOW/HIGH, 0 <= low < high <= 1, such as 0.2/0.5"
        ) from None


def _told_apart(files: Sequence[Path], loaded: Sequence[Benchmark]) -> list[Benchmark]:
    """Outcomes under their files' names; with as many folders before it as tell apart what is called the same."""
    paths = [[*file.resolve().parent.parts[1:], found.name] for file, found in zip(files, loaded, strict=True)]
    out = []
    for path, found in zip(paths, loaded, strict=True):
        same = [other for other in paths if other is not path]
        length = next((n for n in range(1, len(path)) if all(o[-n:] != path[-n:] for o in same)), len(path))
        out.append(replace(found, name="/".join(path[-length:])))
    return out


def _check_prices(prices: Mapping[str, Price], loaded: Sequence[Benchmark]) -> None:
    """Refuse a price of a model that no row can be weighed by."""
    known = list(dict.fromkeys(model for found in loaded for model in found.scores))
    if unknown := sorted(prices.keys() - set(known)):
        raise ConfigurationError(
            f"--price {unknown[0]}=...: no outcomes have scores of this model in every row; they have: "
            f"{', '.join(known)}"
        )


def _routers(specs: Sequence[str]) -> tuple[dict[str, str], dict[str, Router]]:
    """What was asked for, and its router, under names that tell routers apart: with their folders' or "bundled"."""
    from routellm_core.routers import load_router

    loaded = [(spec, load_router(spec)) for spec in specs]
    names = [r.name for _, r in loaded]
    sources: dict[str, str] = {}
    out: dict[str, Router] = {}
    for spec, found in loaded:
        place = Path(spec).resolve().name if Path(spec).exists() else "bundled"
        name = found.name if names.count(found.name) == 1 else f"{found.name} ({place})"
        name = name if name not in out else f"{found.name} ({spec})"
        out[name], sources[name] = found, spec
    return sources, out


def _win_rates(routers: Mapping[str, Router], benchmark: Benchmark) -> dict[str, npt.NDArray[np.float64]]:
    import numpy as np

    prompts = benchmark.prompts
    out = {}
    for name, router in routers.items():
        with progress_bar(f"{name} on {benchmark.name}") as progress:
            parts = []
            for start in range(0, len(prompts), _BATCH):
                batch = prompts[start : start + _BATCH]
                parts.append(router.win_rates(batch))
                progress(start + len(batch), len(prompts))
        out[name] = np.concatenate(parts)
    return out
