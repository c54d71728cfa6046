import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import yaml
from keras import ops

from robust_zoo.attacks import FGSM
from robust_zoo.evaluation import evaluate
from robust_zoo.places import EVAL_RESULTS, FILES, checkpoints_directory
from robust_zoo.record import BaseModelInfo, RobustnessRecord
from robust_zoo.weights import FILE, describe_weights
from robust_zoo.zoo import (
    CheckpointError,
    HubError,
    list_models,
    load_model,
    load_record,
    publish,
    save_model,
)

UPLOADS = r"^(PUT|POST .*/(commit|preupload|objects))"


def logits(model, images):
    return ops.convert_to_numpy(model(images(5, (8, 8, 1))))


def files_of(directory):
    """The files of a checkpoint."""
    return {name for name in FILES if (directory / name).is_file()}


def front_matter(card):
    return yaml.safe_load(card.split("---\n", 2)[1])


@pytest.mark.slow
def test_round_trip_by_name_tag_and_commit(hub, checkpoint, images):
    directory = checkpoint()
    original = load_model(directory)
    pinned = publish(directory, "hf://me/robust", tag="v1")
    repository = hub.repositories["me/robust"]
    assert pinned == f"hf://me/robust@{repository.head}#{original.robustness.sha256}"
    assert set(repository.commits[repository.head]) == {*files_of(directory), ".gitattributes"}
    for handle in ("hf://me/robust", "hf://me/robust@v1", "hf://me/robust@main", pinned):
        model = load_model(handle)
        np.testing.assert_array_equal(logits(model, images), logits(original, images))
        assert model.robustness == original.robustness
        assert load_record(handle) == original.robustness
    assert not hub.asked(r"resolve/.*(README|recipe|png)")  # only the model is fetched


@pytest.mark.long
def test_keras_alone_loads_a_published_model(hub, checkpoint, images, tmp_path):
    publish(checkpoint(), "hf://me/robust")
    np.save(tmp_path / "x.npy", images(5, (8, 8, 1)))
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model('hf://me/robust')\n"
        "assert 'robust_zoo' not in sys.modules\n"
        "logits = model(np.load(sys.argv[1]))\n"
        "np.save(sys.argv[2], keras.ops.convert_to_numpy(logits))\n"
    )
    arguments = [str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        cwd="/",
        env={**environment, "HF_HUB_DISABLE_XET": "1"},
        timeout=300,
    )
    expected = logits(load_model("mlp.pgd_digits"), images)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


@pytest.mark.long
def test_two_processes_load_at_once(hub, checkpoint, tmp_path):
    pinned = publish(checkpoint(), "hf://me/robust")
    code = (
        "import sys, robust_zoo as rz\n"
        "print(rz.load_model('hf://me/robust').base_model.handle, end='')\n"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=300)[0] for process in processes] == [pinned, pinned]


