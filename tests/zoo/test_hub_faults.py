"""What goes wrong between a model and a hub: one sentence each, and no damage."""

import copy
import json
import logging
import re
import threading
import time
import traceback

import h5py
import keras
import numpy as np
import pytest

from robust_zoo.architectures import mlp
from robust_zoo.weights import FILE, check_layout
from robust_zoo.zoo import (
    CheckpointError,
    HubError,
    list_models,
    load_model,
    load_record,
    publish,
    save_model,
)

pytestmark = pytest.mark.home

HANDLE = "hf://me/robust"
WEIGHTS = r"GET .*/resolve/.*\.h5"
TOKEN = "hf_secretsecretsecretsecretsecretsecr"


@pytest.fixture(scope="module")
def uploaded():
    """What a hub has after publishing, once it has been done."""
    return {}


@pytest.fixture
def published(hub, checkpoint, uploaded):
    """The directory of what HANDLE has."""
    directory = checkpoint()
    if not uploaded:
        publish(directory, HANDLE)
        uploaded |= {"repositories": copy.deepcopy(hub.repositories), "large": dict(hub.large)}
        hub.requests.clear()
    hub.repositories = copy.deepcopy(uploaded["repositories"])
    hub.large = dict(uploaded["large"])
    return directory


def repository(hub):
    return hub.repositories["me/robust"]


def replaced(hub, **changes):
    """Commits other contents by name, past the client; None removes a file."""
    files = dict(repository(hub).commits[repository(hub).head])
    kind = type(files["README.md"])
    for name, content in changes.items():
        name = name.replace("_", ".")
        if content is None:
            del files[name]
        else:
            files[name] = kind(content, large=name == FILE)
    repository(hub).commit(files)


def one_sentence(info):
    text = str(info.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.slow
def test_a_hub_that_is_down(hub, checkpoint):
    hub.close()
    for action in (
        lambda: load_model(HANDLE),
        lambda: load_record(HANDLE),
        lambda: list_models(hub="hf://me"),
        lambda: publish(checkpoint(), HANDLE),
    ):
        with pytest.raises(HubError, match=f"{hub.endpoint} does not answer for hf://me") as info:
            action()
        one_sentence(info)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    ["GET .*/revision/", "GET .*/tree/", "HEAD .*h5", WEIGHTS, "GET .*json"],
)
def test_loading_after_two_stumbles(hub, published, pattern):
    hub.fault(pattern, times=2, status=500)
    model = load_model(HANDLE)
    assert model.robustness == load_record(published)
    assert len(hub.asked(pattern)) > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        "GET /api/models/me/robust$",
        "POST .*/create",
        "GET .*/refs",
        "GET .*/tree/",
        "POST .*/validate-yaml",
        "POST .*/preupload/",
        "POST .*/objects/batch",
        "PUT /lfs/",
        "POST /lfs-verify",
        "POST .*/commit/",
        "POST .*/tag/",
    ],
)
def test_publishing_after_two_stumbles(hub, checkpoint, pattern):
    hub.fault(pattern, times=2, status=503)
    publish(checkpoint(), HANDLE, tag="v1")
    assert len(hub.asked(pattern)) > 2
    assert len(repository(hub).commits) == 2
    assert repository(hub).tags == {"v1": repository(hub).head}


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, checkpoint):
    hub.fault("POST .*/commit/", times=1, cut_after=5)
    pinned = publish(checkpoint(), HANDLE)
    assert len(repository(hub).commits) == 2
    assert f"@{repository(hub).head}#" in pinned


@pytest.mark.slow
@pytest.mark.parametrize("status", [500, 403, 400])
def test_a_hub_that_refuses_the_commit_keeps_what_it_had(hub, published, checkpoint, status):
    before = repository(hub).head
    hub.fault("POST .*/commit/", status=status)
    with pytest.raises(HubError, match=rf"{status}") as info:
        publish(checkpoint("mlp.natural_digits"), HANDLE, tag="v2")
    one_sentence(info)
    assert repository(hub).head == before
    assert repository(hub).tags == {}
    assert load_model(HANDLE).robustness.name == "mlp.pgd_digits"


