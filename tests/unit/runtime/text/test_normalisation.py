from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.text.normalisation import fold_key, normalise_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
UNSEEN = st.sampled_from(
    ["\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\x00", "\x7f"]
)
WHITE = st.sampled_from([" ", "\t", "\n", "\u00a0", "\u3000", "\u2028", "\x85"])


@pytest.mark.parametrize(
    "spelling",
    [
        "Nestl\u00e9",
        "Nestle\u0301",
        "Ne\u200bstl\u00e9",
        "Nestle\u200b\u0301",
        "\ufeffNestl\u00e9",
        "Nestl\u00e9\u3000",
        "Nes\u00adtl\u00e9\x00",
    ],
)
def test_spellings_that_look_alike_are_one(spelling: str) -> None:
    assert normalise_text(spelling) == "Nestl\u00e9"


def test_white_space_of_all_kinds_is_one_space() -> None:
    assert normalise_text("\u00a0Acme\t\u200b \u3000Pets\n") == "Acme Pets"


@pytest.mark.parametrize("name", ["", "\u200b", " \ufeff\u2060 ", "\x00\x1b", "\u3164", "\u00ad"])
def test_a_text_without_visible_characters_becomes_empty(name: str) -> None:
    assert normalise_text(name) == ""


@pytest.mark.parametrize(
    "name", ["Acme", "ACME", "\uff21cme", "麦穗", "M&M's", "½ Price", "Zéphyr"]
)
def test_visibly_different_texts_stay_different(name: str) -> None:
    assert normalise_text(name) == name


@given(TEXTS)
def test_evening_out_twice_changes_nothing(text: str) -> None:
    assert normalise_text(normalise_text(text)) == normalise_text(text)
    assert normalise_text(unicodedata.normalize("NFD", text)) == normalise_text(text)


def test_no_format_or_control_character_of_unicode_is_left() -> None:
    """The module lists the characters of every version of Python; this version knows some."""
    hidden = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in {"Cf", "Cc"} and not character.isspace()
    ]
    assert normalise_text("".join(hidden)) == ""


@pytest.mark.parametrize(
    "key",
    [
        "gender",
        "gender ",
        "\u00a0gender",
        "Gender",
        "GENDER",
        "gen der",
        "gen\u200bder",
        "\uff47\uff45\uff4e\uff44\uff45\uff52",
        "\uff27ender\u3000",
        "g\u2060e\ufe0fnder\x00",
        "\u1d4d\u1d49\u207f\u1d48\u1d49\u02b3",
    ],
)
def test_every_spelling_of_a_key_folds_to_one(key: str) -> None:
    assert fold_key(key) == "gender"


@pytest.mark.parametrize(("one", "other"), [("STRASSE", "straße"), ("ÉTAT", "e\u0301tat")])
def test_case_folds_beyond_ascii(one: str, other: str) -> None:
    assert fold_key(one) == fold_key(other)


def test_different_keys_stay_different() -> None:
    assert len({fold_key(key) for key in ("gender", "genders", "gender_2", "age", "état")}) == 5


@given(TEXTS, st.lists(st.tuples(st.integers(0, 12), UNSEEN | WHITE), max_size=4))
def test_invisible_characters_do_not_change_a_key(key: str, noise: list[tuple[int, str]]) -> None:
    spelt = key
    for place, character in noise:
        spelt = spelt[:place] + character + spelt[place:]
    assert fold_key(spelt) == fold_key(key)
    assert fold_key(fold_key(key)) == fold_key(key)
