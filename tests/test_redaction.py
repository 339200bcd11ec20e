"""What is taken out of texts, and what stays."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.redaction import HIDDEN, Redaction, without_credentials

WORD = st.text(string.ascii_letters + string.digits + "-._~!$*+%", min_size=8, max_size=24)


@given(
    scheme=st.sampled_from(["https", "http", "s3", "gs"]),
    slashes=st.sampled_from(["//", "/"]),
    user=WORD,
    word=WORD,
    signature=WORD,
    before=st.sampled_from(["", "/vsicurl/", "cannot open '", "url="]),
    after=st.sampled_from(["", "' here", " and more"]),
)
def test_no_address_in_a_text_keeps_user_password_or_query(
    scheme: str, slashes: str, user: str, word: str, signature: str, before: str, after: str
) -> None:
    text = f"{before}{scheme}:{slashes}u{user}:p{word}@host.example:8080/a/b.tif?se=1&sig=s{signature}{after}"
    found = without_credentials(text)
    assert f"p{word}" not in found
    assert f"u{user}" not in found
    assert f"s{signature}" not in found
    assert f"{scheme}:{slashes}host.example:8080/a/b.tif" in found
    assert found.startswith(before.removesuffix("url="))
    assert found.endswith(after)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host.example/a.tif", "https://host.example/a.tif"),
        ("https://me@host.example/a@b.tif", "https://host.example/a@b.tif"),
        ("https://me:a@b@host.example", "https://host.example"),
        ("two: https://a:b@c/d?e, s3://f:g@h/i", "two: https://c/d s3://h/i"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+g next", f"AWS_SECRET_ACCESS_KEY={HIDDEN} next"),
        ("X-Amz-Signature=0123abc&x=1", f"X-Amz-Signature={HIDDEN}&x=1"),
        ("Authorization: Bearer abcdefgh.ijkl", f"Authorization: Bearer {HIDDEN}"),
        ("key AKIAABCDEFGHIJKLMNOP was refused", f"key {HIDDEN} was refused"),
        ("bands: red=4 (B04), nir=8; overlap >= 64 px", "bands: red=4 (B04), nir=8; overlap >= 64 px"),
        ("the design=blue, a signature of 3 px", "the design=blue, a signature of 3 px"),
        ("--fill B10=0.1 C:/data/x.tif file:///a?b", "--fill B10=0.1 C:/data/x.tif file:///a?b"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_nothing_else(text: str, expected: str) -> None:
    assert without_credentials(text) == expected


@given(st.text())
def test_a_redacted_text_stays_as_it_is_when_it_is_redacted_again(text: str) -> None:
    once = without_credentials(text)
    assert without_credentials(once) == once


def test_values_of_variables_that_name_a_secret_are_hidden_and_those_of_others_stay() -> None:
    known = Redaction.of(
        {"MY_TOKEN": "opensesame", "AWS_SECRET_ACCESS_KEY": "k/ey+of==", "LANG": "english", "SHORT_SECRET": "ab"},
        "/home/jo",
    )
    assert known.text("opensesame, k/ey+of==, english, ab") == f"{HIDDEN}, {HIDDEN}, english, ab"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jo", "~"),
        ("/home/jo/a b.tif: gone", "~/a b.tif: gone"),
        ("'/home/jo/x'", "'~/x'"),
        ("/home/john/x", "/home/john/x"),
        ("/home/jo-2/x and /home/jo.old", "/home/jo-2/x and /home/jo.old"),
    ],
)
def test_the_home_folder_becomes_a_tilde_and_no_other_folder_does(text: str, expected: str) -> None:
    known = Redaction.of({}, "/home/jo/", "", "/")
    assert known.text(text) == expected
    assert known.secretless(text) == text


def test_plain_types_are_redacted_to_the_bottom_and_keep_their_numbers() -> None:
    known = Redaction(("opensesame",), ("/home/jo",))
    value = {"/home/jo/a": [1, 2.5, True, None, ("opensesame", {"b": "s3://x:y@z/w"})]}
    assert known.value(value) == {"~/a": [1, 2.5, True, None, [HIDDEN, {"b": "s3://z/w"}]]}
