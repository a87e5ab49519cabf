"""The report as a document: complete, self-contained, described for everyone, without a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from pipelines.progress import show_results
from tests import finished
from tests.conftest import Project
from tunetrail.report import details, facts, figures, gates, html, style, text
from tunetrail.report.failures import clear_failures, failures_page, write_failures
from tunetrail.report.markdown import markdown_table
from tunetrail.report.page import Cell, page, table
from tunetrail.report.recommended import in_words, recommended
from tunetrail.verdicts.costs import costs_of

FAILURES = [
    {"stage": "train@movie-lora-1", "reason": "the loss became nan\n  fix: lower <the> rate"},
    {"stage": "cost@own", "reason": "worker ended with exit code -9"},
]


class Element:
    """A node of a parsed page."""

    VOID: ClassVar[set[str]] = {"meta", "link", "input", "br", "hr", "img", "path", "use"}

    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element] = []
        self.text = ""

    def all(self, *tags: str) -> list[Element]:
        found = [self] if self.tag in tags or not tags else []
        return found + [hit for child in self.children for hit in child.all(*tags)]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)

    @property
    def above(self) -> list[Element]:
        return [] if self.parent is None else [self.parent, *self.parent.above]

    @property
    def words(self) -> str:
        inner = " ".join([self.text, *(child.words for child in self.children)])
        return " ".join(inner.split())


def parse(source: str) -> Element:
    """The page as a tree; an element that is closed twice or never fails."""
    from html.parser import HTMLParser

    root = Element("", {}, None)

    class Parser(HTMLParser):
        place = root

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            element = Element(tag, dict(attrs), self.place)
            self.place.children.append(element)
            if tag not in Element.VOID:
                self.place = element

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.place.children.append(Element(tag, dict(attrs), self.place))

        def handle_endtag(self, tag: str) -> None:
            if tag in Element.VOID:
                return
            assert self.place.tag == tag, f"</{tag}> closes <{self.place.tag}>"
            self.place = self.place.parent or root

        def handle_data(self, data: str) -> None:
            self.place.text += data

    parser = Parser()
    parser.feed(source)
    assert parser.place is root
    return root


@cache
def source() -> str:
    return finished.report()


@cache
def tree() -> Element:
    return parse(source())


def sections(name: str) -> list[Element]:
    return [element for element in tree().all("section") if element.get("id") == name]


def test_nothing_is_loaded_from_anywhere() -> None:
    for element in tree().all():
        for name, value in element.attributes.items():
            if name in {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}:
                assert (value or "").startswith(("#", "data:,")), (element.tag, name, value)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", source()))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    styles = "".join(element.text for element in tree().all("style"))
    assert not re.search(r"@import|url\(", styles)


def test_policy_allows_this_script_and_no_request() -> None:
    (policy,) = (
        e.get("content") or "" for e in tree().all("meta") if e.get("http-equiv") is not None
    )
    (script,) = re.findall(r"<script>(.*?)</script>", source(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert script == html.SCRIPT.read_text()
    assert "script-src 'none'" in page("a page without a script", "")


def test_headings_landmarks_and_ids() -> None:
    levels = [int(e.tag[1]) for e in tree().all("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1 == levels[0]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert {len(tree().all(tag)) for tag in ("header", "nav", "main", "search")} == {1}
    ids = [e.get("id") for e in tree().all() if e.get("id")]
    assert len(ids) == len(set(ids))
    links = {(e.get("href") or "")[1:] for e in tree().all("a")}
    assert {"main", "provenance", "task-movie", "task-own"} <= links <= set(ids)


def test_figures_are_described_and_marked_by_method() -> None:
    drawings = tree().all("svg")
    figures = [e for e in drawings if e.get("role") == "img"]
    # Scores, verdicts, six costs, two curves of budgets, learning rates, loss; and of all tasks.
    assert len(figures) == 12 * len(finished.TASKS) + 2
    assert len({e.get("aria-label") for e in figures}) == len(figures)
    assert all(e.get("aria-hidden") == "true" for e in drawings if e not in figures)
    for figure in figures:
        marked = {e.get("data-method") for e in figure.all() if e.get("data-method")}
        described = figure.get("aria-label") or ""
        # Nothing of its training was measured for head only, but its exported model was.
        trained = " over " in described and "ONNX" not in described
        without = {"head"} if trained else set()
        against = "difference" in described or "beats" in described
        without |= {"full"} if against else set()  # the baseline
        if "learning rate" in described:
            without = set(finished.METHODS) - {"lora", "head"}  # the others were not tuned
        assert marked == set(finished.METHODS) - without
    assert style.INK not in source(), "ink is the colour of the text around it"


def test_tables_can_be_named_scrolled_and_sorted() -> None:
    names = []
    for found in tree().all("table"):
        region = next(e for e in found.above if e.get("role") == "region")
        assert region.get("tabindex") == "0"
        (caption,) = found.all("caption")
        assert caption.words == region.get("aria-label")
        names.append(caption.words)
        for cell in found.all("tbody")[0].all("th", "td"):
            if "number" in (cell.get("class") or "").split():
                value = cell.get("data-value")
                assert value is not None
                assert (value == "") == (cell.words == text.ABSENT), cell.words
                float(value or 0)
        for row in found.all("tbody")[0].all("tr"):
            assert [e.get("scope") for e in row.all("th")] == ["row"]
    assert len(set(names)) == len(names) == 9 * len(finished.TASKS) + 1
    boards = [e for e in tree().all("table") if e.get("class") == "board"]
    for board in boards:
        (ordered,) = (e for e in board.all("th") if e.get("aria-sort"))
        assert (ordered.words, ordered.get("aria-sort")) == ("accuracy", "descending")
        means = [row.all("td")[0].get("data-value") for row in board.all("tbody")[0].all("tr")]
        assert means == sorted(means, key=lambda mean: -float(mean or 0))
        columns = [e.get("data-column") for e in board.all("th") if e.get("scope") == "col"]
        first = board.all("tbody")[0].all("tr")[0]
        assert columns == [str(i) for i in range(len(first.all("th", "td")))]


def test_without_script_all_is_shown_and_no_control_is() -> None:
    controls = tree().all("button", "input", "form", "fieldset")
    assert len(controls) > 20
    for control in controls:
        if control.get("type") == "radio" or control.get("class") == "choice":
            continue  # the style sheet alone does what they say
        assert any("hidden" in e.attributes for e in (control, *control.above)), control.tag
    allowed = {"button", "form"}
    for element in tree().all():
        if "hidden" in element.attributes and element.tag not in allowed:
            assert element.get("class") == "note left-out"


def test_data_cannot_become_markup() -> None:
    assert not tree().all("b")
    titles = [e.words for e in sections("task-own")[0].all("h2")]
    assert titles == ['Own <b>"rows"</b> & more']
    assert "conflicts: published <so>" in sections("task-own")[0].words
    assert "&lt;/td&gt;" in table("c", ["a", "b"], [["x", Cell("</td>")]])


def test_provenance_is_complete_and_can_be_copied() -> None:
    (known,) = sections("provenance")
    made = finished.made_with()
    copies = [e.get("data-copy") or "" for e in known.all("button")]
    content = finished.comparison()
    digests = [content["base"]["digest"], *(t["data"]["digest"] for t in content["tasks"].values())]
    for value in (*digests, "0f" * 20, f"git checkout {'0f' * 20}\nmake run"):
        assert value in copies
        assert " ".join(value.split()) in known.words
    for name, version in made["versions"].items():
        assert f"{name} {version}" in known.words
    assert made["machine"]["processor"] in known.words
    record = json.loads(copies[-1])
    assert record["runs"]["movie"]["lora"]["1"] == finished.digest("movie", "lora", "full", 1)
    assert record["machine"] == made["machine"]
    every_run = [e.get("data-copy") for e in sections("task-movie")[0].all("button")]
    assert finished.digest("movie", "lora", "full", 1) in every_run


def test_commands_to_reproduce_follow_the_checkout() -> None:
    assert facts.reproduce({"git_commit": None}) == "make run"
    changed = finished.made_with(git_commit="ab" * 20, git_dirty=True)
    shown = html.render(finished.comparison(), {}, {}, changed, {})
    assert "uncommitted changes, which the commit lacks" in shown
    assert "uncommitted changes" not in source()


def test_costs_are_a_table_of_training_keeping_and_serving() -> None:
    found = next(e for e in tree().all("table") if e.all("caption")[0].words.startswith("Costs"))
    rows = {row.get("data-method"): row for row in found.all("tbody")[0].all("tr")}
    assert [cell.words for cell in rows["lora"].all("th", "td")] == [
        *("LoRA", "74,883 0.33% of total", "0.83× 10 s", "181"),
        *("858 MiB", "293 KiB", "86.2 MiB", "4.90", "4.90"),
    ]
    measured = [cell.words for cell in rows["head"].all("td")]
    assert measured == [*[text.ABSENT] * 5, "86.2 MiB", "4.90", "4.90"]


def of_method(shown: str, label: str) -> list[str]:
    (row,) = (r for r in parse(shown).all("tr") if r.get("data-method") == label)
    return [cell.words for cell in row.all("th", "td")]


def test_pretraining_is_in_the_time_and_the_checkpoint_in_the_artifact() -> None:
    whole, costs = finished.comparison(), finished.costs()
    task, measured = whole["tasks"]["movie"], costs["movie"]
    assert text.times_sentence(task, measured) == ""
    measured["lora"] |= {"pretrain_seconds": 50.0, "checkpoint_bytes": 90 * 2**20}
    cells = of_method(details.costs_table(task, measured, {}, "full"), "lora")
    assert cells[2] == "5.00× 10 s + 50 s pretraining"
    assert cells[5] == "90.3 MiB 90 MiB of it the checkpoint"
    assert text.reference(task, measured, "") == "lora"
    shown = markdown_table(whole, costs)
    assert next(line for line in shown.splitlines() if "| LoRA " in line).endswith("5.00× |")
    told = "Times have the whole continued pretraining of a method"
    assert text.times_sentence(task, measured).startswith(told)
    assert shown.count(told) == 1
    steps = [{"label": "lora", "title": "LoRA", "seed": 1, "loss": [[1, 0.7], [2, 0.6]]}]
    drawn = figures.draw(whole, costs, {}, dict.fromkeys(finished.TASKS, steps))
    notes = {name: told in picture.note for name, picture in drawn["movie"].items()}
    assert [name for name, has in notes.items() if has] == ["time"]
    page = html.render(whole, costs, {}, finished.made_with(), figures.inline(drawn))
    assert page.count(told) == 3  # leaderboard, figure, costs


def test_with_patience_times_are_at_most() -> None:
    task, costs = finished.comparison()["tasks"]["movie"], finished.costs()["movie"]
    task["budgets"] = task["budgets"] | {"full": {"epochs": 2, "patience": 1}}
    cells = of_method(details.costs_table(task, costs, {}, "full"), "lora")
    assert cells[2] == "0.83× at most 10 s"
    said = "Times are those of all epochs: patience may end a run earlier."
    assert text.times_sentence(task, costs) == said
    assert text.times_sentence(task, {}) == ""


def test_what_tuning_took_is_told_beside_the_costs_of_a_run() -> None:
    whole, costs = finished.comparison(), finished.costs()
    assert "Tuning" not in details.costs_table(whole["tasks"]["movie"], costs["movie"], {}, "full")
    costs["movie"]["lora"]["tuning"] = {"trials": 8, "seconds": 754.2}
    shown = details.costs_table(whole["tasks"]["movie"], costs["movie"], {}, "full")
    assert of_method(shown, "lora")[-1] == "12 min 34 s 8 trials"
    assert of_method(shown, "full")[-1] == text.ABSENT
    page = html.render(whole, costs, {}, finished.made_with(), {})
    assert page.count("no other time has them in it") == 1


def test_what_is_missing_is_a_dash_and_no_error() -> None:
    shown = parse(html.render(finished.comparison(), {}, {}, finished.made_with(), {}))
    assert "No method of this task was exported." in shown.words
    assert not shown.all("figure")
    assert "Times are in units of" not in shown.words
    board = next(e for e in shown.all("table") if e.get("class") == "board")
    assert [e.words for e in board.all("td")].count(text.ABSENT) == 2 * len(finished.METHODS) + 1


# Verdicts --------------------------------------------------------------------------------------


def record(
    outcome: str, difference: float, half: float | None, *, not_worse: bool = False, **needs: int
) -> dict[str, Any]:
    ends = (None, None) if half is None else (difference - half, difference + half)
    return {
        "outcome": outcome,
        "difference": difference,
        "low": ends[0],
        "high": ends[1],
        "not_worse": not_worse,
        "needs": needs or None,
    }


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({"seeds": 1, "rows": 0}, "about 1 more seed"),
        ({"seeds": 4, "rows": 0}, "about 4 more seeds"),
        ({"seeds": 0, "rows": 84}, "about 84 more test rows"),
        ({"seeds": 0, "rows": 12_345}, "about 13,000 more test rows"),
        ({"seeds": 2, "rows": 9}, "about 2 more seeds and 9 more test rows"),
    ],
)
def test_needs_in_words(needs: dict[str, int], expected: str) -> None:
    found = record("open", 0.0, 0.1, **needs)
    assert text.needs(found) == expected
    short = expected.replace("about ", "needs ≈ ").replace(" and", ",")
    assert text.short_needs(found) == short.replace(" more", "").replace(" test", "")


def test_a_difference_has_its_sign_and_its_interval() -> None:
    assert text.difference(record("win", 0.03, 0.01)) == "+0.030 [+0.020, +0.040]"
    assert text.difference(record("lose", -0.03, 0.02)) == "−0.030 [−0.050, −0.010]"
    assert text.difference(record("open", 0.0, None)) == "0.000"
    assert text.signed(-0.0001) == text.signed(0.0001) == "0.000"


def test_the_sentence_names_every_verdict() -> None:
    task = finished.comparison()["tasks"]["movie"]
    task["verdicts"] = {
        "lora": record("tie", 0.001, 0.004),
        "lora-r2": record("open", -0.03, 0.05, seeds=2, rows=0),
        "houlsby": record("win", 0.03, 0.01, not_worse=True),
        "head": record("open", 0.02, 0.025, not_worse=True, seeds=1, rows=0),
    }
    assert text.verdict_sentence(task, "full", 0.01) == (
        "Against full fine-tuning: LoRA ties within ±0.01 (+0.001 [−0.003, +0.005]), "
        "Houlsby adapter wins (+0.030 [+0.020, +0.040]); "
        "not settled: LoRA (lora-r2) (needs about 2 more seeds), "
        "head only (not worse by more than 0.01; needs about 1 more seed)."
    )
    task["verdicts"] = {"head": record("lose", -0.08, 0.01)}
    assert text.verdict_sentence(task, "full", 0.01) == (
        "Against full fine-tuning: head only loses (−0.080 [−0.090, −0.070])."
    )
    task["verdicts"] = {}
    assert text.verdict_sentence(task, "", 0.01) == ""


def test_one_sentence_says_what_was_chosen_and_how_verdicts_came_out() -> None:
    whole = finished.comparison()
    outcomes = [v["outcome"] for t in whole["tasks"].values() for v in t["verdicts"].values()]
    assert sorted(set(outcomes)) == ["lose", "open"]
    lost, left = outcomes.count("lose"), outcomes.count("open")
    assert text.summary_sentence(whole) == (
        "Full fine-tuning was chosen on the selection set of both tasks. Of 8 comparisons with "
        f"full fine-tuning: {lost} losses, {left} not settled."
    )
    (lead,) = (e for e in tree().all("p") if e.get("class") == "lead")
    assert lead.words == text.summary_sentence(whole)
    whole["tasks"]["own"]["winner"]["method"] = "lora"
    for task in whole["tasks"].values():
        task["verdicts"] = {"lora": record("win", 0.03, 0.01)}
    assert text.summary_sentence(whole) == (
        "Chosen on the selection set: full fine-tuning on 1 task, LoRA on 1 task. "
        "Of 2 comparisons with full fine-tuning: 2 wins."
    )
    del whole["tasks"]["own"]
    whole["tasks"]["movie"]["verdicts"] = {}
    assert text.summary_sentence(whole) == "Full fine-tuning was chosen on the selection set."


def test_lines_wrap_between_words_and_outside_brackets() -> None:
    task = finished.comparison()["tasks"]["movie"]
    sentence = text.verdict_sentence(task, "full", 0.01)
    for width in range(40, 81):
        lines = text.wrapped(sentence, width, "  ").split("\n")
        assert max(len(line) for line in lines) <= width
        assert " ".join(line.strip() for line in lines) == sentence
        assert all(line.count("(") == line.count(")") for line in lines)
    assert text.wrapped("a path/that-is/longer", 8).split("\n") == ["a", "path/that-is/longer"]


def test_the_leaderboard_has_difference_verdict_and_group() -> None:
    content = finished.comparison()["tasks"]["movie"]
    board = next(e for e in tree().all("table") if e.get("class") == "board")
    headings = [e.words for e in board.all("th") if e.get("scope") == "col"]
    assert headings[3:7] == ["seeds", "group", "difference", "verdict"]
    assert "Against full fine-tuning" in [e.words for e in board.all("th")]
    for row in board.all("tbody")[0].all("tr"):
        label = row.get("data-method") or ""
        group, difference, verdict = (cell.words for cell in row.all("td")[3:6])
        assert group == content["letters"][label]
        if label == "full":
            assert (difference, verdict) == (text.ABSENT, "baseline")
            continue
        found = content["verdicts"][label]
        assert difference == text.difference(found)
        wanted = f" {text.short_needs(found)}" if found["needs"] else ""
        assert verdict == found["outcome"] + wanted
    assert {"lose", "open"} <= {v["outcome"] for v in content["verdicts"].values()}
    sentences = [e.words for e in tree().all("p") if e.get("class") == "verdicts"]
    assert sentences[0] == text.verdict_sentence(content, "full", 0.01)


def test_not_worse_is_said_of_open_verdicts_only() -> None:
    whole = finished.comparison()
    verdicts = whole["tasks"]["movie"]["verdicts"]
    verdicts["lora"] |= record("open", 0.02, 0.025, not_worse=True, seeds=1, rows=0)
    verdicts["head"] |= record("win", 0.03, 0.01, not_worse=True)
    shown = parse(html.render(whole, {}, {}, finished.made_with(), {}))
    board = next(e for e in shown.all("table") if e.get("class") == "board")
    rows = {row.get("data-method"): row.all("td")[5] for row in board.all("tbody")[0].all("tr")}
    assert rows["lora"].words == "open, not worse needs ≈ 1 seed"
    assert rows["head"].words == "win"
    # It stands between what is open and a tie.
    order = [float(rows[label].get("data-value") or "") for label in ("lora-r2", "lora", "full")]
    assert order == sorted(set(order))
    lines = markdown_table(whole, {}).splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[6].strip() for line in lines[2:9]}
    assert (cells["LoRA"], cells["head only"]) == ("open, not worse", "win")
    assert cells["LoRA (lora-r2)"] == "open"


def test_all_pairs_are_a_folded_table() -> None:
    content = finished.comparison()["tasks"]["movie"]
    (shown,) = sections("task-movie")
    (folded,) = (e for e in shown.all("details") if e.all("summary")[0].words == "All pairs")
    assert text.PAIRS in folded.words
    (body,) = folded.all("tbody")
    rows = [[cell.words for cell in row.all("th", "td")] for row in body.all("tr")]
    assert len(rows) == 10  # of five methods
    lora = content["verdicts"]["lora"]
    assert rows[0] == [
        *("LoRA", "full fine-tuning", text.difference(lora)),
        *("98.33%", "0.226", f"open {text.short_needs(lora)}"),
    ]
    between = [(row[0], row[1], row[5].split()[0]) for row in rows[4:]]
    names = text.titles(content)
    assert between == [
        (names[p["of"][0]], names[p["of"][1]], p["outcome"]) for p in content["pairs"]
    ]
    assert {"win", "open"} == {p["outcome"] for p in content["pairs"]}
    del content["methods"]["lora"]
    content |= {"verdicts": {}, "pairs": []}
    assert details.pairs_table(content, "full") == ""


def test_a_pair_of_one_seed_has_no_p_value() -> None:
    assert text.p_value({"p": None}) == text.ABSENT
    assert [text.p_value({"p": p}) for p in (0.0009, 0.0125, 1.0)] == ["<0.001", "0.013", "1.000"]
    assert [text.level({"level": level}) for level in (0.95, 0.9875)] == ["95%", "98.75%"]


def test_every_tuned_option_on_an_edge_is_told_beside_the_verdicts() -> None:
    whole = finished.comparison()
    task = whole["tasks"]["movie"]
    ledger = task["tuning"]["lora"]["full"]
    ledger["range"]["rank"], ledger["chosen"]["rank"] = [16, 4, 8], 4
    ledger["edge"] = {"rank": "low"}
    task["tuning"]["head"]["half"] = task["tuning"]["head"]["full"]
    started = "On the edge of its range, so a wider one may hold a higher score: "
    of_head = "head only, learning_rate 0.01 (high end of [0.0001, 0.01])"
    of_half = of_head.replace("])", "] with budget half)")
    expected = f"{started}LoRA, rank 4 (low end of [4, 16]); {of_head}; {of_half}."
    assert text.edge_sentence(task) == expected
    assert text.edge_sentence(task, "half") == f"{started}{of_head}."
    assert expected in markdown_table(whole, {}).splitlines()
    shown = parse(html.render(whole, {}, {}, finished.made_with(), {}))
    assert expected in [e.words for e in shown.all("p")]
    out = io.StringIO()
    show_results(Console(file=out, width=80), whole)
    assert expected in " ".join(out.getvalue().split())
    assert max(map(len, out.getvalue().splitlines())) <= 80
    task["tuning"] = {}
    assert text.edge_sentence(task) == ""


def test_without_a_baseline_there_is_no_verdict_but_a_group() -> None:
    content = finished.comparison() | {"baseline": ""}
    for task in content["tasks"].values():
        task["verdicts"] = {}
    shown = html.render(content, {}, {}, finished.made_with(), {})
    assert "Against" not in shown
    board = next(e for e in parse(shown).all("table") if e.get("class") == "board")
    assert "group" in [e.words for e in board.all("th")]
    written = markdown_table(content, {})
    assert "verdict" not in written
    assert "| group |" in written


def test_markdown_has_the_verdicts_and_the_views_over_all_tasks() -> None:
    written = markdown_table(finished.comparison(), {})
    lines = written.splitlines()
    assert "against full fine-tuning |" in lines[2]
    (head,) = (line for line in lines[:10] if line.startswith("| head only"))
    found = finished.comparison()["tasks"]["movie"]["verdicts"]["head"]
    assert f"{text.difference(found)} | " in head
    assert "## All tasks together" in lines
    assert sum(line.startswith("| full fine-tuning") for line in lines) == 3


# Colours ---------------------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2 has it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def grounds() -> list[str]:
    """Colours that marks are drawn on, in both themes."""
    css = (html.SCRIPT.parent / "page.css").read_text()
    return [
        colour
        for name in ("card", "tint")
        for pair in re.findall(rf"--{name}: light-dark\((#\w+), (#\w+)\)", css)
        for colour in pair
    ]


@pytest.mark.parametrize("place", range(6))
def test_colours_of_methods_stand_out_in_both_themes(place: int) -> None:
    assert len(grounds()) == 4
    for ground in grounds():
        assert contrast(style.style(place).colour, ground) >= 3, ground


def test_a_method_looks_the_same_in_table_and_plot() -> None:
    looks = style.styles(list(finished.METHODS))
    board = next(e for e in tree().all("table") if e.get("class") == "board")
    figure = next(e for e in tree().all("svg") if "accuracy of each" in (e.get("aria-label") or ""))
    for row in board.all("tbody")[0].all("tr"):
        label = row.get("data-method") or ""
        assert row.all("path")[0].get("fill") == looks[label].colour
        drawn = [e for e in figure.all() if e.get("data-method") == label]
        colours = {e.get("style") or "" for mark in drawn for e in mark.all()}
        assert any(looks[label].colour in colour for colour in colours)


# When the comparison could not be made -----------------------------------------------------------


def test_failures_page_names_stages_reasons_logs_and_what_waits(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "train@movie-lora-1.log").write_text("traceback")
    failed = {f["stage"]: f["reason"] for f in FAILURES}
    written = write_failures(tmp_path, "sentiment", failed, ["compare", "register"])
    shown = parse(written.read_text())
    assert [e.words for e in shown.all("h1")] == ["sentiment: not finished"]
    assert "2 stages failed; 2 more wait for them." in shown.words
    assert "the loss became nan fix: lower <the> rate" in shown.words
    assert [e.words for e in shown.all("summary")] == ["2 stages that need what is missing"]
    (log,) = (e for e in shown.all("a") if e.get("href") != "#main")
    assert (log.get("href"), log.words) == (
        "logs/train%40movie-lora-1.log",
        "logs/train@movie-lora-1.log",
    )
    record = json.loads((tmp_path / "failures.json").read_text())
    assert record == {
        "project": "sentiment",
        "failed": [FAILURES[0] | {"log": "logs/train@movie-lora-1.log"}, FAILURES[1]],
        "blocked": ["compare", "register"],
    }
    clear_failures(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["logs"]
    clear_failures(tmp_path)


def test_failures_page_without_anything_waiting() -> None:
    assert "Waiting" not in failures_page("sentiment", FAILURES[:1], [])


# Against the real thing --------------------------------------------------------------------------


def shape(value: Any, *, free: frozenset[str] = frozenset()) -> Any:
    """Keys of nested mappings; those below a free key are the user's own."""
    if not isinstance(value, dict):
        return None
    return {key: "any" if key in free else shape(inner, free=free) for key, inner in value.items()}


