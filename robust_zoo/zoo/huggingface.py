"""The Hugging Face hub, or the server that HF_ENDPOINT names, through its own client."""

import contextlib
import errno
import functools
import hashlib
import json
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import httpx2
import huggingface_hub
import tenacity
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants, errors

from robust_zoo import __version__
from robust_zoo.places import CARD, CONFIG, EVAL_RESULTS, FILES, TAG, WEIGHTS
from robust_zoo.sentences import one_line
from robust_zoo.weights import sha256
from robust_zoo.zoo import guard
from robust_zoo.zoo.errors import CheckpointError, HubError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_HANDLE = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")
_HUB = re.compile(r"hf://(?P<owner>[\w.-]+)/?")
_CHANGED = (409, 412)  # what a hub answers to a commit on top of what is not the newest any more
_TAG = re.compile(r"\w([\w-]|\.(?!\.|lock$|$))*")  # what git allows, without slashes

# What a repository may hold beside a checkpoint that is published over.
_PUBLISHED = {*FILES, EVAL_RESULTS}
_UNTOUCHED = {".gitattributes", ".gitignore", "LICENSE", "LICENSE.md"}


def _parse(handle: str) -> tuple[str, str | None]:
    """Repository and revision, None for the newest."""
    match = _HANDLE.fullmatch(handle)
    try:
        if match is None:
            raise ValueError
        huggingface_hub.utils.validate_repo_id(match["repository"])
        if re.search(r"\.\.|^/|//|\\\\", match["revision"] or ""):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"a Hugging Face handle must be hf://org/name or hf://org/name@revision, got {handle!r}."
        ) from None
    return match["repository"], match["revision"]


def _client() -> huggingface_hub.HfApi:
    return huggingface_hub.HfApi(library_name="robust_zoo", library_version=__version__)


def _cause(error: BaseException) -> BaseException:
    """What went wrong, where the client only says that something could not be found or uploaded."""
    while isinstance(error, (errors.LocalEntryNotFoundError, RuntimeError)) and error.__cause__:
        error = error.__cause__
    return error


def _passing(error: BaseException) -> bool:
    """Whether trying again may help: the server stumbled, or the connection broke."""
    error = _cause(error)
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError)


_again = tenacity.retry(
    retry=tenacity.retry_if_exception(_passing),
    stop=tenacity.stop_after_attempt(4),
    wait=tenacity.wait_exponential(multiplier=0.25),
    reraise=True,
)


def _patiently(call: Callable[_P, _T]) -> Callable[_P, _T]:
    """`call`, tried again where that may help, and given up where nothing moves."""

    @functools.wraps(call)
    def asked(*args: _P.args, **options: _P.kwargs) -> _T:
        return guard.watched(lambda: _again(call)(*args, **options))

    return asked


# What the client raises: on purpose, and where it stumbles over an answer that is no hub's.
_STUMBLES = (KeyError, TypeError, AttributeError, AssertionError)
_CLIENT_ERRORS = (httpx2.HTTPError, OSError, RuntimeError, ValueError, *_STUMBLES)


@contextlib.contextmanager
def _explained(handle: str) -> Iterator[None]:
    """Turns whatever the client raises into one HubError of one sentence, without the token."""
    try:
        with guard.guarded():
            yield
    except _CLIENT_ERRORS as error:
        if isinstance(error, (HubError, CheckpointError)) and not isinstance(
            error, guard.GuardError
        ):
            raise
        # The cause would show requests, and what the server said.
        raise HubError(_sentence(handle, error)) from None


def _sentence(handle: str, error: BaseException) -> str:
    """What to say of the client's error; never the token, which a server may repeat in its answer."""
    sentence, token = _explanation(handle, _cause(error)), huggingface_hub.get_token()
    return sentence.replace(token, "***") if token else sentence


def _explanation(handle: str, error: BaseException) -> str:
    endpoint = constants.ENDPOINT
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, guard.GuardError):
        return f"{endpoint} cannot be used for {handle}: {one_line(error)}."
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{handle} is gated: accept its terms on {endpoint}, then log in with `hf auth login`."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no {handle} on {endpoint}, or it is private and your token (HF_TOKEN or `hf auth "
            "login`) does not reach it."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{handle} has no such revision: it must be a branch, a tag or a commit of the model."
        )
    if status in (401, 403):
        return (
            f"{endpoint} refused the token for {handle} (status {status}): set HF_TOKEN or run `hf auth "
            "login` with a token that may do this."
        )
    if status in _CHANGED:
        return f"{handle} was changed meanwhile (status {status}): nothing was published, publish again."
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{handle} needs the hub, but the client is offline (HF_HUB_OFFLINE)."
    if isinstance(error, errors.HfHubHTTPError):
        said = one_line(error.server_message or "")
        return f"{endpoint} answered {status} for {handle}{': ' if said else ''}{said}."
    if isinstance(error, (*_STUMBLES, json.JSONDecodeError)):
        return f"{endpoint} answered for {handle}, but not as a hub does: is HF_ENDPOINT right?"
    if isinstance(error, httpx2.TransportError):
        return (
            f"{endpoint} does not answer for {handle}: {type(error).__name__}, {one_line(error)}."
        )
    if getattr(error, "errno", None) == errno.ENOSPC:
        return f"there is no space left for {handle} in {constants.HF_HUB_CACHE!r}."
    return f"{handle}: {one_line(error)}."