class TestHuggingFace:
    pytestmark = pytest.mark.home

    def test_an_unchanged_directory_uploads_nothing(self, hub, checkpoint):
        directory = checkpoint()
        first = publish(directory, "hf://me/robust", tag="v1")
        hub.requests.clear()
        assert publish(directory, "hf://me/robust", tag="v1") == first
        assert hub.asked("GET")
        assert not hub.asked(UPLOADS)
        assert not hub.asked("POST")

    @pytest.mark.slow
    def test_a_new_version_is_one_commit_and_the_old_one_stays(self, hub, checkpoint):
        old = publish(checkpoint(), "hf://me/robust")
        other = checkpoint("mlp.natural_digits")
        (other / "recipe.json").unlink()
        new = publish(other, "hf://me/robust")
        repository = hub.repositories["me/robust"]
        assert len(repository.commits) == 3  # the empty one first
        assert "recipe.json" not in repository.commits[repository.head]
        assert load_model("hf://me/robust").robustness.name == "mlp.natural_digits"
        assert load_model(new).robustness.name == "mlp.natural_digits"
        assert load_model(old).robustness.name == "mlp.pgd_digits"

    @pytest.mark.slow
    def test_tags_do_not_move(self, hub, checkpoint):
        publish(checkpoint(), "hf://me/robust", tag="v1")
        before = dict(hub.repositories["me/robust"].tags)
        other = checkpoint("mlp.natural_digits")
        hub.requests.clear()
        with pytest.raises(HubError, match=r"a tag 'v1' already, of another content.*choose a new"):
            publish(other, "hf://me/robust", tag="v1")
        assert not hub.asked(UPLOADS)
        publish(other, "hf://me/robust", tag="v2")
        assert hub.repositories["me/robust"].tags["v1"] == before["v1"]
        assert load_record("hf://me/robust@v1").name == "mlp.pgd_digits"
        assert load_record("hf://me/robust@v2").name == "mlp.natural_digits"

    def test_the_card_says_how_to_load_it_from_there(self, hub, checkpoint):
        directory = checkpoint()
        before = (directory / "README.md").read_text()
        publish(directory, "hf://me/robust")
        repository = hub.repositories["me/robust"]
        card = repository.commits[repository.head]["README.md"].content.decode()
        assert 'rz.load_model("hf://me/robust")' in card
        assert 'keras.saving.load_model("hf://me/robust")' in card
        assert (directory / "README.md").read_text() == before

    def test_private_repositories(self, hub, checkpoint, monkeypatch):
        directory = checkpoint()
        publish(directory, "hf://me/robust", private=True)
        assert hub.repositories["me/robust"].private
        assert load_model("hf://me/robust").robustness is not None
        with pytest.raises(HubError, match="exists and is private, but private=False was asked"):
            publish(directory, "hf://me/robust", private=False)
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(HubError, match="or it is private and your token"):
            load_record("hf://me/robust@main")
        with pytest.raises(HubError, match=r"refused the token for hf://me/other \(status 401\)"):
            publish(directory, "hf://me/other")

    @pytest.mark.slow
    def test_something_else_is_left_alone(self, hub, checkpoint):
        directory = checkpoint()
        publish(directory, "hf://me/robust")
        repository = hub.repositories["me/robust"]
        blob = repository.commits[repository.head]["README.md"]
        repository.commit({"config.json": blob, "pytorch_model.bin": blob})
        files = dict(repository.commits[repository.head])
        whole = dict.fromkeys((*FILES, "onnx/model.onnx"), blob)
        for held in (files, {"config.json": blob}, whole):
            repository.commit(held)
            with pytest.raises(CheckpointError, match="is not a checkpoint: it is left alone"):
                publish(directory, "hf://me/robust")
            assert repository.commits[repository.head] == held
        repository.commit({"README.md": blob, "LICENSE": blob})  # made by hand, empty
        publish(directory, "hf://me/robust")
        assert repository.commits[repository.head]["LICENSE"] == blob

    def test_nothing_in_the_cache_that_is_not_ours_is_removed(self, hub, checkpoint, tmp_path):
        from huggingface_hub import snapshot_download

        publish(checkpoint(), "hf://me/other")
        repository = hub.repositories["me/other"]
        blob = repository.commits[repository.head]["README.md"]
        names = {"config.json", "pytorch_model.bin", "onnx/model.onnx"}
        repository.commit(dict.fromkeys(names, blob))
        cached = pathlib.Path(snapshot_download("me/other"))
        for action in (load_model, load_record):
            with pytest.raises(CheckpointError, match=r"hf://me/other: it .*has no"):
                action("hf://me/other")
        left = {str(path.relative_to(cached)) for path in cached.rglob("*") if path.is_file()}
        assert left == names

    @pytest.mark.slow
    def test_without_a_connection_the_cache_serves(self, hub, checkpoint, monkeypatch):
        pinned = publish(checkpoint(), "hf://me/robust", tag="v1")
        load_model("hf://me/robust@v1")
        load_model("hf://me/robust")
        hub.requests.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_model(pinned)
        assert hub.requests == []  # a commit never changes
        hub.close()
        for handle in ("hf://me/robust", "hf://me/robust@v1"):
            with pytest.warns(match="does not answer.*from the cache, which may not be the newest"):
                assert load_model(handle).base_model.handle == pinned
        with pytest.raises(HubError, match="does not answer for hf://me/robust@v2"):
            load_model("hf://me/robust@v2")

    def test_offline_by_choice(self, hub, checkpoint, monkeypatch):
        from huggingface_hub import constants

        pinned = publish(checkpoint(), "hf://me/robust")
        load_record("hf://me/robust")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        hub.requests.clear()
        assert load_record("hf://me/robust").name == "mlp.pgd_digits"
        # The record alone was fetched before.
        with pytest.raises(HubError, match="needs the hub, but the client is offline"):
            load_model("hf://me/robust")
        with pytest.raises(HubError, match="needs the hub, but the client is offline"):
            load_model(pinned)
        with pytest.raises(HubError, match="needs the hub, but the client is offline"):
            publish(checkpoint("mlp.natural_digits"), "hf://me/robust")
        assert hub.requests == []

    @pytest.mark.slow
    def test_models_of_an_owner(self, hub, checkpoint):
        publish(checkpoint(), "hf://me/robust10")
        publish(checkpoint("mlp.natural_digits"), "hf://me/robust9")
        publish(checkpoint("digits_cnn.pgd_digits"), "hf://us/cnn")
        found = list_models(hub="hf://me")
        assert [entry.name for entry in found] == ["hf://me/robust10", "hf://me/robust9"]
        for entry in found:
            own = load_model(entry.name).robustness
            assert (entry.record_sha256, entry.clean) == (own.sha256, own.clean)
        assert [r.name for r in list_models("*10", hub="hf://me")] == ["hf://me/robust10"]
        assert [r.name for r in list_models(hub="hf://me", defense="pgd")] == ["hf://me/robust10"]
        with pytest.raises(ValueError, match="dataset must be one that a model has, digits, got"):
            list_models(hub="hf://me", dataset="mnist")
        assert list_models(hub="hf://nobody") == []

    @pytest.mark.slow
    def test_a_broken_record_does_not_hide_the_others(self, hub, checkpoint):
        publish(checkpoint(), "hf://me/robust")
        publish(checkpoint("mlp.natural_digits"), "hf://me/broken")
        repository = hub.repositories["me/broken"]
        files = dict(repository.commits[repository.head])
        files["robustness.json"] = type(files["README.md"])(b"{}", large=False)
        repository.commit(files)
        with pytest.warns(match=r"left out: hf://me/broken: robustness\.json is not a valid"):
            found = list_models(hub="hf://me")
        assert [record.name for record in found] == ["hf://me/robust"]
        hub.fault("GET .*/me/broken", status=403)
        with pytest.warns(match=r"left out: .* refused the token for hf://me/broken"):
            assert len(list_models(hub="hf://me")) == 1

    @pytest.mark.slow
    def test_a_tag_that_somebody_else_sets_meanwhile(self, hub, checkpoint):
        publish(checkpoint(), "hf://me/robust")
        repository = hub.repositories["me/robust"]
        theirs = repository.head

        def meanwhile():
            repository.tags["v1"] = theirs

        hub.fault("POST .*/tag/", before=meanwhile)
        message = r"@[0-9a-f]{40} is published, but not tagged 'v1': somebody else"
        with pytest.raises(HubError, match=message):
            publish(checkpoint("mlp.natural_digits"), "hf://me/robust", tag="v1")
        assert repository.tags == {"v1": theirs}
        hub.faults.clear()
        hub.fault("POST .*/tag/", status=400, message="no tags\ntoday.")
        message = r"is published, but not tagged 'v2': .*answered 400 .*: no tags today\."
        with pytest.raises(HubError, match=message):
            publish(checkpoint("digits_cnn.pgd_digits"), "hf://me/robust", tag="v2")

    def test_a_model_without_a_record_says_so(self, hub, checkpoint):
        publish(checkpoint(), "hf://me/robust")
        repository = hub.repositories["me/robust"]
        files = dict(repository.commits[repository.head])
        del files["robustness.json"]
        repository.commit(files)
        with pytest.warns(match=r"hf://me/robust has no robustness\.json: .* never measured"):
            model = load_model("hf://me/robust")
        assert (model.robustness, model.base_model) == (None, None)


