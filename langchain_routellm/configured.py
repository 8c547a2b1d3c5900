"""A side that the settings of each call make, changed once they have made it; loaded where a side is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig
from langchain_core.runnables.configurable import DynamicRunnable


class ChangedWhenConfigured(DynamicRunnable[Any, Any]):
    """A configurable model whose chat model is changed after each call's settings have been applied."""

    default: Any
    configurable_model: Any
    changed: Callable[[Any], Any]

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return cast("list[ConfigurableFieldSpec]", self.configurable_model.config_specs)

    def _prepare(self, config: RunnableConfig | None = None) -> tuple[Runnable[Any, Any], RunnableConfig]:
        chosen, config = self.configurable_model.prepare(config)
        if chosen is self.configurable_model.default:
            return self.default, config
        return self.changed(chosen), config