@contextlib.contextmanager
def fetched(handle: str, files: tuple[str, ...]) -> Iterator[tuple[pathlib.Path, str]]:
    """A directory of the cache, after asking the hub for the newest commit; only `files` are ever downloaded.

    A commit that is in the cache needs no hub. Without one that answers, the revision is the one last seen,
    with a warning.
    """
    repository, revision = _parse(handle)
    options: dict[str, Any] = {"allow_patterns": list(files), "library_name": "robust_zoo"}
    with _explained(handle):
        try:
            if revision is None or not guard.COMMIT.fullmatch(revision):
                _patiently(_client().model_info)(repository, revision=revision)
        except (httpx2.HTTPError, errors.OfflineModeIsEnabled) as error:
            if not _passing(error) and not isinstance(error, errors.OfflineModeIsEnabled):
                raise
            directory = _cached(repository, revision, options, error)
            if _passing(error):
                warnings.warn(
                    f"{constants.ENDPOINT} does not answer: {handle} is commit {directory.name[:12]} from the "
                    "cache, which may not be the newest.",
                    stacklevel=2,
                )
        else:
            download = _patiently(huggingface_hub.snapshot_download)
            directory = pathlib.Path(download(repository, revision=revision, **options))
    yield directory, f"hf://{repository}@{directory.name}"


def _cached(repository: str, revision: str | None, options: dict, error: Exception) -> pathlib.Path:
    """What the cache has; raises `error`, the reason for looking there, if it does not have it."""
    try:
        directory = huggingface_hub.snapshot_download(
            repository, revision=revision, local_files_only=True, **options
        )
    except OSError:
        raise error from None
    return pathlib.Path(directory)


def may_be_fetched_again(directory: pathlib.Path, files: tuple[str, ...]) -> bool:
    """Whether a cached copy is not what its name, the hash that the hub gave, says; it is removed then."""
    cache = pathlib.Path(constants.HF_HUB_CACHE).resolve()
    damaged = [
        directory / name
        for name in files
        if (directory / name).is_file()
        and (directory / name).resolve().is_relative_to(cache)
        and (directory / name).resolve().name
        not in (sha256(directory / name), _git_hash(directory / name))
    ]
    for path in damaged:
        with contextlib.suppress(OSError):
            path.resolve().unlink()
            path.unlink()
    return bool(damaged)


def check_publishable(handle: str, *, private: bool | None, tag: str | None) -> None:
    """Raises for what needs no look at the checkpoint to be refused."""
    _, revision = _parse(handle)
    if revision is not None:
        raise ValueError(
            f"publishing makes a new revision, so the handle must be hf://org/name, got {handle!r}: name the "
            "version with tag."
        )
    if tag is not None and (
        not _TAG.fullmatch(tag) or guard.COMMIT.fullmatch(tag) or tag == "main"
    ):
        raise ValueError(f"tag must be a name such as 'v1', and no branch, got {tag!r}.")


def publish(staged: pathlib.Path, handle: str, *, private: bool | None, tag: str | None) -> str:
    """One commit of all files in `staged`, and the tag."""
    repository, _ = _parse(handle)
    client = _client()
    with _explained(handle):
        _patiently(_repository)(client, repository, private)
        branches, tags = _patiently(_refs)(client, repository)
        if tag in branches:
            raise HubError(f"{handle} has a branch {tag!r}: choose another tag.")
        if tag in tags and not _same(_published(client, repository, tags[tag]), staged):
            raise HubError(
                f"{handle} has a tag {tag!r} already, of another content: tags do not move, choose a new one."
            )
        commit = _patiently(_commit)(client, repository, staged)
        if tag is not None and tag not in tags:
            _tag(client, repository, tag, commit)
    return f"hf://{repository}@{commit}"


