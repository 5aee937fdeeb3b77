"""Requests over HTTP by `urllib`, imported when the first is made."""

from __future__ import annotations

import http.client
import importlib.metadata
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPMessage
from typing import IO, Any
from urllib.parse import urlsplit

from featvis.weights.http import Response

CHUNK = 2**18


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the schemes that are allowed, and no other."""

    def __init__(self, schemes: tuple[str, ...]):
        self.schemes = schemes

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _check_scheme(newurl, self.schemes)
        except OSError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    if urlsplit(url).scheme not in schemes:
        raise ConnectionError(f"{url} is refused: only {' and '.join(schemes)} is allowed")


def request(
    url: str, headers: Mapping[str, str], offset: int, *, timeout: float, schemes: tuple[str, ...]
) -> Response:
    """Ask for a file, as `Transport`.

    Args:
        url: its address.
        headers: to send.
        offset: of the first byte that is wanted.
        timeout: seconds to wait for the connection, and for each piece of the body.
        schemes: that addresses and redirects may have.

    Raises:
        OSError: there is no connection, or an address is of another scheme.
    """
    _check_scheme(url, schemes)
    asked = urllib.request.Request(url)
    asked.add_header("User-Agent", f"featvis/{importlib.metadata.version('featvis')}")
    for name, value in headers.items():
        # Credentials are for this host and do not follow a redirect to another.
        secret = name.lower() == "authorization"
        (asked.add_unredirected_header if secret else asked.add_header)(name, value)
    if offset:
        asked.add_header("Range", f"bytes={offset}-")
    answer: Any
    try:
        answer = urllib.request.build_opener(_Redirects(schemes)).open(asked, timeout=timeout)
    except urllib.error.HTTPError as error:
        answer = error
    except http.client.HTTPException as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
    found = {name.lower(): value for name, value in answer.headers.items()}
    return Response(answer.status, found, _chunks(answer), answer.close)


def _chunks(answer: IO[bytes]) -> Iterator[bytes]:
    try:
        # What is there, and not until a chunk is full.
        while chunk := answer.read1(CHUNK):  # type: ignore[attr-defined]
            yield chunk
    except http.client.HTTPException as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
