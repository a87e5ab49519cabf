"""``tunetrail doctor``: can TuneTrail work here, and if not, what to do.

Only the standard library is imported before a check begins, because what is examined may be broken;
what a check cannot import is a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tunetrail.doctor import folders, hardware, installation, project, servers
from tunetrail.doctor.finding import Finding, Outcome, problem
from tunetrail.doctor.probe import Probe

Check = Callable[[], Iterable[Finding]]

_WIDTH = 80
_COLOURS: dict[Outcome, str] = {"ok": "32", "warning": "33", "problem": "31"}


def examine(start: Path, *, network: bool = False) -> dict[str, list[Finding]]:
    """Section → findings. Checks run side by side; each is short.

    Args:
        start: Folder that belongs to a project, or not.
        network: Also try the package index and the model hub.
    """
    root = project.root_of(start)
    probe = Probe(root)  # imports torch in a process of its own meanwhile
    checks: dict[str, Check] = {
        "installation": installation.check,
        "hardware": partial(hardware.check, probe),
        "servers": servers.check,
        "disk": partial(folders.check_space, root),
        "permissions": partial(folders.check_permissions, root),
        "project": partial(project.check, root, probe),
    }
    if network:
        checks["network"] = servers.check_network
    with ThreadPoolExecutor(len(checks)) as pool:
        return dict(zip(checks, pool.map(_guarded, checks, checks.values()), strict=True))


def _guarded(name: str, check: Check) -> list[Finding]:
    """The findings of a check; one that fails itself is a finding, not a crash."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except ModuleNotFoundError as error:
        found.append(
            problem(
                f"the check needs the package '{error.name}', which is not installed",
                "install TuneTrail's requirements (see installation)",
            )
        )
    except Exception as error:
        found.append(
            problem(
                f"the check of {name} failed: {type(error).__name__}: {error}",
                "this should not happen: please report it with this text",
            )
        )
    return found


def in_words(findings: dict[str, list[Finding]], colour: bool) -> str:
    """Everything that was found, for 80 columns."""
    lines = []
    for section, found in findings.items():
        lines.append(section)
        for finding in found:
            outcome = f"{finding.outcome:<8}"
            if colour:
                outcome = f"\x1b[{_COLOURS[finding.outcome]}m{outcome}\x1b[0m"
            first, *rest = _wrapped(finding.what)
            lines.append(f"  {outcome} {first}")
            lines += [f"{'':11}{line}" for line in rest]
            if finding.fix:
                first, *rest = _wrapped(f"→ {finding.fix}")
                lines += [f"{'':11}{first}", *(f"{'':13}{line}" for line in rest)]
    counts = {
        outcome: sum(f.outcome == outcome for found in findings.values() for f in found)
        for outcome in ("problem", "warning")
    }
    lines.append(
        ", ".join(f"{n or 'no'} {kind}{'' if n == 1 else 's'}" for kind, n in counts.items())
    )
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH - 13, break_long_words=False, break_on_hyphens=False) or [""]


def main(arguments: Sequence[str]) -> int:
    """Examine, print, and return the exit code: 1 if there is a problem."""
    parser = argparse.ArgumentParser(
        prog="tunetrail doctor",
        description="Examine installation, hardware, servers, disk, permissions and project.",
    )
    parser.add_argument("--network", action="store_true", help="also try package index and hub")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    findings = examine(Path.cwd(), network=options.network)
    healthy = not any(f.outcome == "problem" for found in findings.values() for f in found)
    if options.json:
        shown = {section: [asdict(f) for f in found] for section, found in findings.items()}
        sys.stdout.write(json.dumps({"healthy": healthy, "checks": shown}, indent=2) + "\n")
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        sys.stdout.write(in_words(findings, colour) + "\n")
    return 0 if healthy else 1