@pytest.mark.pipeline
def test_the_made_up_comparison_has_the_shape_of_a_real_one(
    first_run: tuple[Project, dict[str, Any]],
) -> None:
    real = first_run[0].json("comparison/comparison.json")
    made = finished.comparison()
    free = frozenset(
        {"source", "options", "metric_titles", "waived", "majority", "classes_missing", "budgets"}
        | {"verdicts", "letters", "methods", "profiles"}
    )

    def one_task(content: dict[str, Any]) -> Any:
        # There is no tuning where params.yaml asks for none.
        task = {k: v for k, v in content["tasks"]["movie"].items() if k != "tuning"}
        entry = task["methods"]["lora"]
        metric = task["primary"]
        whole = content | {"tasks": None}
        parts = [whole, task | {"methods": None}, entry | {"summary": None}]
        parts += [entry["summary"][metric], dict.fromkeys(entry["runs"][0])]
        verdict = next(iter(task["verdicts"].values()))
        parts += [dict.fromkeys(verdict), dict.fromkeys(verdict["by_seed"][0])]
        parts += [next(e for e in content["across"]["methods"].values() if len(e) == 3)]
        parts += [next(iter(content["across"]["profiles"].values()))]
        return [shape(part, free=free) for part in parts]

    assert one_task(made) == one_task(real)
    root = first_run[0].root / "runs"
    for kind, known in (("cost", finished.costs()), ("export", finished.certificates())):
        names = ("lora.json", "certificate.json")
        files = [p for p in (root / kind).rglob("*.json") if p.name in names]
        assert files
        for file in files:
            assert set(known["movie"]["lora"]) <= set(json.loads(file.read_text())), file


