"""Bring MLflow to what the receipt says. Repeating it changes nothing.

Runs and versions are a projection of the result files: they are never read to decide anything, and
can be deleted and rebuilt at any time. Which version is the champion is the registry's own (see
:mod:`~tunetrail.tracking.promotion`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR, digest_of, file_digest, read_json, scratch
from tunetrail.gate.policy import Gate
from tunetrail.layout import CERTIFICATE, DATA, HISTORY, METRICS, MODEL, PREDICTIONS, SERVING
from tunetrail.params import Params, read_params
from tunetrail.place import CHAMPIONS, project_of
from tunetrail.provenance import git_state
from tunetrail.run import planned_run
from tunetrail.stages.register import FORMAT
from tunetrail.tracking import groups, lineage, trials
from tunetrail.tracking.connection import quiet, reached, tracking_uri
from tunetrail.tracking.parameters import parameters, share
from tunetrail.tracking.promotion import champion_methods, roll_back, settle
from tunetrail.tracking.tags import CONTENT_TAG, ONNX_TAG, RUN_TAG

#: Longest time that it takes to bring a run to MLflow, in seconds.
_AT_WORK = 3600.0

_SERVED_MODEL = Path(__file__).with_name("served_model.py")


def bring_up_to_date(receipt: Path) -> dict[str, Any]:
    """Create what is missing in MLflow: one run a run, a registered version a winner, its alias.

    A version that is not the champion goes through the gate, where its task has one. The runs of a
    task and method are nested below one that has their mean. Trials of tuning are runs as well,
    nested below one for their method, task and budget.

    Args:
        receipt: What the register stage wrote. Results are read from the folder it lies in, which
            is the project, or that of a champion.

    Returns:
        Counts of runs and versions created and already there, the experiment, what was refused, and
        decisions of the gate.

    Raises:
        Unreachable: The tracking server cannot be used, or is lost on the way. What it has by then
            is completed by the next call.
        TuneTrailError: The receipt is of another version, or a model file is not the one in it.
    """
    wanted = read_json(receipt)
    if wanted.get("format") != FORMAT:
        raise TuneTrailError(
            f"'{receipt}' is of another version of TuneTrail",
            "`tunetrail run` writes it anew; nothing is trained again for that",
        )
    root = receipt.absolute().parent
    # A champion's folder has results, and the database is the project's.
    with contextlib.chdir(project_of(Path.cwd())):
        STATE_DIR.mkdir(exist_ok=True)
        return _bring_receipt(root, wanted)


def bring_all_up_to_date() -> dict[str, Any]:
    """The same for every receipt of the project here: the comparison's, then those of champions.

    Returns:
        As :func:`bring_up_to_date`, all together.

    Raises:
        TuneTrailError: As there, or there is no receipt.
    """
    comparison = Path("receipt.json")
    receipts = sorted(CHAMPIONS.glob(f"*/{comparison}"))
    if comparison.exists() or not receipts:
        receipts = [comparison, *receipts]
    done = bring_up_to_date(receipts[0])
    for receipt in receipts[1:]:
        more = bring_up_to_date(receipt)
        done |= {key: done[key] + more[key] for key in done if key != "experiment"}
    return done


def _bring_receipt(root: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    # Two at a time would both create what is missing. Every run ends with this, and entering
    # scratch() clears away what killed ones left, also where they left nothing to do.
    with (
        FileLock(STATE_DIR / "sync.lock"),
        scratch(),
        quiet(),
        _connected(wanted["project"]) as (client, experiment),
    ):
        compared = project_of(root) == root
        present = _present_runs(client, experiment)
        done: dict[str, Any] = {
            "experiment": wanted["project"],
            "groups_created": 0,
            "groups_present": 0,
            "runs_created": 0,
            "runs_present": 0,
            "versions_created": 0,
            "versions_present": 0,
            "refused": wanted["refused"],
            "decisions": [],
        }
        state = git_state()
        made = {
            "comparison": wanted["comparison"],
            "git_commit": state["git_commit"] or "none",
            "git_dirty": str(state["git_dirty"]),
        }
        data = {
            task: file_digest(root / "data" / "canonical" / task / DATA)
            for task in dict.fromkeys(entry["task"] for entry in wanted["runs"])
        }
        parents: dict[tuple[str, str], str] = {}
        for group in wanted["groups"]:
            mean = groups.record(root, group, _verdict_tags(group["against"]))
            above = _bring(client, experiment, present, mean, done, "groups")
            parents[group["task"], group["label"]] = above
        runs: dict[str, str] = {}
        for entry in wanted["runs"]:
            record = _record(root, entry, made | {"data_digest": data[entry["task"]]})
            above = parents[entry["task"], entry["label"]]
            record["tags"][trials.PARENT_TAG] = above
            verdict = _verdict_tags(entry.get("against"))
            difference = _difference(entry.get("against"))
            found = _same(client, present, record)
            if found is not None:
                runs[entry["run"]] = found.info.run_id
                _bring_verdict(client, found, verdict, difference)
                # A whole comparison's runs stay below it, also where a champion has them as well.
                if compared and found.data.tags.get(trials.PARENT_TAG) != above:
                    client.set_tag(found.info.run_id, trials.PARENT_TAG, above)
                if found.info.status != "FINISHED":  # killed while it added a model to the run
                    client.set_terminated(found.info.run_id)
                done["runs_present"] += 1
                continue
            record["tags"] |= verdict
            record["metrics"] |= difference
            runs[entry["run"]] = _create_run(client, experiment, record)
            done["runs_created"] += 1
        for tuned in wanted["tuned"]:
            whole, tried = trials.records(root, tuned)
            parent = _bring(client, experiment, present, whole, done)
            for record in tried:
                record["tags"][trials.PARENT_TAG] = parent
                _bring(client, experiment, present, record, done)
        policy = read_params(root / "params.yaml").gate if wanted["models"] else Gate()
        for model in wanted["models"]:
            version_, created = _register(client, experiment, root, model, runs[model["run"]])
            done["versions_created" if created else "versions_present"] += 1
            lineage.bring(client, root / "runs" / "lineage" / model["task"], model)
            decision = settle(client, root, model, version_, policy)
            done["decisions"] += [decision] if decision else []
        for left in present.values():
            if CONTENT_TAG not in left.data.tags and _abandoned(left):
                client.delete_run(left.info.run_id)
    return done


def champions(params: Params) -> dict[str, str]:
    """Task → label of the method that its champion has; tasks without a champion are left out.

    Raises:
        TuneTrailError: The tracking server cannot be reached.
    """
    STATE_DIR.mkdir(exist_ok=True)
    with FileLock(STATE_DIR / "sync.lock"), quiet(), _connected(params.project) as (client, _):
        return champion_methods(client, {t: f"{params.project}-{t}" for t in params.tasks})


def take_back(model: str, reason: str) -> tuple[str, str, str]:
    """Bring back the champion before this one (:func:`~tunetrail.tracking.promotion.roll_back`).

    Args:
        model: Name of a registered model, or of a task of the project here.
        reason: Kept with the version that is taken back.

    Returns:
        The model's name, the version taken back, and the champion now.

    Raises:
        TuneTrailError: There is no such model, or no champion before this one.
    """
    params = read_params(Path("params.yaml"))
    name = f"{params.project}-{model}" if model in params.tasks else model
    STATE_DIR.mkdir(exist_ok=True)
    with FileLock(STATE_DIR / "sync.lock"), quiet(), _connected(params.project) as (client, _):
        return (name, *roll_back(client, name, reason))


@contextlib.contextmanager
def _connected(project: str) -> Iterator[tuple[Any, str]]:
    """MLflow's client, and the id of the project's experiment, which is made if need be."""
    uri = tracking_uri()
    local = not os.environ.get("MLFLOW_TRACKING_URI")  # CI sets an empty one for none
    if local:
        _create_database(Path(uri.removeprefix("sqlite:///")))
    with reached(uri) as client:
        experiment = client.get_experiment_by_name(project)
        if experiment is not None:
            number = experiment.experiment_id
        else:
            artifacts = (STATE_DIR / "mlflow" / "artifacts").absolute().as_uri() if local else None
            number = client.create_experiment(project, artifact_location=artifacts)
        yield client, str(number)


def create_store(root: Path) -> None:
    """Make the project's own database of MLflow, where there is none."""
    with contextlib.chdir(root), FileLock(STATE_DIR / "sync.lock"), quiet():
        _create_database(STATE_DIR / "mlflow" / "mlflow.db")


