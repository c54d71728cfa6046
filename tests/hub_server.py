"""A Hugging Face hub on loopback: what the client asks of one, in memory, with faults on demand.

    python tests/hub_server.py 8765 &
    export HF_ENDPOINT=http://127.0.0.1:8765 HF_TOKEN=any HF_HUB_DISABLE_XET=1

Git's part is played by dictionaries: a commit is a mapping of paths to blobs.
"""

import base64
import dataclasses
import hashlib
import http.server
import json
import re
import secrets
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable

_NAME = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclasses.dataclass
class Blob:
    """A file's content; large ones are known by their sha256, others by git's hash."""

    content: bytes
    large: bool

    @property
    def git_hash(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def oid(self) -> str:
        return hashlib.sha256(self.content).hexdigest() if self.large else self.git_hash


@dataclasses.dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, Blob]] = dataclasses.field(default_factory=dict)
    head: str = ""
    tags: dict[str, str] = dataclasses.field(default_factory=dict)

    def commit(self, files: dict[str, Blob]) -> str:
        self.head = secrets.token_hex(20)
        self.commits[self.head] = files
        return self.head

    def find(self, revision: str) -> str | None:
        known = {"main": self.head, **self.tags}
        found = known.get(revision, revision)
        return found if found in self.commits else None


@dataclasses.dataclass
class Fault:
    """What to do to requests whose "METHOD path" a pattern matches, so many times."""

    pattern: str
    times: int
    status: int | None = None
    """Answer this instead, with `message`."""
    message: str = ""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    change: Callable[[bytes], bytes] | None = None
    """Send another body."""
    before: Callable[[], None] | None = None
    """Call this first."""
    headers: dict[str, str] | None = None
    """Send these instead of those of the same name."""
    pause: float = 0.0
    """Seconds before each byte, those of the headers as well."""


