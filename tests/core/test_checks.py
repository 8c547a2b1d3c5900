"""Checks that every room shares: each accepts exactly what it says, and names the parameter, the value and the fix."""

import json
import math
import os
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core import ConfigurationError, PromptError, RouterError
from routellm_core.checks import (
    checked_count,
    checked_flag,
    checked_fraction,
    checked_prompts,
    checked_seconds,
    checked_side,
    checked_win_rates,
    imported_object,
    is_number,
    other_side,
    read_only,
    same_file,
    write_json,
)

NOT_NUMBERS = [True, False, None, "1", [1], 1j, math.nan, math.inf, -math.inf, 10**400, np.bool_(True), np.array([1])]


@pytest.mark.parametrize("value", [0, -3, 1.5, np.int8(4), np.float32(0.5), np.float64(0.5), 10**300])
def test_finite_real_numbers_are_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_what_is_no_finite_real_number(value):
    assert not is_number(value)
    with pytest.raises(ConfigurationError, match=r"^share=.*expected a number between 0 and 1") as caught:
        checked_fraction(value, "share")
    assert str(caught.value).endswith(", not a string; write 0.3 for 30 %") == isinstance(value, str)
    if value is not None:
        with pytest.raises(ConfigurationError, match=r"^wait=.*number of seconds > 0, or None to wait"):
            checked_seconds(value, "wait", without="to wait")


@given(st.floats(0, 1) | st.sampled_from([0, 1, np.float32(0.25), np.int64(1)]))
def test_a_fraction_is_returned_as_float(value):
    found = checked_fraction(value, "share")
    assert type(found) is float
    assert found == value


@pytest.mark.parametrize("value", [-1e-9, -1, 1.0000001, 2, 30, 100, 101, 1000])
def test_what_is_outside_is_refused_and_percents_are_explained(value):
    with pytest.raises(ConfigurationError, match=r"^share=") as caught:
        checked_fraction(value, "share")
    assert (f"; write {value / 100:g} for {value:g} %" in str(caught.value)) == (1 < value <= 100)


@pytest.mark.parametrize("least", [0, 1, 2])
def test_a_count_has_a_least(least):
    for value in (least, least + 1, np.int64(least)):
        found = checked_count(value, "size", least=least)
        assert type(found) is int
        assert found == value
    for value in (least - 1, True, 2.0, "3", None):
        with pytest.raises(ConfigurationError, match=rf"^size={value!r}: expected an integer >= {least}$"):
            checked_count(value, "size", least=least)
    with pytest.raises(ConfigurationError, match=r"size=0: expected a number of prompts, an integer >= 1"):
        checked_count(0, "size", unit="prompts")


def test_a_value_is_named_in_short():
    with pytest.raises(ConfigurationError) as caught:
        checked_count("x" * 1000, "size")
    assert len(str(caught.value)) < 130


@pytest.mark.parametrize("value", [True, False])
def test_a_flag_is_a_boolean(value):
    assert checked_flag(value, "online") is value


@pytest.mark.parametrize("value", [0, 1, "yes", None, np.bool_(True)])
def test_what_is_no_flag(value):
    with pytest.raises(ConfigurationError, match=r"^online=.*expected True or False"):
        checked_flag(value, "online")


def test_seconds():
    assert checked_seconds(None, "wait", without="to wait") is None
    for value in (1, 0.5, 1e-300, np.float32(2.0)):
        found = checked_seconds(value, "wait", without="to wait")
        assert type(found) is float
        assert found == value
    for value in (0, 0.0, -1):
        with pytest.raises(ConfigurationError, match="wait="):
            checked_seconds(value, "wait", without="to wait")


def test_sides():
    assert [checked_side(side, "on_error") for side in ("strong", "weak")] == ["strong", "weak"]
    assert [other_side(side) for side in ("strong", "weak")] == ["weak", "strong"]
    for value in ("Strong", "", None, 1, True):
        with pytest.raises(ConfigurationError, match=r"^on_error=.*'strong' or 'weak'"):
            checked_side(value, "on_error")


