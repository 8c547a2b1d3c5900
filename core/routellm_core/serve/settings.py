"""The settings of a server, from a TOML file and the command line, and the app that they describe."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from routellm_core.calibration.distribution import Calibration
from routellm_core.errors import ConfigurationError
from routellm_core.log import TrafficLog
from routellm_core.policy.limits import Limit, ShareLimit, SpendLimit
from routellm_core.policy.options import RoutingOptions
from routellm_core.policy.savings import Price
from routellm_core.policy.stickiness import Stickiness
from routellm_core.routers import load_router
from routellm_core.serve.app import App, create_app

_MAX_FILE = 1 << 20
# the header x-routellm-conversation fills it
_CONVERSATION = "conversation"
_SIDES = ("strong", "weak")
_SIDE_SETTINGS = frozenset({"model", "url", "key_env", "pass_client_key", "price", "profile"})
_LISTENING = frozenset({"host", "port", "max_connections"})
_APP = frozenset({"other", "max_body", "body_timeout", "connect_timeout", "read_timeout"})
# what a file cannot hold is made from something that it can: see `_options`
_OPTIONS = frozenset(RoutingOptions.__optional_keys__) - {"policy", "route_on", "weak_profile", "synthetic_markers"}
_SETTINGS = frozenset({*_SIDES, "client_key_env", *_LISTENING, *_APP, *_OPTIONS})
_LIMITS: Mapping[str, type[Limit]] = {"spend": SpendLimit, "share": ShareLimit}
_DEFAULT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Server:
    """An app, and where it listens.

    Attributes:
        app: The app.
        host: Address.
        port: TCP port.
        max_connections: Requests and connections beyond this many are answered 503; None has no limit.
    """

    app: App
    host: str = "127.0.0.1"
    port: int = 6060
    max_connections: int | None = 4096


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings that a TOML file holds.

    Raises:
        ConfigurationError: There is no such file, it is not TOML, or it is too large to be one of settings.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()[: _MAX_FILE + 1]
    except OSError as exc:
        raise ConfigurationError(f"{file}: cannot be read ({exc.strerror or type(exc).__name__})") from None
    if len(raw) > _MAX_FILE:
        raise ConfigurationError(f"{file}: larger than {_MAX_FILE} bytes; expected a TOML file of settings")
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{file}: is not TOML ({exc})") from None


def server_of(settings: Mapping[str, Any], environ: Mapping[str, str]) -> Server:
    """The server that settings describe.

    Args:
        settings: The options of `RoutingOptions` and `create_app` by name; ``strong`` and ``weak`` as mappings with
            ``model``, ``url``, ``key_env``, ``pass_client_key``, ``price`` (``"IN/OUT"``) and ``profile``;
            ``client_key_env``; ``limits`` as mappings with ``kind`` ``"spend"`` or ``"share"``; ``host`` and ``port``.
        environ: Where the keys are looked for.

    Raises:
        ConfigurationError: A setting is unknown or has a value that is not allowed, or a key is not there.
    """
    _check_names(settings, _SETTINGS, "")
    missing = [f"{side}.model" for side in _SIDES if not _table(settings, side).get("model")]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)}: missing; give --strong MODEL and --weak MODEL")
    app = create_app(
        _upstream(settings, "strong", environ),
        _upstream(settings, "weak", environ),
        client_keys=_client_keys(settings.get("client_key_env"), environ),
        **{name: settings[name] for name in _APP if name in settings},
        **_options(settings),
    )
    return Server(app, **{name: settings[name] for name in _LISTENING if name in settings})


def _upstream(settings: Mapping[str, Any], side: str, environ: Mapping[str, str]) -> dict[str, Any]:
    table = dict(_table(settings, side))
    _check_names(table, _SIDE_SETTINGS, f"{side}.")
    key_env = table.pop("key_env", None)
    kept = {name: value for name, value in table.items() if name not in ("price", "profile")}
    return kept if key_env is None else {**kept, "key": _key(key_env, f"{side}.key_env", environ)}


def _client_keys(names: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """The keys of the clients by the variable that holds each."""
    if names is None:
        return {}
    wanted = names if isinstance(names, list | tuple) else [names]
    return {name: _key(name, "client_key_env", environ) for name in wanted}


def _key(name: Any, setting: str, environ: Mapping[str, str]) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{setting}={name!r:.80}: expected the name of an environment variable")
    key = environ.get(name, "").strip()
    if not key:
        # a key that was given in place of a name must not be shown
        shown = name if name.isidentifier() and name.isupper() else "the variable"
        raise ConfigurationError(f"{setting}: {shown} is not set in the environment; it has to hold the key")
    return key


def _options(settings: Mapping[str, Any]) -> RoutingOptions:
    options = {name: settings[name] for name in _OPTIONS if name in settings}
    if isinstance(options.get("router"), str):
        options["router"] = load_router(options["router"])
    if isinstance(options.get("calibration"), str):
        options["calibration"] = Calibration.load(options["calibration"])
    if options.get("sticky") is True:
        options["sticky"] = Stickiness(_CONVERSATION)
    if isinstance(options.get("explore_band"), list):
        options["explore_band"] = tuple(options["explore_band"])
    if isinstance(options.get("log"), str):
        priced = {side: _table(settings, side)["price"] for side in _SIDES if "price" in _table(settings, side)}
        prices = {side: _price(price, side) for side, price in priced.items()}
        options["log"] = TrafficLog(options["log"], prices=prices or None)
    if "limits" in options:
        options["limits"] = _limits(options["limits"], settings)
    if options.get("threshold") is None and options.get("strong_fraction") is None:
        options["strong_fraction"] = _DEFAULT_SHARE
    profile = _table(settings, "weak").get("profile")
    return {**options, "weak_profile": profile}  # type: ignore[typeddict-item]


def _limits(given: Any, settings: Mapping[str, Any]) -> list[Limit]:
    if not isinstance(given, list) or not all(isinstance(table, Mapping) for table in given):
        raise ConfigurationError('limits: expected tables, each [[limits]] with kind = "spend" or "share"')
    made = []
    for table in given:
        rest = dict(table)
        kind = rest.pop("kind", None)
        if kind not in _LIMITS:
            raise ConfigurationError(f"limits.kind={kind!r:.80}: expected one of {', '.join(_LIMITS)}")
        if kind == "spend":
            rest["prices"] = {side: _price(_table(settings, side).get("price"), side) for side in _SIDES}
        try:
            made.append(_LIMITS[kind](**rest))
        except TypeError:
            raise ConfigurationError(
                f"limits ({kind}): the settings {', '.join(sorted(set(table) - {'kind'})) or 'none'} are not those "
                f"that it has; see {_LIMITS[kind].__name__}"
            ) from None
    return made


def _price(value: Any, side: str) -> Price:
    try:
        amounts = [float(part) for part in value.split("/")]
        return Price(*amounts)
    except (AttributeError, TypeError, ValueError):
        raise ConfigurationError(
            f'{side}.price={value!r:.80}: expected "IN/OUT", money per million tokens; a limit on spending needs it'
        ) from None


def _table(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = settings.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{name}={table!r:.80}: expected a table [{name}] with model, url and key_env")
    return table


def _check_names(given: Mapping[str, Any], known: frozenset[str], prefix: str) -> None:
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise ConfigurationError(f"{prefix}{name}: there is no such setting; {hint}")