def test_somebody_else_publishes_meanwhile(hub, published, checkpoint):
    theirs = []

    def meanwhile():
        files = repository(hub).commits[repository(hub).head]
        theirs.append(repository(hub).commit(files))

    hub.fault("POST .*/commit/", before=meanwhile)
    with pytest.raises(HubError, match=r"was changed meanwhile.*publish again"):
        publish(checkpoint("mlp.natural_digits"), HANDLE)
    assert repository(hub).head == theirs[0]


@pytest.mark.slow
def test_somebody_else_publishes_the_same_meanwhile(hub, published, checkpoint, tmp_path):
    ours = checkpoint("mlp.natural_digits")
    theirs = []

    def meanwhile():
        hub.faults.clear()
        theirs.append(publish(ours, HANDLE))

    hub.fault("POST .*/commit/", times=1, before=meanwhile)
    assert [publish(ours, HANDLE)] == theirs
    assert len(repository(hub).commits) == 3


@pytest.mark.slow
def test_no_revision_mixes_two_versions(hub, published, checkpoint):
    """Whatever the moment at which publishing a second version breaks off."""
    second = checkpoint("mlp.natural_digits")
    steps = ["preupload", "objects/batch", "PUT", "lfs-verify", "commit"]
    for step in steps:
        hub.faults.clear()
        hub.fault(step, status=400)
        with pytest.raises(HubError):
            publish(second, HANDLE)
    hub.faults.clear()
    publish(second, HANDLE)
    pairs = set()
    for files in repository(hub).commits.values():
        if FILE in files:
            record = json.loads(files["robustness.json"].content)
            assert record["weights"]["sha256"] == files[FILE].oid
            pairs.add(files[FILE].oid)
    assert len(pairs) == 2