# -- gates ----------------------------------------------------------------------------------------


def test_gates_are_a_table_of_layers_with_their_spread_over_seeds() -> None:
    task = finished.comparison()["tasks"]["movie"]
    for run in task["methods"]["lora"]["runs"]:
        run["observed"] = {
            "0 prefix": 0.2 + 0.1 * run["seed"],
            "10 LoRA <query>": 0.5,
            "2 prefix": 0.6 + 0.1 * run["seed"],
            "prompt": 0.125,
        }
    found = gates.observed(task)["lora"]
    rows = parse(gates.gate_table(task, "lora", found)).all("tr")
    assert [[cell.words for cell in row.all("th", "td")] for row in rows] == [
        ["Layer", "prefix", "LoRA <query>", "prompt"],
        ["Layer 0", "0.40 ± 0.10", "–", "–"],
        ["Layer 2", "0.80 ± 0.10", "–", "–"],
        ["Layer 10", "–", "0.50 ± 0.00", "–"],
        ["No layer", "–", "–", "0.12 ± 0.00"],
    ]
    assert gates.in_words(found) == (
        "Mean over layers: prefix 0.60 ± 0.10, LoRA <query> 0.50 ± 0.00, prompt 0.12 ± 0.00."
    )


def test_without_gates_there_is_no_figure_of_them() -> None:
    assert gates.observed(finished.comparison()["tasks"]["movie"]) == {}
    assert "Gates of" not in source()


