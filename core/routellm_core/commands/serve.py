"""`routellm serve`: the OpenAI-compatible server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from routellm_core.errors import MissingExtraError


def serve(
    strong: Annotated[str | None, typer.Option(help="Name of the strong model, as its server calls it.")] = None,
    weak: Annotated[str | None, typer.Option(help="Name of the weak model.")] = None,
    strong_url: Annotated[
        str | None, typer.Option(help="Base URL of the strong model's API.", show_default="OpenAI's")
    ] = None,
    weak_url: Annotated[
        str | None, typer.Option(help="Base URL of the weak model's API.", show_default="OpenAI's")
    ] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option(
            help="MODEL=URL of each model where there are more than two, the cheapest first; MODEL alone is OpenAI's."
        ),
    ] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=SHARE: share of all calls of a tier, 0 to 1; for each tier but the cheapest."),
    ] = None,
    tier_key_env: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=VARIABLE: environment variable that holds the key for a tier's server."),
    ] = None,
    strong_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key for the strong model's server.")
    ] = None,
    weak_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key for the weak model's server.")
    ] = None,
    client_key_env: Annotated[
        list[str] | None,
        typer.Option(help="Environment variable with a key that clients must send. May be given again."),
    ] = None,
    pass_client_key: Annotated[
        list[str] | None,
        typer.Option(help="strong, weak or a tier: send the client's own key on to it. May be given again."),
    ] = None,
    strong_fraction: Annotated[
        float | None, typer.Option(help="Wanted share of strong calls, 0 to 1.", show_default="0.5")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Threshold itself, instead of a share.")] = None,
    router: Annotated[
        str | None,
        typer.Option(
            "--router",
            "-r",
            help="Router: a name, the directory of a saved one, or your own as package.module:Class.",
            show_default="mf_vote, the bundled one",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Calibration file, fitted on your own prompts.", show_default="the router's own"),
    ] = None,
    failover: Annotated[
        bool | None,
        typer.Option("--failover", help="The other model answers when one fails before its first token."),
    ] = None,
    online: Annotated[
        bool | None, typer.Option("--online", help="Move the threshold with the traffic, so that the share is kept.")
    ] = None,
    sticky: Annotated[
        bool | None,
        typer.Option("--sticky", help="Keep a conversation strong once it was; a header names conversations."),
    ] = None,
    overrides: Annotated[
        bool | None,
        typer.Option(
            "--overrides/--no-overrides",
            help="Whether clients may choose a side or a threshold, by header or model name.",
            show_default="--overrides",
        ),
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="Database that calls are logged to, such as sqlite:///traffic.db.")
    ] = None,
    shadow: Annotated[
        float | None,
        typer.Option(help="Share of the calls that the other model answers, too, for the log alone.", show_default="0"),
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds that the router may take.")] = None,
    other: Annotated[
        str | None,
        typer.Option(
            help="Where paths go that are not routed, such as embeddings: strong, weak or none.", show_default="strong"
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="6060")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of settings, which knows every option, limits too; the command line wins."),
    ] = None,
) -> None:
    """Serve OpenAI's API in front of two or more models.

    Each request goes to the strong or the weak model, or to one of several tiers.

    Example: routellm serve --strong gpt-4.1 --strong-key-env OPENAI_API_KEY --weak small --weak-url
    http://127.0.0.1:8000/v1 --strong-fraction 0.3

    Example: routellm serve --tier small=http://127.0.0.1:8000/v1 --tier gpt-4.1-mini --tier gpt-4.1
    --share gpt-4.1-mini=0.3 --share gpt-4.1=0.1 --tier-key-env gpt-4.1=OPENAI_API_KEY
    """
    try:
        import uvicorn  # noqa: F401 - the server needs it; better said here than after the router has loaded

        from routellm_core.serve.run import run
        from routellm_core.serve.settings import DEFAULT_SHARE, read_settings, server_of, tier_tables
    except ImportError as exc:
        if isinstance(exc, MissingExtraError):
            raise
        raise MissingExtraError("routellm serve", "serve") from None
    settings = {} if config is None else read_settings(config)
    passed = pass_client_key or []
    sides = {
        "strong": {"model": strong, "url": strong_url, "key_env": strong_key_env},
        "weak": {"model": weak, "url": weak_url, "key_env": weak_key_env},
    }
    for side, given in sides.items():
        table: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if side in passed:
            table["pass_client_key"] = True
        if table:
            settings[side] = {**settings.get(side, {}), **table}
    if tier or share or tier_key_env or "tiers" in settings:
        settings["tiers"] = tier_tables(settings.get("tiers"), tier or (), share or (), tier_key_env or (), passed)
    if strong_fraction is not None or threshold is not None:
        settings.pop("strong_fraction", None)
        settings.pop("threshold", None)
    told = {
        "client_key_env": client_key_env or None,
        "strong_fraction": strong_fraction,
        "threshold": threshold,
        "router": router,
        "calibration": None if calibration is None else str(calibration),
        "failover": failover,
        "online": online,
        "sticky": sticky,
        "allow_overrides": overrides,
        "log": log,
        "shadow": shadow,
        "deadline": deadline,
        "other": other,
        "host": host,
        "port": port,
    }
    settings |= {name: value for name, value in told.items() if value is not None}
    server = server_of(settings, os.environ)
    if settings.get("tiers") is None and settings.get("threshold") is None:
        share = settings.get("strong_fraction")
        note = " by default; set another share with --strong-fraction" if share is None else ""
        typer.echo(f"strong share of the calls: {DEFAULT_SHARE if share is None else share:.0%}{note}", err=True)
    run(server.app, host=server.host, port=server.port, max_connections=server.max_connections)