def test_a_connection_cut_in_the_middle_of_the_weights_is_resumed(hub, published, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.fault(WEIGHTS, times=1, cut_after=200_000)
    assert load_model(HANDLE).robustness == load_record(published)
    first, second = hub.asked(WEIGHTS)
    assert "bytes" not in first
    assert second.endswith("bytes=200000-")


@pytest.mark.slow
def test_a_connection_that_is_always_cut(hub, published):
    hub.fault(WEIGHTS, cut_after=0)
    with pytest.raises(HubError, match=f"{hub.endpoint} does not answer") as info:
        load_model(HANDLE)
    one_sentence(info)
    hub.faults.clear()
    assert load_model(HANDLE).robustness == load_record(published)


@pytest.mark.slow
@pytest.mark.parametrize("status", [408, 429])
def test_a_hub_that_asks_for_patience(hub, published, status):
    hub.fault("GET .*/revision/", times=2, status=status)
    assert load_model(HANDLE).robustness == load_record(published)


@pytest.mark.parametrize("answer", [b"{}", b"<html>no hub</html>", b"[]", b"3"])
def test_a_server_that_is_no_hub(hub, published, answer):
    hub.fault("GET /api/models", change=lambda content: answer)
    for action in (
        lambda: load_model(HANDLE),
        lambda: publish(published, HANDLE),
    ):
        with pytest.raises(HubError, match=r"not as a hub does: is HF_ENDPOINT right\?") as info:
            action()
        one_sentence(info)


def test_a_long_answer_of_many_lines(hub, published, checkpoint):
    said = "first problem\nsecond \x1b[31mproblem.\n" + "more " * 200
    hub.fault("POST .*/commit/", status=400, message=said)
    with pytest.raises(HubError, match=r"answered 400 for .*: first problem second") as info:
        publish(checkpoint("mlp.natural_digits"), HANDLE)
    assert one_sentence(info).isprintable()


def test_a_wrong_token(hub, published, checkpoint, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    for action in (
        lambda: load_model(HANDLE),
        lambda: publish(checkpoint("mlp.natural_digits"), HANDLE),
        lambda: list_models(hub="hf://me"),
    ):
        with pytest.raises(
            HubError, match=r"refused the token for hf://me.* \(status 401\)"
        ) as info:
            action()
        assert "wrongwrong" not in one_sentence(info)


def test_missing_repositories_and_revisions(hub, published):
    with pytest.raises(HubError, match="there is no hf://me/nothing on"):
        load_model("hf://me/nothing")
    for revision in ("v9", "f" * 40):
        with pytest.raises(HubError, match=f"hf://me/robust@{revision} has no such revision"):
            load_model(f"{HANDLE}@{revision}")


def test_a_full_disk(hub, published, monkeypatch):
    from huggingface_hub import file_download

    get = file_download.http_get

    def half(url, temp_file, **options):
        if url.endswith(".h5"):
            temp_file.write(b"half")
            raise OSError(28, "No space left on device")
        get(url, temp_file, **options)

    monkeypatch.setattr(file_download, "http_get", half)
    with pytest.raises(HubError, match="there is no space left for hf://me/robust in") as info:
        load_model(HANDLE)
    one_sentence(info)
    monkeypatch.setattr(file_download, "http_get", get)
    assert load_model(HANDLE).robustness == load_record(published)


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_weights_with_a_flipped_bit(hub, published):
    hub.fault(WEIGHTS, change=flip_a_bit)
    with pytest.raises(
        CheckpointError, match=f"{HANDLE}: 'model.weights.h5' is truncated or was tampered with"
    ):
        load_model(HANDLE)
    assert len(hub.asked(WEIGHTS)) == 2
    hub.faults.clear()
    assert load_model(HANDLE).robustness == load_record(published)


def test_a_copy_that_was_damaged_is_fetched_again(hub, published, tmp_path):
    load_model(HANDLE)
    (cached,) = (tmp_path / "cache").rglob(FILE)
    cached.resolve().write_bytes(flip_a_bit(cached.read_bytes()))
    assert load_model(HANDLE).robustness == load_record(published)
    assert len(hub.asked(WEIGHTS)) == 2


def test_truncated_weights(hub, published):
    size = load_record(published).weights.bytes
    hub.fault(WEIGHTS, change=lambda content: content[:1000])
    with pytest.raises(HubError, match=rf"hf://me/robust: .*should be of size {size}\b") as info:
        load_model(HANDLE)
    one_sentence(info)
    hub.faults.clear()
    assert load_model(HANDLE).robustness == load_record(published)


def test_a_record_of_other_weights(hub, published, checkpoint):
    record = (checkpoint("mlp.natural_digits") / "robustness.json").read_bytes()
    replaced(hub, robustness_json=record)
    with pytest.raises(CheckpointError, match=f"{HANDLE}: .*was tampered with: its sha256 is"):
        load_model(HANDLE)


def test_a_missing_file(hub, published):
    replaced(hub, config_json=None)
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no config\.json"):
        load_model(HANDLE)
    replaced(hub, robustness_json=None)
    with pytest.raises(CheckpointError, match=r"has no robustness\.json: .* never measured"):
        load_record(HANDLE)


@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("keras.layers", "Lambda"), ("mine.layers", "Dense")]
)
def test_a_configuration_that_names_foreign_code(hub, published, monkeypatch, module, name):
    config = json.loads((published / "config.json").read_text())
    config["config"]["layers"][2].update(module=module, class_name=name)
    replaced(hub, config_json=json.dumps(config).encode(), robustness_json=None)

    def reached(*arguments, **options):
        raise AssertionError("the configuration was deserialised")

    monkeypatch.setattr(keras.saving, "load_model", reached)
    with pytest.raises(CheckpointError, match=rf"asks for {module}\.{name}: only Keras's own"):
        load_model(HANDLE)


def test_paths_that_climb_out_are_never_written(hub, published, tmp_path):
    files = dict(repository(hub).commits[repository(hub).head])
    evil = type(files["README.md"])(b"evil", large=False)
    names = ["../../../../evil.json", "../config.json", "a/../../../model.weights.h5", "/evil.json"]
    repository(hub).commit({**files, **dict.fromkeys(names, evil)})
    load_model(HANDLE)
    assert not list(tmp_path.rglob("evil*"))
    assert all(path.read_bytes() != b"evil" for path in tmp_path.rglob("*") if path.is_file())
    assert not hub.asked("evil|%2E%2E|\\.\\.")


