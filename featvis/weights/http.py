"""What a download needs of HTTP."""

from __future__ import annotations

import http.client
import importlib.metadata
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

CHUNK = 2**18


@dataclass(frozen=True)
class Response:
    """What a server answered.

    Attributes:
        status: HTTP status code.
        headers: By name in lower case.
        chunks: The body, piece by piece; an OSError where the connection breaks.
        close: Ends the connection.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    close: Callable[[], object] = lambda: None


class Transport(Protocol):
    """Makes HTTP requests."""

    def __call__(self, url: str, headers: Mapping[str, str], offset: int) -> Response:
        """Asks for a file.

        Args:
            url: Its address.
            headers: To send.
            offset: Of the first byte that is wanted; above 0 it is asked for with `Range`.

        Raises:
            OSError: There is no connection.
        """
        ...


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


@dataclass(frozen=True)
class UrlTransport:
    """Requests by `urllib`, with the system's certificates and the environment's proxies.

    Attributes:
        timeout: Seconds to wait for the connection, and for each piece of the body.
        schemes: That addresses and redirects may have.
    """

    timeout: float = 30.0
    schemes: tuple[str, ...] = ("https",)

    def __call__(self, url: str, headers: Mapping[str, str], offset: int) -> Response:
        """See `Transport`."""
        _check_scheme(url, self.schemes)
        request = urllib.request.Request(url)
        request.add_header("User-Agent", f"featvis/{importlib.metadata.version('featvis')}")
        for name, value in headers.items():
            # Credentials are for this host and do not follow a redirect to another.
            secret = name.lower() == "authorization"
            (request.add_unredirected_header if secret else request.add_header)(name, value)
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        answer: Any
        try:
            opener = urllib.request.build_opener(_Redirects(self.schemes))
            answer = opener.open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            answer = error
        except http.client.HTTPException as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        found = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status, found, _chunks(answer), answer.close)


#: How weights are fetched where nothing else is said.
HTTPS = UrlTransport()


def _chunks(answer: IO[bytes]) -> Iterator[bytes]:
    try:
        # What is there, and not until a chunk is full.
        while chunk := answer.read1(CHUNK):  # type: ignore[attr-defined]
            yield chunk
    except http.client.HTTPException as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