# -- tables below figures, which method to take ---------------------------------------------------


def table_named(caption: str) -> list[list[str]]:
    (found,) = (e for e in tree().all("table") if e.all("caption")[0].words == caption)
    return [[cell.words for cell in row.all("th", "td")] for row in found.all("tr")]


def test_scores_by_budget_are_a_folded_table_below_their_figure() -> None:
    rows = table_named("Movie reviews: score by share of the training rows")
    assert rows[0] == ["Method", "share of the training rows", "test accuracy", "seeds"]
    assert len(rows) == 1 + 3 * len(finished.METHODS)
    task = finished.comparison()["tasks"]["movie"]
    half = task["methods"]["lora"]["budgets"]["half"]["summary"]["accuracy"]
    assert ["LoRA", "50%", f"{text.spread(half)} {text.interval(half)}", "3"] in rows
    folded = [e for e in tree().all("figure") if e.all("details")]
    assert len(folded) == 3 * len(finished.TASKS)  # two curves of budgets, learning rates


def test_trials_are_a_folded_table_below_their_figure() -> None:
    rows = table_named("Movie reviews: trials by learning rate, budget full")
    assert rows[1:6] == [
        ["LoRA", "0.0001", "0.720", "pruned"],
        ["LoRA", "0.0003", "0.740", "complete"],
        ["LoRA", "0.001", "0.760", "chosen"],
        ["LoRA", "0.003", "0.740", "complete"],
        ["LoRA", "0.01", "–", "failed"],
    ]


