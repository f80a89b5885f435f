"""What counts as an identifier and what only looks like one; precision and recall on notes with planted identifiers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lang1.config import SimulateConfig
from lang1.corpus.identifiers import NAMES, PATTERNS, count_matches, find
from lang1.simulate import simulate_hospital

COUNTED = {
    "phone": [
        "212 555 0187", "+12125550187", "212-555-0187 x123", "212-555-0187x45", "call 2125550187", "212/555-0187",
        "call 212-555-0187", "(212) 555-0187 today", "phone 2125550187.", "+1 212.555.0187", "fax: 555-0187",
        "Tel. (646)555-0199", "pager 917 555 0100", "+44 20 7946 0958", "1-800-555-0100", "Cell: 646-555-0143,",
    ],
    "mrn": [
        "MRN (1234567)", "MRN:E1234567", "MRN of 1234567", "Record #: 445566", "hospital number 7654321",
        "MRN - 998877", "MRN: 00123456", "MRN 1234567", "MR# 445566", "medical record number 12-34-56",
        "Medical Record No. A1234567", "account number: 99887766", "Patient ID: 123456", "mrn#1234567",
        "accession no. S21-12345", "med rec # 4455667", "medical record number is 123546",
    ],
    "ssn": [
        "123-45-6789", "SSN 123456789", "social security number: 123 45 6789", "(SSN: 219-09-1234)",
    ],
    "email": [
        "john.doe@nyu.edu", "write to a_b+c@mail.example.org.", "<x1@a-b.co.uk>",
    ],
    "date": [
        "march 4, 2021", "4 march 2021", "in may 2020", "december 3rd", "5-Jan-21", "3/2021", "admitted 3/4 with",
        "on 3/4/2021", "03/04/21", "2021-03-04", "2021-03-04T10:00", "March 4, 2021", "4 March 2021", "Mar 4",
        "seen on 5/14 and", "dated 12/25", "05-14-2021", "Sept. 5th", "in January 2020", "4-Jan-2020", "14.05.2021",
        "5th of May", "(3/4/21)", "DECEMBER 3, 2019", "25/12/2020", "December of 2008",
    ],
    "name": [
        "Dr.Smith", "J. Smith, MD", "dictated by John Smith", "mr. jones", "dr. o'brien", "Mr. D'Angelo",
        "Dr. DeLuca", "Dr. Smith", "Patient: John Doe", "Mr. Jones", "Mrs. O'Brien", "MR. JONES", "DR. MCDONALD",
        "Name: DOE, JANE", "Jane Q. Public, MD", "attending: Mary Ann-Smith",
        "Electronically signed by: John A. Smith", "Ms. Van Dyke", "Doctor Patel", "Dr. J. Smith",
        "Patient Name: SMITH, JOHN", "Dr Gupta", "Betty Ross, PA-C", "Nurse Kelly",
    ],
}  # fmt: skip
NOT_COUNTED = {
    "phone": [
        "glucose 2125550187", "BP 120/80", "ICD 250.00", "123-45-6789", "order 123-456-7890", "1.234.567",
        "2021-03-04", "dose 500-1000", "212-555-018", "K 3.5-5.0 2021", "00123456", "NDC 0071-0155-23",
        "platelets 150-400", "troponin <0.01, 212", "6/10/2009 1234567",
    ],
    "mrn": [
        "MR 2+ regurgitation", "MRN not available", "MRI 12345678", "mr 120", "medical record reviewed",
        "MRN: pending", "account for 2 of 3", "chart reviewed 2 times", "case of 12345 beers",
        "encounter 2 weeks ago", "MR 1234",
    ],
    "ssn": [
        "000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000", "123-45-67890", "1123-45-6789",
        "555-1234", "123456789", "L4-12-3456", "123-456-789", "99-45-6789",
    ],
    "email": [
        "500mg@bedtime", "q6h @ 5", "pt @ home", "user@host", "@nyu.edu", "a@b",
    ],
    "date": [
        "BP 120/80", "1/2 tablet", "on 1/2 tablet daily", "strength 5/5", "5/5 bilaterally", "HR 72, 98/60", "24/7",
        "ratio 3/4", "L4-5", "2-3 days", "I10.9", "E11.65", "98.6", "13/45/2021", "may improve", "March in place",
        "1/2/3", "visual acuity 20/40", "on 20/40", "May benefit", "pain 10/10", "q 4-6", "T12-L1-2", "0.5-1.0",
        "ejection fraction 55-60", "1-2-3", "Hgb 12.1/36.4", "5/10 mg", "120/80/60", "Na 135-145-150", "S72.001A",
        "metoprolol 12.5-25 mg", "on 1/2 NS", "2020-2021", "mar 4 mg", "may 5 mg", "march 5", "ratio 5/20",
        "decide 4", "sepsis 12/20 criteria",
    ],
    "name": [
        "Dr. X", "Dr. ABC", "Mr. A", "the patient denies", "Patient: Denies chest pain", "Patient is Stable",
        "MR BRAIN", "MS Contin", "Name: unknown", "Patient: Male", "Mr. XXX", "DR to follow", "Foley catheter",
        "Dr. Is", "Alert and Oriented, RN", "Attending: Cardiology Service", "mother: Hypertension",
        "Crohn Disease", "seen by MD", "Dr. X. Because he", "Dr. ___ saw", "Dr. [**Last Name**]",
        "Patient: [**Known**]", "MR. Speech was", "dr. notified", "dr. will call", "signed by Cardiology",
        "Patient by Report",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in COUNTED.items() for text in texts])
def test_an_identifier_is_counted_once_under_its_name(name: str, text: str) -> None:
    assert count_matches(text) == {name: 1}
    assert count_matches(f"Seen today; {text} was noted.") == {name: 1}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in NOT_COUNTED.items() for text in texts])
def test_what_only_looks_like_one_is_not(name: str, text: str) -> None:
    assert name not in count_matches(text)
    assert name not in count_matches(f"Seen today; {text} was noted.")


def test_several_are_all_counted() -> None:
    text = "Dr. Smith and Dr. Jones, 212-555-0187 or 212-555-0188, seen 1/2/2020 and 1/3/2020 and 1/4/2020."
    assert count_matches(text) == {"name": 2, "phone": 2, "date": 3}
    assert count_matches("") == {}


# --- on notes ------------------------------------------------------------------------------------------------------

SURNAMES = [
    "Nguyen",
    "Garcia",
    "Patel",
    "Kowalski",
    "O'Connor",
    "Schmidt",
    "Johnson",
    "McCarthy",
    "Okafor",
    "Rossi",
    "Haddad",
    "Yamamoto",
]
FIRST = ["Maria", "James", "Wei", "Fatima", "John", "Olga", "Carlos", "Anne", "Priya", "Kofi", "Sven", "Leila"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def planted(draw: random.Random) -> list[tuple[str, str]]:
    """An identifier of each kind as a person might write it, and its kind; made without our patterns."""
    area, middle, last = draw.randint(201, 989), draw.randint(200, 999), draw.randint(0, 9999)
    day, month, year = draw.randint(1, 28), draw.randint(1, 12), draw.randint(1931, 2024)
    first, surname, number = draw.choice(FIRST), draw.choice(SURNAMES), draw.randint(10**5, 10**8)
    phone = draw.choice(["{}-{}-{:04d}", "({}) {}-{:04d}", "{}.{}.{:04d}", "1-{}-{}-{:04d}"]).format(area, middle, last)
    ssn = f"{draw.randint(1, 665):03d}-{draw.randint(1, 99):02d}-{draw.randint(1, 9999):04d}"
    mrn = draw.choice(["MRN {}", "MRN: {}", "medical record number {}", "MR# {}", "acct no. {}"]).format(number)
    dates = [f"{month}/{day}/{year}", f"{month:02d}/{day:02d}/{year % 100:02d}", f"{year}-{month:02d}-{day:02d}"]
    dates += [f"{MONTHS[month - 1]} {day}, {year}", f"{day} {MONTHS[month - 1][:3]} {year}"]
    names = [f"Dr. {surname}", f"Mrs. {first} {surname}", f"{first} {surname}, MD", f"Patient: {first} {surname}"]
    email = f"{first.lower()}.{surname.lower().replace(chr(39), '')}@{draw.choice(['nyumc.org', 'mail.example.com'])}"
    return [
        ("phone", phone),
        ("ssn", ssn),
        ("mrn", mrn),
        ("date", draw.choice(dates)),
        ("name", draw.choice(names)),
        ("email", email),
    ]


def distractors(draw: random.Random) -> str:
    """Numbers and words of a chart that name nobody."""
    low, high = draw.randint(3, 9), draw.randint(50, 99)
    return draw.choice([
        f"BP {high + 60}/{high}", f"strength {min(low, 5)}/5", f"ICD E1{low}.{high}", f"take 1/2 tablet q{low}h",
        f"glucose {high}", f"lot {draw.randint(10**9, 10**10)}", f"visual acuity 20/{high}", f"range {low}-{high}",
        f"pH 7.{high}", "24/7 care", "may improve", "Patient: Denies fever", f"ejection fraction {high}-100",
        f"L{low}-5 disc", "MS Contin",
    ])  # fmt: skip


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    import duckdb

    out = tmp_path_factory.mktemp("hospital") / "warehouse"
    simulate_hospital(SimulateConfig(encounters=60, workers=1), seed=3, out=out)
    with duckdb.connect(str(out / "warehouse.duckdb"), read_only=True) as database:
        texts = [
            " ".join(text.split()) for (text,) in database.sql("SELECT note_text FROM note ORDER BY note_id").fetchall()
        ]
    assert len(texts) > 200
    return texts


def test_simulated_notes_name_nobody(notes: list[str]) -> None:
    assert sum(sum(count_matches(text).values()) for text in notes) == 0


def test_planted_identifiers_are_found_and_little_else(notes: list[str]) -> None:
    """Precision and recall by pattern on labelled notes; measured here, and printed in docs/scan.md."""
    draw = random.Random(11)
    wanted, right, found = (dict.fromkeys(NAMES, 0) for _ in range(3))
    for text in notes:
        words, labels = text.split(), []
        for kind, identifier in planted(draw):
            if draw.random() < 0.5:
                labels.append((kind, identifier))
        extra = [*labels, *(("none", distractors(draw)) for _ in range(4))]
        for _, piece in extra:
            words.insert(draw.randrange(len(words)), piece)
        note = " ".join(words)
        for pattern in PATTERNS:
            matches = [match.group() for match in find(pattern, note)]
            found[pattern.name] += len(matches)
            right[pattern.name] += sum(
                any(piece in m or m in piece for k, piece in labels if k == pattern.name) for m in matches
            )
        for kind, _ in labels:
            wanted[kind] += 1
    recall = {name: right[name] / wanted[name] for name in NAMES}
    precision = {name: right[name] / found[name] for name in NAMES}
    print(f"recall {recall}\nprecision {precision}\nplanted {wanted}")
    assert min(wanted.values()) > 90
    assert min(recall.values()) >= 0.97, recall
    assert min(precision.values()) >= 0.97, precision


def test_the_quick_way_finds_what_the_shapes_alone_find(notes: list[str]) -> None:
    draw = random.Random(2)
    pieces = [*(text for texts in COUNTED.values() for text in texts), *(t for ts in NOT_COUNTED.values() for t in ts)]
    for text in notes[:60]:
        words = text.split()
        for piece in draw.choices(pieces, k=20):
            words.insert(draw.randrange(len(words)), piece)
        note = " ".join(words)
        for pattern in PATTERNS:
            slow = [m.span() for m in pattern.shape.finditer(note) if pattern.holds(m)]
            assert [m.span() for m in find(pattern, note)] == slow, pattern.name


def test_the_list_of_words_that_are_no_names_is_sorted_and_plain() -> None:
    words = (Path(__file__).parents[2] / "src/lang1/corpus/not_names.txt").read_text().split()
    assert words == sorted(set(words))
    assert all(word.islower() for word in words)
