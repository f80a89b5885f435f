"""What the rules of section 5.1 make of a note."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lang1.corpus import rules


def cleaned(text: str) -> str:
    return rules.apply_rules(text, dict.fromkeys((name for name, _ in rules.RULES), 0))


CASES = {
    "RTF and its accents": (r"{\rtf1\ansi Pt has \b chest\b0  pain\par caf\'e9}", "Pt has chest pain cafe"),
    "RTF table cells are no bars": (r"{\rtf1 \trowd Na\cell 140\cell\row K\cell 4.1\cell\row}", "Na 140 K 4.1"),
    "a bar of the note itself stays": (r"{\rtf1 BP 120|80}", "BP 120|80"),
    "RTF halves of a character do not survive": (r"{\rtf1 f \u-10179?\u-8704? of x}", "f of x"),
    "RTF sign beyond ASCII is written out": (r"{\rtf1 WBC \u8805?11}", "WBC >=11"),
    "text before RTF is kept": (r"Addendum: {\rtf1 stable}", "Addendum: stable"),
    "RTF that ends early": (r"{\rtf1{\b no end", "no end"),
    "HTML": ("<html><body><p>Hyper<b>ten</b>sion</p><p>BP &lt;120</p></body></html>", "Hypertension BP <120"),
    "HTML table": ("<table><tr><td>Na</td><td>140</td></tr></table>", "Na 140"),
    "HTML script and style": ("<style>p{}</style><script>x()</script><p>seen</p>", "seen"),
    "less-than is no tag": ("BP <120 and >80, pain <b than before", "BP <120 and >80, pain <b than before"),
    "entities without tags": ("AT&amp;T &#39;ok&#39;", "AT&T 'ok'"),
    "mojibake": ("patientâ€™s cafÃ© visit", "patient's cafe visit"),
    "mojibake of a dose does not lose its micro sign": ("fentanyl 50 Âµg now", "fentanyl 50 ug now"),
    "NUL": ("ch\x00est p\x00ain", "chest pain"),
    "lone surrogate": ("a \ud83d b", "a b"),
    "control characters divide fields": ("history\x1fof\x1edyspnea\x0b\x0cnow", "history of dyspnea now"),
    "JSON fields in their order, placeholders out": (
        '{"narrative": "Chest CT.", "impression": "<NA>", "more": ["No PE.", null, 3]}',
        "Chest CT. No PE. 3",
    ),
    "a brace is no JSON": ("{see scan} done", "{see scan} done"),
    "a placeholder field": ("<NA>\x1eno acute disease", "no acute disease"),
    "curly quotes and dashes": ("“ok” – it’s ‘fine’ — done", "\"ok\" - it's 'fine' - done"),
    "bullets": ("• aspirin\n● heparin · fluids", "- aspirin - heparin - fluids"),
    "ellipsis and leaders": ("wait… then ........ 5", "wait... then ... 5"),
    "ruled lines": ("HPI\n=======\nstable ______ plan", "HPI stable plan"),
    "signs that carry meaning": ("T 38·5 °C, O₂ ≤ 90 %, 50 µg, ±2", "T 38.5 deg C, O2 <= 90 %, 50 ug, +/-2"),
    "powers": ("platelets 10⁹/L, 30 kg/m²", "platelets 10^9/L, 30 kg/m^2"),
    "fractions": ("1½ tabs, ¼ strength", "1 1/2 tabs, 1/4 strength"),
    "accents and ligatures": ("Müller ﬁnding naïve Łódź", "Muller finding naive Lodz"),
    "other scripts go": ("seen Жx 患者 today", "seen x today"),
    "whitespace": ("  a \t b\r\n\r\nc\u00a0d\u2028e ", "a b c d e"),
    "space before punctuation": ("BP : 120 , HR 88 . Dose .5 mg ; ok ?", "BP: 120, HR 88. Dose .5 mg; ok?"),
    "written-out line breaks": (r"HPI:\r\n\nStable\.br\plan", "HPI: Stable plan"),
    "a path is no line break": (r"C:\notes\temp", r"C:\notes\temp"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule_case(name: str) -> None:
    text, wanted = CASES[name]
    assert cleaned(text) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_text"),
        ("<NA>", "placeholder"),
        ("N/A", "placeholder"),
        ("[none].", "placeholder"),
        ("<NA> <NA> nan, null; <NA> <NA> <NA> <NA> <NA> <NA> <NA>", "placeholder"),
        ("-- . --", "placeholder"),
        ("nine words are here and that is too few", "too_short"),
        ("these are ten words and that is just quite enough", None),
        ("None of the above applies to him and nothing changed", None),
    ],
)
def test_reason_to_leave_out(text: str, reason: str | None) -> None:
    assert rules.reason_to_leave_out(text, 10) == reason


def test_bytes_that_are_not_utf8_are_read_as_windows_1252() -> None:
    assert rules.decode(b"caf\xe9 \x93ok\x94 \xc2\xb5g \x81") == ("café “ok” µg ", True)
    assert rules.decode("café".encode()) == ("café", False)


def test_counters_name_the_rules_that_changed_the_note() -> None:
    touched = dict.fromkeys((name for name, _ in rules.RULES), 0)
    rules.apply_rules("<p>a</p>", touched)
    assert touched == {name: int(name in ("html", "spacing")) for name, _ in rules.RULES}


def test_a_failing_parser_names_the_rule_and_not_the_text() -> None:
    with pytest.raises(rules.RuleError) as caught:
        cleaned(r"{\rtf1 \u1114112 secretname}")
    assert caught.value.rule == "rtf"
    assert "secretname" not in str(caught.value)
    assert caught.value.__cause__ is None


PIECES = st.sampled_from([
    "{\\rtf1 ", "}", "\\par ", "\\'e9", "<p>", "</td>", "<", "&lt;", "&#0;", "{", '{"a": "', '"}', "\x00", "\x1f", "½",
    "â€™", "\ud800", "\udfff", " ", "\n", "  ", "----", "......", "<NA>", "µ", "é", "\\n", "word", "12", ",", " .",
    "\x85", "⁹",
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.text(st.characters(), max_size=3), max_size=25).map("".join))
def test_any_text_becomes_one_line_of_printable_ascii(text: str) -> None:
    try:
        result = cleaned(text)
    except rules.RuleError as error:
        assert error.rule in rules.PARSERS
        return
    assert result.isascii()
    assert result.isprintable()
    assert result == " ".join(result.split())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.from_regex(r"[A-Za-z0-9%/()]{1,8}", fullmatch=True), max_size=30))
def test_plain_words_pass_unchanged_and_cleaning_twice_changes_nothing(words: list[str]) -> None:
    assert cleaned("\n".join(words)) == " ".join(words)
    assert cleaned(" ".join(words)) == " ".join(words)
