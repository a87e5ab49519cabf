"""One way to write each kind of number, and the sentences that several reports share."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from tunetrail.verdicts.costs import run_seconds

Json = dict[str, Any]

ABSENT = "\N{EN DASH}"

#: What a reader of verdicts has to know.
EXPLAINED = (
    "Differences are paired, over seeds and test rows, with the interval that decides: it covers "
    "with 95%, or more where several comparisons (Holm), or looks after further seeds, share the "
    "allowed error. Win, lose: it excludes zero; tie: it lies within the margin; open: neither "
    "(not worse: it lies above minus the margin). Methods that share a letter cannot be told apart."
)
#: And of the pairs of methods.
PAIRS = (
    "First minus second. Pairs with the baseline have its verdicts; all others are a family of "
    "their own, with its own 5%. The p values allow for the number of comparisons and of looks."
)
#: And of the views over all tasks.
ACROSS = (
    "Secondary views, from scores as the share of the way from the constant answer to a perfect "
    "one; stratified bootstrap intervals over seeds, which are too narrow at few seeds."
)


def score(value: float, digits: int = 3) -> str:
    """A metric in raw units, ``0.771``; never ``-0.000``."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def spread(summary: Json, digits: int = 3) -> str:
    """Mean and standard deviation over seeds, ``0.771 ± 0.008``; the mean alone for one seed."""
    mean = score(summary["mean"], digits)
    return mean if summary["std"] is None else f"{mean} ± {score(summary['std'], digits)}"


def interval(summary: Json) -> str:
    """``[0.752, 0.790]``, or a dash for one seed."""
    if summary["low"] is None or summary["high"] is None:
        return ABSENT
    return f"[{score(summary['low'])}, {score(summary['high'])}]"


def count(value: float) -> str:
    """Whole number with separators, ``22,713,216``."""
    return f"{value:,.0f}"


def short_count(value: float) -> str:
    """Number for an axis, ``300``, ``20 k``, ``1.5 M``."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def share(part: float, whole: float) -> str:
    """Part of a whole in percent, ``0.41%``."""
    value = part / whole
    if value in (0.0, 1.0):
        return f"{value:.0%}"
    if value < 0.0001:
        return "<0.01%"
    return f"{value:.1%}" if value >= 0.1 else f"{value:.2%}"


def three_digits(value: float) -> str:
    """A measured quantity, ``3.42``, ``56.3`` or ``1,234``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(part: float, whole: float) -> str:
    """One quantity in units of another, two decimals and a multiplication sign."""
    return f"{part / whole:.2f}\N{MULTIPLICATION SIGN}"


def size(value: float) -> str:
    """Bytes in binary units, ``86.6 MiB``."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1000 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.3g} {unit}"


def seconds(value: float) -> str:
    """Duration, ``4.2 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def small(value: float) -> str:
    """A difference close to zero, ``3.0e-7``."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def plural(number: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def ranked(task: Json) -> list[str]:
    """Labels of a task's methods by mean test score of the primary metric, highest first."""
    methods = task["methods"]
    return sorted(methods, key=lambda m: -methods[m]["summary"][task["primary"]]["mean"])


def titles(task: Json) -> dict[str, str]:
    """Title of each label; the label is added where one method appears under several labels."""
    plain = [entry["title"] for entry in task["methods"].values()]
    return {
        label: f"{entry['title']} ({label})" if plain.count(entry["title"]) > 1 else entry["title"]
        for label, entry in task["methods"].items()
    }


def signed(value: float, digits: int = 3) -> str:
    """A difference, ``+0.012``, ``−0.071`` or ``0.000``."""
    shown = score(value, digits)
    return f"+{shown}" if value > 0 and float(shown) else shown


def difference(record: Json) -> str:
    """A difference and its interval, ``−0.071 [−0.112, −0.030]``; without one for one seed."""
    if record["low"] is None:
        return signed(record["difference"])
    return f"{signed(record['difference'])} [{signed(record['low'])}, {signed(record['high'])}]"


def outcome(record: Json) -> str:
    """What a verdict is called; of an open one also that it is not worse."""
    found: str = record["outcome"]
    return f"{found}, not worse" if found == "open" and record["not_worse"] else found


def level(record: Json) -> str:
    """Probability with which the interval covers, ``98.75%``."""
    return f"{100 * record['level']:.4g}%"


