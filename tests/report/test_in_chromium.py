"""The report in a real browser, from disk: silent, alone, and no wider than its window."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import PROGRAM, open_browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")]

TOO_WIDE = """[...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.tagName + '.' + (e.className.baseVal ?? e.className)).slice(0, 5).join(' ')"""
SMALLEST_TEXT = """Math.min(...[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height))"""


@pytest.mark.parametrize("width", [1280, 400])
def test_the_report_opens_silently_asks_for_nothing_and_fits(whole_run: Path, width: int, tmp_path: Path) -> None:
    page = whole_run / "report" / "report.html"
    with open_browser() as browser:
        visit = browser.visit(
            page,
            width,
            {
                "page": "document.documentElement.scrollWidth",
                "window": "document.documentElement.clientWidth",
                "too wide": TOO_WIDE,
                "smallest text": SMALLEST_TEXT,
                "headline": "document.querySelector('.headline').innerText",
            },
            tmp_path / "page.png",
        )
    assert visit.messages == []
    assert visit.requests == [page.resolve().as_uri()]
    assert visit.values["page"] <= visit.values["window"]
    assert visit.values["too wide"] == ""
    assert visit.values["smallest text"] >= 8
    assert visit.values["headline"]
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_the_browser_check_sees_what_it_looks_for(tmp_path: Path) -> None:
    """A page that does everything wrong: without this, the test above could pass for a browser that sees nothing."""
    (tmp_path / "bad.html").write_text(
        "<!doctype html><body><div style='width:2000px'>wide</div><script>console.error('x')</script>"
        "<img src='http://127.0.0.1:9/outside.png'></body>"
    )
    with open_browser() as browser:
        visit = browser.visit(tmp_path / "bad.html", 400, {"too wide": TOO_WIDE})
    assert any('"error"' in message for message in visit.messages)
    assert "http://127.0.0.1:9/outside.png" in visit.requests
    assert visit.values["too wide"] != ""
