"""validate: the gate that data must pass, as Great Expectations derived from the task."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.files import replacing, write_json, write_text
from tunetrail.kinds import kind_of
from tunetrail.layout import DATA, RESULT
from tunetrail.near_duplicates import near_duplicates, plain
from tunetrail.splits import GATE, SETS, assign_sets, text_keys
from tunetrail.task import TaskSpec, read_task

#: Replacement characters, and UTF-8 that was read as Latin-1.
_DAMAGE = "\ufffd|\u00c3[\u0080-\u00bf]|\u00e2\u20ac"

_SHOWN = 5

COLUMNS = ("id", "group", "split", "text", "text_pair", "label")


@dataclass(frozen=True)
class Check:
    """One expectation of the suite.

    Attributes:
        name: Short name, as in a task's ``checks`` and ``waive``.
        meaning: What holds when it passes.
        expectation: The Great Expectations object.
        limit: Largest share of rows that may fail (0 for structural checks).
    """

    name: str
    meaning: str
    expectation: Any
    limit: float


def validate(canonical: Path, out: Path, data_docs: Path | None = None) -> None:
    """Check canonical data and write ``result.json`` and ``index.html`` to ``out``.

    Args:
        canonical: What the ingest stage wrote.
        out: Folder for the result.
        data_docs: Folder for Great Expectations' own pages, if wanted.

    Raises:
        TuneTrailError: A check failed beyond its declared share. The result is written first.
    """
    task = read_task(canonical)
    frame = pd.read_parquet(canonical / DATA)
    checks = suite(task)
    if set(COLUMNS) <= set(frame.columns):
        frame = with_facts(frame, task)
    else:  # the other checks have nothing to look at
        checks = [check for check in checks if check.name.startswith("column ")]
    outcomes = run_suite(frame, checks, task.name, data_docs)
    report = [_judge(check, outcome, task, frame) for check, outcome in outcomes]
    complete = "set" in frame
    dropped: dict[str, list[str]] = {
        check: frame.loc[frame[column], "id"].tolist() if complete else []
        for check, column in (("leakage", "leaks"), ("near_leakage", "nearly_leaks"))
    }
    if "misplaced" in frame:  # nothing can be learnt from them, but their answers can be scored
        untrainable = frame["misplaced"] & (frame["set"] == "train")
        dropped["spans"] = frame.loc[untrainable, "id"].tolist()
    result = {
        "task": task.name,
        "rows": len(frame),
        "sets": _sizes(frame["set"], task) if complete else {},
        "checks": report,
        "passed": all(entry["outcome"] != "failed" for entry in report),
        "dropped": list(dict.fromkeys(i for ids in dropped.values() for i in ids)),
        "dropped_by_check": {check: len(ids) for check, ids in dropped.items()},
        "waived": task.waive,
        "classes_missing": _missing_classes(frame, task) if complete and task.labels else {},
    }
    with replacing(out) as folder:
        write_json(folder / RESULT, result)
        write_text(folder / "index.html", _page(task, result))
    failed = [entry for entry in report if entry["outcome"] == "failed"]
    if failed:
        raise TuneTrailError(
            f"task '{task.name}': the data failed {len(failed)} of {len(report)} checks\n"
            + "\n".join(_describe(entry) for entry in failed),
            "correct the data; raise the share in the task's 'checks' or add the check to its "
            f"'waive' if the fault is known. Details: {out / 'index.html'}",
        )


def with_facts(frame: pd.DataFrame, task: TaskSpec) -> pd.DataFrame:
    """Canonical data with the columns that checks across rows need.

    Adds ``set``; ``repeated`` (an earlier row of the set has the same texts and label);
    ``conflicting`` (the same texts have another label somewhere); ``leaks`` (the same texts are in
    a set that must not be seen: test and gate for selection, these and selection for train);
    ``nearly_leaks`` (other rows with nearly such texts), ``similar_to`` (id of one there) and
    ``similarity`` to it; ``majority`` (1.0 for rows of the most frequent class); and, where labels
    are answers, ``misplaced`` (the context lacks one at its place).
    """
    # As Python objects, so that the type of every single text is checked, not of the column.
    texts = ["text", *(["label"] if frame["label"].dtype == "str" else [])]
    frame = frame.astype(dict.fromkeys(texts, "object"))
    misplaced = kind_of(task).misplaced(frame)
    if misplaced is not None:
        frame["misplaced"] = misplaced
    frame["set"] = assign_sets(frame, task)
    key = text_keys(frame)
    frame["repeated"] = pd.DataFrame(
        {"key": key, "label": frame["label"], "set": frame["set"]}
    ).duplicated()
    frame["conflicting"] = frame["label"].groupby(key).transform("nunique") > 1
    held = key.isin(set(key[frame["set"].isin(("test", GATE))]))
    in_selection = key.isin(set(key[frame["set"] == "selection"]))
    train, selection = frame["set"] == "train", frame["set"] == "selection"
    frame["leaks"] = (train & (held | in_selection)) | (selection & held)
    frame = with_near_leaks(frame, task.checks.near_duplicate)
    counts = frame["label"].value_counts()
    top = counts.index[0] if len(counts) else None
    frame["majority"] = (frame["label"] == top).fillna(False).astype(float)
    return frame


def with_near_leaks(frame: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The part of :func:`with_facts` about near-duplicates. Needs ``set`` and ``leaks``."""
    texts = [frame[column].fillna("").astype(str).map(plain) for column in ("text", "text_pair")]
    rows = frame[["id", "set", "leaks"]].assign(unit=list(zip(*texts, strict=True)))
    similar: dict[Any, tuple[str, float]] = {}
    held = ("test", GATE)
    for earlier, later in (("train", ("selection", *held)), ("selection", held)):
        sought = rows.loc[(rows["set"] == earlier) & ~rows["leaks"], "unit"]
        there = rows[rows["set"].isin(later)].sort_values("id", ascending=False)
        found = near_duplicates(sought, there["unit"], threshold)
        ids = dict(zip(there["unit"], there["id"], strict=True))  # of equal units the first id
        for row, unit in sought.items():
            if unit in found:
                match, exact = found[unit]
                similar[row] = ids[match], exact
    columns = pd.DataFrame.from_dict(similar, orient="index", columns=["similar_to", "similarity"])
    frame = frame.join(columns)
    return frame.assign(nearly_leaks=frame["similar_to"].notna())


