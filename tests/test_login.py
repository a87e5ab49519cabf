"""Who may use the services: the password's file, what is refused, and the warnings."""

from __future__ import annotations

import configparser
import socket
import stat
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from pipelines import services
from pipelines.login import FOLDER, PASSWORD, login
from pipelines.services import Plan, serve
from tunetrail.errors import TuneTrailError


@pytest.fixture(autouse=True)
def _in_empty_folder(in_empty_folder: None) -> None: ...


def test_a_password_is_made_once_and_nobody_else_may_read_it() -> None:
    first, second = login(""), login("")
    assert first.password == second.password == PASSWORD.read_text().strip()
    assert len(first.password) >= 32
    assert first.password not in repr(first)
    assert stat.S_IMODE(FOLDER.stat().st_mode) == 0o700
    for path in FOLDER.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_given_password_is_kept_and_mlflow_learns_of_its_database() -> None:
    FOLDER.mkdir(parents=True)
    PASSWORD.write_text("of somebody's own choice".replace(" ", "-") + "\n")
    PASSWORD.chmod(0o600)
    made = login("postgresql://me:p%40ss@127.0.0.1/tunetrail_mlflow")
    assert made.environment()["MLFLOW_TRACKING_PASSWORD"] == "of-somebody's-own-choice"
    settings = configparser.ConfigParser()
    settings.read(made.settings)
    assert settings["mlflow"]["database_uri"] == "postgresql://me:p%40ss@127.0.0.1/tunetrail_mlflow"


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("long-enough-for-mlflow", 0o640, "can be read by others\n  fix: `chmod 600"),
        ("short", 0o600, "is not at least 12 visible ASCII characters"),
        ("with a blank in it", 0o600, "is not at least 12 visible ASCII characters"),
        ("schlüsselwörter", 0o600, "is not at least 12 visible ASCII characters"),
    ],
)
def test_a_password_that_cannot_be_used_is_refused_and_not_shown(
    content: str, mode: int, said: str
) -> None:
    FOLDER.mkdir(parents=True)
    PASSWORD.write_text(content)
    PASSWORD.chmod(mode)
    with pytest.raises(TuneTrailError) as caught:
        login("")
    assert said in str(caught.value)
    assert content not in str(caught.value)


def test_an_unknown_authentication_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNETRAIL_AUTH", "basci")
    monkeypatch.setattr("sys.argv", ["services"])
    assert services.main() == 2
    said = capsys.readouterr().err
    assert "--auth: unknown authentication 'basci'" in said
    assert "did you mean 'basic'?" in said


def test_a_password_that_mlflow_does_not_know_is_named_and_not_shown() -> None:
    made = login("")

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["Authorization"] == right else 401)
            self.end_headers()

    right = "Basic " + b64encode(f"admin:{made.password}".encode()).decode()
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        made.check(url)
        right = "Basic another"
        with pytest.raises(TuneTrailError, match=f"MLflow answers 401 to the password in {PASSWORD}"
                           ) as caught:  # fmt: skip
            made.check(url)
        server.shutdown()
    assert made.password not in str(caught.value)


def test_a_postgresql_that_is_away_is_named_without_its_password() -> None:
    plan = Plan(
        Path.cwd(), "127.0.0.1", 0, 0, "postgresql://me:s3cret@127.0.0.1:9?application_name=s3cret"
    )
    with pytest.raises(TuneTrailError, match=r"PostgreSQL at 127\.0\.0\.1:9") as caught:
        serve(plan, Console())
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "auth", "said"),
    [
        ("127.0.0.1", False, ""),
        ("127.0.0.1", True, ""),
        ("0.0.0.0", False, "neither server asks who is there. Start them with --auth basic"),
        ("0.0.0.0", True, "the password reaches 0.0.0.0 unencrypted"),
    ],
)
def test_whoever_opens_the_services_to_others_is_warned(
    host: str, auth: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        plan = Plan(Path.cwd(), host, port, port, login=login("") if auth else None)
        with pytest.raises(TuneTrailError, match=f"port {port} on {host} cannot be used"):
            serve(plan, Console(soft_wrap=True))
    shown = capsys.readouterr().out
    assert said in shown
    assert ("warning" in shown) == bool(said)
    assert ("asks who is there" in shown) == (host == "0.0.0.0" and not auth)
