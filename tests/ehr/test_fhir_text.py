"""Source fhir: the text of documents, from attachments, files, Binary resources and sections."""

import base64
from pathlib import Path
from typing import Any

import pytest

from lang1.ehr import fhir_text

from .exports import WORDS, base64_of, composition, document, export, extracted, reference, rejected, rows, write

RTF = "{\\rtf1\\ansi " + WORDS + "}"


def read(root: Path, *content: dict[str, Any]) -> list[tuple[str | None, str | None, str | None]]:
    found = fhir_text.attachments({"content": list(content)}, root)
    return [(item["format"], item["text"], item["problem"]) for item in found]


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        ("Temp 37°, naïve".encode(), "text/plain", "Temp 37°, naïve"),
        ("Temp 37°".encode(), "text/plain; charset=UTF-8", "Temp 37°"),
        ("Temp 37° – “ok”".encode("cp1252"), "text/plain; charset=windows-1252", "Temp 37° – “ok”"),
        ("Temp 37°".encode("latin-1"), 'TEXT/PLAIN;charset="ISO-8859-1"', "Temp 37°"),
        ("Temp 37°".encode("utf-16"), "text/plain;charset=utf-16", "Temp 37°"),
        ("Temp 37°".encode("utf-16"), "text/plain", "Temp 37°"),
        (b"\xef\xbb\xbfTemp", "text/plain", "Temp"),
        # not what the charset says: read as lang1 clean reads it
        ("Temp 37° – ok".encode("cp1252"), "text/plain", "Temp 37° – ok"),
        ("Temp 37°".encode(), "text/plain; charset=us-ascii", "Temp 37°"),
        ("Temp 37°".encode(), "text/plain; charset=klingon", "Temp 37°"),
        (b"Temp", "text/plain; charset=hex", "Temp"),
    ],
)
def test_the_charset_of_an_attachment(tmp_path: Path, data: bytes, content_type: str, text: str) -> None:
    assert read(tmp_path, base64_of(data, content_type)) == [("plain", text, None)]


def test_formats_and_what_is_not_text(tmp_path: Path) -> None:
    html, broken = "<p>Chest pain &amp; cough</p>", {"attachment": {"contentType": "text/plain", "data": "a$b"}}
    lines = base64.encodebytes(WORDS.encode() * 9).decode()
    assert read(
        tmp_path, base64_of(html, "text/html"), base64_of(html, "application/xhtml+xml"), base64_of(RTF, "text/rtf"),
        base64_of(RTF, "application/rtf"), base64_of(b"%PDF-1.7", "application/pdf"), base64_of("x", "a b/" + WORDS),
        base64_of(WORDS, None), base64_of(b"%PDF-1.7", None), base64_of(b"\x00\x01", None), broken,
        {"attachment": {"contentType": "text/plain", "data": lines}}, {"attachment": {"contentType": "text/plain"}},
        {"attachment": {"contentType": "text/plain", "data": 7}}, base64_of("<x/>", "application/xml"),
    ) == [
        ("html", html, None), ("html", html, None), ("rtf", RTF, None), ("rtf", RTF, None),
        (None, None, "not text (application/pdf)"), (None, None, "not text (unknown type)"), ("plain", WORDS, None),
        (None, None, "not text (unknown type)"), (None, None, "not text (unknown type)"), (None, None, "broken base64"),
        ("plain", WORDS * 9, None), (None, None, "neither data nor url"), (None, None, "no data"),
        (None, None, "not text (application/xml)"),
    ]  # fmt: skip


def test_a_url_leads_to_a_file_inside_the_export_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "export", tmp_path / "secret.txt"
    outside.write_text("secret")
    write(root / "Binary" / "n 1.txt", WORDS)
    write(root / "notes" / "n2.html", "<p>x</p>")
    write(root / "scan.pdf", "%PDF-1.7")
    (root / "link.txt").symlink_to(outside)
    (root / "inside.txt").symlink_to(root / "Binary" / "n 1.txt")

    def url(name: str, content_type: str | None = "text/plain") -> dict[str, Any]:
        return {"attachment": {"url": name} | ({"contentType": content_type} if content_type else {})}

    text = WORDS + "\n"
    good = ["Binary/n%201.txt", f"file://{root}/Binary/n%201.txt", "./notes/../Binary/n 1.txt", "inside.txt"]
    assert [item[1] for item in read(root, *map(url, good))] == [text] * 4
    assert read(root, url("notes/n2.html", None), url("scan.pdf", None)) == [
        ("html", "<p>x</p>\n", None), (None, None, "not text (application/pdf)"),
    ]  # fmt: skip
    away = ["../secret.txt", "link.txt", str(outside), f"file://{outside}", "%2e%2e/secret.txt", "/etc/passwd"]
    assert {item[2] for item in read(root, *map(url, away))} == {"url leads outside the export"}
    none = ["none.txt", "notes", "Binary"]
    assert {item[2] for item in read(root, *map(url, none))} == {"no such file or Binary in the export"}
    assert {item[2] for item in read(root, url("http://127.0.0.1:9/n.txt"), url("https://h/n.txt"))} == {
        "url leads to a server"
    }
    odd = ["ftp://h/n.txt", "file://other/n.txt", "a\x00b", "x" * 5000, "http://[", "data:text/plain,x"]
    assert {item[2] for item in read(root, *map(url, odd))} == {"url of another kind"}


