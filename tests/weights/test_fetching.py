import dataclasses
import errno
import hashlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from featvis import loading, zoo
from featvis.errors import FeatvisError, FetchError, OutputError
from featvis.weights import download as fetching
from featvis.weights import hub as weights_hub
from featvis.weights import sources
from featvis.weights.download import fetch, fetch_source
from featvis.weights.http import Response, UrlTransport
from featvis.weights.hub import Hub, HubFile, HubRecord
from featvis.weights.layouts import source_of
from featvis.weights.sources import Download, Local, Package
from featvis.weights.watch import Limits
from featvis.zoo.architecture import _expected

BODY = bytes(range(256)) * 40_000
SHA256 = hashlib.sha256(BODY).hexdigest()
COMMIT = "1234567890" * 4
HTTP = UrlTransport(timeout=10, schemes=("http",))


class Server(http.server.ThreadingHTTPServer):
    """A web server of one file, as good or bad as a test needs it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.etag, self.modified = '"one"', "Mon, 06 Jul 2026 10:00:00 GMT"
        self.knows_range = self.knows_if_range = True
        self.most = None  # bytes in a response, then the connection is closed
        self.status = None
        self.redirect = None
        self.pause = 0.0
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.pth"

    @property
    def ranges(self):
        return [headers.get("range") for _, headers in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, headers = self.server, {k.lower(): v for k, v in self.headers.items()}
        server.requests.append((self.path, headers))
        start = 0
        if server.redirect and self.path != "/other":
            self.answer(302, {"Location": server.redirect})
        elif server.status:
            self.answer(server.status, {})
        else:
            asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
            same = headers.get("if-range") in (None, server.etag, server.modified)
            if asked and server.knows_range and (same or not server.knows_if_range):
                start = int(asked[1])
            if start >= len(server.body):
                self.answer(416, {"Content-Range": f"bytes */{len(server.body)}"})
                return
            about = {"ETag": server.etag, "Last-Modified": server.modified}
            if start:
                whole = len(server.body)
                about["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
            self.answer(206 if start else 200, about, server.body[start:])

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        body = body[: self.server.most]
        try:
            for start in range(0, len(body), 2**18):
                time.sleep(self.server.pause)
                self.wfile.write(body[start : start + 2**18])
        except OSError:  # the other side has stopped reading
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path)
    return tmp_path / "weights" / "toy"


def names(folder):
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in found if path.suffix != ".lock")


def download(server, digest=SHA256):
    return Download(server.url, digest, licence="MIT")


def get(server, digest=SHA256, transport=HTTP, limits=None):
    return fetch("toy", [download(server, digest)], transport=transport, limits=limits)


def interrupted(after, error=KeyboardInterrupt):
    """The transport, broken off after so many bytes."""

    def transport(url, headers, offset):
        response = HTTP(url, headers, offset)

        def chunks():
            left = after
            for chunk in response.chunks:
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    raise error
            pytest.fail("it was not to come this far")

        return dataclasses.replace(response, chunks=chunks())

    return transport


def begin(server, after=3_000_000):
    """Leaves a part as Ctrl-C does."""
    with pytest.raises(KeyboardInterrupt):
        get(server, transport=interrupted(after))
    server.requests.clear()


# ---- a download ----------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [8, 64])
def test_fetched_once_and_verified(server, folder, digits):
    path = get(server, SHA256[:digits])
    assert path == folder / "weights.pth"
    assert path.read_bytes() == BODY
    assert names(folder) == ["weights.pth"]
    assert get(server, SHA256[:digits]) == path
    assert len(server.requests) == 1


def test_another_file_is_refused(server, folder):
    with pytest.raises(FetchError) as caught:
        get(server, "0" * 8)
    assert names(folder) == []
    assert f"its SHA-256 is {SHA256[:8]}, expected 00000000" in str(caught.value)
    assert f"put {server.url} into {folder}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_in_the_cache_is_replaced(server, folder):
    path = get(server)
    path.write_bytes(BODY[:-1])
    assert get(server).read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_damaged_file_stays_where_there_is_no_better(server, folder):
    path = get(server)
    path.write_bytes(b"mine")
    server.status = 404
    with pytest.raises(FetchError):
        get(server)
    assert path.read_bytes() == b"mine"


def test_a_broken_connection_is_taken_up_again(server, folder):
    server.most = 3_000_000
    assert get(server).read_bytes() == BODY
    assert server.ranges == [None, "bytes=3000000-", "bytes=6000000-", "bytes=9000000-"]
    assert names(folder) == ["weights.pth"]


def test_an_endless_series_of_broken_connections_ends(server, folder, monkeypatch):
    monkeypatch.setattr(fetching, "_MOST_CONNECTIONS", 3)
    server.most = 1000
    with pytest.raises(FetchError, match="broke 3 times"):
        get(server)
    assert (folder / "weights.pth.part").read_bytes() == BODY[:3000]


def test_a_connection_that_brings_nothing_is_the_last(server, folder):
    server.most = 0
    with pytest.raises(FetchError, match=r"ended after 0 of 10240000 bytes\); try again, or put"):
        get(server)
    assert len(server.requests) == 1


def test_an_interrupted_download_is_resumed(server, folder):
    begin(server)
    assert names(folder) == ["weights.pth.part", "weights.pth.part.json"]
    assert (folder / "weights.pth.part").read_bytes() == BODY[:3_000_000]
    assert get(server).read_bytes() == BODY
    assert server.ranges == ["bytes=3000000-"]
    assert server.requests[0][1]["if-range"] == server.etag
    assert names(folder) == ["weights.pth"]


def test_what_was_whole_already_needs_no_connection(server, folder):
    begin(server, after=len(BODY))
    server.status = 500
    assert get(server).read_bytes() == BODY
    assert server.requests == []


def test_without_range_it_begins_again(server):
    server.knows_range = False
    begin(server)
    assert get(server).read_bytes() == BODY
    assert server.ranges == ["bytes=3000000-"]


@pytest.mark.parametrize("knows_if_range", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {"etag": '"two"'},
        {"etag": None, "modified": "Tue, 07 Jul 2026 10:00:00 GMT"},
        {"etag": 'W/"two"'},
        {"etag": None, "modified": None, "length": 1},
    ],
)
def test_a_file_that_changed_meanwhile_is_begun_again(server, change, knows_if_range):
    first = {"etag": 'W/"one"' if change["etag"] == 'W/"two"' else server.etag}
    first = {**first, **dict.fromkeys((key for key, new in change.items() if new is None), None)}
    for key, value in first.items():
        setattr(server, key, value)
    server.knows_if_range = knows_if_range
    begin(server)
    for key, value in change.items():
        setattr(server, key, value)
    server.body = BODY[::-1] + b"more" * change.get("length", 0)
    assert get(server, hashlib.sha256(server.body).hexdigest()).read_bytes() == server.body
    assert server.ranges[0] == "bytes=3000000-"


def test_a_file_that_shrank_is_begun_again(server):
    begin(server)
    server.body = BODY[:1_000_000]
    server.etag = None
    server.knows_if_range = False  # so that it answers 416
    assert get(server, hashlib.sha256(server.body).hexdigest()[:8]).read_bytes() == server.body
    assert server.ranges == ["bytes=3000000-", None]


def test_a_damaged_part_is_begun_again(server, folder):
    begin(server)
    part = folder / "weights.pth.part"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    assert get(server).read_bytes() == BODY
    assert server.ranges == ["bytes=3000000-", None]


@pytest.mark.parametrize("known", [None, b"", b"[]", b"{", b'{"of": "other", "length": 10240000}'])
def test_a_part_of_nothing_known_is_begun_again(server, folder, known):
    begin(server)
    about = folder / "weights.pth.part.json"
    about.unlink() if known is None else about.write_bytes(known)
    assert get(server).read_bytes() == BODY
    assert server.ranges == [None]


@pytest.mark.parametrize("status", [404, 429, 503])
def test_an_error_of_the_server_keeps_the_part(server, folder, status):
    begin(server)
    server.status = status
    with pytest.raises(FetchError, match=f"answers {status}"):
        get(server)
    server.status = None
    assert get(server).read_bytes() == BODY
    assert server.ranges == ["bytes=3000000-"] * 2


def test_no_network(folder):
    source = Download("https://127.0.0.1:9/weights.pth", SHA256, licence="MIT")
    with pytest.raises(FeatvisError) as caught:
        fetch("toy", [source])
    assert re.fullmatch(
        r"cannot fetch 127\.0\.0\.1:9/weights\.pth: no connection \(Connection refused\); "
        rf"try again, or put https://127\.0\.0\.1:9/weights\.pth into {re.escape(str(folder))}",
        str(caught.value),
    )
    assert names(folder) == []


# ---- which addresses -----------------------------------------------------------------------


def test_only_https_by_default(server):
    with pytest.raises(FetchError, match="only https is allowed"):
        fetch("toy", [download(server)])
    assert server.requests == []


@pytest.mark.parametrize("target", ["https://127.0.0.1:9/x", "ftp://127.0.0.1:9/x", "file:///x"])
def test_no_redirect_to_another_scheme(server, target):
    server.redirect = target
    with pytest.raises(FetchError, match=r"refused|answers 302"):
        get(server)


def test_credentials_do_not_follow_a_redirect(server):
    server.redirect = server.url.replace("weights.pth", "other").replace("127.0.0.1", "localhost")
    response = HTTP(server.url, {"Authorization": "Bearer secret", "X-Other": "1"}, 100)
    assert b"".join(response.chunks) == BODY[100:]
    response.close()
    (_, first), (path, second) = server.requests
    assert path == "/other"
    assert first["authorization"] == "Bearer secret"
    assert "authorization" not in second
    assert second["x-other"] == "1"
    assert second["range"] == "bytes=100-"
    assert second["user-agent"].startswith("featvis/")


# ---- transports that a server cannot be ----------------------------------------------------


def answering(*pieces, status=200, **headers):
    def transport(url, sent, offset):
        found = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(status, found, iter(pieces))

    return transport


def test_more_than_announced(server, folder):
    with pytest.raises(FetchError, match="more than the 5 bytes"):
        get(server, transport=answering(b"abc", b"def", content_length="5"))
    assert names(folder) == []


@pytest.mark.parametrize("length", [{}, {"content_length": "many"}, {"content_length": "-1"}])
def test_an_unknown_length(server, length):
    path = get(server, transport=answering(BODY[:1000], BODY[1000:], **length))
    assert path.read_bytes() == BODY


def test_a_range_that_was_not_asked_for(server, folder):
    with pytest.raises(FetchError, match="answers 206"):
        get(server, transport=answering(BODY, status=206))
    assert names(folder) == []


@pytest.mark.parametrize(
    "content_range", ["bytes 0-9/10240000", "bytes 3000000-9/77", "items 1-2", ""]
)
def test_another_range_than_asked_for(server, content_range):
    begin(server)

    def transport(url, headers, offset):
        if offset:
            return answering(BODY, status=206, content_range=content_range)(url, headers, offset)
        return HTTP(url, headers, offset)

    assert get(server, transport=transport).read_bytes() == BODY


def test_responses_are_closed(server):
    closed = []

    def transport(url, headers, offset):
        status = 416 if offset else 200
        return Response(status, {}, iter([BODY]), lambda: closed.append(status))

    begin(server)
    get(server, transport=transport)
    assert closed == [416, 200]


def test_the_bar_is_for_terminals(server, capfd):
    get(server)
    assert capfd.readouterr() == ("", "")


# ---- the disk ------------------------------------------------------------------------------


def test_a_disk_that_is_too_small(server, folder, monkeypatch):
    begin(server)
    monkeypatch.setattr(
        fetching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 7_000_000})
    )
    with pytest.raises(OutputError, match="disk is full: 7 MB are to come, 7 MB are free"):
        get(server)
    assert (folder / "weights.pth.part").stat().st_size == 3_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_disk_that_gets_full(server, folder):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_001, hard))
    try:
        with pytest.raises(OutputError, match=rf"part: {os.strerror(errno.EFBIG)}"):
            get(server)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "weights.pth.part").read_bytes() == BODY[:3_000_001]
    assert get(server).read_bytes() == BODY
    assert server.ranges[-1] == "bytes=3000001-"


def test_a_folder_that_cannot_be_made(server, folder):
    folder.parent.write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        get(server)


def test_a_disk_that_others_fill_meanwhile(server, folder, monkeypatch):
    free = iter([10**9, 10**8, 10**6])
    monkeypatch.setattr(
        fetching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": next(free)})
    )
    endless = answering(*[bytes(2**20)] * 60)
    with pytest.raises(OutputError, match="disk is full: 0 MB are to come, 1 MB are free"):
        get(server, transport=endless)
    assert (folder / "weights.pth.part").stat().st_size <= 2 * 2**24


# ---- servers that do not end ---------------------------------------------------------------


def endless(piece, pause=lambda: None):
    """The transport, with a body without end."""

    def transport(url, headers, offset):
        def chunks():
            while True:
                pause()
                yield piece

        return Response(206 if offset else 200, {"content-range": f"bytes {offset}-"}, chunks())

    return transport


def test_a_body_without_end(server, folder):
    with pytest.raises(FetchError, match="larger than the 3 MB that are expected; try again, or"):
        get(server, transport=endless(bytes(2**18)), limits=Limits(size=3_000_000))
    assert names(folder) == []


def test_the_size_expected_of_a_model(server, folder, monkeypatch):
    # 4.65 million parameters, of 16 bytes at most.
    ours = dataclasses.replace(
        zoo.entries()["efficientnet_lite0"], name="toy", sources=(download(server),)
    )
    monkeypatch.setattr(loading, "entry", lambda name: ours)
    monkeypatch.setitem(fetching.fetch.__kwdefaults__, "transport", endless(bytes(2**22)))
    with pytest.raises(FetchError, match="larger than the 91 MB that are expected"):
        loading.fetch("toy")
    assert names(folder) == []


def test_a_size_that_is_announced(server, folder):
    with pytest.raises(FetchError, match="larger than the 5 MB that are expected"):
        get(server, limits=Limits(size=5_000_000))
    assert names(folder) == []
    assert len(server.requests) == 1


def test_a_slow_drip(server, folder):
    limits = Limits(window=0.05, slowest=1e12)
    with pytest.raises(FetchError, match="slower than 1e\\+12 bytes a second"):
        get(server, transport=endless(b"x"), limits=limits)
    # What has come is kept, and is bounded.
    assert names(folder) == ["weights.pth.part", "weights.pth.part.json"]


def test_a_download_that_takes_too_long(server, folder):
    limits = Limits(seconds=0.05, size=2**40)
    with pytest.raises(FetchError, match=r"took more than 0\.05 s"):
        get(server, transport=endless(b"x"), limits=limits)


@pytest.mark.parametrize("where", ["the answer", "the body"])
def test_a_server_that_falls_silent(server, where, folder):
    go_on = threading.Event()
    closed = threading.Event()

    def transport(url, headers, offset):
        if where == "the answer":
            go_on.wait()
        return Response(200, {}, endless(b"x", go_on.wait)(url, headers, 0).chunks, closed.set)

    with pytest.raises(FetchError, match=r"did not answer within 0\.1 s|nothing came for 0\.1 s"):
        get(server, transport=transport, limits=Limits(silence=0.1))
    go_on.set()
    assert closed.wait(10)
    assert "weights.pth" not in names(folder)


def test_a_header_byte_by_byte(folder):
    # Each piece comes within the time limit of a socket; the answer never does.
    enough = threading.Event()

    def drip(listener):
        connection, _ = listener.accept()
        with connection:
            while not enough.wait(0.01):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/weights.pth"
        source = Download(url, SHA256, licence="MIT")
        with pytest.raises(FetchError, match="did not answer within"):
            fetch("toy", [source], transport=HTTP, limits=Limits(silence=0.2))
        enough.set()
        thread.join()
    assert names(folder) == []


# ---- at once -------------------------------------------------------------------------------


def test_two_at_once_download_once(server, folder):
    server.pause = 0.01
    found = []
    threads = [threading.Thread(target=lambda: found.append(get(server))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [folder / "weights.pth"] * 4
    assert found[0].read_bytes() == BODY
    assert len(server.requests) == 1
    assert names(folder) == ["weights.pth"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_leaves_what_it_has(server, folder, tmp_path, number):
    # A job in the background of a shell inherits that Ctrl-C is ignored.
    code = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from featvis.weights import download, sources
from featvis.weights.http import UrlTransport
sources.cache_folder = lambda: Path({str(tmp_path)!r})
source = sources.Download({server.url!r}, {SHA256!r}, licence="MIT")
download.fetch_source(source, "toy", transport=UrlTransport(schemes=("http",)))
"""
    server.pause = 0.05
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        part = folder / "weights.pth.part"
        while process.poll() is None and not (part.is_file() and part.stat().st_size > 2**20):
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.communicate()[1].decode()
    assert process.returncode != 0, errors
    assert "weights.pth" not in names(folder)
    size = part.stat().st_size
    assert 0 < size < len(BODY)
    server.pause = 0
    server.requests.clear()
    assert get(server).read_bytes() == BODY
    assert server.ranges == [f"bytes={size}-"]
    assert names(folder) == ["weights.pth"]