@pytest.mark.slow
def test_weights_of_another_shape(hub, published, tmp_path):
    other = save_model(mlp((8, 8, 1), hidden=(17,)), tmp_path / "other")
    replaced(hub, model_weights_h5=(other / FILE).read_bytes(), robustness_json=None)
    with pytest.raises(CheckpointError, match=f"{HANDLE}: .* cannot be loaded"):
        load_model(HANDLE)


@pytest.fixture
def weights(tmp_path):
    """A weights file, and the place of a kernel in it."""
    path = save_model(mlp((8, 8, 1), hidden=(16,)), tmp_path / "model") / FILE
    with h5py.File(path) as file:
        places = []
        file.visititems(lambda name, item: places.append(name) if hasattr(item, "shape") else None)
    check_layout(path)
    return path, places[0]


def external_link(file, place, secret):
    del file[place]
    file[place] = h5py.ExternalLink(secret, "/secret")


def soft_link(file, place, secret):
    del file[place]
    file[place] = h5py.SoftLink("/elsewhere")


def external_values(file, place, secret):
    shape = file[place].shape
    del file[place]
    file.create_dataset(place, shape, "f4", external=[(secret, 0, h5py.h5f.UNLIMITED)])


def virtual_values(file, place, secret):
    shape = file[place].shape
    del file[place]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(secret, "secret", shape)
    file.create_virtual_dataset(place, layout)


def claims_more_than_it_holds(file, place, secret):
    del file[place]
    file.create_dataset(place, (10**6, 10**6), "f4", chunks=(100, 100))


def loop(file, place, secret):
    file["layers/again"] = file["layers"]


def many_roads(file, place, secret):
    """Two links to each of forty groups: 2 ** 40 ways through them."""
    group = file.create_group("deep")
    for _ in range(40):
        deeper = group.create_group("one")
        group["other"] = deeper
        group = deeper


@pytest.mark.parametrize(
    "trick",
    [
        external_link,
        soft_link,
        external_values,
        virtual_values,
        claims_more_than_it_holds,
        loop,
        many_roads,
    ],
)
def test_weights_that_reach_out_of_their_file(weights, tmp_path, trick):
    path, place = weights
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.ones((64, 16), "float32")
    with h5py.File(path, "a") as file:
        trick(file, place, str(secret))
    with pytest.raises(CheckpointError, match=r"cannot be loaded by Keras .* of the weights is "):
        load_model(path.parent)


@pytest.mark.slow
def test_the_token_shows_nowhere(hub, checkpoint, tmp_path, caplog, capfd):
    directory = checkpoint()
    caplog.set_level(logging.DEBUG)
    publish(directory, HANDLE, tag="v1")
    load_model(HANDLE)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) > 5
    hub.tokens = ("another",)  # refuses it from here on, and repeats it in its answer
    for action in (lambda: load_model(HANDLE), lambda: publish(directory, HANDLE)):
        with pytest.raises(HubError) as info:
            action()
        said += traceback.format_exception(info.value)
    hub.tokens = (TOKEN,)
    for status in (400, 403, 500):
        hub.faults.clear()
        hub.fault("GET /api/models", status=status, message=f"who is {TOKEN}?")
        with pytest.raises(HubError, match=str(status)) as info:
            load_model(f"{HANDLE}@v2")
        said += traceback.format_exception(info.value)
    assert "who is ***?" in "".join(said)
    printed = capfd.readouterr()
    said += [printed.out, printed.err]
    assert TOKEN not in "".join(said)
    contents = [
        blob.content for files in repository(hub).commits.values() for blob in files.values()
    ]
    contents += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(contents) > 10
    assert all(TOKEN.encode() not in content for content in contents)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "headers"),
    [
        ("HEAD .*json", {"ETag": '"../../../../../evil.pth"'}),
        ("HEAD .*json", {"ETag": '"{outside}/evil.pth"'}),
        ("HEAD .*json", {"ETag": 'W/"abc"'}),
        ("HEAD .*h5", {"X-Linked-Etag": "../../../../../evil.pth"}),
        ("HEAD .*json", {"X-Repo-Commit": "../../../../evil"}),
        ("HEAD .*json", {"X-Repo-Commit": "f" * 39}),
    ],
)
def test_names_that_are_no_hashes_are_refused(hub, published, tmp_path, pattern, headers):
    """The client would name files by them, anywhere on the disk."""
    theirs = tmp_path / "evil.pth"
    theirs.write_text("mine")
    before = sorted(tmp_path.rglob("*evil*"))
    headers = {name: value.format(outside=tmp_path) for name, value in headers.items()}
    hub.fault(pattern, headers=headers)
    with pytest.raises(HubError, match=r"cannot be used for hf://me/robust: it names a") as info:
        load_model(HANDLE)
    one_sentence(info)
    assert theirs.read_text() == "mine"
    assert sorted(tmp_path.rglob("*evil*")) == before