class TestFileHub:
    pytestmark = pytest.mark.home

    def test_round_trip(self, checkpoint, tmp_path, images):
        directory = checkpoint()
        handle = f"file://{tmp_path}/hub/robust"
        pinned = publish(directory, handle)
        assert pinned == f"{handle}#{load_record(directory).sha256}"
        published = {path.name for path in (tmp_path / "hub" / "robust").iterdir()}
        assert published == files_of(directory)
        by_default = tmp_path / "made by mkdir"
        by_default.mkdir()
        assert (tmp_path / "hub" / "robust").stat().st_mode == by_default.stat().st_mode
        model = load_model(handle)
        assert model.base_model.handle == pinned
        expected = logits(load_model(directory), images)
        np.testing.assert_array_equal(logits(model, images), expected)
        assert load_record(handle) == model.robustness
        assert f'rz.load_model("{handle}")' in (tmp_path / "hub/robust/README.md").read_text()
        publish(checkpoint("mlp.natural_digits"), f"file://{tmp_path}/hub/natural one")
        names = [record.name for record in list_models(hub=f"file://{tmp_path}/hub")]
        assert names == [handle, f"file://{tmp_path}/hub/natural%20one"]
        assert load_model(names[1]).robustness.name == "mlp.natural_digits"
        assert len(list_models("natural one", hub=f"file://{tmp_path}/hub")) == 1

    def test_a_pinned_handle_takes_no_other_record(self, checkpoint, tmp_path):
        handle = f"file://{tmp_path}/hub/robust"
        pinned = publish(checkpoint(), handle)
        assert load_record(pinned) == load_model(pinned).robustness
        path = tmp_path / "hub" / "robust" / "robustness.json"
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "license": "MIT"}))  # a sound record, of these weights
        assert load_model(handle).robustness.license == "MIT"
        for load in (load_model, load_record):
            with pytest.raises(CheckpointError, match=r"robust has the record [0-9a-f]{12}, not"):
                load(pinned)
        path.unlink()
        with (
            pytest.raises(CheckpointError, match="has no record, not"),
        ):
            load_model(pinned)

    def test_an_unchanged_directory_writes_nothing(self, checkpoint, tmp_path):
        directory, handle = checkpoint(), f"file://{tmp_path}/hub/robust"
        publish(directory, handle)
        before = (tmp_path / "hub" / "robust").stat()
        publish(directory, handle)
        assert (tmp_path / "hub" / "robust").stat() == before
        other = checkpoint("mlp.natural_digits")
        (other / "recipe.json").unlink()
        publish(other, handle)
        assert not (tmp_path / "hub" / "robust" / "recipe.json").exists()
        assert load_model(handle).robustness.name == "mlp.natural_digits"

    def test_a_full_disk_leaves_the_old_version(self, checkpoint, tmp_path, monkeypatch):
        handle = f"file://{tmp_path}/hub/robust"
        publish(checkpoint(), handle)
        other, copy = checkpoint("mlp.natural_digits"), shutil.copyfile

        def full(source, target):
            copy(source, target)
            if target.parent.name == "new" and target.name == FILE:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfile", full)
        for target in (handle, f"file://{tmp_path}/hub/another"):
            with pytest.raises(HubError, match="is as it was: No space left"):
                publish(other, target)
        assert [path.name for path in (tmp_path / "hub").iterdir()] == ["robust"]
        assert load_model(handle).robustness.name == "mlp.pgd_digits"

        def none_at_all(source, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfile", none_at_all)
        with pytest.raises(HubError, match=r"cannot be prepared in '.*': No space left"):
            publish(other, handle)
        with pytest.raises(HubError, match=r"cannot be read: No space left"):
            load_model(handle)

    @pytest.mark.parametrize("exchanges", [True, False])
    def test_a_version_published_while_one_loads(
        self, checkpoint, tmp_path, monkeypatch, exchanges
    ):
        """Weights, configuration and record of a loaded model are those of one version."""
        if not exchanges:
            monkeypatch.setattr("robust_zoo.files._exchange", lambda one, other: False)
        handle = f"file://{tmp_path}/hub/robust"
        versions = [checkpoint(), checkpoint("mlp.natural_digits")]
        publish(versions[0], handle)
        copy, moments = shutil.copyfile, ["config.json", FILE, "robustness.json"]

        def meanwhile(source, target):
            if moments and str(source).endswith(f"hub/robust/{moments[0]}"):
                moments.pop(0)
                publish(versions[len(moments) % 2], handle)
            return copy(source, target)

        monkeypatch.setattr(shutil, "copyfile", meanwhile)
        for left in (2, 1, 0):
            model = load_model(handle)
            assert describe_weights(model) == model.robustness.weights
            assert len(moments) <= left

    def test_two_publish_at_once(self, checkpoint, tmp_path):
        handle = f"file://{tmp_path}/hub/robust"
        directories = [checkpoint(), checkpoint("mlp.natural_digits")]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for _ in range(3):
                list(pool.map(lambda directory: publish(directory, handle), directories))
        assert [path.name for path in (tmp_path / "hub").iterdir()] == ["robust"]
        model = load_model(handle)
        assert describe_weights(model) == model.robustness.weights

    def test_what_it_does_not_have(self, checkpoint, tmp_path):
        directory = checkpoint()
        for options in ({"tag": "v1"}, {"private": True}):
            with pytest.raises(ValueError, match=r"is for hf:// only, but 'file:///"):
                publish(directory, f"file://{tmp_path}/hub/robust", **options)
        (tmp_path / "hub").mkdir()
        with pytest.raises(CheckpointError, match=r"empty directory.*add the model's name, as in"):
            publish(directory, f"file://{tmp_path}/hub")
        (tmp_path / "hub" / "thesis.txt").write_text("years of work")
        with pytest.raises(CheckpointError, match="is left alone"):
            publish(directory, f"file://{tmp_path}/hub")
        for action in (load_model, load_record):
            with pytest.raises(HubError, match=r"there is no model at file:///.*/none"):
                action(f"file://{tmp_path}/none")
        with pytest.raises(HubError, match=r"there is no hub at file:///.*/none"):
            list_models(hub=f"file://{tmp_path}/none")


@pytest.mark.home
@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("hf://name", "must be hf://org/name"),
        ("hf://org/name/more", "must be hf://org/name"),
        ("hf://org/na--me", "must be hf://org/name"),
        ("hf://org/../name", "must be hf://org/name"),
        ("hf://org/name@", "must be hf://org/name"),
        ("hf://", "must be hf://org/name"),
        (
            "https://org/name",
            r"must begin with one of \['hf://', 'file://'\], got 'https://org/name'",
        ),
        ("file://share/name", "must be file:///path with an absolute path"),
        ("file:///", "must be file:///path with an absolute path"),
        ("file:///hub/x#1", "# as %23 in a file handle, got 'file:///hub/x#1'"),
        ("file:///hub/x?1", "as %3F and"),
    ],
)
def test_bad_handles(handle, message, checkpoint):
    for action in (load_model, load_record, lambda handle: publish(checkpoint(), handle)):
        with pytest.raises(ValueError, match=message):
            action(handle)


