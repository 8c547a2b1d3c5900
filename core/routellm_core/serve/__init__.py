"""An OpenAI-compatible server that routes: `create_app` makes an ASGI app, `run` serves it; extra ``serve``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routellm_core.errors import MissingExtraError

if TYPE_CHECKING:
    from routellm_core.serve.app import App, create_app
    from routellm_core.serve.controller import ROUTER_CLS, Controller, ModelPair, RoutingError
    from routellm_core.serve.run import run
    from routellm_core.serve.upstream import Upstream

__all__ = ["ROUTER_CLS", "App", "Controller", "ModelPair", "RoutingError", "Upstream", "create_app", "run"]

# the server and the controller each need packages that the other does not
_WHERE = {
    "App": "app",
    "ROUTER_CLS": "controller",
    "Controller": "controller",
    "ModelPair": "controller",
    "RoutingError": "controller",
    "Upstream": "upstream",
    "create_app": "app",
    "run": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    except ModuleNotFoundError as exc:
        if str(exc.name).partition(".")[0] not in ("aiohttp", "prometheus_client", "yarl"):
            raise
        raise MissingExtraError("The server", "serve") from None