@pytest.mark.parametrize("commit", ["../../../../evil", "/tmp/evil", "main", "F" * 40])
def test_commits_that_are_no_hashes_are_refused(hub, published, tmp_path, commit):
    head = repository(hub).head.encode()
    # Honest when it is asked first: only what the client asks itself decides.
    for honest in (0, 1):
        hub.faults.clear()
        hub.fault("GET /api/models/me/robust", times=honest, status=None)
        hub.fault("GET /api/models/me/robust", change=lambda b: b.replace(head, commit.encode()))
        with pytest.raises(HubError, match="it names a commit that is no hash"):
            load_model(HANDLE)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("revision", ["../../evil", "a/../../evil", "/etc", "a//b"])
def test_revisions_that_climb_out_are_refused(hub, revision):
    with pytest.raises(ValueError, match="must be hf://org/name or"):
        load_model(f"{HANDLE}@{revision}")
    assert not hub.requests


@pytest.mark.slow
def test_nothing_outside_the_cache_is_removed(hub, published, tmp_path):
    load_model(HANDLE)
    (cached,) = (tmp_path / "cache").rglob(FILE)
    theirs = tmp_path / "theirs.h5"
    theirs.write_bytes(b"mine")
    cached.unlink()
    cached.symlink_to(theirs)
    with pytest.raises(CheckpointError):
        load_model(HANDLE)
    assert theirs.read_bytes() == b"mine"


@pytest.mark.slow
def test_the_token_does_not_travel_unencrypted(hub, published, monkeypatch):
    """To a name that is not known to be this machine, though it is."""
    monkeypatch.setattr("robust_zoo.zoo.guard._is_loopback", lambda host: False)
    for action in (lambda: load_model(HANDLE), lambda: publish(published, HANDLE)):
        with pytest.raises(HubError, match=r"would travel unencrypted to http://127.*OVER_HTTP=1"):
            action()
    assert not hub.requests
    monkeypatch.setenv("ROBUST_ZOO_TOKEN_OVER_HTTP", "1")
    assert load_model(HANDLE).robustness == load_record(published)
    monkeypatch.delenv("ROBUST_ZOO_TOKEN_OVER_HTTP")
    monkeypatch.delenv("HF_TOKEN")
    assert load_model(HANDLE).robustness == load_record(published)


def test_loopback():
    from robust_zoo.zoo.guard import _is_loopback

    found = [_is_loopback(host) for host in ("localhost", "127.8.8.8", "::1", "10.0.0.1", "hub")]
    assert found == [True, True, True, False, False]


@pytest.mark.long
@pytest.mark.parametrize("pattern", ["GET .*/revision/", "GET /api/models/me/robust$", WEIGHTS])
@pytest.mark.parametrize("pause", [0.05, 60], ids=["a byte at a time", "silent"])
def test_a_hub_that_never_ends(hub, published, monkeypatch, pattern, pause):
    monkeypatch.setattr("robust_zoo.zoo.guard._PATIENCE", 1.0)
    hub.fault(pattern, pause=pause)
    publishes = pattern.endswith("$")
    start = time.monotonic()
    with pytest.raises(HubError, match="sent next to nothing for 1 s") as info:
        publish(published, HANDLE) if publishes else load_model(HANDLE)
    assert time.monotonic() - start < 10
    one_sentence(info)
    hub.faults.clear()
    before = repository(hub).head
    hub.requests.clear()
    threading.Event().wait(1.5)  # the fixture shortens time.sleep
    assert not hub.requests  # nobody goes on behind our back
    assert repository(hub).head == before


