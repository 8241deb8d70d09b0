"""The HTTP client of the commands. `--env` or STEPWELL_URL gives the address, STEPWELL_KEY the API key."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote

import orjson

from stepwell.cli.remote.environments import api_url
from stepwell.cli.ui.output import fail
from stepwell.core.terminal_text import one_line

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8288"
_NOT_STEPWELL = "this may not be a Stepwell server; check STEPWELL_URL"
_BUSY = (429, 502, 503, 504)  # statuses to retry, if the request may be repeated


def in_path(name: str) -> str:
    """Quotes a name for use in a path. Ends the command if the name cannot exist.

    Ids that senders choose may contain anything; pass them in the query instead.
    """
    if name in ("", ".", "..") or name.endswith("/"):
        fail(f"{name!r} does not exist")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        fail(f"{name!r} does not exist; it is not UTF-8")


class Client:
    def __init__(
        self, env: str | None = None, *, url: str | None = None, key: str | None = None, retry_for_s: float = 0
    ) -> None:
        """`env` is an environment in AWS. `retry_for_s`: how long to repeat a request while the server is busy or does
        not answer; use it only if all requests may be repeated."""
        if url is None:
            url = os.environ.get("STEPWELL_URL", DEFAULT_URL) if env is None else api_url(env)
        self.env, self.url, self._retry_for_s = env, url.rstrip("/"), retry_for_s
        self._session: httpx.Client | None = None
        key = key or os.environ.get("STEPWELL_KEY")
        self._headers = {b"content-type": b"application/json"}
        if key:
            self._headers[b"authorization"] = os.fsencode(f"Bearer {key}")

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, content=None if body is None else _json(body))

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, content=_json(body))

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, content=_json(body))

    def upload(self, path: str, file: IO[bytes], media_type: str, query: dict[str, Any]) -> Any:
        """Sends a file; allows ten minutes for it."""
        headers = {**self._headers, b"content-type": media_type.encode()}
        return self._call("POST", path, params=query, content=file, headers=headers, timeout=600)

    def delete(self, path: str, **query: Any) -> Any:
        return self._call("DELETE", path, params=query)

    def get_by_id(self, path: str, kind: str, item_id: str) -> Any:
        """The item of a list with this id. Ends the command if there is none. `kind` names it in the error."""
        found = self.get(path, id=item_id)["data"]
        return found[0] if found else fail(f"there is no {kind} {item_id!r} at {self.url}")

    def send(self, method: str, path: str, content: bytes) -> tuple[int, Any]:
        """The status and the body of the response, also if it is an error."""
        return self._answer(method, path, content=content)

    def pages(self, path: str, limit: int, **query: Any) -> Iterator[Any]:
        """The first `limit` items of a list, read page by page."""
        after = None
        while limit > 0:
            page = self.get(path, limit=min(limit, 1000), after=after, **query)
            yield from page["data"]
            limit -= len(page["data"])
            after = page["next"]
            if after is None:
                return

    @contextmanager
    def session(self) -> Iterator[Self]:
        """Calls within this context share a connection."""
        with _http() as self._session:
            yield self
        self._session = None

    def _call(self, method: str, path: str, **options: Any) -> Any:
        status, body = self._answer(method, path, **options)
        if status >= 300:
            self.refused(status, body)
        if not isinstance(body, dict):
            fail(f"{self.url} answered with JSON that is not an object; {_NOT_STEPWELL}")
        return _Answer(body, self.url)

    def refused(self, status: int, body: Any) -> NoReturn:
        """Ends the command with the error that the server answered."""
        fields = body if isinstance(body, dict) else {}
        message = str(fields.get("detail") or fields.get("message") or "")
        if fields.get("status") != status and self.env is None:  # Stepwell's own problem documents repeat the status
            fail(f"{self.url} answered {status}{message and f' ({one_line(message[:200])})'}; {_NOT_STEPWELL}")
        fail(
            (one_line(message) or f"{self.url} answered {status}")
            + ("; set STEPWELL_KEY" if status in (401, 403) else "")
        )

    def _answer(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        import httpx  # imported late: `stepwell serve` imports this module, but never calls a server

        try:
            if self._session is not None:
                response = self._request(self._session, method, path, options)
            else:
                with _http() as http:
                    response = self._request(http, method, path, options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fail(self._no_answer(error, f"{method} {self.url}{path}"))
        except UnicodeEncodeError:
            fail("an argument is not UTF-8", 2)
        try:
            return response.status_code, orjson.loads(response.content)
        except orjson.JSONDecodeError:
            fail(self._not_json(response))

    def _no_answer(self, error: Exception, request: str) -> str:
        """The message for a request without a response: the reason, and what to do."""
        import httpx

        from stepwell.outbound import BadEnvironment, tls_problem

        if isinstance(error, BadEnvironment):
            return str(error)
        if reason := tls_problem(error, self.url):
            return f"{self.url}: {reason}"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            advice = (
                "start one with `stepwell dev`, or set STEPWELL_URL" if self.env is None else "run `cdk deploy` first"
            )
            return f"no server answers at {self.url}; {advice}"
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return f"STEPWELL_URL={self.url} is not a valid address; write it like {DEFAULT_URL} ({error})"
        if isinstance(error, httpx.RemoteProtocolError) and self.url.startswith("http://"):
            return f"{self.url} does not answer with HTTP ({error}); should the address begin with https://?"
        return f"{request}: {error or type(error).__name__}"

    def _not_json(self, response: httpx.Response) -> str:
        """The message for a response without JSON, which another server or a proxy has sent."""
        status, location = response.status_code, response.headers.get("location")
        if response.is_redirect and location:
            advice = "redirects are not followed; set STEPWELL_URL to the address of the server itself"
            return f"{self.url} answered {status}, a redirect to {one_line(location[:200])}; {advice}"
        kind = response.headers.get("content-type", "").partition(";")[0][:100]
        content = f"{kind} instead of JSON" if kind and not kind.endswith("json") else "a body that is not JSON"
        return f"{self.url} answered {status} with {content}; {_NOT_STEPWELL}"

    def _request(self, http: httpx.Client, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        """Sends a request, and repeats it until `retry_for_s` has passed if the server is busy or cannot be reached."""
        import httpx

        deadline, pause = time.monotonic() + self._retry_for_s, 0.1
        while True:
            in_time = time.monotonic() + pause < deadline
            try:
                response = http.request(method, self.url + path, **{"headers": self._headers, **options})
                if response.status_code not in _BUSY or not in_time:
                    return response
            except httpx.TransportError:
                if not in_time:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


class _Answer(dict[str, Any]):
    """A JSON object that a server answered. Reading a field that is missing ends the command with an error."""

    def __init__(self, body: dict[str, Any], url: str) -> None:
        super().__init__(body)
        self._url = url

    def __missing__(self, name: str) -> NoReturn:
        fail(f"{self._url} answered without the field {name!r}; {_NOT_STEPWELL}")


def _json(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:
        fail("an argument is not UTF-8" if "UTF-8" in str(error) else f"cannot encode the request: {error}", 2)


def _http() -> httpx.Client:
    import httpx

    from stepwell.outbound import Transport

    return httpx.Client(transport=Transport(retries=2), timeout=30)
