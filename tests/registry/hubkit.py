"""The parts of the Hugging Face Hub's HTTP API that a model repository needs, on the loopback interface.

Written from what ``huggingface_hub`` 2.4 sends and expects: repositories, commits (files inline or by LFS), revisions, sizes,
and files. It misbehaves on request: ``hub.serve[path] = bytes``, ``hub.sizes[name] = number``, ``hub.status = 500``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote


class Hub:
    """What the server holds: commits, refs and blobs by repository."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, str]] = {}  # repository -> ref -> commit
        self.commits: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.lfs = {"adapter_model.safetensors"}
        self.serve: dict[str, bytes] = {}
        self.sizes: dict[str, Any] = {}
        self.status = 0
        self.url = ""

    def commit(self, repo: str, files: dict[str, bytes], ref: str = "main") -> str:
        """Add files on top of a ref."""
        refs = self.repos.setdefault(repo, {})
        tree = {**self.commits.get(refs.get(ref, ""), {}), **files}
        text = json.dumps([[name, hashlib.sha256(data).hexdigest()] for name, data in sorted(tree.items())])
        oid = hashlib.sha1(f"{repo} {len(self.commits)} {text}".encode()).hexdigest()
        self.commits[oid] = tree
        refs[ref] = oid
        return oid

    def find(self, repo: str, revision: str) -> str | None:
        refs = self.repos.get(repo, {})
        return refs.get(revision) or (revision if revision in self.commits else None)


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.route("GET", b"")

        def do_HEAD(self):
            self.route("HEAD", b"")

        def do_POST(self):
            self.route("POST", self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def do_PUT(self):
            self.route("PUT", self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def route(self, method, body):
            path = unquote(self.path.partition("?")[0])
            hub.asked.append((method, path))
            hub.tokens.add(self.headers.get("Authorization"))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if hub.status:
                    return self.reply({"error": "on purpose"}, hub.status)
                return self.answer(method, path.strip("/").split("/"), body)

        def answer(self, method, parts, body):
            if parts == ["api", "repos", "create"]:
                asked = json.loads(body)
                repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
                if repo in hub.repos:
                    return self.reply({"error": "exists", "url": f"{hub.url}/{repo}"}, 409)
                hub.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
                return self.reply({"url": f"{hub.url}/{repo}", "id": repo})
            if parts == ["api", "validate-yaml"]:
                return self.reply({"errors": [], "warnings": []})
            if parts[0] == "lfs":
                hub.blobs[parts[1]] = body
                return self.reply({})
            if parts[:2] == ["api", "models"]:
                return self.model(f"{parts[2]}/{parts[3]}", parts[4:], body)
            if parts[2:5] == ["info", "lfs", "objects"]:
                objects = [
                    {**wanted, "actions": {"upload": {"href": f"{hub.url}/lfs/{wanted['oid']}"}}}
                    for wanted in json.loads(body)["objects"]
                ]
                return self.reply({"transfer": "basic", "objects": objects})
            if len(parts) > 4 and parts[2] == "resolve":
                return self.file(f"{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:]))
            return self.reply({"error": "no such route"}, 404)

        def model(self, repo, rest, body):
            revision = rest[1] if len(rest) > 1 else "main"
            commit = hub.find(repo, revision)
            if commit is None:
                code = "RevisionNotFound" if repo in hub.repos else "RepoNotFound"
                return self.reply({"error": "not found"}, 404, {"X-Error-Code": code})
            kind = rest[0] if rest else "revision"
            tree = hub.commits[commit]
            if kind == "revision":
                return self.reply(
                    {"id": repo, "modelId": repo, "sha": commit, "siblings": [{"rfilename": n} for n in tree]}
                )
            if kind == "preupload":
                files = [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if f["path"] in hub.lfs else "regular",
                        "shouldIgnore": False,
                    }
                    for f in json.loads(body)["files"]
                ]
                return self.reply({"files": files})
            if kind == "paths-info":
                names = parse_qs(body.decode())["paths"]
                sizes = {name: hub.sizes.get(name, len(tree[name])) for name in names if name in tree}
                found = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()]
                return self.reply(found)
            if kind == "commit":
                return self.commit(repo, revision, body)
            return self.reply({"error": "no such route"}, 404)

        def commit(self, repo, revision, body):
            files = {}
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "lfsFile":
                    files[entry["value"]["path"]] = hub.blobs[entry["value"]["oid"]]
            oid = hub.commit(repo, files, revision)
            return self.reply({"commitUrl": f"{hub.url}/{repo}/commit/{oid}", "commitOid": oid, "success": True})

        def file(self, repo, revision, name):
            commit = hub.find(repo, revision)
            if commit is None or name not in hub.commits[commit]:
                return self.reply({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            data = hub.serve.get(name, hub.commits[commit][name])
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            self.wfile.write(data)
            return None

        def reply(self, value, status=200, headers=None):
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, text in (headers or {}).items():
                self.send_header(name, text)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
