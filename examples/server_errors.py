"""One line in the place of a traceback when a model's server is down or has no such model."""

from __future__ import annotations

import sys
from types import TracebackType

from routellm_core.policy.setups import FailureNote


def explain_server_errors() -> None:
    """End the script with one line where a model's server cannot be reached, refuses the key or has no such model."""
    sys.excepthook = _explained


def _explained(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # ChatRouteLLM and RouteLLM note on an error which side it was, and what to look at
    note = next((note for note in getattr(error, "__notes__", ()) if isinstance(note, FailureNote)), None)
    if note is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"{kind.__name__}: {note}", file=sys.stderr)
