"""What all figures share: their size, their marks, and how a page finds what is drawn in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from tunetrail.report.style import INK, METHOD, SETTINGS, Style
from tunetrail.report.text import Json, short_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_P = ParamSpec("_P")
_WIDTH = 4.8  # inches, so that 9 points are still readable when a phone scales the figure down
#: How many points right of its mean a seed may stand.
ASIDE = 5.5
#: Of `scatter`, for every seed and for means.
SEED: dict[str, Any] = {"s": 18, "facecolors": "none", "linewidths": 1}
MEAN: dict[str, Any] = {"s": 42, "zorder": 3, "linewidths": 0}
_RING: dict[str, Any] = {
    "marker": "o",
    "color": INK,
    "markersize": 4,
    "markerfacecolor": "none",
    "linestyle": "none",
}


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Matplotlib's defaults are read whenever a part is made, so they hold for a whole figure."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return drawn


def start(description: str, height: float) -> tuple[Figure, Any]:
    """An empty figure (height in inches), described for those who cannot see it, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=72, layout="constrained", label=description)
    FigureCanvasAgg(figure)
    vars(figure)["tips"] = {}  # id → texts, see `mark`
    return figure, figure.add_subplot()


def mark(
    label: str, drawn: Sequence[Any], part: str = "mark", tips: Sequence[Sequence[str]] = ()
) -> None:
    """Give what is drawn for a method ids by which a page finds it.

    Args:
        label: The method's.
        drawn: Artists of matplotlib.
        part: What they are, for ids that differ.
        tips: For each artist, from the first, what a page says of it under the pointer: one text,
            or one for each of its points.
    """
    for number, artist in enumerate(drawn):
        name = f"{METHOD}{label}/{part}{number}"
        artist.set_gid(name)
        if number < len(tips):
            artist.get_figure().tips[name] = list(tips[number])


def seed_tips(title: str, seeds: Sequence[int], scores: Iterable[str]) -> list[str]:
    """What is said of each ring: ``LoRA, seed 2: 0.745``."""
    return [f"{title}, seed {s}: {shown}" for s, shown in zip(seeds, scores, strict=True)]


def rings_beside(axes: Any, x: Sequence[float], y: Sequence[float], colour: str) -> Any:
    """Every seed as a ring, right of its place, so that the marker of the mean covers none."""
    from matplotlib.transforms import ScaledTranslation

    aside = ScaledTranslation(ASIDE / 72, 0, axes.figure.dpi_scale_trans)
    axes.update_datalim(list(zip(x, y, strict=True)))  # what is moved aside does not count else
    axes.autoscale_view()
    small = SEED | {"s": 11, "linewidths": 0.8}
    return axes.scatter(x, y, edgecolors=colour, transform=axes.transData + aside, **small)


def row(
    axes: Any,
    place: int,
    label: str,
    look: Style,
    whole: tuple[float, float | None, float | None],
    told: str,
    seeds: Sequence[float] = (),
    tips: Sequence[str] = (),
) -> None:
    """A row of a chart: a marker with its interval and, below it, every seed.

    Args:
        axes: The axes.
        place: The row, 0 is the highest.
        label: Label of the method.
        look: How the method is drawn.
        whole: Mean, low and high end; None where there is no interval.
        told: What a page says of them.
        seeds: The value of each seed.
        tips: What a page says of each.
    """
    mean, low, high = whole
    drawn, said = [], []
    if seeds:
        # Below the interval and a little apart, so that equal scores of two seeds both show.
        heights = [place + 0.2 + 0.16 * i / max(len(seeds) - 1, 1) for i in range(len(seeds))]
        drawn.append(axes.scatter(seeds, heights, edgecolors=look.colour, **SEED))
        said.append(tips)
    if low is not None and high is not None:
        drawn += axes.plot([low, high], [place, place], color=look.colour, linewidth=1.8)
        said.append([told])
    drawn.append(axes.scatter([mean], [place], color=look.colour, marker=look.marker, **MEAN))
    mark(label, drawn, tips=[*said, [told]])


def name_rows(axes: Any, order: Sequence[str], names: dict[str, str], bold: str = "") -> None:
    """Titles of methods beside their rows.

    Args:
        axes: The axes, with all rows drawn.
        order: Labels, from the highest row.
        names: Label → title.
        bold: Label of the method whose title is bold.
    """
    axes.set_yticks(range(len(order)), [names[label] for label in order])
    for tick, label in zip(axes.get_yticklabels(), order, strict=True):
        tick.set_fontweight("bold" if label == bold else "normal")
        mark(label, [tick], "name")
    axes.set_ylim(len(order) - 0.4, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=7)


def key(mean: str, *more: Any) -> list[Any]:
    """Entries of a legend that say what rings and markers are.

    Args:
        mean: What the marker with a bar is.
        more: Further entries.
    """
    from matplotlib.lines import Line2D

    bar: dict[str, Any] = {"marker": "o", "color": INK, "markersize": 6, "linewidth": 1.8}
    return [Line2D([], [], label="one seed", **_RING), Line2D([], [], label=mean, **bar), *more]


def method_legend(figure: Any, names: dict[str, str]) -> None:
    """A legend of methods above the figure, from lines that were labelled in this order.

    Args:
        figure: The figure.
        names: Label → title, of the methods that were drawn.
    """
    longest = max((len(name) for name in names.values()), default=0)
    legend = figure.legend(loc="outside upper left", ncols=3 if longest <= 16 else 2)
    if legend is None:
        return
    for label, *entry in zip(names, legend.get_lines(), legend.get_texts(), strict=True):
        mark(label, entry, "legend")


def cut_at_scores(axes: Any, axis: Literal["x", "y"], task: Json) -> None:
    """End an axis where scores do: at 1, and at 0 unless some are negative.

    The t interval of two or three seeds may reach far beyond, and would leave no room for means.

    Args:
        axes: The axes, with all scores drawn.
        axis: The one that scores are on.
        task: The task that they are of.
    """
    metric = task["primary"]
    results = (r for m in task["methods"].values() for r in m["budgets"].values())
    lowest = min(run["test"][metric] for result in results for run in result["runs"])
    low, high = axes.get_xlim() if axis == "x" else axes.get_ylim()
    ends = max(low, -1.02 if lowest < 0 else -0.02), min(high, 1.02)
    axes.set(**{f"{axis}lim": ends})


def counted(axis: Any) -> None:
    """Write the numbers of an axis short: ``20 k``, ``1.5 M``."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def log_axis(axes: Any) -> None:
    """A logarithmic horizontal axis: powers of ten; more where it spans less than two of them."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 100 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
