"""Who may use the services: one administrator, whose password is in a file of mode 600."""

from __future__ import annotations

import base64
import os
import secrets
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR

USER = "admin"

#: Relative to the project; git ignores it.
FOLDER = STATE_DIR / "services"
PASSWORD = FOLDER / "password"
_USERS = FOLDER / "users.db"
_SETTINGS = FOLDER / "mlflow-auth.ini"

#: MLflow takes no shorter one.
_SHORTEST = 12


@dataclass(frozen=True)
class Login:
    """The administrator of both servers.

    Attributes:
        password: Never part of a command line or of what is printed.
        settings: MLflow's own file about its users.
    """

    password: str = field(repr=False)
    settings: Path

    @property
    def pair(self) -> str:
        """User and password, as Prefect wants them."""
        return f"{USER}:{self.password}"

    def environment(self) -> dict[str, str]:
        """For the servers, and for whoever asks them."""
        return {
            "PREFECT_SERVER_API_AUTH_STRING": self.pair,
            "PREFECT_API_AUTH_STRING": self.pair,
            "MLFLOW_AUTH_CONFIG_PATH": str(self.settings),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }

    def check(self, mlflow_url: str) -> None:
        """Ask MLflow whether it knows the password: its users were made at its first start.

        Raises:
            TuneTrailError: It knows another one.
        """
        asked = urllib.request.Request(f"{mlflow_url}/api/2.0/mlflow/users/current")
        token = base64.b64encode(self.pair.encode()).decode()
        asked.add_header("Authorization", f"Basic {token}")
        try:
            urllib.request.urlopen(asked, timeout=30).close()
        except urllib.error.HTTPError as error:
            raise TuneTrailError(
                f"MLflow answers {error.code} to the password in {PASSWORD}",
                "put the one there that its users were made with, or change it in MLflow; with "
                f"{_USERS} gone all users are made anew",
            ) from None


def login(database: str) -> Login:
    """The login of the project here; its password is made where there is none yet.

    Args:
        database: Where MLflow keeps its users; empty for a file in the project.

    Raises:
        TuneTrailError: Flask-WTF is not installed, or the password cannot be used.
    """
    try:
        import flask_wtf  # noqa: F401 (MLflow's pages for users need it)
    except ImportError:
        raise TuneTrailError(
            "MLflow's authentication needs Flask-WTF, which is not installed",
            "install 'tunetrail[pipeline]'",
        ) from None
    FOLDER.mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o700)  # MLflow makes its file of users as readable as any
    if not PASSWORD.exists():
        _write(PASSWORD, secrets.token_urlsafe(24) + "\n")
    uri = database or f"sqlite:///{_USERS.absolute()}"
    escaped = uri.replace("%", "%%")
    _SETTINGS.unlink(missing_ok=True)
    _write(_SETTINGS, f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {escaped}\n")
    return Login(_password(), _SETTINGS.absolute())


def _password() -> str:
    if PASSWORD.stat().st_mode & 0o077:
        raise TuneTrailError(f"{PASSWORD} can be read by others", f"`chmod 600 {PASSWORD}`")
    found = PASSWORD.read_text(encoding="utf-8").strip()
    plain = found.isascii() and found.isprintable() and " " not in found
    if len(found) < _SHORTEST or not plain:
        raise TuneTrailError(
            f"the password in {PASSWORD} is not at least {_SHORTEST} visible ASCII characters",
            "put a longer one there, or remove the file: one is made",
        )
    return found


def _write(path: Path, text: str) -> None:
    """Write a new file that nobody else may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