def measured() -> dict[str, dict[str, float]]:
    return {
        label: costs_of(
            finished.costs()["movie"].get(label), finished.certificates()["movie"].get(label)
        )
        for label in finished.METHODS
    }


def card(page: Element) -> Element:
    return next(
        e.parent for e in page.all("h3") if e.words == "Which one to take" and e.parent is not None
    )


def test_the_card_says_what_the_command_says() -> None:
    whole = finished.comparison()
    task = whole["tasks"]["movie"]
    for limits in ({}, {"trainable_parameters": 30_000.0, "latency_ms": 9.0}):
        made = finished.made_with(limits=limits)
        shown = card(parse(html.render(whole, finished.costs(), finished.certificates(), made, {})))
        found = {"movie": recommended(task, measured(), "full", whole["margin"], limits)}
        said = " ".join(in_words(found, limits).split())
        first, *more = (e.words for e in shown.all("strong", "li"))
        asked = said.split(" movie: ")[0]
        assert said == f"{asked} movie: {first[0].lower()}{first[1:]} {' '.join(more)}"
        assert (asked in shown.words) == bool(limits)
        assert "tunetrail recommend --max-latency-ms 5" in shown.words
    assert first == "Take LoRA (lora-r2), accuracy 0.740 [0.713, 0.767]"