def test_an_answer_without_end(hub, published, monkeypatch):
    monkeypatch.setattr("robust_zoo.zoo.guard._LONGEST", 10_000)
    hub.fault("GET .*/revision/", change=lambda body: body + b" " * 20_000)
    with pytest.raises(HubError, match=r"longer than 10,000 bytes"):
        load_model(HANDLE)


def test_other_requests_of_the_client_are_left_alone(hub, published, monkeypatch):
    """The client looks at nothing, and uses Xet again, once we are done."""
    from huggingface_hub import constants, hf_hub_download

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    load_model(HANDLE)
    assert constants.HF_HUB_DISABLE_XET is False
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub.fault("HEAD .*json", headers={"ETag": '"abc"'})
    assert hf_hub_download("me/robust", "config.json", force_download=True)


def test_hashes_in_a_listing_of_files_are_looked_at(hub, published, tmp_path, monkeypatch):
    """With Xet, the client would name files by them without asking for their headers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)

    def hostile(body):
        files = json.loads(body)
        for file in files:
            file["lfs"] = {"oid": "../../../../evil.pth", "size": 1, "pointerSize": 1}
            file["xetHash"] = "a" * 64
        return json.dumps(files).encode()

    hub.fault("GET .*/tree/", change=hostile)
    with pytest.raises(HubError, match="it names a file that is no hash"):
        publish(published, HANDLE)
    assert not list(tmp_path.rglob("evil*"))


def test_a_client_that_is_made_anew_is_looked_at_too(hub, published, tmp_path, monkeypatch):
    """As the Hugging Face client does after a refused connection."""
    import huggingface_hub
    from huggingface_hub.utils import close_session

    download = huggingface_hub.snapshot_download

    def anew(*args, **options):
        close_session()
        return download(*args, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", anew)
    hub.fault("HEAD .*json", headers={"ETag": '"../../../../../evil.pth"'})
    with pytest.raises(HubError, match="it names a file that is no hash"):
        load_model(HANDLE)
    assert not list(tmp_path.rglob("evil*"))


def test_facts_from_somewhere_else_are_refused(hub, published, tmp_path):
    hub.fault("GET .*/revision/", status=307, headers={"Location": f"{hub.endpoint}/elsewhere"})
    with pytest.raises(HubError, match=r"sends '/api/models/me/robust/revision/main' elsewhere"):
        load_model(HANDLE)


def test_a_commit_that_is_none_is_not_returned(hub, checkpoint):
    hub.fault("POST .*/commit/", change=lambda body: re.sub(rb"[0-9a-f]{40}", b"<x>", body))
    with pytest.raises(HubError, match="it names a commit that is no hash"):
        publish(checkpoint(), HANDLE)


@pytest.mark.slow
def test_pages_without_end(hub, published, monkeypatch):
    monkeypatch.setattr("robust_zoo.zoo.guard._MOST", 30)
    monkeypatch.setattr("robust_zoo.zoo.guard._PATIENCE", 2.0)  # looked at ten times a second
    link = f'<{hub.endpoint}/api/models/me/robust/tree/main>; rel="next"'
    hub.fault("GET .*/tree/", headers={"Link": link})
    with pytest.raises(HubError, match="it answered 30 times and is not done"):
        publish(published, HANDLE)


def test_this_machine_behind_a_proxy_is_somewhere_else(monkeypatch):
    from robust_zoo.zoo.guard import _is_loopback

    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://10.0.0.1:3128")
    assert not _is_loopback("localhost")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert _is_loopback("localhost")


def test_models_of_others_are_not_listed(hub, published):
    """A hub that answers with names outside of what was asked for."""
    hub.fault("GET /api/models\\?", change=lambda b: b.replace(b"me/robust", b"../../x"))
    assert list_models(hub="hf://me") == []
