"""The settings of a server, from a TOML file and the command line, and the app that they describe."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
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
_TIERS = "tiers"
_SIDE_SETTINGS = frozenset({"model", "url", "key_env", "pass_client_key", "price", "profile"})
_LISTENING = frozenset({"host", "port", "max_connections"})
_APP = frozenset({"other", "max_body", "body_timeout", "connect_timeout", "read_timeout"})
# what a file cannot hold is made from something that it can: see `_options`
_NOT_IN_A_FILE = {"policy", "route_on", "weak_profile", "synthetic_markers", "prices"}
_OPTIONS = frozenset(RoutingOptions.__optional_keys__) - _NOT_IN_A_FILE
_SETTINGS = frozenset({*_SIDES, _TIERS, "client_key_env", *_LISTENING, *_APP, *_OPTIONS})
_LIMITS: Mapping[str, type[Limit]] = {"spend": SpendLimit, "share": ShareLimit}
DEFAULT_SHARE = 0.5


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

    What the command line calls ``--strong MODEL`` and ``--strong-url URL`` may stand there by these names, in the place
    of a table ``[strong]``.

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
        given = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{file}: is not TOML ({exc})") from None
    return _with_tables(given)


def _with_tables(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of each side as a table, also those that have the names of the command line's options."""
    settings = {name.replace("-", "_"): value for name, value in given.items()}
    for side in _SIDES:
        named = {name: settings.pop(f"{side}_{name}") for name in ("url", "key_env") if f"{side}_{name}" in settings}
        if isinstance(settings.get(side), str):
            named["model"] = settings.pop(side)
        table = settings.get(side, {})
        if named and isinstance(table, Mapping):
            if twice := sorted(named.keys() & table.keys()):
                raise ConfigurationError(f"{side}_{twice[0]}: stands in the table [{side}], too; leave one of them out")
            settings[side] = {**table, **named}
    return settings


def server_of(settings: Mapping[str, Any], environ: Mapping[str, str]) -> Server:
    """The server that settings describe.

    Args:
        settings: The options of `RoutingOptions` and `create_app` by name; ``strong`` and ``weak`` as mappings with
            ``model``, ``url``, ``key_env``, ``pass_client_key``, ``price`` (``"IN/OUT"``) and ``profile``;
            or ``tiers``, a list of such mappings, the cheapest model first, each but that one with ``share``;
            ``client_key_env``; ``limits`` as mappings with ``kind`` ``"spend"`` or ``"share"``; ``host`` and ``port``.
        environ: Where the keys are looked for.

    Raises:
        ConfigurationError: A setting is unknown or has a value that is not allowed, or a key is not there.
    """
    _check_names(settings, _SETTINGS, "")
    models: dict[str, Any]
    if settings.get(_TIERS) is not None:
        both = [side for side in _SIDES if _table(settings, side)]
        if both:
            raise ConfigurationError(f"tiers and {' and '.join(both)} are given: tiers names all models; give one")
        models = {_TIERS: [_upstream(table, _TIERS, environ) for table in _tiers(settings)]}
    else:
        missing = [f"{side}.model" for side in _SIDES if not _table(settings, side).get("model")]
        if missing:
            raise ConfigurationError(
                f"{' and '.join(missing)}: missing; give --strong MODEL and --weak MODEL, or --tier MODEL=URL for each"
            )
        models = {side: _upstream(_table(settings, side), side, environ) for side in _SIDES}
    options = _options(settings)
    _check_use_of_prices(settings, options)
    app = create_app(
        **models,
        client_keys=_client_keys(settings.get("client_key_env"), environ),
        **{name: settings[name] for name in _APP if name in settings},
        **options,
    )
    return Server(app, **{name: settings[name] for name in _LISTENING if name in settings})