@pytest.mark.home
def test_bad_hubs_and_options(hub, checkpoint):
    directory = checkpoint()
    for name in ("hf://", "hf://org/name/more", "nothing://x", "org"):
        with pytest.raises(ValueError, match=r"must be hf://org|must begin with one of"):
            list_models(hub=name)
    with pytest.raises(ValueError, match="the handle must be hf://org/name, got 'hf://me/x@v1'"):
        publish(directory, "hf://me/x@v1")
    for tag in ("", "a b", "v1/2", "a" * 40, "main", "-v", ".v", "v.", "v..1", "v.lock"):
        with pytest.raises(ValueError, match="tag must be a name such as 'v1', and no branch"):
            publish(directory, "hf://me/x", tag=tag)
    assert hub.requests == []


@pytest.mark.home
@pytest.mark.parametrize("handle", ["hf://me/robust", "file://{}/hub/robust"])
def test_only_models_with_their_own_evidence_are_published(hub, checkpoint, tmp_path, handle):
    handle = handle.format(tmp_path)
    directory = checkpoint()
    shutil.copy(checkpoint("mlp.natural_digits") / FILE, directory / FILE)
    with pytest.raises(CheckpointError, match=r"truncated or was tampered with: it"):
        publish(directory, handle)
    (directory / "robustness.json").unlink()
    with pytest.raises(CheckpointError, match="nothing is published without its evidence"):
        publish(directory, handle)
    with pytest.raises(CheckpointError, match="no checkpoint directory"):
        publish(tmp_path / "none", handle)
    assert hub.repositories == {}
    assert not (tmp_path / "hub").exists()


