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
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
from huggingface_hub.utils import get_session

from robust_zoo.zoo.errors import HubError

INSECURE = "ROBUST_ZOO_TOKEN_OVER_HTTP"  # environment variable: 1 allows it


class GuardError(HubError):
    """Why a hub is not to be used; a part of a sentence."""


class _GivenUpError(BaseException):
    """Ends a call that nobody waits for any more."""


_PATIENCE = 60.0  # seconds in which so many bytes a second must move, or an answer begin
_LEAST = 1024
_LONGEST = 2**26  # bytes of an answer that is read into the memory
COMMIT, _HASH = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{40}|[0-9a-f]{64}")

_lock = threading.Lock()
_moved = 0.0  # bytes either way; an answer that begins counts as enough of them


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside, requests of the client that is shared by the process are looked at.

    Raises:
        GuardError: from the client's functions: a hash that is none, an answer without end, or a token that would
            travel unencrypted.
    """
    hooks = {"request": _before, "response": _after}
    with _lock:
        session = get_session()
        session.event_hooks = {
            name: [*there, hooks[name]] for name, there in session.event_hooks.items()
        }
    try:
        yield
    finally:
        with _lock:
            left = {name: list(there) for name, there in session.event_hooks.items()}
            for name, hook in hooks.items():
                if hook in left[name]:
                    left[name].remove(hook)
            session.event_hooks = left


def watched(call: Callable[[], Any]) -> Any:
    """`call()`, in a thread of its own, which is given up when next to nothing moves any more.

    Raises:
        GuardError: that happened.
    """
    outcome: concurrent.futures.Future = concurrent.futures.Future()

    def work():
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    since, then = time.monotonic(), _moved
    while not concurrent.futures.wait([outcome], timeout=_PATIENCE / 20).done:
        now = time.monotonic()
        if _moved - then >= _LEAST * _PATIENCE:
            since, then = now, _moved
        elif now - since > _PATIENCE:
            # As soon as it gets a byte or its own timeout: it must not go on to publish, say.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(_GivenUpError)
            )
            raise GuardError(
                f"it took the connection, but sent next to nothing for {_PATIENCE:g} s"
            )
    return outcome.result()


def _count(much: float) -> None:
    global _moved
    with _lock:
        _moved += much


class _Counted(httpx2.SyncByteStream):
    """A body whose bytes are counted as they pass."""

    def __init__(self, stream: httpx2.SyncByteStream, longest: float = float("inf")):
        self.stream, self.longest = stream, longest

    def __iter__(self):
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
        request.stream = _Counted(request.stream)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _after(response: httpx2.Response) -> None:
    _count(_LEAST * _PATIENCE)
    is_json = response.headers.get("content-type", "").startswith("application/json")
    path = response.request.url.path
    about_models = "/api/" in path and "/resolve/" not in path
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
    if about_models and response.request.method == "GET" and response.is_success:
        response.read()
        with contextlib.suppress(ValueError):
            told = json.loads(response.content)
            commit = told.get("sha") if isinstance(told, dict) else None
            if commit is not None and not COMMIT.fullmatch(str(commit)):
                raise GuardError(f"it names a commit that is no hash, {str(commit)[:80]!r}")