# ---- which source --------------------------------------------------------------------------


def test_the_first_source_that_has_it(server, folder):
    package = Package("absent", "absent_module", "x.pth", licence="MIT")
    gone = Download(server.url.replace(str(server.server_port), "9"), "0" * 8, licence="MIT")
    assert fetch("toy", [package, gone, download(server)], transport=HTTP).read_bytes() == BODY


def test_what_is_here_is_not_downloaded(server, folder):
    folder.mkdir(parents=True)
    mine = folder / "mine.npz"
    mine.write_bytes(b"something")
    local = Local("mine.npz", "made by hand", licence="MIT")
    assert fetch("toy", [download(server), local], transport=HTTP) == mine
    assert server.requests == []


def test_every_failure_is_told(server, folder):
    server.status = 404
    other = Download(server.url.replace("weights", "more"), SHA256, licence="MIT")
    with pytest.raises(FetchError) as caught:
        fetch("toy", [download(server), other], transport=HTTP)
    assert str(caught.value).count("answers 404") == 2
    assert "more.pth into" in str(caught.value)


def test_nothing_to_download(folder):
    package = Package("absent", "absent_module", "x.pth", licence="MIT")
    local = Local("mine.npz", "made by hand", licence="MIT")
    with pytest.raises(FetchError, match=r"pip install absent; or put mine.npz \(made by"):
        fetch("toy", [package, local])


