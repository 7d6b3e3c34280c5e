"""A stand-in for the Hugging Face Hub on this machine: repositories in memory, over the Hub's own HTTP interface.

It knows what making a repository, committing plain files and fetching one need, and nothing else.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Commits of each repository, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, Files]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.read_only = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, repo: str, files: Files) -> str:
        """Add files on top of the last commit, and give the new one's hash."""
        commits = self.repositories.setdefault(repo, {})
        before = list(commits.values())[-1] if commits else {}
        number = hashlib.sha1(f"{repo}{len(commits)}".encode()).hexdigest()
        commits[number] = before | files
        return number

    def files(self, repo: str) -> Files:
        """Of the last commit."""
        return list(self.repositories[repo].values())[-1]


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, content: dict[str, Any], status: int = 200) -> None:
        self.answer(status, json.dumps(content).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        repo, found, rest = self.path.partition("/resolve/")
        revision, _, file = unquote(rest.partition("?")[0]).partition("/")
        commits = self.server.repositories.get(repo.strip("/"), {})
        if not found or not commits:
            return self.answer(404, b"", X_Error_Code="RepoNotFound")
        number = list(commits)[-1] if revision == "main" else revision
        if number not in commits:
            return self.answer(404, b"", X_Error_Code="RevisionNotFound")
        if file not in commits[number]:
            return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=number)
        content = commits[number][file]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self.answer(200, content, X_Repo_Commit=number, ETag=etag)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self.chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") is None or self.server.read_only:
            return self.answer_json({"error": "Invalid credentials"}, 401)
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted['organization']}/{wanted['name']}"
            if wanted.get("visibility") == "private" or wanted.get("private"):
                self.server.private.add(repo)
            status = 409 if repo in self.server.repositories else 200
            self.server.repositories.setdefault(repo, {})
            return self.answer_json({"url": f"{self.server.address}/{repo}"}, status)
        if self.path == "/api/validate-yaml":
            return self.answer_json({"errors": [], "warnings": []})
        repo = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            asked = [file["path"] for file in json.loads(body)["files"]]
            plain = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]
            return self.answer_json({"files": plain})
        assert "/commit/" in self.path, self.path
        lines = [json.loads(line) for line in body.splitlines()]
        sent = [line["value"] for line in lines if line["key"] == "file"]
        number = self.server.commit(repo, {file["path"]: base64.b64decode(file["content"]) for file in sent})
        address = f"{self.server.address}/{repo}/commit/{number}"
        return self.answer_json({"success": True, "commitOid": number, "commitUrl": address})

    def chunks(self) -> Iterator[bytes]:
        """The body of a request that is sent in pieces."""
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()


@contextmanager
def serving() -> Iterator[Hub]:
    """A running stand-in."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
