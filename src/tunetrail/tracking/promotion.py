"""Which version of a registered model is the champion, and why: aliases, decisions, rollback."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.files import digest_of, read_json, scratch
from tunetrail.gate.policy import Gate
from tunetrail.gate.rows import GateSet, gate_set
from tunetrail.gate.scoring import Opened, judge
from tunetrail.layout import CARD, MODEL
from tunetrail.place import project_of
from tunetrail.sources.files import LocalFiles
from tunetrail.tracking import registry
from tunetrail.tracking.tags import ONNX_TAG, RUN_TAG

CHAMPION = "champion"
CHALLENGER = "challenger"

#: Tags of a version. What was decided on it, and against which champion, on which rows.
OUTCOME_TAG = "gate.outcome"
AGAINST_TAG = "gate.against"
SET_TAG = "gate.set"
DECISION_TAG = "gate.decision"
REASONS_TAG = "gate.reasons"
#: The champion before it, which a rollback brings back.
REPLACED_TAG = "gate.replaced"
#: A person took it back: nothing promotes it again.
ROLLED_BACK_TAG = "gate.rolled_back"

#: Most characters that MLflow takes for the value of a tag, with room to spare.
_TAG_LENGTH = 4000


def settle(
    client: Any, root: Path, model: dict[str, Any], version: Any, policy: Gate
) -> dict[str, Any] | None:
    """Give a registered version the alias that it has earned. Repeatable.

    The first version is the champion. Where the task has a gate set, another one replaces it only
    through the gate, and is else the challenger; where it has none, the last winner is the
    champion. A version that was rolled back stays what it is, and so does one of data that has
    changed since: results of newer data may be there already.

    Args:
        client: MLflow's.
        root: The project, or the folder of a champion.
        model: Entry of the receipt.
        version: The version, as MLflow has it.
        policy: What the gate asks for.

    Returns:
        The decision, or None where there was nothing to decide.

    Raises:
        TuneTrailError: The files of a version are not those that were certified.
    """
    name, number = model["name"], str(version.version)
    champion = _alias(client, name, CHAMPION)
    if champion is not None and str(champion.version) == number:
        _drop_alias(client, name, CHALLENGER, number)
        return None
    if ROLLED_BACK_TAG in version.tags:
        return None
    task = model["task"]
    canonical = root / "data" / "canonical" / task
    if champion is not None and _outdated(canonical, project_of(root)):
        return None
    record = project_of(root) / "data" / "gate" / f"{task}.json"
    rows = gate_set(canonical, record, policy.generation)
    if champion is None or rows is None:
        _crown(client, name, champion, number)
        return None
    against = str(champion.version)
    wanted = digest_of([rows.digest, policy.model_dump(mode="json")])
    tags = version.tags
    if (tags.get(AGAINST_TAG), tags.get(DECISION_TAG)) == (against, wanted):
        passed, found = tags[OUTCOME_TAG] == "passed", None
    else:
        found = _decide(client, rows, name, champion, version, policy)
        passed = found["passed"]
        _store(client, name, version, found, wanted)
    if passed:
        _crown(client, name, champion, number)
    else:
        client.set_registered_model_alias(name, CHALLENGER, number)
    return found


def roll_back(client: Any, name: str, reason: str) -> tuple[str, str]:
    """Make the champion before this one the champion again.

    Returns:
        The version that was the champion, and the one that is now.

    Raises:
        TuneTrailError: There is no such model, no champion, or none before it.
    """
    champion = _alias(client, name, CHAMPION)
    if champion is None:
        raise TuneTrailError(
            f"model '{name}' has no version with the alias '{CHAMPION}'",
            "name a registered model: `tunetrail sync` lists what is registered",
        )
    before = champion.tags.get(REPLACED_TAG)
    if before is None:
        raise TuneTrailError(
            f"version {champion.version} of model '{name}' is its first champion",
            "there is nothing to go back to",
        )
    client.set_model_version_tag(
        name, champion.version, ROLLED_BACK_TAG, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {reason}"
    )
    client.set_registered_model_alias(name, CHAMPION, before)
    return str(champion.version), str(before)


def champion_methods(client: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Task → label of the method that its champion has; tasks without a champion are left out.

    Args:
        client: MLflow's.
        names: Task → name of its registered model.
    """
    champions = {task: _alias(client, name, CHAMPION) for task, name in names.items()}
    return {task: found.tags["method"] for task, found in champions.items() if found is not None}


