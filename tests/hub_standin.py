"""A stand-in for the Hub that speaks its protocol over real HTTP, for tests.

It knows what huggingface_hub, transformers and datasets ask of it: repositories of models and data sets, commits,
large files, branches, revisions, private repositories, tokens. Everything is kept in memory. Used as

    with running_hub() as hub:
        subprocess.run([...], env=os.environ | hub.environment(tmp_path))

The environment must be set before huggingface_hub is imported, hence other processes. `hub.here(monkeypatch, home)`
points this process to it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

TOKEN = "hf_of_the_tester"
USER = "tester"
LARGE_FILES = (".safetensors", ".bin", ".parquet", ".onnx", ".png")

Tree = dict[str, bytes]


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers


@dataclass
class Repository:
    """Commits, oldest first, and branches and tags that name some of them."""

    private: bool = False
    commits: dict[str, Tree] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def add(self, tree: Tree, ref: str = "main") -> str:
        names = [f"{path} {git_oid(content)}" for path, content in sorted(tree.items())]
        sha = hashlib.sha1(f"{len(self.commits)} {names}".encode()).hexdigest()
        self.commits[sha] = tree
        self.refs[ref] = sha
        return sha

    def at(self, revision: str) -> tuple[str, Tree]:
        sha = self.refs.get(revision, revision)
        if sha not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, self.commits[sha]


class Hub:
    """State of the stand-in.

    Args:
        url: where it listens.

    Attributes:
        repositories: `(type, id)` -> `Repository`, where type is `model` or `dataset`.
        large: content of large files by sha256.
        log: `METHOD path` of each request.
        before: called with method and path before a request is answered; may raise a `Refusal`, or wait.
        messages: title and description of each commit.
        cut: bytes after which the next download of a large file breaks off; None never breaks.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.log: list[str] = []
        self.messages: list[str] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.cut: int | None = None
        self.lock = threading.RLock()

    def files(self, repo_id: str, kind: str = "model", revision: str = "main") -> Tree:
        """Path -> content of what a repository holds."""
        return self.repositories[kind, repo_id].at(revision)[1]

    def environment(self, home: Path, token: str | None = TOKEN, offline: bool = False) -> dict[str, str]:
        """Variables that point a new process to this Hub, with its cache under `home`."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_XET": "1",  # its protocol is not spoken here
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": token or "",
            "no_proxy": "127.0.0.1",
        }
        return variables

    def here(self, monkeypatch: pytest.MonkeyPatch, home: Path, token: str | None = TOKEN) -> None:
        """Point this process to the Hub, with its cache under `home`."""
        import datasets
        from huggingface_hub import constants
        from transformers.utils import hub

        for name, value in self.environment(home, token).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(hub, "_hf_api", None)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.url)


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """A Hub that listens on this machine until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


def git_oid(content: bytes) -> str:
    """The name git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _oid(path: str, content: bytes) -> str:
    """The name of a file's content: of large files that of their storage."""
    return hashlib.sha256(content).hexdigest() if is_large(path) else git_oid(content)


