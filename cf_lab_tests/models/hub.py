"""A stand-in for the Hugging Face hub, which tests can't reach: the two endpoints that we use.

It speaks HTTP on loopback, so that the hub's own client, its headers, redirects to no other host,
ranges and broken connections are real. Everything else about a hub is left out.
"""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes from which on the stand-in tells SHA-256, as git-lfs does
COMMIT = "c0ffee" + "0" * 34


class Hub:
    """One repository and what is wrong with it.

    Attributes:
        files: bytes by path, of every revision.
        revisions: commit by name; the commit is a name of itself.
        fault: status and X-Error-Code of every answer, None for none.
        fault_at: only of this path.
        cut_after: bytes of a body after which the connection breaks, once.
        ranges: whether it knows ranges.
        asked: path and Range header of every file that was asked for.
    """

    def __init__(self, repository="lab/tiny"):
        self.repository = repository
        self.files = {}
        self.revisions = {"main": COMMIT}
        self.fault = self.fault_at = self.cut_after = None
        self.ranges = True
        self.asked = []
        self.listings = 0

    def put_folder(self, folder):
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[path.relative_to(folder).as_posix()] = path.read_bytes()

    def info(self, revision):
        self.listings += 1
        siblings = []
        for path, data in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            one = {"rfilename": path, "size": len(data), "blobId": blob}
            if len(data) >= LARGE:
                sha256 = hashlib.sha256(data).hexdigest()
                one["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            siblings.append(one)
        return {
            "id": self.repository,
            "sha": self.revisions.get(revision, revision),
            "siblings": siblings,
        }

    def knows(self, revision):
        return revision in self.revisions or revision in self.revisions.values()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        api, files = f"/api/models/{hub.repository}/revision/", f"/{hub.repository}/resolve/"
        if path.startswith(api):
            if hub.fault and not hub.fault_at:
                self.refuse(*hub.fault)
            elif hub.knows(revision := path.removeprefix(api)):
                self.send(200, json.dumps(hub.info(revision)).encode())
            else:
                self.refuse(404, "RevisionNotFound")
        elif path.startswith(files):
            self.file(path.removeprefix(files))
        else:
            self.refuse(401, "RepoNotFound")

    def file(self, rest):
        hub = self.server.hub
        revision, _, path = rest.partition("/")
        wanted = self.headers.get("Range")
        hub.asked.append((path, wanted))
        if hub.fault and hub.fault_at in (None, path):
            self.refuse(*hub.fault)
        elif not hub.knows(revision) or path not in hub.files:
            self.refuse(404, "EntryNotFound")
        else:
            data = hub.files[path]
            start = int(wanted[6:-1]) if wanted and hub.ranges else 0
            self.send(206 if start else 200, data[start:])

    def refuse(self, status, code):
        self.send(status, b"", **({"X-Error-Code": code} if code else {}))

    def send(self, status, body, **headers):
        hub = self.server.hub
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if hub.cut_after is not None and len(body) > hub.cut_after and status < 300:
            body, hub.cut_after = body[: hub.cut_after], None
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def running(hub):
    """Serve a hub on a free port; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
