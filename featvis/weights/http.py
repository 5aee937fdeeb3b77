"""What a download needs of HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


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
        # At the first request: importing `urllib` is a twentieth of importing featvis.
        from featvis.weights.requests import request

        return request(url, headers, offset, timeout=self.timeout, schemes=self.schemes)


#: How weights are fetched where nothing else is said.
HTTPS = UrlTransport()
