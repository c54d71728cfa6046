"""What is demanded of a hub before the Hugging Face client acts on its answers, and how long it may take.

The client names files in its cache by the hashes that a server states, sends the token to whatever HF_ENDPOINT names,
and waits without end.
"""

import concurrent.futures
import contextlib
import ctypes
import ipaddress
import json
import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx2
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import _http

from robust_zoo.zoo.errors import HubError

_T = TypeVar("_T")

INSECURE = "ROBUST_ZOO_TOKEN_OVER_HTTP"  # environment variable: 1 allows it


class GuardError(HubError):
    """Why a hub is not to be used; a part of a sentence."""


class _GivenUpError(BaseException):
    """Ends a call that nobody waits for any more."""


_PATIENCE = 60.0  # seconds in which so many bytes a second must move, or an answer begin
_LEAST = 1024
_LONGEST = 2**26  # bytes of an answer that is read into the memory
# Of models, files and commits in the JSON of a hub; the client makes names of files of some.
_HASHES = ("sha", "oid", "xetHash", "commitOid", "targetCommit", "blobId")
COMMIT, _HASH = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{40}|[0-9a-f]{64}")

_MOST = 1000  # answers of a hub to one call of the client

_lock = threading.Lock()
_moved = 0.0  # bytes either way; an answer that begins counts as enough of them
_answers = 0
_inside = 0  # how many `guarded` are entered
_xet_was_off = False  # before the first of them


class _Factory:
    """Makes clients as somebody else's factory does, whose requests and answers are looked at."""

    def __init__(self, factory: Callable[[], httpx2.Client]) -> None:
        self.factory = factory

    def __call__(self) -> httpx2.Client:
        client = self.factory()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], _if_inside(_before)],
            "response": [*hooks["response"], _if_inside(_after)],
        }
        return client


def _if_inside(hook: Callable[[_T], None]) -> Callable[[_T], None]:
    return lambda message: hook(message) if _inside else None


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside, requests of the client that is shared by the process are looked at, whenever it is made anew.

    Xet, a protocol of its own that nobody can look into, is off; the hub serves the same files without it.

    Raises:
        GuardError: from the client's functions: a hash that is none, an answer without end, or a token that would
            travel unencrypted.
    """
    global _inside, _xet_was_off
    with _lock:
        if not isinstance(_http._GLOBAL_CLIENT_FACTORY, _Factory):
            set_client_factory(_Factory(_http._GLOBAL_CLIENT_FACTORY))
        if not _inside:
            _xet_was_off, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                constants.HF_HUB_DISABLE_XET = _xet_was_off


def watched(call: Callable[[], Any]) -> Any:
    """`call()`, in a thread of its own, which is given up when next to nothing moves any more.

    Raises:
        GuardError: that happened.
    """
    outcome: concurrent.futures.Future = concurrent.futures.Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    since, then, asked = time.monotonic(), _moved, _answers
    while not concurrent.futures.wait([outcome], timeout=_PATIENCE / 20).done:
        now = time.monotonic()
        if _moved - then >= _LEAST * _PATIENCE:
            since, then = now, _moved
        reason = ""
        if now - since > _PATIENCE:
            reason = f"it took the connection, but sent next to nothing for {_PATIENCE:g} s"
        elif _answers - asked > _MOST:
            reason = f"it answered {_MOST} times and is not done"
        if reason:
            assert thread.ident is not None  # it was started
            # As soon as it gets a byte or its own timeout: it must not go on to publish, say.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(_GivenUpError)
            )
            raise GuardError(reason)
    return outcome.result()


def _count(much: float) -> None:
    global _moved
    with _lock:
        _moved += much


class _Counted(httpx2.SyncByteStream):
    """A body whose bytes are counted as they pass."""

    def __init__(self, stream: httpx2.SyncByteStream, longest: float = float("inf")) -> None:
        self.stream, self.longest = stream, longest

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self.stream:
            _count(len(part))
            size += len(part)
            if size > self.longest:
                raise GuardError(f"its answer is longer than {self.longest:,} bytes")
            yield part

    def close(self) -> None:
        self.stream.close()


def _before(request: httpx2.Request) -> None:
    url = request.url
    if (
        url.scheme == "http"
        and "authorization" in request.headers
        and not _is_loopback(url.host)
        and os.environ.get(INSECURE) != "1"
    ):
        raise GuardError(
            f"your token would travel unencrypted to http://{url.host}: use https:// in HF_ENDPOINT, no token "
            f"(HF_HUB_DISABLE_IMPLICIT_TOKEN=1), or {INSECURE}=1"
        )
    if all(limit is None for limit in request.extensions.get("timeout", {}).values()):
        request.extensions["timeout"] = httpx2.Timeout(_PATIENCE, connect=10.0).as_dict()
    if not isinstance(request.stream, httpx2.ByteStream):
        assert isinstance(request.stream, httpx2.SyncByteStream)  # the client is none of asyncio
        request.stream = _Counted(request.stream)


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine, and no proxy stands between."""
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    proxies = urllib.request.getproxies()
    return here and (not {"http", "all"} & set(proxies) or bool(urllib.request.proxy_bypass(host)))


def _after(response: httpx2.Response) -> None:
    global _answers
    with _lock:
        _answers += 1
    _count(_LEAST * _PATIENCE)
    about_models = _is_about_models(response.request.url)
    is_json = response.headers.get("content-type", "").startswith("application/json")
    assert isinstance(response.stream, httpx2.SyncByteStream)  # likewise
    response.stream = _Counted(
        response.stream, _LONGEST if is_json or about_models else float("inf")
    )
    commit = response.headers.get("x-repo-commit")
    if commit is not None and not COMMIT.fullmatch(commit):
        raise GuardError(f"it names a commit that is no hash, {commit[:80]!r}")
    if response.request.method == "HEAD":
        etag = response.headers.get("x-linked-etag") or response.headers.get("etag")
        if etag is not None and not _HASH.fullmatch(etag.removeprefix("W/").strip('"')):
            raise GuardError(f"it names a file that is no hash, {etag[:80]!r}")
    if not about_models:
        return
    if response.has_redirect_location:
        target = response.request.url.join(response.headers["location"])
        if not _is_about_models(target):
            raise GuardError(
                f"it sends {response.request.url.path!r} elsewhere, to {str(target)[:80]!r}"
            )
    if response.is_success:
        response.read()
        with contextlib.suppress(ValueError):
            _check_hashes(json.loads(response.content))


def _is_about_models(url: httpx2.URL) -> bool:
    """Whether what is asked for are facts, whose hashes the client uses, and no file."""
    endpoint = httpx2.URL(constants.ENDPOINT).path.rstrip("/")
    path = url.path.removeprefix(endpoint)
    return path.startswith("/api/") and not path.startswith("/api/resolve-cache/")


def _check_hashes(told: object) -> None:
    """Raises GuardError for what stands where a hash must, anywhere in a hub's JSON."""
    if isinstance(told, list):
        for item in told:
            _check_hashes(item)
    elif isinstance(told, dict):
        for key, value in told.items():
            if key in _HASHES and value is not None and not _HASH.fullmatch(str(value)):
                what = "commit" if key in ("sha", "commitOid", "targetCommit") else "file"
                raise GuardError(f"it names a {what} that is no hash, {str(value)[:80]!r}")
            _check_hashes(value)