class HubServer(http.server.ThreadingHTTPServer):
    """Serves until `close`; `requests` is what was asked, "METHOD path" each, and the range if there is one."""

    daemon_threads = True

    def __init__(self, port: int = 0, tokens: tuple[str, ...] | None = None):
        super().__init__(("127.0.0.1", port), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.tokens = tokens  # None: any token will do
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.down = False
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def fault(self, pattern: str, times: int = 10**6, **what) -> None:
        self.faults.append(Fault(pattern, times, **what))

    def asked(self, pattern: str) -> list[str]:
        return [request for request in self.requests if re.search(pattern, request)]

    def close(self) -> None:
        """No answer any more, on connections that are still open neither."""
        self.down = True
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no news."""


class _Dripping:
    """A file that is written a byte at a time."""

    def __init__(self, file, pause: float):
        self.file, self.pause = file, pause

    def write(self, data: bytes) -> None:
        for byte in data:
            threading.Event().wait(self.pause)  # tests shorten time.sleep
            self.file.write(bytes([byte]))
            self.file.flush()

    def __getattr__(self, name):
        return getattr(self.file, name)


class _RefusalError(Exception):
    def __init__(self, status: int, code: str = "", message: str = ""):
        self.status, self.code, self.message = status, code, message


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *arguments) -> None:
        pass

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.down:
            self.close_connection = True
            return
        request = f"{self.command} {self.path} {self.headers.get('Range') or ''}".strip()
        self.fault = None
        with self.server.lock:
            self.server.requests.append(request)
            for fault in self.server.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    self.fault = fault
                    break
        if self.fault and self.fault.before:
            self.fault.before()
        try:
            if self.fault and self.fault.status:
                raise _RefusalError(self.fault.status, message=self.fault.message)
            self._answer()
        except _RefusalError as refused:
            line = " ".join(refused.message.split())
            headers = {"X-Error-Code": refused.code, "X-Error-Message": line}
            body = json.dumps({"error": refused.message}).encode()
            self._send(body, status=refused.status, headers={k: v for k, v in headers.items() if v})

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _send(self, body=b"", *, status=200, headers=None, length=None) -> None:
        """Sends bytes, or an object as JSON."""
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        length = len(body) if length is None else length
        fault = self.fault
        if fault and fault.headers:
            headers = {**(headers or {}), **fault.headers}
        if fault and fault.pause:
            self.wfile = _Dripping(self.wfile, fault.pause)
        if fault and fault.change and self.command != "HEAD":
            body = fault.change(body)
            length = len(body)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut_after is not None:
            self.wfile.write(body[: fault.cut_after])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(body)

    # What is asked, by method and path.

    def _answer(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split():
                self._check_token()
                return answer(self, **match.groupdict())
        raise _RefusalError(404, message=f"nothing at {self.command} {path}")

    def _check_token(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        known = self.server.tokens is None or token in self.server.tokens
        self.known = bool(token) and known
        if token and not known:
            # Repeats the token, as a careless server might.
            raise _RefusalError(
                401, message=f"Invalid credentials in Authorization header: {token}"
            )

    def _repository(self, repo: str, write: bool = False) -> Repository:
        repository = self.server.repositories.get(repo)
        if repository is None or (repository.private and not self.known):
            raise _RefusalError(404, "RepoNotFound", "Repository not found")
        if write and not self.known:
            raise _RefusalError(401, message="Unauthorized")
        return repository

    def _commit_of(self, repo: str, revision: str) -> tuple[str, dict[str, Blob]]:
        repository = self._repository(repo)
        commit = repository.find(revision)
        if commit is None:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    def whoami(self) -> None:
        if not self.known:
            raise _RefusalError(401, message="Unauthorized")
        self._send({"type": "user", "name": "me", "auth": {}})

    def create(self) -> None:
        if not self.known:
            raise _RefusalError(401, message="Unauthorized")
        asked = json.loads(self.body)
        owner = asked.get("organization") or "me"
        repo = f"{owner}/{asked['name']}"
        url = {"url": f"{self.server.endpoint}/{repo}"}
        if repo in self.server.repositories:
            return self._send(url, status=409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repository = self.server.repositories[repo] = Repository(private)
        repository.commit({".gitattributes": Blob(b"*.h5 filter=lfs\n", large=False)})
        self._send(url)

    def validate(self) -> None:
        self._send({"errors": [], "warnings": []})

    def info(self, repo: str, revision: str = "main") -> None:
        repository = self._repository(repo)
        commit, files = self._commit_of(repo, revision)
        self._send(self._describe(repo, repository, commit, files))

    def _describe(self, repo, repository, commit, files) -> dict:
        card = files["README.md"].content.decode() if "README.md" in files else ""
        front = card.split("---\n")[1] if card.startswith("---\n") else ""
        tags = re.findall(r"^- (.+)$", front.partition("tags:\n")[2], re.MULTILINE)
        return {
            "id": repo,
            "sha": commit,
            "private": repository.private,
            "tags": tags,
            "siblings": [{"rfilename": name} for name in files],
        }

    def models(self) -> None:
        found = []
        for repo, repository in self.server.repositories.items():
            if repository.private and not self.known:
                continue
            files = repository.commits[repository.head]
            described = self._describe(repo, repository, repository.head, files)
            owner, tag = self.query.get("author"), self.query.get("filter")
            if owner in (None, repo.split("/")[0]) and (tag is None or tag in described["tags"]):
                found.append(described)
        self._send(found)

    def refs(self, repo: str) -> None:
        repository = self._repository(repo)
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit}
            for name, commit in repository.tags.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head}
        self._send({"branches": [main], "converts": [], "tags": tags})

    def tag(self, repo: str, revision: str) -> None:
        repository = self._repository(repo, write=True)
        commit, _ = self._commit_of(repo, revision)
        name = json.loads(self.body)["tag"]
        if name in repository.tags:
            raise _RefusalError(409, message="Reference already exists")
        repository.tags[name] = commit
        self._send({})

    def tree(self, repo: str, revision: str) -> None:
        _, files = self._commit_of(repo, revision)
        entries = []
        for name, blob in files.items():
            entry = {"type": "file", "path": name, "size": len(blob.content), "oid": blob.git_hash}
            if blob.large:
                entry["lfs"] = {"oid": blob.oid, "size": len(blob.content), "pointerSize": 134}
            entries.append(entry)
        self._send(entries)

    def preupload(self, repo: str, revision: str) -> None:
        self._repository(repo, write=True)
        _, files = self._commit_of(repo, revision)
        answers = []
        for asked in json.loads(self.body)["files"]:
            answer = {
                "path": asked["path"],
                "uploadMode": "lfs" if asked["path"].endswith(".h5") else "regular",
                "shouldIgnore": False,
            }
            if asked["path"] in files:
                answer["oid"] = files[asked["path"]].oid
            answers.append(answer)
        self._send({"files": answers})

    def lfs_batch(self, repo: str) -> None:
        self._repository(repo, write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.server.large:
                place = f"{self.server.endpoint}/lfs/{asked['oid']}"
                answer["actions"] = {
                    "upload": {"href": place},
                    "verify": {"href": f"{self.server.endpoint}/lfs-verify"},
                }
            objects.append(answer)
        self._send({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusalError(400, message="content does not match its oid")
        self.server.large[oid] = self.body
        self._send()

    def lfs_verify(self) -> None:
        asked = json.loads(self.body)
        content = self.server.large.get(asked["oid"])
        if content is None or len(content) != asked["size"]:
            raise _RefusalError(404, message="no such object")
        self._send({})

    def commit(self, repo: str, revision: str) -> None:
        repository = self._repository(repo, write=True)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        with self.server.lock:
            if header.get("parentCommit") not in (None, repository.head):
                raise _RefusalError(412, message="A commit has happened since. Please refresh.")
            files = dict(repository.commits[repository.head])
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    content = base64.b64decode(value["content"])
                    files[value["path"]] = Blob(content, large=False)
                elif line["key"] == "lfsFile":
                    if value["oid"] not in self.server.large:
                        raise _RefusalError(400, message="an LFS object was not uploaded")
                    files[value["path"]] = Blob(self.server.large[value["oid"]], large=True)
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    raise _RefusalError(400, message=f"unknown operation {line['key']}")
            commit = repository.commit(files)
        url = f"{self.server.endpoint}/{repo}/commit/{commit}"
        self._send({"success": True, "commitOid": commit, "commitUrl": url})

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit, files = self._commit_of(repo, revision)
        if path not in files:
            raise _RefusalError(404, "EntryNotFound", "Entry not found")
        blob = files[path]
        content = blob.content
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        if blob.large:
            headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(content))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            return self._send(content, headers=headers)
        start = int(asked[1])
        end = min(int(asked[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(content[start : end + 1], status=206, headers=headers)


_ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", "/api/models", _Handler.models),
    ("GET", f"/api/models/{_NAME}", _Handler.info),
    ("GET", f"/api/models/{_NAME}/revision/(?P<revision>.+)", _Handler.info),
    ("GET", f"/api/models/{_NAME}/refs", _Handler.refs),
    ("POST", f"/api/models/{_NAME}/tag/(?P<revision>.+)", _Handler.tag),
    ("GET", f"/api/models/{_NAME}/tree/(?P<revision>.+)", _Handler.tree),
    ("POST", f"/api/models/{_NAME}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", f"/api/models/{_NAME}/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]+)", _Handler.lfs_put),
    ("POST", "/lfs-verify", _Handler.lfs_verify),
    ("GET HEAD", f"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]


if __name__ == "__main__":
    server = HubServer(int(sys.argv[1]) if len(sys.argv) > 1 else 8765)
    print(f"a hub at {server.endpoint}, in memory, until it is interrupted", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        server.close()