def test_sections_are_joined_in_order_with_their_titles() -> None:
    def section(title: str | None, words: str | None, *inner: dict[str, Any]) -> dict[str, Any]:
        return {"title": title, "text": {"div": f"<div>{words}</div>"} if words else None, "section": list(inner)}

    resource: dict[str, Any] = {
        "text": {"div": "<div>all</div>"},
        "section": [section("A & B", "one", section("Inner", "two")), section(None, "three"), section("Empty", None)],
    }
    assert fhir_text.sections(resource)["text"] == (
        "<h2>A &amp; B</h2>\n<div>one</div>\n<h2>Inner</h2>\n<div>two</div>\n<div>three</div>\n<h2>Empty</h2>"
    )
    assert resource == {}  # what was read is taken out
    assert (
        fhir_text.sections({"section": [section("A", None)], "text": {"div": "<div>all</div>"}})["text"]
        == "<div>all</div>"
    )
    assert fhir_text.sections({"section": "x"})["problem"] == "no text in its sections"


def test_notes_from_every_place(tmp_path: Path, out: Path) -> None:
    def at(url: str, content_type: str | None = "text/plain") -> dict[str, Any]:
        return {"attachment": {"url": url} | ({"contentType": content_type} if content_type else {})}

    pdf = base64_of(b"%PDF", "application/pdf")
    binary = {"resourceType": "Binary", "contentType": "text/html; charset=latin-1"}
    folder = export(
        tmp_path / "x",
        document("a", content=[pdf, base64_of(RTF, "text/rtf"), base64_of("<p>x</p>", "text/html"), base64_of("plain"),
        base64_of("second")]),
        document("b", content=[pdf, base64_of(RTF, "text/rtf"), base64_of("<p>x</p>", "text/html")]),
        document("c", content=[at("Binary/b1", "text/html")]),
        document("d", content=[at("https://ehr.example.org/fhir/R4/Binary/b1", None)]),
        document("e", content=[at("files/e.txt")]),
        document("f", content=[{"attachment": {"contentType": "text/plain", "url": "#in"}}], contained=[
            {"resourceType": "Binary", "id": "in", "contentType": "text/plain",
            "data": base64_of("inner")["attachment"]["data"]}]),
        document("z1", content=[pdf]), document("z2", content=[at("Binary/b2")]), document("z3", content=[]),
        document("z4", content=[at("https://ehr.example.org/fhir/Binary/b9")]), document("z5", content=[at("../out")]),
        document("z6", content=[base64_of("\ud83d half".encode("utf-8", "surrogatepass"),
        "text/plain; charset=utf-7")]),
        composition("g"), composition("z7", section=[]),
        binary | {"id": "b1", "data": base64.b64encode("<p>37°</p>".encode("latin-1")).decode()},
        {"resourceType": "Binary", "id": "b2", "contentType": "image/png", "data": "AAAA"},
    )  # fmt: skip
    write(folder / "files" / "e.txt", "from a file")
    manifest = extracted(folder, out)
    texts = {row["note_id"].partition("/")[2]: row["text"] for row in rows(out, "notes")}
    assert texts.pop("g").endswith(f"{WORDS}</div>")
    z6 = texts.pop("z6")
    assert "half" in z6
    assert texts == {
        "a": "plain", "b": "<p>x</p>", "c": "<p>37°</p>", "d": "<p>37°</p>", "e": "from a file\n", "f": "inner",
    }  # fmt: skip
    assert manifest["facts"]["rejects"]["notes"] == {
        "not text (application/pdf)": 1, "not text (image/png)": 1, "no attachment": 1, "url leads to a server": 1,
        "url leads outside the export": 1, "no text in its sections": 1,
    }  # fmt: skip
    assert manifest["facts"]["attachment_problems"]["not text (application/pdf)"] == 3
    assert {row["note_id"] for row in rejected(out, "notes")} == {
        *[f"DocumentReference/z{i}" for i in range(1, 6)], "Composition/z7",
    }  # fmt: skip


def test_halves_of_characters_and_nul_pass(tmp_path: Path, out: Path) -> None:
    folder = export(tmp_path / "x")
    (folder / "DocumentReference.ndjson").write_text(
        '{"resourceType": "DocumentReference", "id": "d\\ud83d", "status": "current", "description": "a\\u0000b", '
        '"subject": {"reference": "Patient/p1"}, "type": {"text": "Note \\ud83d\\ude00 \\ude00"}, "content": '
        '[{"attachment": {"contentType": "text/plain", "data": "eA=="}}]}\n'
    )
    extracted(folder, out)
    [row] = rows(out, "notes")
    assert (row["note_id"], row["note_type"]) == ("DocumentReference/d�", "Note \U0001f600 �")


@pytest.mark.long
def test_a_resource_of_100_mb_passes(tmp_path: Path, out: Path) -> None:
    words = WORDS * (75 * 2**20 // len(WORDS))
    folder = export(
        tmp_path / "x", document("d1", content=[base64_of(words)]), document("d2"),
        composition("c1", section=[{"title": "x", "text": {"div": f"<div>{words}</div>"}}]),
        {"resourceType": "Condition", "id": "k", "subject": reference("Patient", "p1"), "note": [{"text": words}],
         "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"}]}},
    )  # fmt: skip
    assert (folder / "DocumentReference.ndjson").stat().st_size > 100 * 2**20
    extracted(folder, out)
    found = {row["note_id"]: len(row["text"]) for row in rows(out, "notes")}
    assert found["DocumentReference/d1"] == len(words) and found["DocumentReference/d2"] == len(WORDS)
    assert rows(out, "diagnoses")[0]["code"] == "I10"