def fine_tuned(model, images):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss=loss)
    model.fit(images(8, (8, 8, 1)), np.zeros(8), verbose=0)
    return model


def measured(model, **options):
    return evaluate(model, "digits", attacks=[FGSM(epsilon=0.1)], n=20, checks=False, **options)


@pytest.mark.home
class TestLineage:
    @pytest.mark.slow
    def test_a_fine_tuned_model_names_its_parent(self, hub, checkpoint, images, tmp_path):
        parent = publish(checkpoint(), "hf://me/parent")
        model = fine_tuned(load_model("hf://me/parent"), images)
        record = measured(model)
        original = load_record("hf://me/parent")
        assert record.base_model == BaseModelInfo(
            name="mlp.pgd_digits", weights_sha256=original.weights.sha256, handle=parent
        )
        save_model(model, tmp_path / "child", record)
        child = publish(tmp_path / "child", "hf://me/child")
        repository = hub.repositories["me/child"]
        card = repository.commits[repository.head]["README.md"].content.decode()
        assert front_matter(card)["base_model"] == "me/parent"
        assert front_matter(card)["base_model_relation"] == "finetune"
        assert f"mlp.pgd_digits ({parent}), weights sha256 {original.weights.sha256}" in card
        # Measured again, it is not its own child.
        loaded = load_model(child)
        assert measured(loaded).base_model == record.base_model
        grandchild = measured(fine_tuned(loaded, images))
        assert grandchild.base_model.handle == child

    @pytest.mark.slow
    def test_from_the_zoo_the_name_is_enough(self, images):
        model = fine_tuned(load_model("mlp.pgd_digits"), images)
        base = measured(model).base_model
        assert (base.name, base.handle) == ("mlp.pgd_digits", "")
        assert measured(load_model("mlp.pgd_digits")).base_model is None

    def test_a_new_head_has_a_parent_but_no_record(self, images):
        with pytest.warns(match=r"'mlp.pgd_digits' got a new head.*is dropped"):
            model = load_model("mlp.pgd_digits", num_classes=10)
        assert model.robustness is None
        assert measured(model).base_model.name == "mlp.pgd_digits"

    def test_it_can_be_told(self, small_cnn):
        base = BaseModelInfo(name="theirs", weights_sha256="0" * 64)
        model = keras.models.clone_model(load_model("mlp.pgd_digits"))
        assert measured(model).base_model is None
        assert measured(model, base_model=base).base_model == base
        again = RobustnessRecord.from_json(measured(model, base_model=base).to_json())
        assert again.base_model == base