def is_large(path: str) -> bool:
    return path.endswith(LARGE_FILES)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._body() if self.command in ("POST", "PUT", "DELETE") else b""
        self.hub.log.append(f"{self.command} {path}")
        try:
            self.hub.before(self.command, path)
            for pattern, answer in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match:
                    answer(self, body, **match.groupdict())
                    return
            raise Refusal(404, f"The stand-in has no route {path}")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message} | refusal.headers
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self._send(refusal.status, {"error": refusal.message}, headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        raw = isinstance(body, bytes)
        content = body if raw else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if raw else "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
            self.close_connection = self.close_connection or cut is not None

    def _user(self) -> str | None:
        """Who asks; a token that is not known is refused everywhere, as the Hub does."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if given and given != TOKEN:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return USER if given else None

    def _require_user(self) -> str:
        user = self._user()
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        return user

    def _repository(self, kind: str, repo_id: str) -> Repository:
        user = self._user()
        repository = self.hub.repositories.get((kind, repo_id))
        if repository is None or (repository.private and user is None):
            # Who may not know of a repository is told that there is none. (Over https the client takes any 401 of an
            # unknown visitor for that; over http it goes by the code.)
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        return repository

    def whoami(self, body: bytes) -> None:
        token = {"type": "access_token", "accessToken": {"role": "write", "displayName": "test"}}
        self._send(200, {"type": "user", "name": self._require_user(), "orgs": [], "auth": token})

    def create(self, body: bytes) -> None:
        asked, user = json.loads(body), self._require_user()
        kind, repo_id = asked.get("type") or "model", f"{asked.get('organization') or user}/{asked['name']}"
        if repo_id.split("/")[0] == "forbidden":
            raise Refusal(403, 'You don\'t have the rights to create a model under the namespace "forbidden".')
        address = {"url": f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{repo_id}"}
        with self.hub.lock:
            if (kind, repo_id) in self.hub.repositories:
                self._send(409, address | {"error": "You already created this repo"})
                return
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repositories[kind, repo_id] = repository = Repository(private)
            repository.add({".gitattributes": b""})
        self._send(200, address | {"name": repo_id, "id": repo_id})

    def validate(self, body: bytes) -> None:
        errors = _card_errors(json.loads(body)["content"])
        self._send(400 if errors else 200, {"errors": [{"message": e} for e in errors], "warnings": []})

    def batch(self, body: bytes, repo: str, kind: str | None = None) -> None:
        self._require_user()
        objects = []
        for entry in json.loads(body)["objects"]:
            known = entry["oid"] in self.hub.large
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{entry['oid']}", "header": {}}}
            objects.append({**entry, **({} if known else {"actions": upload})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, sha256: str) -> None:
        if hashlib.sha256(body).hexdigest() != sha256:
            raise Refusal(400, "The content does not have the hash that was announced")
        self.hub.large[sha256] = body
        self._send(200, b"")

    def info(self, body: bytes, kind: str, repo: str, revision: str = "main") -> None:
        repository = self._repository(kind, repo)
        sha, tree = repository.at(revision)
        answer = {
            "id": repo,
            "modelId": repo,
            "author": repo.split("/")[0],
            "sha": sha,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in sorted(tree)],
        }
        self._send(200, answer, {"X-Repo-Commit": sha})

    def preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self._require_user()
        tree = self._repository(kind, repo).at(revision)[1]
        files = []
        for entry in json.loads(body)["files"]:
            path = entry["path"]
            mode = "lfs" if is_large(path) else "regular"
            oid = _oid(path, tree[path]) if path in tree else None
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": files})

    def commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self._require_user()
        repository = self._repository(kind, repo)
        with self.hub.lock:
            tree = dict(repository.at(revision)[1])
            for line in body.splitlines():
                operation = json.loads(line)
                value = operation["value"]
                if operation["key"] == "header":
                    self.hub.messages.append(f"{value.get('summary')} {value.get('description')}")
                elif operation["key"] == "file":
                    tree[value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "lfsFile":
                    if value["oid"] not in self.hub.large:
                        raise Refusal(400, f"The content of {value['path']} was never uploaded")
                    tree[value["path"]] = self.hub.large[value["oid"]]
                elif operation["key"] == "deletedFile":
                    del tree[value["path"]]
                elif operation["key"] == "deletedFolder":
                    tree = {path: content for path, content in tree.items() if not path.startswith(value["path"])}
            sha = repository.add(tree, revision)
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{repo}/commit/{sha}"
        self._send(200, {"success": True, "commitOid": sha, "commitUrl": url, "pullRequestUrl": None})

    def branch(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self._require_user()
        repository = self._repository(kind, repo)
        if revision in repository.refs:
            raise Refusal(409, "Reference already exists")
        start = json.loads(body or b"{}").get("startingPoint") or "main"
        repository.refs[revision] = repository.at(start)[0]
        self._send(200, {})

    def tree(self, body: bytes, kind: str, repo: str, revision: str, folder: str = "") -> None:
        sha, tree = self._repository(kind, repo).at(revision)
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        below = {path[len(folder) :]: (path, content) for path, content in tree.items() if path.startswith(folder)}
        if folder and not below:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        folders = {rest[: cut.start()] for rest in below for cut in re.finditer("/", rest)}
        entries = [_folder_entry(folder + name) for name in sorted(folders) if recursive or "/" not in name]
        entries += [_file_entry(*below[rest]) for rest in sorted(below) if recursive or "/" not in rest]
        self._send(200, entries, {"X-Repo-Commit": sha})

    def paths_info(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        tree = self._repository(kind, repo).at(revision)[1]
        paths = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode()).get("paths", [])
        entries = [_file_entry(path, tree[path]) for path in paths if path in tree]
        entries += [_folder_entry(path) for path in paths if any(other.startswith(f"{path}/") for other in tree)]
        self._send(200, entries)

    def references(self, body: bytes, kind: str, repo: str) -> None:
        refs = self._repository(kind, repo).refs
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in refs.items()]
        self._send(200, {"branches": branches, "tags": [], "converts": []})

    def resolve(self, body: bytes, repo: str, revision: str, path: str, kind: str | None = None) -> None:
        sha, tree = self._repository("model" if kind is None else kind.rstrip("s"), repo).at(revision)
        headers = {"X-Repo-Commit": sha}
        if path not in tree:
            raise Refusal(404, "Entry not found", "EntryNotFound", **headers)
        content = tree[path]
        etag = _oid(path, content)
        headers |= {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if is_large(path):
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        cut = None
        if is_large(path) and self.command == "GET":
            cut, self.hub.cut = self.hub.cut, None
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], headers, cut)
        else:
            self._send(200, content, headers, cut)


def _file_entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_large(path):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}


def _card_errors(content: str) -> list[str]:
    """What the Hub would find wrong with a card's metadata, as far as its documented schema says."""
    match = re.match(r"---\n(.*?)\n---\n", content, flags=re.DOTALL)
    if match is None:
        return []
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    errors = []
    for model in data.get("model-index", []):
        if not model.get("name"):
            errors.append('"model-index[0].name" is required')
        for result in model.get("results", []):
            for key in ("task", "dataset", "metrics"):
                if not result.get(key):
                    errors.append(f'"results[0].{key}" is required')
            if not {"name", "type"} <= result.get("dataset", {}).keys():
                errors.append('"dataset" needs name and type')
            errors += [
                f"{m} needs type and value" for m in result.get("metrics", []) if not {"type", "value"} <= m.keys()
            ]
    for key in ("tags", "datasets", "metrics"):
        if not isinstance(data.get(key, []), list):
            errors.append(f'"{key}" must be an array')
    return errors


_ANY = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>model|dataset|space)s/{_ANY}"
_ROUTES: list[tuple[str, Callable[..., None]]] = [
    (r"/api/whoami-v2", _Handler.whoami),
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.validate),
    (rf"/(?:(?P<kind>datasets|spaces)/)?{_ANY}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"/lfs/(?P<sha256>[0-9a-f]{64})", _Handler.upload),
    (rf"{_API}", _Handler.info),
    (rf"{_API}/revision/(?P<revision>[^/]+)", _Handler.info),
    (rf"{_API}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (rf"{_API}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (rf"{_API}/branch/(?P<revision>[^/]+)", _Handler.branch),
    (rf"{_API}/tree/(?P<revision>[^/]+)", _Handler.tree),
    (
        rf"{_API}/tree/(?P<revision>[^/]+)/(?P<folder>.+)",
        lambda self, body, folder, **rest: self.tree(body, folder=f"{folder.rstrip('/')}/", **rest),
    ),
    (rf"{_API}/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    (rf"{_API}/refs", _Handler.references),
    (rf"/(?:(?P<kind>datasets|spaces)/)?{_ANY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