# ---- the hub -------------------------------------------------------------------------------

HUB = Hub("someone/net", licence="MIT")


def hub_of(server, **facts):
    return lambda source: HubFile(**{"commit": COMMIT, "sha256": SHA256, "url": server.url} | facts)


def get_hub(server, source=HUB, **facts):
    return fetch_source(source, "toy", transport=HTTP, hub=hub_of(server, **facts))


def test_the_hub_s_commit_is_recorded(server, folder):
    path = get_hub(server)
    assert path.read_bytes() == BODY
    assert path == folder / "someone--net@main--model.safetensors" == HUB.find("toy")
    assert names(folder) == [path.name, f"{path.name}.json"]
    assert json.loads(HubRecord.place(path).read_text()) == {
        "repository": "someone/net",
        "path": "model.safetensors",
        "revision": "main",
        "commit": COMMIT,
        "sha256": SHA256,
    }
    assert HUB.at(path).origin == f"hf://someone/net@{COMMIT}/model.safetensors"
    assert HUB.at(path).sha256 == SHA256
    assert get_hub(server) == path
    assert len(server.requests) == 1


def test_two_revisions_are_two_files(server):
    other = dataclasses.replace(HUB, revision=COMMIT)
    first = get_hub(server)
    server.body = BODY[::-1]
    second = get_hub(server, other, sha256=hashlib.sha256(server.body).hexdigest())
    assert first.read_bytes() != second.read_bytes()