def tier_tables(
    given: Any, tiers: Sequence[str], shares: Sequence[str], key_envs: Sequence[str], passed: Sequence[str]
) -> list[dict[str, Any]]:
    """The tables of tiers from a file and a command line.

    Args:
        given: Those of the file, which tiers of the command line take the place of; None without any.
        tiers: ``MODEL=URL`` or ``MODEL``, the cheapest first.
        shares: ``MODEL=SHARE``.
        key_envs: ``MODEL=VARIABLE``.
        passed: Models that get the client's own key.

    Raises:
        ConfigurationError: A value does not have its form, or names a model that is not a tier.
    """
    tables = [dict(table) for table in _tiers({_TIERS: given})] if given is not None and not tiers else []
    for text in tiers:
        model, _, url = text.partition("=")
        tables.append({"model": model, **({"url": url} if url else {})})
    by_model = {table["model"]: table for table in tables}
    for option, name, texts in (("--share", "share", shares), ("--tier-key-env", "key_env", key_envs)):
        for text in texts:
            model, _, value = text.rpartition("=")
            if model not in by_model:
                known = ", ".join(by_model) or "none"
                raise ConfigurationError(f"{option}={text!r:.80}: expected MODEL=VALUE with a tier; tiers are {known}")
            by_model[model][name] = _share(value, option) if name == "share" else value
    for model in passed:
        if model in by_model:
            by_model[model]["pass_client_key"] = True
    return tables


def _share(value: str, option: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigurationError(f"{option}={value!r:.80}: expected a number between 0 and 1") from None


def _tiers(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tables = settings[_TIERS]
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) and table.get("model") for table in tables):
        raise ConfigurationError(f"{_TIERS}: expected tables, each [[{_TIERS}]] with model, url and share")
    return tables


def _upstream(given: Mapping[str, Any], side: str, environ: Mapping[str, str]) -> dict[str, Any]:
    table = dict(given)
    is_tier = side == _TIERS
    _check_names(table, _SIDE_SETTINGS | {"share"} if is_tier else _SIDE_SETTINGS, f"{side}.")
    key_env = table.pop("key_env", None)
    # of a tier the app takes the profile; of two sides the options do
    kept = {
        name: value for name, value in table.items() if name not in (["price"] if is_tier else ["price", "profile"])
    }
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
        options["log"] = TrafficLog(options["log"], prices=_prices(settings) or None)
    if "limits" in options:
        options["limits"] = _limits(options["limits"], settings)
    if settings.get(_TIERS) is not None:
        return options  # type: ignore[return-value]
    if options.get("threshold") is None and options.get("strong_fraction") is None:
        options["strong_fraction"] = DEFAULT_SHARE
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
            rest["prices"] = _side_prices(settings)
        try:
            made.append(_LIMITS[kind](**rest))
        except TypeError:
            raise ConfigurationError(
                f"limits ({kind}): the settings {', '.join(sorted(set(table) - {'kind'})) or 'none'} are not those "
                f"that it has; see {_LIMITS[kind].__name__}"
            ) from None
    return made


def _prices(settings: Mapping[str, Any]) -> dict[str, Price]:
    """The prices that are given, by side, or by model where there are tiers."""
    if settings.get(_TIERS) is not None:
        tables = {table["model"]: table for table in _tiers(settings)}
    else:
        tables = {side: _table(settings, side) for side in _SIDES}
    return {name: _price(table["price"], name) for name, table in tables.items() if "price" in table}


def _check_use_of_prices(settings: Mapping[str, Any], options: RoutingOptions) -> None:
    is_used = options.get("log") is not None or any(isinstance(x, SpendLimit) for x in options.get("limits") or ())
    if _prices(settings) and not is_used:
        raise ConfigurationError(
            "price is given, and nothing uses it: name a log (log = ... or --log), which then has the costs, or a "
            "limit on spending ([[limits]]), or leave price out"
        )


def _side_prices(settings: Mapping[str, Any]) -> dict[str, Price]:
    """The prices of both sides; of tiers, a limit on spending takes the highest one below the top for all of these."""
    if settings.get(_TIERS) is None:
        return {side: _price(_table(settings, side).get("price"), side) for side in _SIDES}
    prices = [_price(table.get("price"), str(table["model"])) for table in _tiers(settings)]
    below = prices[:-1]
    highest = Price(max(price.input for price in below), max(price.output for price in below))
    return {"strong": prices[-1], "weak": highest}


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
