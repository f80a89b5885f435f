"""What the rules of section 5.1 make of a note."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lang1.config import CleanConfig
from lang1.config.data import CleanRulesConfig
from lang1.corpus import markup, rules

ALL = rules.chosen_steps(CleanConfig())


def cleaned(text: str) -> str:
    return rules.apply_rules(text, rules.RULES, rules.Tally())


def without(*names: str) -> rules.Steps:
    return rules.chosen_steps(CleanConfig(rules=CleanRulesConfig(**dict.fromkeys(names, False))))


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
    assert rules.reason_to_leave_out(text, ALL) == reason


def test_bytes_that_are_not_utf8_are_read_as_windows_1252() -> None:
    assert rules.decode(b"caf\xe9 \x93ok\x94 \xc2\xb5g \x81") == ("café “ok” µg ", 1)  # 0x81 is nothing there
    assert rules.decode("café".encode()) == ("café", None)


def test_counters_name_the_rules_that_changed_the_note_and_the_characters() -> None:
    tally = rules.Tally()
    assert rules.apply_rules("<p>a  b</p> >= 5 \u00bd", rules.RULES, tally) == "a b >= 5 1/2"
    changed = {name for name, count in tally.notes.items() if count}
    assert changed == {"html", "punctuation", "whitespace"}
    assert tally.removed["html"] == len("<p></p>") - len("\n")  # a line break where the paragraph begins
    assert (tally.added["punctuation"], tally.removed["punctuation"]) == (len(" 1/2") - 1, 0)


def test_every_step_has_a_switch_and_a_counter_in_the_order_of_the_rules() -> None:
    switches = [field.name for field in fields(CleanRulesConfig)]
    assert switches == list(rules.NAMES) == list(rules.Tally().notes)


SWITCHED = {
    "fields": "a\x1fb", "rtf": r"{\rtf1 a\par}", "html": "<p>a</p>", "encoding": "cafÃ©", "punctuation": "a – b",
    "formatting": "a ==== b", "non_ascii": "é", "control": "a\x01b", "whitespace": "a  b", "spacing": "a , b",
}  # fmt: skip


@pytest.mark.parametrize("name", SWITCHED)
def test_a_rule_that_is_off_leaves_the_note_alone_and_one_that_is_on_does_not(name: str) -> None:
    one_on = without(*(rule for rule, _ in rules.RULES if rule != name), *rules.FILTERS)
    all_off = without(*(rule for rule, _ in rules.RULES), *rules.FILTERS)
    raw, tally = SWITCHED[name].encode(), rules.Tally()
    assert rules.clean_note(raw, all_off, rules.Tally()) == (SWITCHED[name], None)
    text, reason = rules.clean_note(raw, one_on, tally)
    assert text != SWITCHED[name] and reason is None
    assert {rule: count for rule, count in tally.notes.items() if count} == {name: 1}


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("too_long", b"long " * 4_000_000, "too_long"),
        ("no_text", None, "no_text"),
        ("placeholder", b"<NA> " * 12, "placeholder"),
        ("too_short", b"few words", "too_short"),
    ],
)
def test_a_filter_that_is_off_keeps_the_note(name: str, raw: bytes | None, reason: str) -> None:
    tally = rules.Tally()
    assert rules.clean_note(raw, ALL, tally)[1] == reason
    assert tally.notes[name] == 1
    assert rules.clean_note(raw, without(name), rules.Tally())[1] is None


def test_without_decoding_a_note_that_is_not_utf8_is_left_out() -> None:
    raw = b"caf\xe9 " * 12
    assert rules.clean_note(raw, ALL, rules.Tally()) == (("cafe " * 12).strip(), None)
    assert rules.clean_note(raw, without("decode"), rules.Tally()) == ("", "unreadable_decode")


def test_text_can_be_written_whatever_is_off() -> None:
    raw = b'["a \\ud83d\\ude00 \\ud83d"]'
    off = without("encoding", "non_ascii", "punctuation", "too_short", "placeholder")
    assert rules.clean_note(raw, off, rules.Tally())[0] == "a \U0001f600 \ufffd"


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


RTF = st.lists(
    st.sampled_from([
        "{", "}", "\\par ", "\\u8805?", "\\u8805", "\\uc0 ", "\\uc1", "\\uc2 ", "\\'e9", "\\'f3\\'b0\\'80\\'80",
        "\\*", "\\{", "\\cell ",
        "\\ansicpg65001", "\\fonttbl{\\f0\\fcharset161 Arial Greek;}", "\\f0 ", "\\deff0", "\\pict", "\\bin5 ",
        "\\info", "\n", "\r\n",
        ";", "12345678901234", "a stretch of plain text, ", "history of dyspnea; ", "\U000f0000", "\\u983040?", "é",
        "\\",
        "{\\field{\\*\\fldinst{HYPERLINK \"http://x\"}}{\\fldrslt a long link}}",
    ]),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(RTF)
def test_rtf_read_in_stretches_is_what_striprtf_reads(body: str) -> None:
    from striprtf.striprtf import rtf_to_text

    def outcome(read: Any) -> str:
        try:
            return str(read("{\\rtf1 " + body))
        except Exception as error:
            return type(error).__name__

    assert outcome(markup._rtf_to_text) == outcome(lambda text: rtf_to_text(text, errors="ignore"))


ODD = st.lists(
    st.sampled_from([
        "Ã", "Â", " ", "\n", "œ", "Œ", "«", "»", "a", "word and more words ", "É", "°", "√±", "ГўВЂВ", "à²", "\x85",
        "€", "™", "×²",
    ]),
    max_size=20,
).map("".join)  # fmt: skip


@settings(max_examples=800, deadline=None)
@given(ODD | st.text(max_size=30) | st.text(st.characters(max_codepoint=0x2200), max_size=20))
def test_mojibake_is_found_where_ftfy_finds_it(text: str) -> None:
    import ftfy

    assert rules._is_mojibake(text) == ftfy.is_bad(text)


@settings(max_examples=300, deadline=None)
@given(st.text("\t\n\x0b\x0c\r\x1c\x1f\x85\u00a0 ab,.", max_size=30))
def test_whitespace_is_what_split_and_join_make_of_it(text: str) -> None:
    assert rules.standardize_whitespace(text) == " ".join(text.split())
