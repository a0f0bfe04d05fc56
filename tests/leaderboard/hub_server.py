"""The few endpoints of the Hugging Face hub that a pull request takes, on loopback."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """A hub with one model and one data set, both called them/there, for the token `right`.

    Attributes:
        card: README.md of the model; None where it has none.
        commits: of each pull request the repository, its title and its files.
        asked: each request's method and path.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.card: str | None = None
        self.commits: list[tuple[str, str, dict[str, bytes]]] = []
        self.asked: list[str] = []
        self.daemon_threads = True
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    server: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        self.server.asked.append(f"{self.command} {path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if "them/there" not in path:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if token not in ("right", "reader"):
            return self._send(401, {"error": "Invalid credentials in Authorization header"})
        repo = path.split("/")[2]
        if path.endswith("/resolve/main/README.md"):
            return self._card()
        if path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._send(200, {"files": modes})
        if path.endswith("/commit/main"):
            if token == "reader":
                return self._send(403, {"error": "Forbidden: this token may not write"})
            assert query == "create_pr=1"
            header, *lines = map(json.loads, body.decode().splitlines())
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines}
            self.server.commits.append((repo, header["value"]["summary"], files))
            number = len(self.server.commits)
            place = f"{self.server.url}/{'datasets/' if repo == 'datasets' else ''}them/there"
            answer = {"commitUrl": f"{place}/commit/{'0' * 40}", "commitOid": "0" * 40}
            return self._send(200, {**answer, "pullRequestUrl": f"{place}/discussions/{number}"})
        return self._send(200, {"id": "them/there", "sha": "0" * 40, "private": False, "tags": [], "siblings": []})

    def _card(self) -> None:
        if self.server.card is None:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": '"1"', "X-Repo-Commit": "0" * 40}
        return self._send(200, self.server.card.encode(), headers)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
