"""The HTTP API, as the commands use it: `--env` or STEPWELL_URL says where, STEPWELL_KEY who."""

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
_WHO_IS_IT = "is it Stepwell, or a proxy's page? look at STEPWELL_URL"
_BUSY = (429, 502, 503, 504)  # worth another try, if the request may be repeated


def in_path(name: str) -> str:
    """A name as a part of a path; ids that senders choose go into the query. Ends the command if there can be no such
    name."""
    if name in ("", ".", "..") or name.endswith("/"):
        fail(f"nothing is called {name!r}")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        fail(f"nothing is called {name!r}, which is not UTF-8")


class Client:
    def __init__(
        self, env: str | None = None, *, url: str | None = None, key: str | None = None, patience_s: float = 0
    ) -> None:
        """`env`: an environment in AWS, whose address its resources say. `patience_s`: how long to ask again where no
        server answers, or a busy one; for who makes no request that must not be repeated."""
        if url is None:
            url = os.environ.get("STEPWELL_URL", DEFAULT_URL) if env is None else api_url(env)
        self.env, self.url, self._patience_s = env, url.rstrip("/"), patience_s
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
        """Send a file, which may take minutes."""
        headers = {**self._headers, b"content-type": media_type.encode()}
        return self._call("POST", path, params=query, content=file, headers=headers, timeout=600)

    def delete(self, path: str, **query: Any) -> Any:
        return self._call("DELETE", path, params=query)

    def one(self, path: str, what: str, its_id: str) -> Any:
        """The one that a list has under an id. Ends the command if there is none."""
        found = self.get(path, id=its_id)["data"]
        return found[0] if found else fail(f"there is no {what} {its_id!r} here")

    def ask(self, method: str, path: str, content: bytes) -> tuple[int, Any]:
        """The status and the answer, also if it is a refusal."""
        return self._answer(method, path, content=content)

    def pages(self, path: str, limit: int, **query: Any) -> Iterator[Any]:
        """The first `limit` items of a list, over as many pages as that takes."""
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
        """The calls within it share a connection."""
        with _http() as self._session:
            yield self
        self._session = None

    def _call(self, method: str, path: str, **options: Any) -> Any:
        status, body = self._answer(method, path, **options)
        if status >= 300:
            self.refused(status, body)
        if not isinstance(body, dict):
            fail(f"{self.url} answered what Stepwell does not; {_WHO_IS_IT}")
        return _Answer(body, self.url)

    def refused(self, status: int, body: Any) -> NoReturn:
        """End the command with the error that the server answered."""
        fields = body if isinstance(body, dict) else {}
        message = str(fields.get("detail") or fields.get("message") or "")
        if fields.get("status") != status and self.env is None:  # problems of Stepwell say it
            fail(f"{self.url} answered {status}{message and f' ({one_line(message[:200])})'}; {_WHO_IS_IT}")
        fail(
            (one_line(message) or f"{self.url} answered {status}")
            + ("; set STEPWELL_KEY" if status in (401, 403) else "")
        )

    def _answer(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        import httpx  # here, since servers start with this module too, and do not wait for it

        try:
            if self._session is not None:
                response = self._patiently(self._session, method, path, options)
            else:
                with _http() as http:
                    response = self._patiently(http, method, path, options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fail(self._no_answer(error, f"{method} {self.url}{path}"))
        except UnicodeEncodeError:
            fail("what is asked for is not UTF-8", 2)
        try:
            return response.status_code, orjson.loads(response.content)
        except orjson.JSONDecodeError:
            fail(self._no_json(response))

    def _no_answer(self, error: Exception, request: str) -> str:
        """Why there was none, and what to do."""
        import httpx

        from stepwell.outbound import BadEnvironment, tls_problem

        if isinstance(error, BadEnvironment):
            return str(error)
        if reason := tls_problem(error, self.url):
            return f"{self.url}: {reason}"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            cure = "start one with `stepwell dev`, or set STEPWELL_URL" if self.env is None else "is it deployed?"
            return f"no server answers at {self.url}; {cure}"
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return f"STEPWELL_URL={self.url} is no address such as {DEFAULT_URL} ({error})"
        if isinstance(error, httpx.RemoteProtocolError) and self.url.startswith("http://"):
            return f"{self.url} does not answer as HTTP does ({error}); should the address begin with https://?"
        return f"{request}: {error or type(error).__name__}"

    def _no_json(self, response: httpx.Response) -> str:
        """What answered is another server, or something on the way to it."""
        status, location = response.status_code, response.headers.get("location")
        if response.is_redirect and location:
            cure = "redirects are not followed; set STEPWELL_URL to the address of the server itself"
            return f"{self.url} answered {status}, a redirect to {one_line(location[:200])}; {cure}"
        kind = response.headers.get("content-type", "").partition(";")[0][:100]
        what = f"{kind}, which is" if kind and not kind.endswith("json") else "something that is"
        return f"{self.url} answered {status} with {what} not JSON; {_WHO_IS_IT}"

    def _patiently(self, http: httpx.Client, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        import httpx

        deadline, pause = time.monotonic() + self._patience_s, 0.1
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
    """A JSON object that a server answered. What every answer of Stepwell has, and this one has not, ends the
    command."""

    def __init__(self, body: dict[str, Any], url: str) -> None:
        super().__init__(body)
        self._url = url

    def __missing__(self, name: str) -> NoReturn:
        fail(f"{self._url} answered without {name!r}; {_WHO_IS_IT}")


def _json(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:
        fail("an argument is not UTF-8" if "UTF-8" in str(error) else f"this cannot be sent: {error}", 2)


def _http() -> httpx.Client:
    import httpx

    from stepwell.outbound import Transport

    return httpx.Client(transport=Transport(retries=2), timeout=30)