def p_value(record: Json) -> str:
    """The adjusted p value, ``0.013`` or ``<0.001``; a dash for one seed."""
    if record["p"] is None:
        return ABSENT
    return "<0.001" if record["p"] < 0.001 else score(record["p"])


def every_pair(task: Json, baseline: str) -> list[Json]:
    """Records of all pairs, ``of`` first minus second: those with the baseline, then the others."""
    verdicts = task["verdicts"]
    against = [label for label in ranked(task) if label in verdicts]
    return [*({"of": [label, baseline], **verdicts[label]} for label in against), *task["pairs"]]


def needs(record: Json) -> str:
    """What an open verdict needs, ``about 2 more seeds``; empty for a settled one."""
    if record["needs"] is None:
        return ""
    seeds, rows = record["needs"]["seeds"], record["needs"]["rows"]
    wanted = [plural(seeds, "more seed")] if seeds else []
    wanted += [plural(_about(rows), "more test row")] if rows else []
    return f"about {' and '.join(wanted)}"


def seeds(comparison: Json) -> str:
    """How many seeds methods have, ``3 seeds``; ``3 to 5 seeds`` where some got further ones."""
    tasks = comparison["tasks"].values()
    counts = {len(method["runs"]) for task in tasks for method in task["methods"].values()}
    fewest = f"{min(counts)} to " if len(counts) > 1 else ""
    return fewest + plural(max(counts), "seed")


def short_needs(record: Json) -> str:
    """The same for a narrow column, ``≈ 2 seeds, 850 rows``."""
    if record["needs"] is None:
        return ""
    seeds, rows = record["needs"]["seeds"], record["needs"]["rows"]
    wanted = [plural(seeds, "seed")] if seeds else []
    wanted += [plural(_about(rows), "row")] if rows else []
    return f"needs \N{ALMOST EQUAL TO} {', '.join(wanted)}"