def _create_database(path: Path) -> None:
    """Make an empty database in one step: MLflow cannot use one whose tables are half made."""
    from mlflow import MlflowClient

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch() as folder:
        MlflowClient(f"sqlite:///{(folder / path.name).absolute()}").search_experiments()
        os.replace(folder / path.name, path)


def _same(client: Any, present: dict[tuple[str, str], Any], record: dict[str, Any]) -> Any:
    """The MLflow run of a record, or None: then what was there of it is deleted."""
    found = present.pop((record["tags"][RUN_TAG], record["tags"]["method"]), None)
    if found is None or found.data.tags.get(CONTENT_TAG) == record["content"]:
        return found
    client.delete_run(found.info.run_id)  # a killed sync left half of it, or results have changed
    return None


def _bring(
    client: Any,
    experiment: str,
    present: dict[tuple[str, str], Any],
    record: dict[str, Any],
    done: dict[str, Any],
    counted: str = "runs",
) -> str:
    """Make sure that a group, a tuning or a trial is there; its id."""
    record["tags"][RUN_TAG] = record["run"]
    found = _same(client, present, record)
    if found is None:
        done[f"{counted}_created"] += 1
        return _create_run(client, experiment, record)
    for key, value in record["tags"].items():  # a later tuning may have the trial, too
        if found.data.tags.get(key) != value:
            client.set_tag(found.info.run_id, key, value)
    done[f"{counted}_present"] += 1
    return str(found.info.run_id)