def suite(task: TaskSpec) -> list[Check]:
    """The expectations that the task's declaration implies."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations.expectations as gxe

    allowed, kind = task.checks, kind_of(task)
    shortest, longest = allowed.length_bounds
    texts = ["text", "text_pair"] if task.columns.text_pair else ["text"]

    def flagged(name: str, column: str, meaning: str) -> Check:
        limit: float = getattr(allowed, name)
        expectation = gxe.ExpectColumnValuesToBeInSet(
            column=column, value_set=[False], mostly=_mostly(limit)
        )
        return Check(name, meaning, expectation, limit)

    def typed(column: str, *types: str) -> Any:
        return gxe.ExpectColumnValuesToBeInTypeList(column=column, type_list=list(types))

    def structure(name: str, meaning: str, expectation: Any) -> Check:
        return Check(name, meaning, expectation, 0.0)

    checks = [
        structure(f"column {c}", f"column '{c}' exists", gxe.ExpectColumnToExist(column=c))
        for c in COLUMNS
    ]
    checks += [
        structure("types", f"labels are {kind.written_as}", typed("label", *kind.label_types)),
        structure("types", "texts are text", typed("text", "str")),
        structure(
            "unique ids", "every row has its own id", gxe.ExpectColumnValuesToBeUnique(column="id")
        ),
    ]
    if kind.labels:
        among = gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=list(range(len(kind.labels)))
        )
        checks += [structure("labels", f"labels are among {', '.join(kind.labels)}", among)]
    if kind.interval:
        low, high = kind.interval
        between = gxe.ExpectColumnValuesToBeBetween(column="label", min_value=low, max_value=high)
        checks += [structure("labels", f"labels are from {low:g} to {high:g}", between)]
    checks += [
        structure(
            "classes",
            "there are at least two different labels",
            gxe.ExpectColumnUniqueValueCountToBeBetween(column="label", min_value=2),
        ),
        structure(
            "majority",
            f"no label holds more than {allowed.majority:.0%} of the rows",
            gxe.ExpectColumnMeanToBeBetween(column="majority", max_value=allowed.majority),
        ),
    ]
    checks += [
        structure(
            f"nulls in {c}", f"'{c}' is never missing", gxe.ExpectColumnValuesToNotBeNull(column=c)
        )
        for c in ("label", *texts)
    ]
    for column in texts:
        checks += [
            Check(
                "blank",
                f"'{column}' has a visible character",
                gxe.ExpectColumnValuesToMatchRegex(
                    column=column, regex=r"\S", mostly=_mostly(allowed.blank)
                ),
                allowed.blank,
            ),
            Check(
                "length",
                f"'{column}' has {shortest} to {longest} characters",
                gxe.ExpectColumnValueLengthsToBeBetween(
                    column=column,
                    min_value=shortest,
                    max_value=longest,
                    mostly=_mostly(allowed.length),
                ),
                allowed.length,
            ),
            Check(
                "encoding",
                f"'{column}' has no damaged characters",
                gxe.ExpectColumnValuesToNotMatchRegex(
                    column=column, regex=_DAMAGE, mostly=_mostly(allowed.encoding)
                ),
                allowed.encoding,
            ),
        ]
    if "spans" in kind.checks:
        placed = "every answer is in its context, at its place"
        checks += [flagged("spans", "misplaced", placed)]
    return [
        *checks,
        flagged("duplicates", "repeated", "no row is repeated"),
        flagged("conflicts", "conflicting", "no text has two labels"),
        flagged("leakage", "leaks", "no text is also in a later set"),
        flagged(
            "near_leakage",
            "nearly_leaks",
            f"no text is {allowed.near_duplicate:g} or more similar to one in a later set",
        ),
    ]


def _mostly(limit: float) -> float:
    """The share that must pass; rounded, because 1 - 0.18 is a little more than 0.82."""
    return round(1 - limit, 12)


def run_suite(
    frame: pd.DataFrame, checks: list[Check], name: str, data_docs: Path | None
) -> list[tuple[Check, dict[str, Any]]]:
    """Run the checks with Great Expectations; one outcome a check."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = (
        context.data_sources.add_pandas("frame")
        .add_dataframe_asset(name)
        .add_batch_definition_whole_dataframe("all")
    )
    expectations = context.suites.add(gx.ExpectationSuite(name=name))
    for check in checks:
        expectations.add_expectation(check.expectation)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batch, suite=expectations)
    )
    result = definition.run(
        batch_parameters={"dataframe": frame},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["id"],
            "include_unexpected_rows": False,
        },
    )
    if data_docs is not None:
        _write_data_docs(context, result, data_docs)
    # Results come grouped by column, not in the order of the suite.
    by_id = {r.expectation_config.id: r.to_json_dict() for r in result.results}
    return [
        (check, by_id[config.id])
        for check, config in zip(checks, expectations.expectations, strict=True)
    ]


