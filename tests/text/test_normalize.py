import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.errors import UserError
from las.text.normalize import STYLES, nfc, normalize

# Any text at all, lone surrogates among it, and texts where signs that meet each other are likely.
TEXTS = st.text() | st.text(
    alphabet="aßΣİeé\u0301\u0323'’ʼ-— \t\u3000\u200b\u200d\ufe0f\ufeff한ᄒ ᅡᆫकि्ा❤.,1½ｶﾞﾡ\u0640１＇"
)


@given(TEXTS, st.sampled_from(sorted(STYLES)))
def test_every_style_is_idempotent_nfc_and_never_raises(text, style):
    once = normalize(text, style)
    assert normalize(once, style) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())


@given(TEXTS, st.sampled_from(sorted(STYLES)))
def test_composed_and_decomposed_text_are_one(text, style):
    assert normalize(unicodedata.normalize("NFD", text), style) == normalize(text, style)


def test_hangul_jamo_become_syllables():
    jamo = unicodedata.normalize("NFD", "한국어를 듣는다")
    assert len(jamo) > len("한국어를 듣는다")
    assert nfc("\ufeff하나\ufeff") == "하나"  # what a file saved by Notepad begins with
    assert nfc(jamo) == "한국어를 듣는다" == normalize(jamo, "basic")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Hello, WORLD!", "hello world"),
        ("Don’t; won`t, it´s ʼtis", "don't won't it's tis"),
        ("the dogs' 'rock 'n' roll'", "the dogs rock n roll"),
        ("O''Neil", "o neil"),
        ("a well-known — and/or – thing…really", "a well known and or thing really"),
        ("Room 101, 3.14 or 50%?", "room 101 3 14 or 50"),
        ("나는 학교에 간다.", "나는 학교에 간다"),
        ("你好，世界！", "你好 世界"),
        ("हिन्दी में।", "हिन्दी में"),
        ("１２３　Ｄｏｎ＇ｔ，ｶﾞｷﾞ", "123 don't ガギ"),
        ("كـتـاب", "كتاب"),
        ("Tôi yêu tiếng Việt!", "tôi yêu tiếng việt"),
        ("Straße ΟΔΥΣΣΕΥΣ Élan", "straße οδυσσευς élan"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffmark", "softhyphen zero width mark"),
        ("I ❤️ it 1️⃣ !\u0301", "i it 1\u20e3"),
        ("?!…", ""),
        ("", ""),
    ],
)
def test_basic_keeps_what_is_said(written, words):
    assert normalize(written, "basic") == words


def test_verbatim_changes_white_space_only():
    assert normalize("\n It’s  50%,\u3000Tom! \r\n", "verbatim") == "It’s 50%, Tom!"


def test_unknown_style_names_the_nearest():
    with pytest.raises(
        UserError, match=r"unknown text style 'bsic'; did you mean 'basic'\? \(known: verbatim, basic\)"
    ):
        normalize("a", "bsic")
    with pytest.raises(UserError, match=r"unknown text style '' \(known: verbatim, basic\)"):
        normalize("a", "")