def test_the_notice_is_made_anew_from_the_record(tmp_path):
    """Weights of others never go without the line that must go with them."""
    model = load_model("mlp.pgd_digits")
    notice = "These weights are somebody else's."
    record = model.robustness.model_copy(update={"notice": notice, "license": "MIT"})
    directory = save_model(model, tmp_path / "model", record)
    assert (directory / "NOTICE").read_text() == f"{notice}\n"
    (directory / "NOTICE").unlink()
    publish(directory, f"file://{tmp_path}/hub/model")
    published = list((tmp_path / "hub").rglob("NOTICE"))
    assert [file.read_text() for file in published] == [f"{notice}\n"] * len(published)
    assert published


def test_numbers_in_the_hubs_own_format(hub):
    name = "galloway_cnn.natural_cifar10"
    pinned = publish(checkpoints_directory() / name, "hf://me/galloway")
    repository = hub.repositories["me/galloway"]
    told = yaml.safe_load(repository.commits[repository.head][EVAL_RESULTS].content)
    record = load_record(name)
    assert [entry["dataset"]["task_id"] for entry in told] == [
        "cifar10-linf-8-255-robust",
        "cifar10-linf-8-255-clean",
    ]
    assert told[1]["value"] == pytest.approx(100 * record.clean.accuracy)
    head, asked = repository.head, len(repository.commits)
    assert publish(checkpoints_directory() / name, "hf://me/galloway") == pinned
    assert (repository.head, len(repository.commits)) == (head, asked)
    assert load_record(pinned) == record
    # Of no task: nothing is written.
    publish(checkpoints_directory() / "mlp.pgd_digits", "hf://me/digits")
    other = hub.repositories["me/digits"]
    assert EVAL_RESULTS not in other.commits[other.head]
