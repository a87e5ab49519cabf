"""Job templates for pools of Docker and Kubernetes: Prefect's own, with what is said of them."""

from __future__ import annotations

import importlib.resources
import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

TEMPLATES = ROOT / "pipelines" / "templates"

#: What differs from the template that comes with Prefect: defaults of variables, in order.
DEFAULTS = {
    "docker": {"auto_remove", "env", "image", "image_pull_policy", "network_mode", "volumes"},
    "kubernetes": {
        "cpu_request", "env", "finished_job_ttl", "image", "memory_limit", "memory_request",
        "namespace",
    },
}  # fmt: skip


def shipped(kind: str) -> dict[str, Any]:
    """The template of Prefect itself."""
    views = importlib.resources.files("prefect.server.api") / "collections_data" / "views"
    known = json.loads((views / "aggregate-worker-metadata.json").read_text())
    found: dict[str, Any] = known[f"prefect-{kind}"][kind]["default_base_job_configuration"]
    return found


def ours(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TEMPLATES / f"{kind}.json").read_text())
    return found


@pytest.mark.parametrize("kind", list(DEFAULTS))
def test_a_template_is_that_of_prefect_with_other_defaults(kind: str) -> None:
    before, after = (t["variables"]["properties"] for t in (shipped(kind), ours(kind)))
    added = {"project_claim", "credentials_secret"} if kind == "kubernetes" else set()
    assert after.keys() - before.keys() == added
    assert before.keys() <= after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == DEFAULTS[kind]
    for name in changed:
        assert before[name] == {k: v for k, v in after[name].items() if k != "default"} | (
            {"default": before[name]["default"]} if "default" in before[name] else {}
        )
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert after["image"]["default"] == f"tunetrail:{version}"
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(ours(kind)["job_configuration"])))
    assert used <= after.keys()


def test_a_job_of_kubernetes_has_the_project_and_no_secret_in_its_manifest() -> None:
    before, after = (
        t["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        for t in (shipped("kubernetes"), ours("kubernetes"))
    )
    (container,) = after["containers"]
    assert container.pop("volumeMounts") == [{"name": "project", "mountPath": "/project"}]
    secret = {"name": "{{ credentials_secret }}", "optional": True}
    assert container.pop("envFrom") == [{"secretRef": secret}]
    claim = {"claimName": "{{ project_claim }}"}
    assert after.pop("volumes") == [{"name": "project", "persistentVolumeClaim": claim}]
    assert after.pop("securityContext")["runAsNonRoot"] is True
    assert after == before


def test_the_image_is_made_from_what_the_repository_has() -> None:
    lines = (TEMPLATES / "Dockerfile").read_text().splitlines()
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    (base,) = (line for line in lines if line.startswith("FROM "))
    assert base.removeprefix("FROM python:").removesuffix("-slim") in python
    (copied,) = (line.split()[1:-1] for line in lines if line.startswith("COPY "))
    assert copied == ["requirements.lock", "dist/*.whl"]  # the second by `make dist`
    assert (ROOT / "requirements.lock").is_file()


def test_shipped_deployments_have_schedules_of_both_kinds_and_one_trigger() -> None:
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    deployments = {d["name"]: d for d in content["deployments"]}
    kinds = {kind for d in deployments.values() for s in d["schedules"] for kind in s}
    assert {"cron", "interval"} <= kinds
    assert deployments["on-new-data"]["triggers"][0]["expect"] == ["tunetrail.new-data"]
    for deployment in deployments.values():
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployments["all-methods"]["parameters"]["methods"] == "all"