def _about(number: int) -> int:
    """Two digits of a number that is a guess anyway."""
    unit = int(10 ** max(len(str(number)) - 2, 0))
    return -(-number // unit) * unit


def verdict_sentence(task: Json, baseline: str, margin: float) -> str:
    """Every verdict of a task, the settled ones with their intervals; empty without a baseline."""
    names, verdicts = titles(task), task["verdicts"]
    if not verdicts:
        return ""
    told = {"win": "wins", "lose": "loses", "tie": f"ties within ±{margin:g}"}
    settled = [
        f"{names[label]} {told[record['outcome']]} ({difference(record)})"
        for label, record in verdicts.items()
        if record["outcome"] != "open"
    ]
    not_worse = f"not worse by more than {margin:g}; "
    left = [
        f"{names[label]} ({not_worse if record['not_worse'] else ''}needs {needs(record)})"
        for label, record in verdicts.items()
        if record["outcome"] == "open"
    ]
    found = [", ".join(settled)] if settled else []
    found += [f"not settled: {', '.join(left)}"] if left else []
    return f"Against {names[baseline]}: {'; '.join(found)}."


def edge_sentence(task: Json, budget: str = "") -> str:
    """Which optima of tuning are on the edge of what was searched; empty where none is.

    Args:
        task: One task of the comparison.
        budget: The only one to look at, or empty; others than the main one are named then.
    """
    names = titles(task)
    found = [
        f"{names[label]}, {option} {ledger['chosen'][option]:g} ({end} end of "
        f"[{min(ledger['range'][option]):g}, {max(ledger['range'][option]):g}]"
        + (")" if where in (budget, task["main_budget"]) else f" with budget {where})")
        for label, ledgers in task["tuning"].items()
        for where, ledger in ledgers.items()
        if budget in ("", where)
        for option, end in ledger["edge"].items()
    ]
    if not found:
        return ""
    edge = "On the edge of its range, so a wider one may hold a higher score"
    return f"{edge}: {'; '.join(found)}."


def chosen_sentence(name: str, task: Json) -> str:
    """What was chosen on the selection set, with its test score and interval."""
    label, metric = task["winner"]["method"], task["primary"]
    summary = task["methods"][label]["summary"][metric]
    found = f"test {task['metric_titles'][metric]} {score(summary['mean'])}"
    found += (
        " with one seed, so without an interval"
        if summary["low"] is None
        else f" {interval(summary)} over {plural(summary['count'], 'seed')}"
    )
    return f"On {name}, {titles(task)[label]} was chosen on the selection set: {found}."


def summary_sentence(comparison: Json) -> str:
    """What was chosen, and how many verdicts came out which way: for who reads one sentence."""
    tasks = list(comparison["tasks"].values())
    chosen = [titles(task)[task["winner"]["method"]] for task in tasks]
    where = {name: chosen.count(name) for name in chosen}
    if len(where) == 1:
        first = chosen[0][:1].upper() + chosen[0][1:]
        of = {1: "", 2: " of both tasks"}.get(len(tasks), f" of all {len(tasks)} tasks")
        found = f"{first} was chosen on the selection set{of}"
    else:
        shares = [f"{name} on {plural(number, 'task')}" for name, number in where.items()]
        found = f"Chosen on the selection set: {', '.join(shares)}"
    outcomes = [record["outcome"] for task in tasks for record in task["verdicts"].values()]
    if not outcomes:
        return f"{found}."
    told = {"win": ("win", "wins"), "tie": ("tie", "ties"), "lose": ("loss", "losses")}
    counts = [
        f"{outcomes.count(outcome)} {one if outcomes.count(outcome) == 1 else many}"
        for outcome, (one, many) in told.items()
        if outcome in outcomes
    ]
    if "open" in outcomes:
        counts.append(f"{outcomes.count('open')} not settled")
    against = titles(tasks[0])[comparison["baseline"]]
    each = "comparison" if len(outcomes) == 1 else "comparisons"
    return f"{found}. Of {len(outcomes)} {each} with {against}: {', '.join(counts)}."


def across_rows(comparison: Json) -> list[tuple[str, str, list[str]]]:
    """Label, title and cells of each method over all tasks, highest interquartile mean first."""
    names = titles(next(iter(comparison["tasks"].values())))
    entries = comparison["across"]["methods"]
    return [
        (
            label,
            names[label],
            [across_cell(entries[label].get(k)) for k in ("iqm", "rank", "improvement")],
        )
        for label in sorted(entries, key=lambda label: -entries[label]["iqm"]["value"])
    ]


def across_cell(estimate: Json | None) -> str:
    """A value over all tasks, ``0.57 [0.47, 0.62]``; a dash where there is none."""
    if estimate is None:
        return ABSENT
    whole = score(estimate["value"], 2)
    ends = (estimate["low"], estimate["high"])
    return whole if None in ends else f"{whole} [{score(ends[0], 2)}, {score(ends[1], 2)}]"


def wrapped(words: str, width: int = 80, indent: str = "") -> str:
    """Lines of at most ``width`` columns; what is in brackets stays together, as do long words.

    Args:
        words: One line, or several.
        width: Columns.
        indent: What begins every line but the first.
    """
    glue = "\N{NO-BREAK SPACE}"  # textwrap breaks lines at other spaces only
    together = re.compile(r"\[[^\]]*\]|\([^()]*\)")
    filled = (
        textwrap.fill(
            together.sub(lambda found: found[0].replace(" ", glue), line),
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in words.split("\n")
    )
    return "\n".join(filled).replace(glue, " ")


def at_most(task: Json) -> bool:
    """Whether runs may end before the time that was measured for them: patience may stop them."""
    return "patience" in task["budgets"][task["main_budget"]]


def times_sentence(task: Json, costs: Json) -> str:
    """What the times of a task's runs have in them; empty where they are those of training.

    Args:
        task: One task of the comparison.
        costs: That task's costs, by label.
    """
    found = []
    if any(cost["pretrain_seconds"] for cost in costs.values()):
        found.append(
            "Times have the whole continued pretraining of a method's start in them, although "
            "runs share it."
        )
    if costs and at_most(task):
        found.append("Times are those of all epochs: patience may end a run earlier.")
    return " ".join(found)


def reference(task: Json, costs: Json, baseline: str) -> str | None:
    """Label whose training time is 1: the baseline where it was measured, else the slowest.

    Args:
        task: One task of the comparison.
        costs: That task's costs, by label.
        baseline: Label or name of a method; empty for the slowest.
    """
    measured = [label for label in task["methods"] if label in costs]
    named = [m for m in measured if baseline in (m, task["methods"][m]["name"])]
    slowest = sorted(measured, key=lambda m: -run_seconds(costs[m]))
    return next(iter(named + slowest), None)
