"""`routellm train`: a router of your own from battles or outcomes, one subcommand for each kind."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.commands.options import (
    AsJson,
    Command,
    Currency,
    Embedding,
    From,
    Prices,
    SkipBad,
    TokensOfACall,
    command_line,
    console_for_tables,
    parse_prices,
    parse_tokens,
    report_bad,
    report_joined,
)
from routellm_core.commands.progress import progress_bar
from routellm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from routellm_core.data.records import Record
    from routellm_core.embedders.base import Embedder
    from routellm_core.evaluation.costs import Money
    from routellm_core.training.summary import TrainingSummary

app = typer.Typer(
    name="train",
    help="Train a router on your own data, for your own pair of models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    list[Path],
    typer.Option(
        "--data",
        "-d",
        help="Outcomes or battles, in any of 'routellm data forms': JSON lines, JSON, CSV or parquet; may be given "
        "again. MODEL=FILE for a file that does not name its model.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Directory to save the router to.")]
Strong = Annotated[str, typer.Option(help="Strong model, as the data names it.")]
Weak = Annotated[str, typer.Option(help="Weak model, as the data names it.")]
Strongs = Annotated[list[str], typer.Option("--strong", help="Strong model; again for others that stand for it.")]
Weaks = Annotated[list[str], typer.Option("--weak", help="Weak model; again for others that stand for it.")]
TieMargin = Annotated[float, typer.Option(help="Scores that differ by no more than this are a tie.", min=0.0)]
HeldOut = Annotated[float, typer.Option(help="Share of the prompts kept for the metrics.", min=0.0, max=0.9)]
Folds = Annotated[
    int,
    typer.Option(
        help="Cross-validate instead of holding out, and train on everything: best for a few hundred rows. 0: do not.",
        min=0,
    ),
]
Validation = Annotated[float, typer.Option(help="Share of the prompts for early stopping.", min=0.0, max=0.9)]
SourceWeight = Annotated[
    list[str] | None, typer.Option(help="SOURCE=NUMBER: factor on the rows of a source; may be given again.")
]
EmbeddingCache = Annotated[
    Path | None, typer.Option(help="File that keeps embeddings of a service between runs.", show_default=False)
]
Seed = Annotated[int, typer.Option(help="Seed of the split and of what is random in training.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a router that is there already.")]
Base = Annotated[str, typer.Option(help="Directory or hub id of the model to start from (safetensors only).")]
Restart = Annotated[bool, typer.Option("--restart", help="Start anew instead of continuing an interrupted run.")]
Balance = Annotated[bool, typer.Option(help="Give each label the same share of the loss.")]
MaxSteps = Annotated[int, typer.Option(help="Most optimizer steps.", min=1)]
Epochs = Annotated[float, typer.Option(help="Passes over the data, unless --max-steps ends it before.")]
BatchSize = Annotated[int, typer.Option(help="Rows of one forward pass on one device.", min=1)]
WeightDecay = Annotated[float, typer.Option(help="Decoupled weight decay.")]
Accumulate = Annotated[int, typer.Option(help="Forward passes of one optimizer step.", min=1)]
Evaluations = Annotated[int, typer.Option(help="Looks at the validation loss, and checkpoints, over the run.", min=1)]
Patience = Annotated[int, typer.Option(help="Looks without a better loss before the run stops.", min=1)]
Checkpointing = Annotated[bool, typer.Option("--gradient-checkpointing", help="Trade time for memory.")]

Processes = Annotated[
    int, typer.Option(help="Processes on this machine that train together, such as one for each GPU.", min=1)
]
Bf16 = Annotated[
    bool | None, typer.Option("--bf16/--no-bf16", help="Compute in bfloat16.", show_default="on a GPU that can")
]


def _embedding_router(
    kind: Any,
    own: dict[str, Any],
    /,
    data: Data,
    strong: Strong,
    weak: Weak,
    out: Out,
    embedder: Embedding = "bundled",
    embedding_cache: EmbeddingCache = None,
    tie_margin: TieMargin = 0.0,
    held_out: HeldOut = 0.2,
    folds: Folds = 0,
    seed: Seed = 0,
    price: Prices = None,
    tokens: TokensOfACall = None,
    currency: Currency = None,
    form: From = None,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a router over embeddings: what its commands share; `own` is what one of them adds."""
    from routellm_core.training.embedding_routers import train_embedding_router

    money = _money(price, tokens, currency, strong, weak)
    encoder, reader = _embedder(embedder, embedding_cache), _Reader(data, form, skip_bad)
    with progress_bar("embedding") as progress:
        summary = train_embedding_router(
            kind,
            reader.records(),
            out,
            embedder=encoder,
            skipped=reader.skipped,
            progress=progress,
            strong=strong,
            weak=weak,
            tie_margin=tie_margin,
            held_out=held_out,
            folds=folds,
            seed=seed,
            money=money,
            command=command_line(),
            overwrite=overwrite,
            **own,
        )
    _report(summary, reader, as_json)