def test_nothing_is_called_best() -> None:
    """What is said of scores has an interval beside it; a superlative has none."""
    whole = finished.comparison()
    outcomes = ("win", "lose", "tie", "open")
    for task in whole["tasks"].values():  # every sentence that there is
        for verdict, outcome in zip(task["verdicts"].values(), outcomes, strict=True):
            verdict["outcome"] = outcome
    drawn = figures.inline(finished.pictures(whole))
    page = parse(
        html.render(whole, finished.costs(), finished.certificates(), finished.made_with(), drawn)
    )
    seen = [e.text for e in page.all() if e.tag not in ("script", "style")]
    seen += [v for e in page.all() for k, v in e.attributes.items() if v and k != "style"]
    seen.append(markdown_table(whole, finished.costs()))
    seen += [text.summary_sentence(whole), text.EXPLAINED, text.ACROSS]
    for name, task in whole["tasks"].items():
        seen.append(text.chosen_sentence(name, task))
        seen.append(text.verdict_sentence(task, "full", whole["margin"]))
        for limits in ({}, {"trainable_parameters": 30_000.0}, {"latency_ms": 0.1}):
            seen.append(
                in_words({name: recommended(task, measured(), "full", 0.01, limits)}, limits)
            )
    assert len(seen) > 1000
    assert [words for words in seen if re.search(r"\bbest\b", words, re.IGNORECASE)] == []


# -- continued pretraining ------------------------------------------------------------------------


def test_what_methods_start_from_is_told() -> None:
    task = finished.comparison()["tasks"]["movie"]
    assert details.pretraining_table(task) == ""
    assert "Starts from" in details.options_table(task)
    task["methods"]["lora"]["start"] = "bio+tapt"
    task["pretraining"]["bio+tapt"] = {
        "pretraining": finished.digest("bio+tapt"),
        "head": "own",
        "texts": {"train": 576, "held_out": 64},
        "steps": 360,
        "tokens": 123_456,
        "held_out_loss": {"before": 6.8471, "after": 5.4583},
    }
    rows = parse(details.options_table(task)).all("tbody")[0].all("tr")
    of_lora = next(row for row in rows if row.get("data-method") == "lora")
    assert [cell.words for cell in of_lora.all("td")][1] == "bio+tapt"
    (row,) = parse(details.pretraining_table(task)).all("tbody")[0].all("tr")
    shown = [cell.words for cell in row.all("th", "td")]
    assert shown[:8] == ["bio+tapt", "own", "576", "64", "123,456", "360", "6.847", "5.458"]
