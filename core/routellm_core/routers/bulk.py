"""Bulk scoring: win rates of whole columns, in whatever engine runs over the data."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.embedders import StaticEmbedder
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.routers.base import Router
from routellm_core.routers.function import as_router
from routellm_core.routers.registry import load_router

# name and source -> router: each process loads a router once, however many tasks it is given
_loaded: dict[tuple[str, str | None], Router] = {}
_loading = threading.Lock()
if hasattr(os, "register_at_fork"):
    # a child that is forked while another thread loads a router would wait for it for ever
    os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release)
# Held by the thread that scores, where Python does the work: DuckDB's threads would take the interpreter from each
# other, at up to 40 % more CPU, and be no faster. A router that waits for a server or for torch is called by all.
_scoring = threading.Lock()


def _renew_scoring() -> None:
    global _scoring
    _scoring = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_scoring)  # the thread that held it does not exist there


class WinRates:
    """Scores batches of prompts in Ray Data, Spark, Dask, DuckDB, `datasets` or plain multiprocessing.

    A call takes a batch in the engine's own form and gives it back in the same form:

    ===================================================  ==========================================================
    dict of columns, pandas / polars frame, arrow table  the same with a column of win rates added
    pandas / polars series, arrow array, array, list     the win rates alone
    ===================================================  ==========================================================

    The win rates are those of ``router.win_rates``, bit for bit. A missing prompt (None) has a missing win rate. What
    is pickled is the router's name, and each process loads it once; a router that is no name is pickled itself.

    Args:
        router: Name, directory or import path of a router, as for `load_router`; or a router.
        source: Directory or hub id of its checkpoint, as for `load_router`.
        column: Name of the column that holds the prompts.
        to: Name of the column that the win rates are written to.

    Raises:
        ConfigurationError: A name is not a non-empty str.
    """

    def __init__(
        self,
        router: str | Router | Any = "mf",
        source: str | None = None,
        *,
        column: str = "prompt",
        to: str = "win_rate",
    ) -> None:
        for name, value in (("column", column), ("to", to)):
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"{name}={value!r:.80}: expected the name of a column")
        if source is not None and not isinstance(router, str):
            raise ConfigurationError(f"source={source!r:.80} is of use with the name of a router only")
        self.router = os.fspath(router) if isinstance(router, os.PathLike) else router
        self.source = None if source is None else str(source)
        self.column = column
        self.to = to

    def __call__(self, batch: Any) -> Any:
        """Score a batch.

        Args:
            batch: See the class.

        Raises:
            DataError: It has no such column, or a form that is not known.
            RouterError: The router failed.
        """
        kind = f"{type(batch).__module__.partition('.')[0]}.{type(batch).__name__}"
        if isinstance(batch, Mapping):
            return {**batch, self.to: self._scored(self._column(batch, batch.keys()))}
        if kind == "pandas.DataFrame":
            return batch.assign(**{self.to: self._scored(self._column(batch, batch.columns))})
        if kind == "pandas.Series":
            return type(batch)(self._scored(batch), index=batch.index, name=self.to)
        if kind in ("polars.DataFrame", "polars.Series"):
            return self._polars(batch, kind)
        if kind.startswith("pyarrow."):
            return self._arrow(batch, kind)
        if isinstance(batch, list | tuple | np.ndarray):
            return self._scored(batch)
        raise DataError(
            f"{type(batch).__name__}: expected a dict of columns, a pandas or polars frame or series, an arrow table "
            "or array, or a list of prompts"
        )

    def _polars(self, batch: Any, kind: str) -> Any:
        import polars

        if kind == "polars.Series":
            return polars.Series(self.to, self._scored(batch.to_list()), nan_to_null=True)
        win_rates = self._scored(self._column(batch, batch.columns).to_list())
        return batch.with_columns(polars.Series(self.to, win_rates, nan_to_null=True))

    def _arrow(self, batch: Any, kind: str) -> Any:
        import pyarrow  # type: ignore[import-untyped]

        if kind not in ("pyarrow.Table", "pyarrow.RecordBatch"):
            return pyarrow.array(self._scored(batch.to_pylist()), from_pandas=True)  # a missing one is null
        win_rates = self._scored(self._column(batch, batch.schema.names).to_pylist())
        table = pyarrow.Table.from_batches([batch]) if kind == "pyarrow.RecordBatch" else batch
        column = pyarrow.array(win_rates, from_pandas=True)
        at = table.schema.get_field_index(self.to)
        table = table.append_column(self.to, column) if at < 0 else table.set_column(at, self.to, column)
        return table.to_batches()[0] if kind == "pyarrow.RecordBatch" else table

    def _column(self, batch: Any, names: Any) -> Any:
        if self.column not in names:
            raise DataError(
                f"column={self.column!r}: the batch has {', '.join(map(repr, names)) or 'no columns'}; name the column "
                "that holds the prompts"
            )
        return batch[self.column]

    def _scored(self, values: Any) -> npt.NDArray[np.float64]:
        prompts = _listed(values)
        present = np.array([isinstance(prompt, str) for prompt in prompts], dtype=bool)
        if not all(there or _is_missing(prompt) for prompt, there in zip(prompts, present.tolist(), strict=True)):
            raise DataError(f"column={self.column!r}: expected prompts, each a str or missing")
        out = np.full(len(prompts), np.nan)
        if present.any():
            there = prompts if present.all() else [prompt for prompt in prompts if isinstance(prompt, str)]
            router = self._router()
            in_python = isinstance(getattr(router, "embedder", None), StaticEmbedder)
            with _scoring if in_python else nullcontext():
                out[present] = router.win_rates(there)
        return out

    def _router(self) -> Router:
        if not isinstance(self.router, str):
            return as_router(self.router)
        key = (self.router, self.source)
        found = _loaded.get(key)
        if found is None:
            with _loading:
                found = _loaded.get(key)
                if found is None:
                    found = _loaded[key] = load_router(self.router, self.source)
        return found

    def __repr__(self) -> str:
        return f"WinRates({self.router!r}, column={self.column!r}, to={self.to!r})"


def _listed(values: Any) -> list[Any]:
    """The values as a list: iterating over a string array takes ten times as long, and over numpy's own even more."""
    if type(values).__module__.partition(".")[0] == "pandas":
        values = values.to_numpy(dtype=object)
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _is_missing(value: Any) -> bool:
    """None, and the NaN and NA that pandas puts in the place of a missing str."""
    return (
        value is None or (isinstance(value, float) and np.isnan(value)) or type(value).__name__ in ("NAType", "NaTType")
    )