def _fine_tuned(
    train: Callable[..., Any],
    how: dict[str, Any],
    own: dict[str, Any],
    /,
    data: Data,
    strong: Strongs,
    weak: Weaks,
    out: Out,
    base: Base,
    max_steps: MaxSteps = 2000,
    epochs: Epochs = 3.0,
    accumulate: Accumulate = 1,
    balance: Balance = True,
    evaluations: Evaluations = 10,
    patience: Patience = 3,
    gradient_checkpointing: Checkpointing = False,
    bf16: Bf16 = None,
    tie_margin: TieMargin = 0.0,
    validation: Validation = 0.1,
    held_out: HeldOut = 0.2,
    source_weight: SourceWeight = None,
    seed: Seed = 0,
    restart: Restart = False,
    price: Prices = None,
    tokens: TokensOfACall = None,
    currency: Currency = None,
    form: From = None,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a router: what its commands share; `how` and `own` are what one of them adds."""
    from routellm_core.training.options import FineTuning

    money = _money(price, tokens, currency, strong[0], weak[0])
    _quiet_transformers()
    reader = _Reader(data, form, skip_bad)
    with progress_bar("training") as progress:
        summary: TrainingSummary | None = train(
            reader.records,
            out,
            how=FineTuning(
                epochs=epochs,
                max_steps=max_steps,
                accumulate=accumulate,
                evaluations=evaluations,
                patience=patience,
                gradient_checkpointing=gradient_checkpointing,
                bf16=bf16,
                seed=seed,
                **how,
            ),
            skipped=reader.skipped,
            progress=progress,
            base=base,
            strong=strong,
            weak=weak,
            balance=balance,
            tie_margin=tie_margin,
            validation=validation,
            held_out=held_out,
            source_weights=_weights(source_weight),
            money=money,
            command=command_line(),
            overwrite=overwrite,
            resume=not restart,
            **own,
        )
    if summary is not None:  # else this is not the first process of a distributed run
        _report(summary, reader, as_json)


def _fine_tuned_in(processes: int, *args: Any, **shared: Any) -> None:
    """Fine-tune a router in so many processes of this machine, or in this one where a launcher started it."""
    from routellm_core.training.processes import errors_for_launcher, is_launched, run_in_processes

    if processes > 1 and not is_launched():
        run_in_processes(processes, _fine_tuned, *args, **shared)
    else:
        with errors_for_launcher():
            _fine_tuned(*args, **shared)


def _with_options_of(shared: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Show a command's ``**shared`` to typer as the options of `shared`, those that must be given first."""

    def extended(command: Callable[..., None]) -> Callable[..., None]:
        # with the annotations themselves: typer does not resolve the names in a signature that is set
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        every = inspect.signature(shared, eval_str=True).parameters.values()
        common = [p for p in every if p.kind is not p.POSITIONAL_ONLY]
        options = [p.replace(kind=p.KEYWORD_ONLY) for p in (*common, *own)]
        options.sort(key=lambda p: (p.default is not p.empty, p.name not in signature.parameters))
        command.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in options}
        return command

    return extended


@app.command(cls=Command)
@_with_options_of(_embedding_router)
def auto(source_weight: SourceWeight = None, **shared: Any) -> None:
    """Choose sw_ranking, mf or knn by cross-validation. It stays inside the training rows, and suits their number.

    Example: routellm train auto --data outcomes.jsonl --strong gpt-4o --weak gpt-4o-mini --out my-router
    """
    _embedding_router("auto", {"source_weights": _weights(source_weight)}, **shared)


@app.command(cls=Command)
@_with_options_of(_embedding_router)
def mf(
    method: Annotated[
        str, typer.Option(help="pair (convex, exact), sgd (model vectors), or auto: pair for two models.")
    ] = "auto",
    all_models: Annotated[bool, typer.Option("--all-models", help="Learn from every pair of models.")] = False,
    l2: Annotated[float | None, typer.Option(help="Penalty of pair.", show_default="by cross-validation")] = None,
    dim: Annotated[int | None, typer.Option(help="Length of a model vector of sgd.", show_default="64", min=1)] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes of sgd.", show_default="30", min=1)] = None,
    noise: Annotated[float | None, typer.Option(help="Noise on the prompt vectors of sgd.", show_default="0.1")] = None,
    source_weight: SourceWeight = None,
    **shared: Any,
) -> None:
    """Matrix factorization, which the paper recommends. It takes seconds on a laptop.

    Example: routellm train mf --data outcomes.jsonl --strong gpt-4o --weak gpt-4o-mini --out my-router
    """
    given = {"l2": l2, "dim": dim, "epochs": epochs, "noise": noise}
    own = {
        "method": method,
        "all_models": all_models,
        "source_weights": _weights(source_weight),
        **{name: value for name, value in given.items() if value is not None},
    }
    _embedding_router("mf", own, **shared)