def _write_data_docs(context: Any, result: Any, folder: Path) -> None:
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    page = ValidationResultsPageRenderer().render(result)
    write_text(folder / "validation.html", DefaultJinjaPageView().render(page))


def _judge(
    check: Check, outcome: dict[str, Any], task: TaskSpec, frame: pd.DataFrame
) -> dict[str, Any]:
    detail = outcome.get("result") or {}
    problem = _exception(outcome)
    rows = detail.get("unexpected_index_list") or []
    ids = [row["id"] if isinstance(row, dict) else str(row) for row in rows]
    share = float(detail.get("unexpected_percent") or 0.0) / 100
    verdict: Literal["passed", "tolerated", "waived", "failed"]
    if outcome["success"]:
        verdict = "tolerated" if ids else "passed"
    else:
        verdict = "waived" if check.name in task.waive and problem is None else "failed"
    return {
        "check": check.name,
        "meaning": check.meaning,
        "severity": "critical" if check.limit == 0.0 else "share",
        "outcome": verdict,
        "count": len(ids),
        "share": share,
        "limit": check.limit,
        "observed": detail.get("observed_value") if not ids else None,
        "error": problem,
        "rows": _examples(ids[:_SHOWN], frame, near=check.name == "near_leakage"),
    }


def _examples(ids: list[str], frame: pd.DataFrame, near: bool) -> list[dict[str, Any]]:
    """Id and text of each row; with ``near`` also those of a similar row in a later set."""
    if not {"id", "text"} <= set(frame) or not frame["id"].is_unique:
        return [{"id": i, "text": ""} for i in ids]
    rows = frame.set_index("id")

    def shown(i: str) -> dict[str, Any]:
        texts = rows.loc[i, ["text", "text_pair"]].dropna() if i in rows.index else []
        return {"id": i, "text": " / ".join(str(text)[:120] for text in texts)}

    if not near:
        return [shown(i) for i in ids]
    return [
        {**shown(i), "near": shown(rows["similar_to"][i]), "similarity": rows["similarity"][i]}
        for i in ids
    ]


