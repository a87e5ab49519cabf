"""A server on the loopback interface that speaks the part of the Hub's API that is used here."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

#: Files of the tree listing that go on a page; the Hub has pages too.
PAGE = 4


@dataclass
class Repository:
    """One repository: branches, and the files of each commit."""

    refs: dict[str, str]
    commits: dict[str, dict[str, bytes]]
    #: None: public. Otherwise the token that may read it.
    token: str | None = None
    gated: bool = False


def oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(name: str) -> bool:
    """Such files are behind a redirect, as the Hub has its large ones."""
    return name.endswith((".parquet", ".safetensors", ".bin"))


@dataclass
class Hub:
    """Repositories by ``datasets/owner/name`` or ``models/owner/name``, served until stopped."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    #: ``METHOD path`` of every request, and the Authorization header of each.
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    #: How many of the next downloads are cut off in the middle, and the status of every answer.
    cut: int = 0
    down: int = 0

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        # Another host name, as content is: what belongs to the Hub alone must not reach it.
        self.content = f"http://localhost:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def add(self, name: str, files: dict[str, bytes], **more: Any) -> str:
        """Offer ``files`` as branch main of ``name``; returns its commit."""
        commit = hashlib.sha1(json.dumps([name, sorted(map(str, files))]).encode()).hexdigest()
        self.repositories[name] = Repository({"main": commit}, {commit: files}, **more)
        return commit

    def push(self, name: str, files: dict[str, bytes], ref: str = "main") -> str:
        """A further commit."""
        known = self.repositories[name]
        commit = hashlib.sha1(f"{name} {ref} {len(known.commits)}".encode()).hexdigest()
        known.commits[commit] = files
        known.refs[ref] = commit
        return commit

    def stop(self) -> None:
        """Close the port."""
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def _serve(self, body: bool) -> None:
        address = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {unquote(address.path)}")
        self.hub.authorizations.append(self.headers.get("Authorization"))
        self.hub.ranges.append(self.headers.get("Range"))
        if self.hub.down:
            return self._error(self.hub.down, "")
        parts = address.path.strip("/").split("/")
        if parts[0] == "cdn":
            return self._bytes(self._blob(parts[1]), {"ETag": f'"{parts[1]}"'}, body)
        api = parts[0] == "api"
        kind = parts[1] if api else ("datasets" if parts[0] == "datasets" else "models")
        rest = parts[2:] if api else parts[parts[0] == "datasets" :]
        name, (action, revision), path = "/".join(rest[:2]), rest[2:4], "/".join(rest[4:])
        repository = self.hub.repositories.get(f"{kind}/{name}")
        if repository is None:
            # What the Hub answers to those it does not know; others learn that nothing is there.
            anonymous = self.headers.get("Authorization") is None
            return self._error(401 if anonymous else 404, "RepoNotFound")
        allowed = repository.token in {None, self._token()}
        if repository.gated and not allowed:
            return self._error(401 if self._token() is None else 403, "GatedRepo")
        if not allowed:
            return self._error(401, "RepoNotFound")
        revision = unquote(revision)
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._error(404, "RevisionNotFound")
        files = repository.commits[commit]
        if action == "revision":
            about = {"_id": name, "id": name, "sha": commit, "private": False, "siblings": []}
            return self._bytes(json.dumps(about).encode(), {}, body)
        if action == "tree":
            return self._tree(files, kind, name, commit, parse_qs(address.query))
        content = files.get(unquote(path))
        if content is None:
            return self._error(404, "EntryNotFound")
        return self._resolve(unquote(path), content, commit, body)

    def _tree(
        self, files: dict[str, bytes], kind: str, name: str, commit: str, query: dict[str, list]
    ) -> None:
        start = int(query.get("cursor", ["0"])[0])
        entries: list[dict[str, Any]] = []
        for path, content in list(files.items())[start : start + PAGE]:
            entry = {"type": "file", "oid": oid(content), "size": len(content), "path": path}
            if is_large(path):
                lfs = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
                entry["lfs"] = lfs
            entries.append(entry)
        folders = sorted({p.rpartition("/")[0] for p in files if "/" in p}) if start == 0 else []
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": p} for p in folders]
        headers = {}
        if start + PAGE < len(files):
            following = f"{self.hub.url}/api/{kind}/{name}/tree/{commit}"
            headers["Link"] = f'<{following}?recursive=true&cursor={start + PAGE}>; rel="next"'
        self._bytes(json.dumps(entries).encode(), headers, True)

    def _resolve(self, path: str, content: bytes, commit: str, body: bool) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid(content)}"'}
        if not is_large(path):
            return self._bytes(content, headers, body)
        digest = sha256(content)
        headers["X-Linked-Etag"] = f'"{digest}"'
        headers["X-Linked-Size"] = str(len(content))
        headers["Location"] = f"{self.hub.content}/cdn/{quote(digest)}"
        return self._answer(302, headers, b"", body)

    def _blob(self, digest: str) -> bytes:
        every = (
            content
            for repository in self.hub.repositories.values()
            for files in repository.commits.values()
            for content in files.values()
        )
        return next(content for content in every if sha256(content) == digest)

    def _bytes(self, content: bytes, headers: dict[str, str], body: bool) -> None:
        wanted = self.headers.get("Range")
        if wanted:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._answer(206, headers, content[start:], body)
        return self._answer(200, headers, content, body)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body and self.hub.cut and self.path.startswith("/cdn/"):
            self.hub.cut -= 1
            self.wfile.write(content[: len(content) // 2])
        elif body:
            self.wfile.write(content)

    def _error(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._answer(status, headers, b"{}", self.command == "GET")

    def _token(self) -> str | None:
        sent = self.headers.get("Authorization")
        return sent.removeprefix("Bearer ") if sent else None
