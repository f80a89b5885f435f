"""One style and one saver for every figure: SVG and PDF (PNG for a look), the same bytes for the same numbers.

Choices: colours that a colour-blind reader tells apart (Okabe-Ito and Tol), a marker beside each colour so that grey
print works too, one colour a model in every figure. SVG text stays text (small, selectable, read aloud), set in
DejaVu metrics and shown in the reader's own sans-serif, which is narrower, so that nothing overlaps.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1f24"
MUTED = "#5b6470"
RULE = "#d5dae0"

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Look:
    """How one model is drawn, the same in every figure."""

    label: str
    short: str
    """for the axis of a narrow figure"""
    colour: str
    marker: str


LOOKS: dict[str, Look] = {
    "lang1 finetuned joint": Look("LANG1 finetuned", "LANG1 finetuned", "#0072B2", "o"),
    "lang1 finetuned": Look("LANG1 finetuned, single task", "LANG1 single task", "#332288", "s"),
    "lang1 zero-shot": Look("LANG1 zero-shot", "LANG1 zero-shot", "#6B7280", "D"),
    "lang1 random init finetuned joint": Look("Same network, not pretrained", "Not pretrained", "#AA4499", "^"),
    "lang1 random init finetuned": Look(
        "Same network, not pretrained, single task", "Not pretrained, single", "#882255", "v"
    ),
    "encoder finetuned joint": Look("Encoder finetuned", "Encoder finetuned", "#00695C", "p"),
    "encoder finetuned": Look("Encoder finetuned, single task", "Encoder single task", "#7A1F3D", "h"),
    "lang1 LoRA finetuned joint": Look("LANG1 finetuned, LoRA", "LANG1 LoRA", "#4682B4", "<"),
    "lang1 web-only finetuned joint": Look("LANG1 pretrained on web only", "LANG1 web-only", "#7F7F2A", ">"),
    "lang1 5-shot": Look("LANG1 5-shot", "LANG1 5-shot", "#44464B", "d"),
    "SmolLM2-135M finetuned joint": Look("SmolLM2-135M finetuned", "SmolLM2 finetuned", "#A6341B", "H"),
    "SmolLM2-135M zero-shot": Look("SmolLM2-135M zero-shot", "SmolLM2 zero-shot", "#C2528B", "8"),
    "tfidf+xgboost": Look("TF-IDF + boosting", "TF-IDF + boosting", "#D55E00", "s"),
    "tfidf+logistic": Look("TF-IDF + logistic", "TF-IDF + logistic", "#997700", "P"),
    "columns+xgboost": Look("Columns + boosting", "Columns + boosting", "#117733", "X"),
    "lace": Look("LACE", "LACE", "#5D3A9B", "v"),
}
"""known models in the order in which tables and figures list them"""

SPARE_COLOURS = ("#1B7F6F", "#661100", "#4477AA", "#BB5566", "#222255", "#225522")


def look(model: str) -> Look:
    """The look of a model; a model that is not known keeps its own name and gets a colour fixed by that name."""
    if model in LOOKS:
        return LOOKS[model]
    return Look(
        model,
        model if len(model) <= 17 else model[:16] + "\N{HORIZONTAL ELLIPSIS}",  # what the narrow axis has room for
        SPARE_COLOURS[sum(model.encode("utf-8")) % len(SPARE_COLOURS)],
        "*",
    )


def order_models(models: set[str]) -> list[str]:
    """Known models in their fixed order, then the others by name."""
    known = list(LOOKS)
    return sorted(models, key=lambda m: (known.index(m) if m in LOOKS else len(known), m))


@contextmanager
def style() -> Iterator[None]:
    """The house style for the figures that are made inside the block."""
    import matplotlib

    # a user's own matplotlibrc must not move a byte: start from the defaults
    settings: Any = {**dict(matplotlib.rcParamsDefault), **STYLE, "backend": "agg"}
    with matplotlib.rc_context(settings):
        yield


@dataclass(frozen=True)
class Margins:
    """Space around the axes, inches. Given, figures line up side by side and are drawn in half the time."""

    left: float
    right: float
    bottom: float
    top: float


def new_figure(width: float, height: float, margins: Margins | None = None) -> Figure:
    """An empty figure, inches, outside pyplot: nothing to close, nothing global. Call it within `style()`.

    Without `margins` matplotlib measures every label and makes room (its constrained layout).
    """
    from matplotlib.figure import Figure

    if margins is None:
        return Figure(figsize=(width, height), layout="constrained")
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=margins.left / width,
        right=1 - margins.right / width,
        bottom=margins.bottom / height,
        top=1 - margins.top / height,
    )
    return figure


def save_figure(fig: Figure, path: Path) -> list[Path]:
    """Write `path`.svg and `path`.pdf atomically, without a date: the same figure gives the same bytes."""
    saved = []
    for kind, metadata in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
        target = path.with_name(f"{path.name}.{kind}")
        with runs.atomic_write(target) as sink:
            sink.write(_render(fig, kind, path.name, metadata))
        saved.append(target)
    return saved


def save_png(fig: Figure, path: Path, dots: int = 150) -> Path:
    """Write `path`, a .png of so many dots an inch, atomically: for a look, where `save_figure` is for print."""
    with style(), runs.atomic_write(path) as sink:
        fig.savefig(sink, format="png", dpi=dots, metadata={"Software": None})
    return path


def inline_svg(fig: Figure, name: str, title: str, description: str) -> str:
    """The figure as an <svg> element to stand in a page: its ids start with `name`, its alt text is given.

    The XML prolog, the metadata and the fixed size are taken out; the viewBox lets the page scale it.
    """
    text = _render(fig, "svg", name, {"Date": None, "Creator": None, "Format": None, "Type": None}).decode("utf-8")
    body = text[text.index("<svg") :]
    opening, _, inner = body.partition(">")
    box = re.search(r'viewBox="([^"]+)"', opening)
    if box is None:
        raise ValueError(f"figure {name}: matplotlib wrote no viewBox")
    inner = _prefix_ids(re.sub(r"<!--.*?-->\s*", "", inner, flags=re.DOTALL), name)
    inner = re.sub(r"\n\s*", "\n", inner)
    width = float(box.group(1).split()[2])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box.group(1)}" '
        f'role="img" aria-labelledby="{name}-t {name}-d" style="max-width:{width * 1.6:.0f}px">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
        f"{inner.rstrip()}\n"
    )


def _render(fig: Figure, kind: str, salt: str, metadata: dict[str, None]) -> bytes:
    import matplotlib

    with style(), matplotlib.rc_context({"svg.hashsalt": salt}):  # text is laid out now, not when it was drawn
        sink = io.BytesIO()
        fig.savefig(sink, format=kind, metadata=metadata)
    return sink.getvalue()


def _prefix_ids(svg: str, name: str) -> str:
    """Ids that something points to get the figure's name in front; the rest go: a page's ids must be its own."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))

    def rename(found: re.Match[str]) -> str:
        return f' id="{name}-{found.group(1)}"' if found.group(1) in used else ""

    svg = re.sub(r' id="([^"]+)"', rename, svg)
    return re.sub(r'(url\(#|href="#)([^)"]+)', rf"\g<1>{name}-\g<2>", svg)
