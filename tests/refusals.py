"""What a person reads of a command that must refuse its input, or that the machine lets down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tunetrail.cli import main


def exit_code(*command: str) -> int:
    """Exit code of a command; click leaves by SystemExit, TuneTrail returns."""
    try:
        return main(command)
    except SystemExit as leaving:
        return int(leaving.code or 0)


def refusal(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[str, str]:
    """Problem and way out, as a command that must refuse tells them."""
    capsys.readouterr()
    code = exit_code(*command)
    return parts_of(code, capsys.readouterr().err)


def parts_of(code: int, shown: str) -> tuple[str, str]:
    """Problem and way out of what a refused command printed."""
    assert code == 2, shown
    assert "Traceback" not in shown
    _, started, said = shown.partition("error: ")  # warnings of libraries may come before
    assert started, shown
    problem, fix, way_out = said.partition("\n  fix: ")
    assert fix, shown
    return problem, way_out


@contextmanager
def as_somebody() -> Iterator[None]:
    """Without the rights of root, which may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