def test_a_file_in_the_cache_of_another_repository(server):
    path = get_hub(server)
    record = HubRecord("another/net", "model.safetensors", "main", COMMIT, SHA256)
    HubRecord.place(path).write_text(record.text())
    assert HUB.find("toy") is None
    server.body = BODY[::-1]
    digest = hashlib.sha256(server.body).hexdigest()
    assert get_hub(server, sha256=digest).read_bytes() == server.body
    assert HUB.at(path).sha256 == digest


def test_a_file_of_the_hub_that_was_damaged_is_fetched_again(server):
    path = get_hub(server)
    path.write_bytes(BODY[1:])
    assert get_hub(server).read_bytes() == BODY


def test_the_hub_s_own_digest_is_heeded(server, folder):
    with pytest.raises(FetchError, match="expected 0000"):
        get_hub(server, sha256="0" * 64)
    assert names(folder) == []


def test_a_pinned_digest_is_heeded(server, folder):
    pinned = dataclasses.replace(HUB, digest="0" * 64)
    with pytest.raises(FetchError, match=f"the hub has another file, {SHA256}; expected 0000"):
        get_hub(server, pinned)
    assert server.requests == []
    with pytest.raises(FetchError, match="expected 0000"):
        get_hub(server, pinned, sha256=None)
    assert names(folder) == []