def test_prompts_are_a_list_of_strings():
    assert checked_prompts(("a", "")) == ["a", ""]
    assert checked_prompts(p for p in "ab") == ["a", "b"]
    for value, words in (
        ("one", "wrap a single prompt"),
        (b"one", "wrap a single prompt"),
        (None, "prompts=None"),
        (7, "prompts=7"),
        ([], "prompts is empty"),
        (["a", None], r"prompts\[1\] is NoneType"),
        ([b"a"], r"prompts\[0\] is bytes"),
    ):
        with pytest.raises(PromptError, match=words):
            checked_prompts(value)


@pytest.mark.parametrize(
    "values",
    [
        [0, 1],
        (0.0, 1.0),
        np.array([0.0, 1.0], dtype=np.float16),
        [False, True],
        [Decimal(0), Decimal(1)],
        [Fraction(0), 1],
        np.array([0, 1], dtype=np.uint8),
    ],
)
def test_win_rates_are_real_numbers_of_any_type(values):
    found = checked_win_rates(values, 2, "mine")
    assert found.dtype == np.float64
    assert found.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5], r"list of shape \(1,\) for 2 prompts"),
        (0.5, r"float of shape \(\)"),
        (None, r"NoneType of shape \(\)"),
        ([[0.5, 0.5]], r"shape \(1, 2\)"),
        ([[0.5], [0.5, 0.5]], "not an array of numbers"),
        (["0.5", "0.5"], "real numbers"),
        ([0.5, 1j], "real numbers"),
        ([None, 0.5], "real numbers"),
        ([0.5, math.nan], "win rate nan for prompt 1"),
        ([-1e-9, 2.0], "win rate -1e-09 for prompt 0"),
        ([1.0, 1.0000001], "win rate 1.0000001 for prompt 1"),
    ],
)
def test_what_is_no_win_rate_is_an_error_of_the_router(values, words):
    with pytest.raises(RouterError, match=rf"^router 'mine' returned .*{words}"):
        checked_win_rates(values, 2, "mine")


def test_objects_are_imported_by_name(tmp_path, monkeypatch):
    assert imported_object("routellm_core.checks:is_number", "router") is is_number
    assert imported_object("decimal:Decimal.from_float", "router") == Decimal.from_float
    for value, words in (
        ("nowhere.at_all:X", "module nowhere.at_all cannot be imported: ModuleNotFoundError"),
        ("routellm_core.checks:nothing", "has no attribute 'nothing'"),
    ):
        with pytest.raises(ConfigurationError, match=rf"^router=.*{words}"):
            imported_object(value, "router")
    (tmp_path / "mine_here.py").write_text("VALUE = 7\n")
    (tmp_path / "broken_here.py").write_text("import nowhere_else\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", ".")])
    before = list(sys.path)
    with pytest.raises(ConfigurationError, match="'not_here'"):
        imported_object("not_here:VALUE", "router")
    assert sys.path == before  # a module that is not in the working directory does not put it on the path
    assert imported_object("mine_here:VALUE", "router") == 7
    with pytest.raises(ConfigurationError, match="nowhere_else"):
        imported_object("broken_here:VALUE", "router")


def test_read_only_arrays_cannot_be_spoilt():
    with pytest.raises(ValueError, match="read-only"):
        read_only(np.zeros(2))[0] = 1.0


def test_json_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "state.json"
    write_json(file, {"a": [1, None]})
    assert file.read_text() == '{"a": [1, null]}\n'
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": [1, None]}
    assert os.listdir(tmp_path) == ["state.json"]


def test_the_same_file_by_any_name(tmp_path):
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("x")
    assert same_file(file, tmp_path / "sub" / ".." / "a")
    assert not same_file(file, other)
    assert not same_file(other, file)
    assert same_file(other, other)  # neither has to exist
    (tmp_path / "soft").symlink_to(file)
    os.link(file, tmp_path / "hard")
    assert same_file(tmp_path / "soft", file)
    assert same_file(tmp_path / "hard", file)
    other.write_text("x")
    assert not same_file(file, other)
