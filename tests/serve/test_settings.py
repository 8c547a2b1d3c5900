"""Settings: TOML and the command line, what they refuse, and what the server never does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from routellm_core import ConfigurationError, ShareLimit, SpendLimit
from routellm_core.cli import main
from routellm_core.serve import Upstream, create_app
from routellm_core.serve.run import check_exposure
from routellm_core.serve.settings import read_settings, server_of

TOML = """
strong_fraction = 0.3
failover = true
sticky = true
client_key_env = ["APP_KEY", "OTHER_KEY"]
port = 7070

[strong]
model = "big"
key_env = "BIG_KEY"
price = "2/8"

[weak]
model = "small"
url = "http://127.0.0.1:8000/v1"
price = ".4/1.6"
profile = { image_inputs = false }

[[limits]]
kind = "spend"
money = 5
per = "day"
key = "client"

[[limits]]
kind = "share"
key = "user_id"
strong_fraction = 0.4
"""
ENVIRON = {"APP_KEY": "a", "OTHER_KEY": "b", "BIG_KEY": "sk-1"}
SIDES = {"strong": {"model": "big"}, "weak": {"model": "small"}}


def test_a_file_describes_a_server(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text(TOML)
    server = server_of(read_settings(file), ENVIRON)
    assert (server.host, server.port) == ("127.0.0.1", 7070)
    app = server.app
    assert app.upstreams["strong"] == Upstream("big", key="sk-1")
    assert app.upstreams["weak"] == Upstream("small", "http://127.0.0.1:8000/v1")
    assert app.policy.strong_fraction == 0.3
    assert [type(limit) for limit in app.policy.limits] == [SpendLimit, ShareLimit]
    assert app.routing.failover
    assert app.routing.sticky.key == "conversation"  # type: ignore[union-attr]
    assert app.routing.weak_profile == {"image_inputs": False}
    assert "sk-1" not in repr(app.upstreams["strong"])


def test_a_file_may_name_the_sides_like_the_command_line(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text(
        """
        strong = "big"
        strong-key-env = "BIG_KEY"
        weak_url = "http://127.0.0.1:8000/v1"
        strong-fraction = 0.3

        [weak]
        model = "small"
        """
    )
    app = server_of(read_settings(file), ENVIRON).app
    assert app.upstreams["strong"] == Upstream("big", key="sk-1")
    assert app.upstreams["weak"] == Upstream("small", "http://127.0.0.1:8000/v1")
    assert app.policy.strong_fraction == 0.3


def test_a_setting_of_a_side_stands_in_one_place(tmp_path):
    file = tmp_path / "routellm.toml"
    file.write_text('strong_url = "http://a/v1"\n[strong]\nmodel = "big"\nurl = "http://b/v1"\n')
    with pytest.raises(ConfigurationError, match=r"strong_url: stands in the table \[strong\], too; leave one"):
        read_settings(file)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "strong.model and weak.model"),
        ({**SIDES, "strong_fracton": 0.3}, "did you mean strong_fraction"),
        ({**SIDES, "strong": {"model": "a", "keyenv": "K"}}, "did you mean strong.key_env"),
        ({**SIDES, "strong": "gpt"}, "expected a table"),
        ({**SIDES, "strong": {"model": "a", "key_env": "NOT_THERE"}}, "NOT_THERE is not set"),
        ({**SIDES, "client_key_env": "NOT_THERE"}, "NOT_THERE is not set"),
        ({**SIDES, "limits": [{"kind": "spend", "money": 1}]}, "strong.price"),
        ({**SIDES, "strong": {"model": "a", "price": "2/8"}}, "nothing uses it: name a log"),
        (
            {
                **SIDES,
                "weak": {"model": "a", "price": "0/0"},
                "limits": [{"kind": "share", "key": "u", "strong_fraction": 0.5}],
            },
            "nothing uses it: name a log",
        ),
        ({"tiers": [{"model": "a"}, {"model": "b", "share": 0.5, "price": "2/8"}]}, "nothing uses it: name a log"),
        ({**SIDES, "limits": [{"kind": "time"}]}, "expected one of spend, share"),
        ({**SIDES, "limits": [{"kind": "share", "key": "u"}]}, "see ShareLimit"),
        ({**SIDES, "limits": 1}, "limits"),
        ({**SIDES, "other": "both"}, "'strong', 'weak' or 'none'"),
        ({**SIDES, "body_timeout": -1}, "body_timeout"),
        ({**SIDES, "weak": {"model": "a", "url": "localhost:8000"}}, "base URL"),
        ({**SIDES, "weak": {"model": "a", "url": "http://me:secret@host/v1"}}, "does not belong in the URL"),
        ({**SIDES, "threshold": 1.5}, "threshold=1.5"),
    ],
)
def test_what_is_wrong_is_said(settings, words):
    with pytest.raises(ConfigurationError, match=words) as refused:
        server_of(settings, ENVIRON)
    assert "secret" not in str(refused.value)


def test_a_key_in_place_of_a_name_is_not_shown():
    with pytest.raises(ConfigurationError) as refused:
        server_of({**SIDES, "strong": {"model": "a", "key_env": "sk-proj-12345"}}, {})
    assert "12345" not in str(refused.value)


@pytest.mark.parametrize("content", [b"strong = ", b"\xff", b"x" * 2_000_000])
def test_a_file_that_is_no_toml(tmp_path, content):
    file = tmp_path / "server.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"server\.toml"):
        read_settings(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_it_does_not_lend_its_keys_to_a_network(host):
    sides = {"model": "m", "url": "http://127.0.0.1:1/v1"}
    keyed = create_app({**sides, "key": "sk"}, sides, threshold=0.5)
    with pytest.raises(ConfigurationError, match="client-key-env"):
        check_exposure(keyed, host)
    for address in ("127.0.0.1", "localhost", "::1", "127.0.0.5"):
        check_exposure(keyed, address)
    check_exposure(create_app(sides, sides, threshold=0.5), host)
    check_exposure(create_app({**sides, "key": "sk"}, sides, threshold=0.5, client_keys="c"), host)


def test_the_command_refuses_it_too(monkeypatch, capsys):
    monkeypatch.setenv("BIG_KEY", "sk-very-secret")
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--strong", "a", "--weak", "b", "--strong-key-env", "BIG_KEY", "--host", "0.0.0.0"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "--client-key-env" in told
    assert "secret" not in told


def test_the_command_serves(tmp_path):
    """As a user starts it: a process of its own, with a file of settings and an option that wins over it."""
    import os
    import re
    import signal

    from tests.serve.conftest import EASY, chat
    from tests.support.openai_server import OpenAIServer
    from tests.support.serving import post
    from tests.support.waiting import LIMIT

    with OpenAIServer() as upstream:
        file = tmp_path / "server.toml"
        file.write_text(f'port = 1\n[strong]\nmodel = "big"\nurl = "{upstream.base_url}"\n')
        code = "import sys; from routellm_core.cli import main; main(sys.argv[1:])"
        words = ["serve", "--config", str(file), "--weak", "small", "--weak-url", upstream.base_url, "--port", "0"]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, env=env)
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                found = re.search(r"running on (http://127.0.0.1:\d+)", line)
                if found:
                    break
            assert found
            assert any("50% by default" in line and "--strong-fraction" in line for line in lines)
            assert post(found[1], "/v1/chat/completions", chat(EASY)).status == 200
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=LIMIT)


@pytest.mark.parametrize("models", [SIDES, {"tiers": [{"model": "small"}, {"model": "big", "share": 0.5}]}])
def test_prices_without_a_log_to_write_the_costs_to_are_refused(models):
    with pytest.raises(ConfigurationError, match=r"prices= is given without log=.*pass log="):
        create_app(**models, router=lambda prompts: [0.5] * len(prompts), threshold=0.5, prices={"big": (2, 8)})