def _present_runs(client: Any, experiment: str) -> dict[tuple[str, str], Any]:
    """Run digest and label of the method → MLflow run.

    A server that is killed while it answers is asked again, and may have made the run already: of
    two, the one that is not whole goes.
    """
    found: dict[tuple[str, str], Any] = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            tags = run.data.tags
            if RUN_TAG not in tags:
                continue
            twin = found.setdefault((tags[RUN_TAG], tags.get("method", "")), run)
            if twin is not run:
                spare = twin if CONTENT_TAG in tags else run
                client.delete_run(spare.info.run_id)
                if spare is twin:
                    found[tags[RUN_TAG], tags.get("method", "")] = run
        token = page.token
        if not token:
            return found


def _abandoned(run: Any) -> bool:
    """Whether a run that is not whole is too old for somebody to be at it: a killed sync left it,
    and results have changed since."""
    return bool(time.time() - run.info.start_time / 1000 > _AT_WORK)


def _record(root: Path, entry: dict[str, Any], made: dict[str, str]) -> dict[str, Any]:
    """Everything that MLflow should hold of one run; ``made`` are tags of what it was made with."""
    task, label, budget, seed = (entry[k] for k in ("task", "label", "budget", "seed"))
    frozen, run = planned_run(root / "plan" / task, label, budget, seed)
    history = read_json(root / "runs" / "train" / task / run.place / HISTORY)
    evaluated = root / "runs" / "evaluate" / task / run.place
    scores = read_json(evaluated / METRICS)
    cost = read_json(root / "runs" / "cost" / task / f"{label}.json")
    metrics = {f"test/{k}": v for k, v in scores.items()}
    metrics |= {f"cost/{k}": float(v) for k, v in cost.items() if isinstance(v, int | float)}
    points = [("train/loss", step, loss) for step, loss in history["loss"]]
    points += [
        (f"selection/{name}", step, score)
        for step, scores_ in history["selection"]
        for name, score in scores_.items()
    ]
    params = parameters(run)
    deterministic = [params, points, scores]
    return {
        "name": f"{task}-{label}-{budget}-{seed}",
        "params": params,
        "metrics": metrics,
        "points": points,
        "content": digest_of(deterministic),
        "tags": {
            RUN_TAG: entry["run"],
            "task": task,
            "method": label,
            "budget": budget,
            "seed": str(seed),  # a server takes nothing but text
            **share(run),
            **made,
        },
        "artifacts": [
            frozen,
            evaluated / PREDICTIONS,
        ],
    }


def _verdict_tags(against: dict[str, Any] | None) -> dict[str, str]:
    """The verdict on a run's method. It may change with other methods, so it is no part of a run's
    content, and neither is the difference: both are set anew on a run that is there."""
    if against is None:
        return {}
    ends = "none" if against["low"] is None else f"{against['low']:.4f} {against['high']:.4f}"
    return {
        "verdict": against["outcome"],
        "verdict.not_worse": "yes" if against["not_worse"] else "no",
        "verdict.baseline": against["baseline"],
        "verdict.difference": f"{against['mean']:.4f}",
        "verdict.interval": ends,
    }


def _difference(against: dict[str, Any] | None) -> dict[str, float]:
    """The metric of a run's difference from the baseline's run with its seed."""
    return {} if against is None else {f"difference/{against['metric']}": against["difference"]}


def _bring_verdict(
    client: Any, run: Any, wanted: dict[str, str], difference: dict[str, float]
) -> None:
    """Set tags and metric that differ, and remove the tags of an earlier verdict."""
    for name, number in difference.items():
        if run.data.metrics.get(name) != number:
            client.log_metric(run.info.run_id, name, number)
    tags = run.data.tags
    for key, value in wanted.items():
        if tags.get(key) != value:
            client.set_tag(run.info.run_id, key, value)
    for key in tags:
        if key.partition(".")[0] == "verdict" and key not in wanted:
            client.delete_tag(run.info.run_id, key)


