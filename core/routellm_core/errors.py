"""Errors that routellm_core raises; each is also the built-in error that a caller would expect."""

from __future__ import annotations


class RouteLLMError(Exception):
    """Base class of every error raised on purpose by this package."""


class ConfigurationError(RouteLLMError, ValueError):
    """A parameter has a value that is not allowed; the message names it, the value and the fix."""


class PromptError(RouteLLMError, TypeError, ValueError):
    """The prompts are not a non-empty sequence of strings."""


class DataError(RouteLLMError, ValueError):
    """A record of preference data, prompts or outcomes is malformed; the message names where."""


class CheckpointError(RouteLLMError, ValueError):
    """A saved router, embedder or calibration is corrupt or does not fit what it is used with."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A saved router, embedder or calibration does not exist at the given place."""


class RouterError(RouteLLMError, RuntimeError):
    """A router or embedder failed, or returned something that is not a win rate."""


class DeadlineError(RouterError, TimeoutError):
    """The router did not answer within the policy's deadline."""


class EmptyAnswerError(RouteLLMError, RuntimeError):
    """A model answered without any content, tool call or finish reason."""


class MissingExtraError(RouteLLMError, ImportError):
    """An optional dependency is not installed; the message gives the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an optional dependency. Install it with: pip install 'routellm-adapters[{extra}]', or in a "
            f"checkout of the repository: pip install '.[{extra}]'"
        )
        self.extra = extra


class LimitError(RouteLLMError, RuntimeError):
    """A limit that is set to refuse calls has been reached."""