def test_a_file_without_a_digest_gets_one(server):
    path = get_hub(server, sha256=None)
    assert HUB.at(path).sha256 == SHA256


def test_a_part_of_another_commit_is_begun_again(server, folder):
    with pytest.raises(KeyboardInterrupt):
        fetch_source(HUB, "toy", transport=interrupted(3_000_000), hub=hub_of(server))
    # The address of the same file may be another each time: it is signed, and a secret.
    about = (folder / "someone--net@main--model.safetensors.part.json").read_text()
    assert server.url not in about
    get_hub(server, url=server.url + "?signed=now")
    assert server.ranges == [None, "bytes=3000000-"]
    HUB.find("toy").unlink()
    with pytest.raises(KeyboardInterrupt):
        fetch_source(HUB, "toy", transport=interrupted(3_000_000), hub=hub_of(server))
    get_hub(server, commit="0" * 40)
    assert server.ranges[2:] == [None, None]


def test_what_the_hub_s_cache_has_is_copied(server, tmp_path):
    kept = tmp_path / "kept"
    kept.write_bytes(BODY)
    assert get_hub(server, url="", local=kept).read_bytes() == BODY
    assert kept.is_file()
    assert server.requests == []


def test_a_damaged_copy_in_the_hub_s_cache(server, folder, tmp_path):
    kept = tmp_path / "kept"
    kept.write_bytes(BODY[1:])
    with pytest.raises(FetchError, match="damaged"):
        get_hub(server, url="", local=kept)
    assert names(folder) == []
    assert get_hub(server, local=kept).read_bytes() == BODY
    assert len(server.requests) == 1