def _create_run(client: Any, experiment: str, record: dict[str, Any]) -> str:
    from mlflow.entities import Metric, Param

    run = client.create_run(experiment, tags=record["tags"], run_name=record["name"])
    run_id: str = run.info.run_id
    now = run.info.start_time
    last = record["points"][-1][1] if record["points"] else 0
    metrics = [Metric(key, value, now, last) for key, value in record["metrics"].items()]
    metrics += [Metric(key, value, now, step) for key, step, value in record["points"]]
    params = [Param(key, value) for key, value in record["params"].items()]
    # A server takes a thousand at a time, a hundred of them parameters.
    client.log_batch(run_id, metrics=metrics[:900], params=params)
    for start in range(900, len(metrics), 900):
        client.log_batch(run_id, metrics=metrics[start : start + 900])
    for path in record["artifacts"]:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id)
    # Last, so that a run without this tag is known to be incomplete.
    client.set_tag(run_id, CONTENT_TAG, record["content"])
    return run_id


def _register(
    client: Any, experiment: str, root: Path, model: dict[str, Any], run_id: str
) -> tuple[Any, bool]:
    """Make sure that the winner is a version; the version, and whether it had to be created."""
    name = model["name"]
    versions = client.search_model_versions(f"name='{name}'")
    same = _alike(versions, model)
    if not same:
        exported = root / "runs" / "export" / model["task"] / model["label"]
        if file_digest(exported / MODEL) != model["onnx_sha256"]:
            raise TuneTrailError(
                f"{exported / MODEL} is not the file that was certified",
                "`tunetrail verify --discard` removes damaged files; then run the pipeline again",
            )
        if not client.search_registered_models(f"name='{name}'"):
            client.create_registered_model(name)
        used = {v.source for v in versions}
        for left in client.search_logged_models([experiment], f"source_run_id='{run_id}'"):
            if left.model_uri not in used:  # killed before it became a version
                client.delete_logged_model(left.model_id)
        _log_version(client, root, exported, model, run_id)
        versions = client.search_model_versions(f"name='{name}'")
    first, *twins = _alike(versions, model)
    for twin in twins:  # asked for again, because the server was killed while it answered
        client.delete_model_version(name, twin.version)
    return first, not same


def _alike(versions: Any, model: dict[str, Any]) -> list[Any]:
    """The versions of a winner, the first one first."""
    wanted = (model["onnx_sha256"], model["run"])
    found = [v for v in versions if (v.tags.get(ONNX_TAG), v.tags.get(RUN_TAG)) == wanted]
    return sorted(found, key=lambda v: int(v.version))


def _log_version(
    client: Any, root: Path, exported: Path, model: dict[str, Any], run_id: str
) -> None:
    import mlflow
    from mlflow.models import infer_signature

    certificate = read_json(exported / CERTIFICATE)
    texts = pd.read_parquet(root / "data" / "canonical" / model["task"] / DATA)
    columns = ["text", "text_pair"] if texts["text_pair"].notna().any() else ["text"]
    example = texts[columns].head(2).astype("object")
    settings = read_json(exported / SERVING)
    labels = settings["labels"]
    scores = {f"score_{n}": np.array([0.5], dtype="float32") for n in labels}
    output = pd.DataFrame({"label": labels[:1] or np.zeros(1, dtype="float32"), **scores})
    if "answers" in settings:
        example = example.set_axis(["question", "context"], axis=1)
        output = pd.DataFrame({"answer": ["text"], "start": [0], "score": [0.5]})
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_SERVED_MODEL),
            artifacts={"export": str(exported)},
            signature=infer_signature(example, output),
            pip_requirements=[
                f"{package}=={version(package)}"
                for package in ("mlflow-skinny", "onnxruntime", "tokenizers", "numpy", "pandas")
            ],
        )
    client.create_model_version(
        model["name"],
        source=logged.model_uri,
        run_id=run_id,
        tags={
            ONNX_TAG: model["onnx_sha256"],
            RUN_TAG: model["run"],
            "task": model["task"],
            "method": model["label"],
            "seed": str(model["seed"]),
            "largest_logit_difference": f"{certificate['largest_logit_difference']:.3g}",
            **{f"test/{k}": f"{v:.4f}" for k, v in certificate["metrics_onnx"].items()},
        },
        model_id=logged.model_id,
    )
