"""Figures, colours and files: what all pictures share.

The only package that knows matplotlib, and that only once something is drawn. Uses no pyplot, so
no state outlives a picture; no window is ever opened. Knows nothing of what is drawn.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from penstock.domain.errors import InvalidSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Red, green and blue, 0 to 1.
Colour: TypeAlias = tuple[float, float, float]

# Okabe and Ito's palette, told apart with every common form of colour blindness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C00")
INK = "#222222"
FAINT = "#767676"
GRID = "#E3E3E3"
EMPTY = "#F3F3F3"
ALARM = "#C0392B"

SUFFIXES = (".png", ".svg", ".html")

_DPI = 150
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ margin: 2rem; font: 16px/1.5 system-ui, sans-serif; color: #222 }}
svg {{ max-width: 100%; height: auto }}
</style></head><body>
{svg}
</body></html>
"""


def check_suffix(path: Path) -> None:
    """Check that a picture can be written to this path.

    Raises:
        InvalidSettings: its suffix names no format.
    """
    if path.suffix.lower() not in SUFFIXES:
        found = path.suffix or "no suffix"
        raise InvalidSettings(str(path), "", f"a picture as {', '.join(SUFFIXES)}", found)


def new_figure(width_in: float, height_in: float, title: str, subtitle: str = "") -> Figure:
    """Return an empty figure with a title above it.

    Args:
        width_in, height_in: size in inches, title included.
        title: what the picture shows.
        subtitle: what a reader should take from it.
    """
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(width_in, height_in), facecolor="white")
        top = 1 - 0.16 / height_in
        figure.text(0.28 / width_in, top, title, size=14, weight="bold", va="top", color=INK)
        top -= 0.31 / height_in
        figure.text(0.28 / width_in, top, subtitle, size=10, va="top", color=FAINT)
    return figure


def add_axes(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Return axes that leave the given margins, in inches, free."""
    width, height = figure.get_size_inches()
    box = (left / width, bottom / height, (width - left - right) / width, 0.0)
    with _style():
        axes = figure.add_axes((*box[:3], (height - bottom - top) / height))
        axes.tick_params(length=0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return axes


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the path's suffix names.

    Raises:
        InvalidSettings: it names none.
        OSError: the file cannot be written.
    """
    check_suffix(path)
    match path.suffix.lower():
        case ".png":
            _print(figure, path, "png")
        case ".svg":
            _print(figure, path, "svg")
        case _:
            drawing = io.BytesIO()
            _print(figure, drawing, "svg")
            svg = drawing.getvalue().decode()
            title = html.escape(figure.texts[0].get_text())
            page = _PAGE.format(title=title, svg=svg[svg.index("<svg") :])
            path.write_text(page, encoding="utf-8")


def tint(colour: str, strength: float) -> Colour:
    """Return a colour mixed with white; strength 1 leaves it, 0 is white."""
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (1 - strength * (1 - channel) for channel in channels)
    return red, green, blue


def ink_on(colour: Colour) -> str:
    """Return black or white, whichever is easier to read on a colour."""
    red, green, blue = colour
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    return INK if brightness > 0.55 else "white"  # noqa: PLR2004  # half, for gamma


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rc("font", family="DejaVu Sans", size=10)
        mpl.rc("text", color=INK)
        mpl.rc("axes", edgecolor=FAINT, labelcolor=INK)
        mpl.rc("xtick", color=FAINT, labelcolor=INK)
        mpl.rc("ytick", color=FAINT, labelcolor=INK)
        # Text stays text, so that it can be searched; equal pictures are equal files.
        mpl.rc("svg", fonttype="none", hashsalt="penstock")
        yield


def _print(figure: Figure, target: Path | io.BytesIO, form: str) -> None:
    metadata = {"Date": None} if form == "svg" else {}
    with _style():
        figure.savefig(target, format=form, dpi=_DPI, metadata=metadata)