def _outdated(canonical: Path, project: Path) -> bool:
    """Whether the data lies here and has other bytes than those that this was made from."""
    origin = read_json(canonical / CARD)["source"]
    if "path" not in origin or not (project / origin["path"]).exists():
        return False
    now = LocalFiles(project / origin["path"]).provenance()
    return bool(now["sha256"] != origin["sha256"])


def _decide(
    client: Any, rows: GateSet, name: str, champion: Any, challenger: Any, policy: Gate
) -> dict[str, Any]:
    found = judge(rows, _opened(champion), _opened(challenger), policy)
    used = sum(
        v.tags.get(SET_TAG) == found["gate_set"]
        for v in client.search_model_versions(f"name='{name}'")
    )
    notes = []
    if used + 1 >= policy.uses:
        notes.append(
            f"these rows have decided {used + 1} times ({policy.uses} are the declared limit): "
            "models that passed may suit them by chance. Raise gate.generation by one to take new "
            f"rows; {rows.reserve} have come since they were frozen"
        )
    if rows.gone:
        notes.append(f"{rows.gone} of the frozen rows are no more in the data, and were left out")
    return found | {
        "model": name,
        "uses": used + 1,
        "notes": notes,
        "inputs": {
            role: {RUN_TAG: v.tags.get(RUN_TAG), ONNX_TAG: v.tags.get(ONNX_TAG)}
            for role, v in (("champion", champion), ("challenger", challenger))
        },
    }


def _opened(version: Any) -> Opened:
    """The model of a version, by the files in the registry.

    Raises:
        TuneTrailError: They are not what was registered.
    """
    found = registry.find(f"{registry.PREFIX}{version.name}/{version.version}")
    with scratch() as folder:
        exported, _ = registry.fetch(found, folder)
        content = (exported / MODEL).read_bytes()
        if hashlib.sha256(content).hexdigest() != found.onnx_sha256:
            raise TuneTrailError(
                f"version {found.number} of model '{found.name}': {MODEL} in the registry is not "
                "the file that was registered",
                "find out who changed it; delete the version, and `tunetrail sync` registers the "
                "project's own again",
            )
        predictor = registry.predictor_class().of_export(exported, content)

    def predict(asked: pd.DataFrame) -> pd.DataFrame:
        columns = [asked[name].tolist() for name in asked]
        rows = list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0]
        return pd.DataFrame(predictor(rows))

    return Opened(found.number, predict, len(content))


def _store(client: Any, name: str, version: Any, found: dict[str, Any], wanted: str) -> None:
    """Keep a decision with the version: all of it as an artifact of its run, the gist as tags."""
    path = f"gate/{name}-{version.version}-against-{found['champion']}.json"
    client.log_dict(version.run_id, found, path)
    tags = {
        AGAINST_TAG: found["champion"],
        SET_TAG: found["gate_set"],
        "gate.metric": found["metric"],
        "gate.difference": f"{found['difference']:+.4f}",
        "gate.low": f"{found['low']:+.4f}",
        "gate.margin": f"{found['margin']:g}",
        "gate.rows": str(found["rows"]),
        "gate.uses": str(found["uses"]),
        REASONS_TAG: "; ".join([*found["reasons"], *found["notes"]])[:_TAG_LENGTH] or "none",
        "gate.file": path,
        OUTCOME_TAG: "passed" if found["passed"] else "refused",
        # Last: with it a decision is complete.
        DECISION_TAG: wanted,
    }
    for key, value in tags.items():
        client.set_model_version_tag(name, version.version, key, value)


def _crown(client: Any, name: str, champion: Any, number: str) -> None:
    if champion is not None:
        client.set_model_version_tag(name, number, REPLACED_TAG, str(champion.version))
    client.set_registered_model_alias(name, CHAMPION, number)
    _drop_alias(client, name, CHALLENGER, number)


def _alias(client: Any, name: str, alias: str) -> Any:
    """The version with an alias; None where no version has it, or there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _drop_alias(client: Any, name: str, alias: str, number: str) -> None:
    found = _alias(client, name, alias)
    if found is not None and str(found.version) == number:
        client.delete_registered_model_alias(name, alias)