@app.command(cls=Command)
@_with_options_of(_embedding_router)
def knn(
    neighbors: Annotated[
        int | None, typer.Option(help="How many neighbours vote.", show_default="by leave-one-out", min=1)
    ] = None,
    source_weight: SourceWeight = None,
    **shared: Any,
) -> None:
    """Nearest neighbours: the simple baseline that is hard to beat.

    Example: routellm train knn --data outcomes.jsonl --strong gpt-4o --weak gpt-4o-mini --out my-router
    """
    own = {} if neighbors is None else {"neighbors": neighbors}
    _embedding_router("knn", {"source_weights": _weights(source_weight), **own}, **shared)


@app.command("sw_ranking", cls=Command)
@_with_options_of(_embedding_router)
def sw_ranking(
    all_models: Annotated[bool, typer.Option(help="Use the battles of every pair of models.")] = True,
    num_tiers: Annotated[int, typer.Option(help="Tiers that the models are grouped in.", min=1)] = 10,
    base: Annotated[float, typer.Option(help="Base of the weights; small embeddings need more than 10.")] = 10.0,
    nearest: Annotated[
        int | None, typer.Option(help="Use only so many most similar battles.", show_default="all", min=1)
    ] = None,
    **shared: Any,
) -> None:
    """Similarity-weighted ranking. Bradley-Terry ratings are weighted by similar battles; nothing is trained.

    Example: routellm train sw_ranking --data arena.parquet --strong gpt-4-1106-preview --weak mixtral-8x7b --out sw
    """
    own = {"all_models": all_models, "num_tiers": num_tiers, "base": base, "nearest": nearest}
    _embedding_router("sw_ranking", own, **shared)


@app.command(cls=Command)
@_with_options_of(_fine_tuned)
def bert(
    batch_size: BatchSize = 16,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-5,
    weight_decay: WeightDecay = 0.01,
    max_length: Annotated[
        int | None, typer.Option(help="Longest prompt in tokens.", show_default="512, or the model's limit")
    ] = None,
    processes: Processes = 1,
    **shared: Any,
) -> None:
    """Fine-tune an encoder. It has three labels: strong wins, tie, weak wins.

    Example: routellm train bert --data labels.jsonl --strong A --weak B --base FacebookAI/xlm-roberta-base --out bert

    Several GPUs: --processes 8; several machines: torchrun --nnodes ... -m routellm_core.cli train bert ...
    """
    from routellm_core.training.bert import train_bert

    how = {"batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": weight_decay}
    _fine_tuned_in(processes, train_bert, how, {"max_length": max_length}, **shared)


@app.command("causal_llm", cls=Command)
@_with_options_of(_fine_tuned)
def causal_llm(
    lora: Annotated[int, typer.Option(help="Rank of the LoRA updates; 0 trains all weights.", min=0)] = 16,
    batch_size: BatchSize = 8,
    learning_rate: Annotated[
        float | None, typer.Option(help="Highest learning rate.", show_default="1e-4 with LoRA, else 1e-6")
    ] = None,
    weight_decay: WeightDecay = 0.0,
    max_length: Annotated[
        int | None, typer.Option(help="Most tokens of a text.", show_default="2048, or the model's limit")
    ] = None,
    processes: Processes = 1,
    **shared: Any,
) -> None:
    """Fine-tune an LLM to rate prompts. Its labels are the tokens [[1]] to [[5]].

    Strong wins is taught as [[1]], a tie as [[4]], weak wins as [[5]].

    Example: routellm train causal_llm --data labels.jsonl --strong A --weak B --base ./llama-3.2-1b --out llm

    Several GPUs: --processes 8; several machines: torchrun --nnodes ... -m routellm_core.cli train causal_llm ...
    """
    from routellm_core.training.causal_llm import train_causal_llm

    if learning_rate is None:
        learning_rate = 1e-4 if lora else 1e-6
    how = {"batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": weight_decay}
    _fine_tuned_in(processes, train_causal_llm, how, {"lora": lora or None, "max_length": max_length}, **shared)


