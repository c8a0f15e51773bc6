"""The short way for tags in ASCII gives what the long way gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import spelling
from pipeline.config_catalog import CleanSettings

ASCII = st.text(st.characters(max_codepoint=127), max_size=12)
PUNCTUATED = st.text("aB -_#!.&%\t\x1c\x7f'", max_size=8)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_punctuation", [True, False])
@given(tag=ASCII | PUNCTUATED)
def test_a_tag_in_ascii_is_cleaned_as_any_other(lowercase, strip_punctuation, tag):
    plain = {"unescape_html": False, "unescape_url": False}
    clean = CleanSettings(lowercase=lowercase, strip_punctuation=strip_punctuation, **plain)
    short, long = set(), set()
    assert spelling.normalise(tag, clean, short) == spelling._normalise_any(tag, clean, long)
    assert short <= long
