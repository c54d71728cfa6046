"""Adversarial images of others lower the worst case, if they are what they claim to be."""

import hashlib

import numpy as np
import pytest

from robust_zoo.attacks import FGSM, PGD
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import challenge, evaluate, verify
from robust_zoo.record import Certified, RobustnessRecord, ThreatModel
from robust_zoo.report.card import model_card
from robust_zoo.zoo import load_model, load_record

pytestmark = pytest.mark.home
EPSILON, N = 0.15, 80


@pytest.fixture(scope="module")
def robust():
    """A model whose record knows one step alone."""
    model = load_model("mlp.pgd_digits")
    model.robustness = evaluate(model, "digits", attacks=[FGSM(epsilon=EPSILON)], n=N)
    return model


@pytest.fixture(scope="module")
def stronger(robust):
    """Images of PGD for the whole split, and the places of the record's sample in it."""
    data = load_dataset("digits")
    attack = PGD(epsilon=EPSILON, steps=20)
    images = attack.run(robust, data.images, data.labels, progress=False).x_adv
    return images, np.random.default_rng(0).permutation(len(data))[:N]


def saved(path, **arrays):
    np.savez(path / "images.npz", **arrays)
    return path / "images.npz"


def test_the_worst_case_falls_to_what_they_leave(robust, stronger, tmp_path):
    images, chosen = stronger
    file = saved(tmp_path, images=images)
    before = robust.robustness
    record = challenge(robust, file, source="A. Nobody, 2026")
    data = load_dataset("digits")
    right = robust.predict(data.images[chosen], verbose=0).argmax(1) == data.labels[chosen]
    right &= robust.predict(images[chosen], verbose=0).argmax(1) == data.labels[chosen]
    (found,) = record.external
    assert (found.correct, found.n_examples, found.images, found.outside) == (right.sum(), N, N, 0)
    assert found.correct < before.worst_case.correct
    assert record.worst_case.correct == found.correct
    assert record.attacks == before.attacks
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.max_distance == pytest.approx(EPSILON, rel=1e-4)
    assert all(
        point.correct <= found.correct + max(0, point.n_examples - N)
        for point in record.curve.points
        if point.epsilon >= EPSILON
    )
    assert RobustnessRecord.from_json(record.to_json()) == record
    assert "| images of A. Nobody, 2026 |" in model_card(record)
    robust.robustness = record
    try:
        names = [part.name for part in verify(robust, n=20)]
    finally:
        robust.robustness = before
    assert names == ["clean", "FGSM"]


def test_some_images_are_enough_by_their_numbers(robust, stronger, tmp_path):
    images, chosen = stronger
    some = chosen[:30]
    file = saved(tmp_path, images=images[some], numbers=some)
    found = challenge(robust, file, source="some").external[0]
    assert (found.images, found.n_examples) == (30, N)
    others = np.setdiff1d(np.arange(len(images)), chosen)[:5]
    file = saved(tmp_path, images=images[others], numbers=others)
    with pytest.raises(ValueError, match="must have images of the record's 80 examples"):
        challenge(robust, file, source="none of the sample")


def test_images_outside_count_as_robust(robust, stronger, tmp_path):
    images, chosen = stronger
    whole = challenge(robust, saved(tmp_path, images=images), source="whole").external[0]
    data = load_dataset("digits")
    moved = images.copy()
    broken = chosen[robust.predict(images[chosen], verbose=0).argmax(1) != data.labels[chosen]]
    first, second, third = broken[:3]
    at = np.unravel_index(np.abs(images[first] - data.images[first]).argmax(), images[first].shape)
    moved[first][at] += np.sign(moved[first][at] - data.images[first][at]) * 1e-3
    moved[second, 0, 0, 0] = -1e-3
    moved[third, 0, 0, 0] = np.nan
    found = challenge(robust, saved(tmp_path, images=moved), source="moved").external[0]
    assert found.outside == 3
    assert found.correct == whole.correct + 3


def test_eight_bits_are_divided(robust, stronger, tmp_path):
    data = load_dataset("digits")
    bytes_ = np.round(data.images * 255).astype("uint8")
    record = challenge(robust, saved(tmp_path, images=bytes_), source="clean images")
    found = record.external[0]
    assert found.max_distance < 1 / 255
    assert found.correct == record.clean.correct
    assert record.worst_case == robust.robustness.worst_case