def test_fetch_of_a_hub_model(server):
    path = fetch("toy", [HUB], transport=HTTP, hub=hub_of(server))
    assert path.read_bytes() == BODY


def test_the_hub_s_library_is_not_installed(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FetchError) as caught:
        fetch("toy", [HUB])
    assert "pip install huggingface_hub" in str(caught.value)
    assert (
        "put https://huggingface.co/someone/net/resolve/main/model.safetensors "
        f"into {folder} as someone--net@main--model.safetensors"
    ) in str(caught.value)


class HubHandler(Handler):
    """The hub's answer to the question where a file is, and the host that has its bytes."""

    def do_GET(self):
        # The library asks the hub other things too.
        self.send_error(404) if self.path.startswith("/api/") else super().do_GET()

    def do_HEAD(self):
        server = self.server
        server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.send_response(server.status or 302)
        for name, value in server.about.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """The real client, before a hub of our own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    server.RequestHandlerClass = HubHandler
    endpoint = server.url.rpartition("/")[0]
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.about = {
        "X-Repo-Commit": COMMIT,
        "X-Linked-Etag": f'"{SHA256}"',
        "X-Linked-Size": str(len(BODY)),
        # Another name is another host, to a client.
        "Location": server.url.replace("127.0.0.1", "localhost"),
    }
    return server


def test_the_real_client(hub):
    path = fetch("toy", [HUB], transport=HTTP)
    assert path.read_bytes() == BODY
    assert HUB.at(path).origin == f"hf://someone/net@{COMMIT}/model.safetensors"
    (asked, sent), (_, later) = hub.requests
    assert asked == "/someone/net/resolve/main/model.safetensors"
    assert sent["authorization"] == "Bearer hf_secret"
    assert "authorization" not in later
    assert "secret" not in HubRecord.place(path).read_text()


def test_the_real_client_and_a_small_file(hub):
    # It is not kept elsewhere, and its entity tag is that of git.
    hub.status = 200
    hub.about = {"X-Repo-Commit": COMMIT, "ETag": '"' + "a" * 40 + '"'}
    found = weights_hub.hugging_face(HUB)
    assert found.sha256 is None
    assert found.headers == {"authorization": "Bearer hf_secret"}
    assert found.url == hub.url.replace("weights.pth", "someone/net/resolve/main/model.safetensors")


def test_the_real_client_takes_what_is_in_the_hub_s_cache(hub, tmp_path, monkeypatch):
    from huggingface_hub import close_session, constants

    folder = tmp_path / "hub" / "models--someone--net"
    for part in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    blob = folder / "blobs" / SHA256
    blob.write_bytes(BODY)
    (folder / "snapshots" / COMMIT / "model.safetensors").symlink_to(blob)
    assert fetch("toy", [HUB], transport=HTTP).read_bytes() == BODY
    assert [path for path, _ in hub.requests] == ["/someone/net/resolve/main/model.safetensors"]
    HUB.find("toy").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    try:
        path = fetch("toy", [HUB], transport=HTTP)
    finally:
        monkeypatch.undo()
        close_session()
    assert path.read_bytes() == BODY
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RevisionNotFound", "someone/net has no revision main"),
        (404, "EntryNotFound", "someone/net has no file model.safetensors at revision main"),
        (401, "RepoNotFound", "there is no repository someone/net, or it is private"),
        (403, "GatedRepo", "accept its terms at https://huggingface.co/someone/net"),
        (500, None, "the Hugging Face hub cannot be reached"),
    ],
)
def test_what_the_real_client_reports(hub, folder, status, code, message):
    hub.status = status
    hub.about = {"X-Error-Code": code} if code else {}
    with pytest.raises(FetchError) as caught:
        fetch("toy", [HUB], transport=HTTP)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert f"into {folder} as someone--net@main--model.safetensors" in str(caught.value)


def test_the_real_client_without_a_network(hub, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(FetchError, match="the Hugging Face hub cannot be reached"):
        fetch("toy", [HUB], transport=HTTP)


def test_a_mirror_that_names_no_commit(hub):
    del hub.about["X-Repo-Commit"]
    with pytest.raises(FetchError, match="does not say of which commit"):
        fetch("toy", [HUB], transport=HTTP)


# ---- a user's own file of the hub ----------------------------------------------------------


def test_load_from_the_hub(lite0, monkeypatch, folder):
    model = dataclasses.replace(zoo.entries()["efficientnet_lite0"], name="toy")
    calls = []

    def fetch_source(source, name):
        calls.append((source.origin, name))
        path = folder / source.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(zoo.entries()["efficientnet_lite0"].find()[1])
        record = HubRecord(source.repository, source.path, "main", COMMIT, lite0.digest)
        HubRecord.place(path).write_text(record.text())
        return path

    monkeypatch.setattr(fetching, "fetch_source", fetch_source)
    for _ in range(2):
        loaded = model.load("hf://someone/net/weights.pth")
        assert loaded.origin == f"hf://someone/net@{COMMIT}/weights.pth"
        assert loaded.digest == lite0.digest
    assert calls == [("hf://someone/net@main/weights.pth", "toy")]


def test_a_file_of_weights_is_its_own_origin():
    model = zoo.entries()["efficientnet_lite0"]
    path = model.find()[1]
    assert model.load(path).origin == f"file {Path(path).name}"


def test_load_of_several_files_from_the_hub(monkeypatch, folder):
    """An index of the hub brings the files that it names, all of its own commit."""
    network = zoo.entries()["darknet_tiny"]
    (layout,) = network.layouts
    rng = np.random.default_rng(0)
    tensors = {
        source_of(path, layout.rules)[0]: rng.uniform(0.01, 0.1, shape).astype(np.float32)
        for path, shape in _expected(network.architecture(), layout).items()
    }
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    content = {
        file: safetensors.numpy.save({name: tensors[name] for name in some})
        for file, some in shards.items()
    }
    places = {name: file for file, some in shards.items() for name in some}
    content["model.index.json"] = json.dumps({"weight_map": places}).encode()
    asked = []

    def fetch_source(source, name):
        asked.append((source.path, source.revision))
        path = folder / source.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[source.path.rpartition("/")[2]])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        record = HubRecord(source.repository, source.path, source.revision, COMMIT, digest)
        HubRecord.place(path).write_text(record.text())
        return path

    monkeypatch.setattr(fetching, "fetch_source", fetch_source)
    ours = dataclasses.replace(network, name="toy")
    for _ in range(2):
        loaded = ours.load("hf://someone/net/fp32/model.index.json")
    assert asked == [
        ("fp32/model.index.json", "main"),
        ("fp32/a.safetensors", COMMIT),
        ("fp32/b.safetensors", COMMIT),
    ]
    assert loaded.origin == f"hf://someone/net@{COMMIT}/fp32/model.index.json"
    path = folder / "whole.safetensors"
    path.write_bytes(safetensors.numpy.save(tensors))
    whole = jax.tree.leaves(network.load(path).params)
    for one, other in zip(jax.tree.leaves(loaded.params), whole, strict=True):
        np.testing.assert_array_equal(one, other)