def _quiet_transformers() -> None:
    """Its bars and loading reports are not for this command's output; its errors still are."""
    try:
        from transformers.utils import logging
    except ImportError:
        return  # the trainer says which extra is missing
    quiet: Any = logging  # its functions have no types
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    # peft reads names that transformers is about to give up: nothing that a user of this command can mend
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


class _Reader:
    """The rows of the data files, as often as they are asked for; malformed ones are counted on the last pass."""

    def __init__(self, paths: list[Path], form: str | None, skip_bad: bool) -> None:
        from routellm_core.data.files import SkippedRows
        from routellm_core.data.joining import JoinReport

        self.paths, self._form, self._skip = paths, form, skip_bad
        self.bad, self.joined = SkippedRows(), JoinReport()

    def records(self) -> Iterator[Record]:
        from routellm_core.data import SkippedRows, read_preferences
        from routellm_core.data.joining import JoinReport

        self.bad, self.joined = SkippedRows(), JoinReport()
        bad = self.bad if self._skip else None
        return read_preferences(self.paths, form=self._form, skip_bad=bad, joined=self.joined)

    def skipped(self) -> int:
        return self.bad.count


def _embedder(name: str, cache: Path | None) -> Embedder:
    from routellm_core.embedders import CachedEmbedder, embedder_from_name

    embedder = embedder_from_name(name)
    return embedder if cache is None else CachedEmbedder(embedder, cache)


def _weights(given: list[str] | None) -> dict[str, float]:
    out = {}
    for item in given or []:
        name, _, value = item.rpartition("=")
        try:
            out[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise ConfigurationError(f"--source-weight {item!r}: expected SOURCE=NUMBER, such as judge=0.5")
    return out


def _money(price: list[str] | None, tokens: str | None, currency: str | None, strong: str, weak: str) -> Money:
    """The prices for the verdict, checked before minutes of work."""
    from routellm_core.evaluation.costs import Money

    prices = parse_prices(price)
    if unknown := sorted(prices.keys() - {strong, weak}):
        raise ConfigurationError(
            f"--price {unknown[0]}=...: the router chooses between {strong} and {weak}; give the prices of these"
        )
    if tokens is not None and not prices:
        raise ConfigurationError("--tokens is of use with prices only: give --price MODEL=IN/OUT for both models")
    return Money(prices, parse_tokens(tokens), currency or "")


def _report(summary: TrainingSummary, reader: _Reader, as_json: bool) -> None:
    report_bad(reader.bad)
    report_joined(reader.joined)
    if as_json:
        print(json.dumps({"directory": str(summary.directory), **summary.to_dict()}))
        return
    from rich.table import Table

    from routellm_core.commands.verdicts import show_verdict
    from routellm_core.report.escaping import printable

    console = console_for_tables()
    rows = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in summary.rows.items() if count)
    pair = f"{summary.strong} (strong) and {summary.weak} (weak)"
    console.print(printable(f"{summary.router} router for {pair}"), markup=False)
    console.print(f"rows: {rows}; {summary.seconds:.1f} s", markup=False)
    if chosen := summary.settings.get("chosen"):
        scores = summary.settings["area_over_random"]
        listed = ", ".join(f"{name} {score:+.4f}" for name, score in scores.items())
        console.print(f"chosen: {chosen}; cross-validated area over random routing: {listed}", markup=False)
    for note in summary.notes:
        console.print(f"note: {note}", markup=False)
    print()
    lines, evaluation = summary.table(), summary.evaluation
    if evaluation is not None and math.isfinite(evaluation.metrics["apgr"].value):  # else nothing but dashes
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, title in enumerate(lines[0]):
            table.add_column(title, justify="right" if i else "left")
        for row in lines[1:]:
            table.add_row(*row)
        console.print(table)
    if evaluation is not None:
        console.print(
            f"\n{summary.measured_on}; {evaluation.confidence:.0%} intervals. Strong alone "
            f"{evaluation.strong_quality:.4g}, weak alone {evaluation.weak_quality:.4g}.",
            markup=False,
        )
    if summary.gain is not None:
        console.print(f"APGR over the bundled default: {summary.gain.difference}", markup=False)
    if summary.result is not None:
        print()
        show_verdict(summary.result)
        console.print(f"report: {printable(str(summary.report))}", markup=False, soft_wrap=True)
    console.print(
        f"\nsaved to {printable(str(summary.directory))}; use it with load_router({str(summary.directory)!r})",
        markup=False,
        soft_wrap=True,
    )
