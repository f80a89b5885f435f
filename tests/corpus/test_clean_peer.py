"""The rules and the plain pandas chain of benchmarks/peers make the same of any text."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lang1.config import CleanConfig
from lang1.corpus import rules

pd = pytest.importorskip("pandas")
PEER = Path(__file__).parents[2] / "benchmarks" / "peers" / "pandas_clean.py"
STEPS = rules.chosen_steps(CleanConfig())
PIECES = st.sampled_from([
    "{\\rtf1 ", "}", "\\par ", "\\'e9", "\\u8805?", "\\u-10179?\\u-8704?", "\\cell ", "<p>", "</td>", "<br>", "<",
    "&lt;",
    "&#0;", "&#12;", "{", '{"a": "', '", "b": "', '"}', "[", "\x00", "\x07", "\x0b", "\x0c", "\x1b", "\x1c", "\x1f",
    "\x7f",
    "½", "⅓", "â€™", "Ã©", "Â ", " ", "\n", "\r\n", "\t", "  ", "----", "====", "- - -", "......", "...", "<NA>",
    "n/a", "none",
    "µ", "é", "ſ", "K", "\\n", "\\.br\\", "_x000D_", "word ", "words that go on for a while, ", "12", "1·2·3", ",",
    " .", " ; ",
    "`", "``", "\x85", "\u2028", "\u00a0", "\u200b", "⁹", "²³", "·", "•", "“", "”", "≥", "°", "ﬁ", "患", "\U0001f600",
])  # fmt: skip


@pytest.fixture(scope="module")
def peer() -> Any:
    spec = importlib.util.spec_from_file_location("pandas_clean", PEER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(PIECES | st.text(st.characters(codec="utf-8"), max_size=3), max_size=25).map("".join),
        min_size=1,
        max_size=40,
    )
)
def test_any_text_comes_out_the_same(peer: Any, texts: list[str]) -> None:
    theirs, failed = peer.clean_text(pd.Series(texts, dtype="str"))
    reasons = peer.reasons(theirs, failed)
    for text, their_text, their_reason in zip(texts, theirs, reasons, strict=True):
        our_text, our_reason = rules.clean_note(text.encode(), STEPS, rules.Tally())
        if our_reason is not None and our_reason.startswith("unreadable"):
            our_reason = "unreadable"  # the chain does not know which of the parsers it was
        assert (our_text, our_reason) == (their_text, None if pd.isna(their_reason) else their_reason), repr(text)