def _repository(client: huggingface_hub.HfApi, repository: str, private: bool | None) -> None:
    """Makes the repository if it is not there; refuses one of another visibility or with other content."""
    try:
        info = client.model_info(repository)
    except errors.RepositoryNotFoundError:
        client.create_repo(repository, private=private, exist_ok=True)
        return
    if private is not None and bool(info.private) != private:
        kind = "private" if info.private else "public"
        raise HubError(
            f"hf://{repository} exists and is {kind}, but private={private} was asked for: change its "
            "visibility on the hub first."
        )
    assert info.siblings is not None  # or it is no hub's answer, as in `_explained`
    names = {sibling.rfilename for sibling in info.siblings} - _UNTOUCHED
    model = names - {CARD}
    if not names <= _PUBLISHED or (model and not {CONFIG, WEIGHTS} <= model):
        raise CheckpointError(
            f"hf://{repository} exists and is not a checkpoint: it is left alone."
        )


def _refs(client: huggingface_hub.HfApi, repository: str) -> tuple[set[str], dict[str, str]]:
    """Branches, and the commit of each tag."""
    refs = client.list_repo_refs(repository)
    return {ref.name for ref in refs.branches}, {ref.name: ref.target_commit for ref in refs.tags}


def _tag(client: huggingface_hub.HfApi, repository: str, tag: str, commit: str) -> None:
    """Sets the tag; what was published stays where that fails, and the message says so."""
    try:
        _patiently(client.create_tag)(repository, tag=tag, revision=commit, exist_ok=True)
        set_to = _patiently(_refs)(client, repository)[1].get(tag)
        reason = "somebody else set it meanwhile"
    except _CLIENT_ERRORS as error:
        set_to, reason = None, _sentence(f"hf://{repository}", error)
    if set_to != commit:
        raise HubError(f"hf://{repository}@{commit} is published, but not tagged {tag!r}: {reason}")


def _commit(client: huggingface_hub.HfApi, repository: str, staged: pathlib.Path) -> str:
    """The commit that holds what `staged` does: the newest if it does already, else one on top of it."""
    head = _head(client, repository)
    published = _published(client, repository, head)
    if _same(published, staged):
        return head
    files = _files(staged)
    names = sorted(files)
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    operations += [CommitOperationAdd(name, files[name]) for name in names]
    operations += [CommitOperationDelete(name) for name in sorted(published) if name not in names]
    try:
        return client.create_commit(
            repository,
            operations,
            commit_message="Publish with robust_zoo",
            parent_commit=head,
        ).oid
    except errors.HfHubHTTPError as error:
        head = _head(client, repository)
        if error.response.status_code in _CHANGED and _same(
            _published(client, repository, head), staged
        ):
            return head  # somebody published the same meanwhile
        raise


def _head(client: huggingface_hub.HfApi, repository: str) -> str:
    """The newest commit."""
    head = client.model_info(repository).sha
    assert head is not None  # or it is no hub's answer, as in `_explained`
    return head


def _published(client: huggingface_hub.HfApi, repository: str, commit: str) -> dict[str, str]:
    """Name and hash of each file of a checkpoint in a commit: sha256 of large ones, git's of others."""
    tree = client.list_repo_tree(repository, revision=commit, recursive=True)
    return {
        file.path: file.lfs.sha256 if file.lfs else file.blob_id
        for file in tree
        if isinstance(file, huggingface_hub.hf_api.RepoFile) and file.path in _PUBLISHED
    }


def _same(published: dict[str, str], staged: pathlib.Path) -> bool:
    """Whether the files of a commit, by name and hash, are those in `staged`."""
    local = _files(staged)
    return published.keys() == local.keys() and all(
        published[name] in (sha256(path), _git_hash(path)) for name, path in local.items()
    )


def _files(staged: pathlib.Path) -> dict[str, pathlib.Path]:
    """By their names on the hub."""
    return {
        path.relative_to(staged).as_posix(): path for path in staged.rglob("*") if path.is_file()
    }


def _git_hash(path: pathlib.Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def handles(hub: str) -> list[str]:
    """The handles of an owner's models that were published with robust_zoo; none of an unknown owner."""
    match = _HUB.fullmatch(hub)
    if match is None:
        raise ValueError(f"a hub must be hf://org or file:///path, got {hub!r}.")
    with _explained(hub):
        models = _patiently(
            lambda: list(_client().list_models(author=match["owner"], filter=TAG))
        )()
    found = (f"hf://{model.id}" for model in models)
    return sorted(
        handle
        for handle in found
        if handle.startswith(f"hf://{match['owner']}/") and _is_handle(handle)
    )


def _is_handle(text: str) -> bool:
    try:
        return bool(_parse(text))
    except ValueError:
        return False
