"""Figures: the same bytes for the same numbers, nothing fetched, one look a model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lang1 import figures

matplotlib = pytest.importorskip("matplotlib")


def draw(values: tuple[float, ...] = (0.5, 0.7, 0.6)):
    with figures.style():
        figure = figures.new_figure(3, 2)
        axes = figure.add_subplot()
        axes.plot(range(len(values)), values, marker="o")
        axes.set_title("AUROC & more")
    return figure


def test_a_saved_figure_has_the_same_bytes_each_time_and_no_date(tmp_path: Path) -> None:
    first = figures.save_figure(draw(), tmp_path / "a" / "auroc")
    second = figures.save_figure(draw(), tmp_path / "b" / "auroc")
    assert [p.name for p in first] == ["auroc.svg", "auroc.pdf"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert b"CreationDate" not in first[1].read_bytes()
    assert not re.search(rb"<dc:date>", first[0].read_bytes())


def test_a_readers_own_matplotlib_settings_do_not_move_a_byte(tmp_path: Path) -> None:
    plain = figures.inline_svg(draw(), "f", "t", "d")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert figures.inline_svg(draw(), "f", "t", "d") == plain


def test_an_inline_figure_has_alt_text_and_refers_to_nothing_outside() -> None:
    svg = figures.inline_svg(draw(), "auroc-los", "AUROC <1>", "rises from 0.5 to 0.6")
    assert svg.startswith("<svg ") and 'role="img"' in svg
    assert '<title id="auroc-los-t">AUROC &lt;1&gt;</title>' in svg
    assert '<desc id="auroc-los-d">rises from 0.5 to 0.6</desc>' in svg
    outside = svg.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert "http" not in outside and "<metadata" not in svg and "<!DOCTYPE" not in svg


def test_ids_of_two_figures_on_a_page_never_meet() -> None:
    ids = [set(re.findall(r'\bid="([^"]+)"', figures.inline_svg(draw(), name, "t", "d"))) for name in ("a", "b")]
    assert all(i.startswith("a-") for i in ids[0]) and not ids[0] & ids[1]
    svg = figures.inline_svg(draw(), "a", "t", "d")
    pointed_at = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    assert pointed_at and pointed_at <= ids[0]


def test_known_models_differ_in_colour_and_stand_out_on_white() -> None:
    looks = list(figures.LOOKS.values())
    assert len({look.colour for look in looks}) == len(looks)
    for colour in [look.colour for look in looks] + list(figures.SPARE_COLOURS):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 3, colour  # WCAG 1.4.11, graphics


def test_an_unknown_model_keeps_its_name_and_its_place_after_the_known() -> None:
    name = "a hospital's own model with a very long name"
    assert figures.look(name).label == name and len(figures.look(name).short) == 17
    assert figures.look(name) == figures.look(name)
    assert figures.order_models({name, "tfidf+xgboost", "lang1 finetuned joint"}) == [
        "lang1 finetuned joint",
        "tfidf+xgboost",
        name,
    ]
