"""All figures of a comparison: as files, and as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunetrail.report import gates, learning_rates, text, tradeoffs
from tunetrail.report.across import improvement_plot, profile_plot
from tunetrail.report.budgets import budget_axes, budget_plot, budget_table
from tunetrail.report.output import inline_svg, save
from tunetrail.report.plots import difference_plot, loss_plot, score_plot
from tunetrail.report.text import Json, titles
from tunetrail.verdicts.costs import COSTS, costs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Key of the figures of all tasks together; no task has it for a name.
ALL_TASKS = ""


class Picture(NamedTuple):
    """A figure with its words.

    Attributes:
        title: Its heading.
        caption: How to read it.
        figure: The drawing.
        note: What it shows, in words; empty where the tables say it.
        table: Its numbers as an HTML table; empty where other tables of the report have them.
        choice: What it is called among figures of the same title, of which one at a time is seen;
            empty where it stands alone.
    """

    title: str
    caption: str
    figure: Figure
    note: str = ""
    table: str = ""
    choice: str = ""


Pictures = dict[str, dict[str, Picture]]


def draw(
    comparison: Json, costs: Json, certificates: Json, histories: Mapping[str, Sequence[Json]]
) -> Pictures:
    """Task → name of the file → figure; those of all tasks under ``ALL_TASKS``.

    Args:
        comparison: Scores of all runs, their summaries and verdicts, by task and label.
        costs: Costs by task and label; either may lack an entry.
        certificates: ONNX certificates by task and label; either may lack an entry.
        histories: Task → what ``loss_plot`` takes.
    """
    found: Pictures = {}
    for name, task in comparison["tasks"].items():
        measured = {
            label: costs_of(costs.get(name, {}).get(label), certificates.get(name, {}).get(label))
            for label in task["methods"]
        }
        found[name] = {
            **_scores(task, comparison),
            **_tradeoffs(
                task, measured, comparison, text.times_sentence(task, costs.get(name, {}))
            ),
            **_budgets(task),
            **_learning_rates(task),
            **_gates(task),
            "loss": Picture(
                "Training loss", "Mean over seeds at each step.", loss_plot(task, histories[name])
            ),
        }
    if len(comparison["tasks"]) > 1:
        found[ALL_TASKS] = _across(comparison)
    return found


def _scores(task: Json, comparison: Json) -> dict[str, Picture]:
    found = {
        "score": Picture(
            "Test score",
            "Rings: every seed. Marker and bar: mean and 95% t interval over seeds. Dashed: always "
            "giving the same answer. Bold: chosen on the selection set.",
            score_plot(task),
        )
    }
    if task["verdicts"]:
        found["difference"] = Picture(
            "Verdicts",
            "Method minus baseline, paired. Rings: every seed. Marker and bar: mean and the "
            "interval that decides. Band: the margin.",
            difference_plot(task, comparison),
        )
    return found


def _tradeoffs(
    task: Json, measured: dict[str, Json], comparison: Json, times: str
) -> dict[str, Picture]:
    return {
        tradeoffs.SHOWN[cost].file: Picture(
            "Score and cost",
            "Rings: every seed. Marker and bar: mean and 95% t interval over seeds. A method is "
            "dominated where another one that costs no more is better by its verdict, or one that "
            "costs less is not worse by more than the margin. Nearly equal costs stand a "
            "little apart.",
            tradeoffs.tradeoff_plot(task, measured, cost, comparison),
            " ".join(
                [
                    tradeoffs.in_words(task, tradeoffs.weighed(task, measured, cost, comparison)),
                    *([times] if times and cost == "train_seconds" else []),
                ]
            ),
            choice=tradeoffs.SHOWN[cost].title,
        )
        for cost in COSTS
        if any(cost in found for found in measured.values())
    }


def _budgets(task: Json) -> dict[str, Picture]:
    found: dict[str, Picture] = {}
    for axis in budget_axes(task["budgets"], task["main_budget"]):
        number = sum(name.startswith(f"by-{axis.name}") for name in found) + 1
        found[f"by-{axis.name}" + (f"-{number}" if number > 1 else "")] = Picture(
            f"Score by {axis.title}",
            "Rings: every seed. Marker and bar: mean and 95% t interval over seeds.",
            budget_plot(task, axis),
            table=budget_table(task, axis),
        )
    return found


def _learning_rates(task: Json) -> dict[str, Picture]:
    return {
        f"learning-rate-{budget}": Picture(
            "Learning rate" + (f", budget {budget}" if budget != task["main_budget"] else ""),
            "Score of every trial on the selection set, one seed each.",
            learning_rates.learning_rate_plot(task, budget, records),
            learning_rates.in_words(task, budget, records),
            learning_rates.trials_table(task, budget, records),
        )
        for budget, records in learning_rates.tuned(task).items()
    }


def _gates(task: Json) -> dict[str, Picture]:
    return {
        f"gates-{label}": Picture(
            f"Gates of {titles(task)[label]}",
            "How far each part was open in each layer: mean over the texts of the selection set, "
            "then mean ± standard deviation over seeds. 0 shuts a part off.",
            gates.gate_plot(task, label, found),
            gates.in_words(found),
            gates.gate_table(task, label, found),
        )
        for label, found in gates.observed(task).items()
    }


def _across(comparison: Json) -> dict[str, Picture]:
    found = {
        "profiles": Picture(
            "Performance profiles",
            "Share of runs, over tasks and seeds, that score more. Bands: 95% bootstrap intervals "
            "over seeds, which are too narrow at few seeds.",
            profile_plot(comparison),
        )
    }
    if any("improvement" in entry for entry in comparison["across"]["methods"].values()):
        found["improvement"] = Picture(
            "Probability of improvement",
            "That a run of a method beats a run of the baseline on the same task. Bars: 95% "
            "bootstrap intervals. Dashed: even chances.",
            improvement_plot(comparison),
        )
    return found


def write(pictures: Pictures, svg: Path, png: Path) -> None:
    """Write every figure to a folder of its task; those of all tasks beside these folders.

    Args:
        pictures: What :func:`draw` returned.
        svg: Folder to write as SVG. DVC shows all that is in it, so nothing is there twice.
        png: Folder to write as PNG.
    """
    for name, found in pictures.items():
        for folder in (svg, png):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for file, picture in found.items():
            save(picture.figure, svg / name / f"{file}.svg")
            save(picture.figure, png / name / f"{file}.png")


def inline(pictures: Pictures) -> dict[str, list[Json]]:
    """Task → its figures as the report's templates take them.

    Figures of one title with a choice become one entry.

    Returns:
        Entries of ``title``, ``caption`` and ``views``, each with ``name``, ``choice``, ``note``,
        ``table`` (HTML) and ``drawing`` (an ``<svg>`` element).
    """
    shown: dict[str, list[Json]] = {}
    for task, found in pictures.items():
        entries: dict[str, Json] = {}
        for name, picture in found.items():
            view = {
                "name": name,
                "choice": picture.choice,
                "note": picture.note,
                "table": picture.table,
                "drawing": inline_svg(picture.figure),
            }
            entry = {"title": picture.title, "caption": picture.caption, "views": []}
            entries.setdefault(picture.title, entry)["views"].append(view)
        shown[task] = list(entries.values())
    return shown