def _exception(outcome: dict[str, Any]) -> str | None:
    """What stopped an expectation from being evaluated (a missing column shows only here)."""
    info = outcome.get("exception_info") or {}
    entries = [info] if "raised_exception" in info else list(info.values())
    raised = [e for e in entries if isinstance(e, dict) and e.get("raised_exception")]
    return str(raised[0].get("exception_message")) if raised else None


def _sizes(sets: pd.Series, task: TaskSpec) -> dict[str, int]:
    names = (*SETS, GATE) if task.split.gate else SETS
    return {name: int((sets == name).sum()) for name in names}


def _missing_classes(frame: pd.DataFrame, task: TaskSpec) -> dict[str, list[str]]:
    missing = {}
    for name in SETS:
        present = set(frame.loc[frame["set"] == name, "label"].dropna().astype(int))
        absent = [label for i, label in enumerate(task.labels) if i not in present]
        if absent:
            missing[name] = absent
    return missing


def _describe(entry: dict[str, Any]) -> str:
    if entry["error"]:
        return f"  {entry['check']}: {entry['error']}"
    found = (
        f"{entry['count']} rows, {entry['share']:.2%} (limit {entry['limit']:.2%})"
        if entry["count"]
        else f"found {entry['observed']}"
    )
    shown = "".join(
        f"\n    row {row['id']}: {row['text']!r}"
        + (f"\n      {_resemblance(row)}: {row['near']['text']!r}" if "near" in row else "")
        for row in entry["rows"]
    )
    return f"  {entry['check']}: {entry['meaning']}; {found}{shown}"


def _resemblance(row: dict[str, Any]) -> str:
    return f"similar ({row['similarity']:.2f}) to row {row['near']['id']}"


def _page(task: TaskSpec, result: dict[str, Any]) -> str:
    from tunetrail.report.page import page, table

    rows = [
        [
            entry["meaning"],
            entry["outcome"],
            f"{entry['count']} ({entry['share']:.2%})" if entry["count"] else "",
            f"{entry['limit']:.2%}" if entry["limit"] else "",
            "; ".join(
                f"{row['id']}: {row['text']}"
                + (f", {_resemblance(row)}: {row['near']['text']}" if "near" in row else "")
                for row in entry["rows"]
            ),
        ]
        for entry in result["checks"]
    ]
    sets = ", ".join(f"{name} {count}" for name, count in result["sets"].items())
    by_check = result["dropped_by_check"]
    notes = [
        f"Rows: {result['rows']} ({sets}). Dropped as leaking: "
        f"{by_check['leakage'] + by_check['near_leakage']} "
        f"({by_check['leakage']} equal, {by_check['near_leakage']} nearly equal)."
    ]
    if by_check.get("spans"):
        notes += [f"Left out of train, with an answer that is not in place: {by_check['spans']}"]
    notes += [f"Waived: {check} — {why}" for check, why in task.waive.items()]
    notes += [
        f"Classes without a row in {name}: {', '.join(labels)}"
        for name, labels in result["classes_missing"].items()
    ]
    body = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    body += table("Every check", ["Expectation", "Outcome", "Rows", "Limit", "Examples"], rows)
    return page(f"Validation of {task.title or task.name}", body)