def test_nothing_of_the_ball_stays_above(robust, stronger, tmp_path):
    before = robust.robustness
    further = ThreatModel(norm="l2", epsilon=0.1)
    robust.robustness = evaluate(
        robust,
        "digits",
        attacks=[FGSM(epsilon=EPSILON)],
        n=N,
        threat_models=[further],
        certify=("ibp",),
    )
    record = robust.robustness
    assert record.union.correct == record.worst_case.correct
    # As bounds that are wrong would have it.
    proof = Certified.count(
        record.worst_case.correct,
        N,
        **record.certificate.model_dump(exclude={"accuracy", "ci95", "correct", "n_examples"}),
    )
    robust.robustness = record.model_copy(update={"certified": (proof,)})
    try:
        found = challenge(robust, saved(tmp_path, images=stronger[0]), source="stronger")
    finally:
        robust.robustness = before
    left = found.external[0].correct
    assert left < record.worst_case.correct
    assert [part.correct for part in (found.worst_case, found.union, found.certificate)] == [
        left
    ] * 3
    checks = {check.name: check for check in found.checks}
    assert checks["certificates_hold"].passed is False
    assert checks["certificates_hold"].value == record.worst_case.correct - left
    assert "curve_agrees_with_attacks" not in checks
    assert RobustnessRecord.from_json(found.to_json()) == found


def test_what_is_not_new_or_of_another_model(robust, stronger, tmp_path):
    file = saved(tmp_path, images=stronger[0])
    before = robust.robustness
    robust.robustness = challenge(robust, file, source="once")
    try:
        with pytest.raises(ValueError, match="is in the record already"):
            challenge(robust, file, source="twice")
    finally:
        robust.robustness = before
    weights = robust.get_weights()
    robust.set_weights([2 * weight for weight in weights])
    try:
        with pytest.raises(ValueError, match="has other weights or layers by now"):
            challenge(robust, file, source="of others")
        with pytest.raises(ValueError, match="has other weights or layers by now"):
            verify(robust, n=5)
    finally:
        robust.set_weights(weights)
    for source in (None, "x" * 201, "a\nb"):
        with pytest.raises(ValueError, match="source must be a line of text of at most 200"):
            challenge(robust, file, source=source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"images": x[::-1]}, r"but the nearest is .* in the order of the split"),
        (lambda x: {"images": x.transpose(0, 3, 1, 2)}, r"channels first: transpose them"),
        (lambda x: {"images": x[:7]}, r"an image for each of the split's 500 examples"),
        (lambda x: {"x_adv": x}, "must have an array 'images', got x_adv"),
        (lambda x: {"images": (x * 255).astype("int32")}, "must have floating images"),
        (lambda x: {"images": x[:2], "numbers": [1, 1]}, "must be 2 different integers in 0..499"),
        (lambda x: {"images": x[:2], "numbers": [1, 500]}, "must be 2 different integers"),
    ],
)
def test_refused(robust, stronger, tmp_path, change, message):
    images = np.clip(stronger[0] + 0.0, 0, 1)
    with pytest.raises(ValueError, match=message):
        challenge(robust, saved(tmp_path, **change(images)), source="wrong")


def test_a_file_that_is_none_and_a_model_without_a_record(robust, tmp_path):
    file = tmp_path / "images.npz"
    file.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"images.npz' cannot be read"):
        challenge(robust, file, source="wrong")
    with pytest.raises(ValueError, match="source must be a line of text"):
        challenge(robust, file, source=" ")
    bare = load_model("mlp.natural_digits")
    bare.robustness = None
    with pytest.raises(ValueError, match="has no record of attacks"):
        challenge(bare, file, source="wrong")


def test_on_the_command_line(command, stronger, tmp_path):
    record = load_record("mlp.pgd_digits")
    rows = np.random.default_rng(0).permutation(500)
    data = load_dataset("digits")
    file = saved(tmp_path, images=data.images[rows[:4]], numbers=rows[:4])
    out = tmp_path / "out.json"
    arguments = ("challenge", "mlp.pgd_digits", file, "--source", "nobody", "--json", out)
    status, text, _ = command(*map(str, arguments))
    assert status == 0
    worst = record.worst_case.correct
    assert f"0 of them outside the ball; the worst case was {worst} and is {worst}" in text
    found = RobustnessRecord.read(out)
    assert found.external[0].images == 4
    assert found.worst_case == record.worst_case
    status, _, err = command(
        "challenge", "mlp.pgd_digits", str(tmp_path / "no.npz"), "--source", "x"
    )
    assert status == 1
    assert "no.npz" in err
