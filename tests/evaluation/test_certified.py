"""Records between two bounds: what is certified, and what attacks leave."""

import numpy as np
import pytest

from robust_zoo.attacks import FGSM, PGD, AutoAttack, DeepFool
from robust_zoo.certification import NoRuleError, Smoothing, certify
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import (
    EvaluationPlan,
    Part,
    evaluate,
    evaluate_at,
    measure,
    merge,
    plan_evaluation,
    tasks,
    verify,
)
from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo import list_models, load_model, load_record

pytestmark = pytest.mark.home
EPSILON = 0.02
ATTACKS = (PGD(epsilon=EPSILON, steps=5), FGSM(epsilon=EPSILON))
BOTH = ("ibp", "crown-ibp")


@pytest.fixture(scope="module")
def robust():
    return load_model("mlp.pgd_digits")


def measured(model, **options):
    settings = {"attacks": ATTACKS, "n": 60, "checks": False, "certify": BOTH, **options}
    return evaluate(model, "digits", **settings)


def test_certified_images_are_those_of_certify(robust):
    record = measured(robust)
    sample = load_dataset("digits").sample(60, 0)
    found = certify(robust, sample.images, sample.labels, epsilon=EPSILON)
    proof = record.certificate
    assert proof is record.certified[0]
    assert (proof.correct, proof.n_examples) == (found.accuracy.correct, 60)
    assert 0 < proof.correct < record.worst_case.correct
    assert (proof.methods, proof.norm, proof.epsilon) == (BOTH, "linf", EPSILON)
    assert [check.passed for check in record.checks if check.name == "certificates_hold"] == [True]
    assert RobustnessRecord.from_json(record.to_json()) == record


@pytest.mark.slow
def test_what_is_certified_is_not_attacked(robust, monkeypatch):
    attacks = (AutoAttack(epsilon=EPSILON), *ATTACKS, DeepFool())
    whole = measured(robust, attacks=attacks)
    attacked = []
    original = PGD.run

    def run(self, model, x, y, **options):
        attacked.append(options["numbers"])
        return original(self, model, x, y, **options)

    monkeypatch.setattr(PGD, "run", run)
    rest = measured(robust, attacks=attacks, skip_certified=True, task_size=30)
    proof = rest.certificate
    assert proof.correct == whole.certificate.correct
    numbers = np.concatenate(attacked)
    assert len(numbers) == len(set(numbers)) == 60 - proof.correct
    for old, new in zip(whole.attacks, rest.attacks, strict=True):
        assert (old.correct, old.n_examples) == (new.correct, new.n_examples)
        assert old.components == new.components
        assert (old.skipped, new.skipped) == (0, proof.correct)
    assert rest.worst_case == whole.worst_case
    found = [record.minimum_norm[0].found for record in (whole, rest)]
    assert found[0].n_examples == found[1].n_examples
    assert found[0].mean == pytest.approx(found[1].mean, rel=1e-4)


def test_all_may_be_certified(robust):
    tiny = FGSM(epsilon=1e-6)
    sample = load_dataset("digits").sample(20, 0)
    right = robust.predict(sample.images, verbose=0).argmax(1) == sample.labels
    assert right.all()
    record = measured(robust, attacks=(tiny,), n=20, skip_certified=True)
    assert (record.certificate.correct, record.worst_case.correct) == (20, 20)
    assert record.attacks[0].skipped == 19  # one shows what the attack makes


@pytest.mark.slow
def test_parts_of_several_machines_make_the_same(robust, tmp_path):
    options = {
        "attacks": ATTACKS,
        "n": [60, 30],
        "task_size": 25,
        "checks": False,
        "certify": BOTH,
        "skip_certified": True,
        "smoothing": Smoothing(0.2, n=40, images=30, radii=(0.0, 0.1, 0.3)),
    }
    whole = evaluate(robust, "digits", **options)
    plan = EvaluationPlan.from_json(plan_evaluation(robust, "digits", **options).to_json())
    bound = plan.bind(robust, load_dataset("digits"))
    for task in reversed(plan.tasks):
        measure(bound, task).save(tmp_path / f"{task.number}.npz")
    merged = merge(plan, [Part.load(path) for path in tmp_path.iterdir()])
    for old, new in zip(whole.certified, merged.certified, strict=True):
        assert old.model_dump(exclude={"seconds"}) == new.model_dump(exclude={"seconds"})
    assert [part.correct for part in whole.attacks] == [part.correct for part in merged.attacks]
    other = plan_evaluation(robust, "digits", **{**options, "skip_certified": False})
    with pytest.raises(ValueError, match="belongs to another plan"):
        merge(other, [Part.load(path) for path in tmp_path.iterdir()])


@pytest.mark.slow
def test_smoothed_accuracy_is_of_the_first_images(robust):
    smoothing = Smoothing(0.2, n=50, alpha=0.01, images=25, radii=(0.0, 0.1, 0.2))
    record = measured(robust, attacks=(), certify=(), smoothing=smoothing)
    assert record.certificate is None
    from robust_zoo.certification import SmoothedClassifier

    sample = load_dataset("digits").sample(60, 0).take(slice(0, 25))
    found = SmoothedClassifier(robust, smoothing).certify(sample.images, sample.labels)
    for proof, radius in zip(record.certified, (0.0, 0.1, 0.2), strict=True):
        assert (proof.methods, proof.norm, proof.epsilon) == (("smoothing",), "l2", radius)
        assert (proof.correct, proof.n_examples) == (found.accuracy(radius).correct, 25)
        assert proof.smoothing.model_dump() == {"sigma": 0.2, "n0": 100, "n": 50, "alpha": 0.01}
        assert proof.undecided == found.abstained


def test_a_wrong_certificate_is_told_and_does_not_count(robust, monkeypatch):
    """As bounds that claim everything would make it."""
    original = tasks.certify

    def claims_all(*args, **options):
        found = original(*args, **options)
        found.margins[:] = 1e6
        return found

    monkeypatch.setattr(tasks, "certify", claims_all)
    strong = PGD(epsilon=0.3, steps=5)
    record = measured(robust, attacks=(strong,))
    (check,) = [part for part in record.checks if part.name == "certificates_hold"]
    broken = 60 - record.worst_case.correct
    assert broken > 5
    assert (check.passed, check.value) == (False, broken)
    assert record.certificate.correct == record.worst_case.correct
    with_curve = measured(robust, attacks=(FGSM(epsilon=0.3),), checks=True, n=40)
    assert with_curve.certificate.correct <= with_curve.curve.points[3].correct
    assert with_curve.curve.points[3].epsilon == 0.3


@pytest.mark.slow
def test_each_epsilon_has_its_certificate(robust):
    plans = [[PGD(epsilon=epsilon, steps=3)] for epsilon in (0.01, 0.03)]
    small, large = evaluate_at(robust, "digits", plans=plans, n=40, checks=False, certify=("ibp",))
    assert (small.certificate.epsilon, large.certificate.epsilon) == (0.01, 0.03)
    assert small.certificate.correct > large.certificate.correct


@pytest.mark.slow
def test_certificates_are_verified(robust):
    smoothing = Smoothing(0.2, n=40, images=10, radii=(0.0, 0.1))
    robust.robustness, before = (
        measured(robust, attacks=ATTACKS[:1], skip_certified=True, smoothing=smoothing),
        robust.robustness,
    )
    try:
        found = verify(robust, n=30)
        assert all(part.agrees for part in found)
        names = [part.name for part in found]
        assert names[-3:] == [
            "certified by ibp and crown-ibp at linf 0.02",
            "certified by smoothing (sigma 0.2, n0 100, n 40, alpha 0.001) at l2 0",
            "certified by smoothing (sigma 0.2, n0 100, n 40, alpha 0.001) at l2 0.1",
        ]
        proof = robust.robustness.certificate
        told = proof.model_copy(update={"correct": 0, "accuracy": 0.0})
        robust.robustness = robust.robustness.model_copy(
            update={"certified": (told, *robust.robustness.certified[1:])}
        )
        assert not verify(robust, n=30)[-3].agrees
    finally:
        robust.robustness = before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"certify": "ibp"}, r"certify must be a sequence of methods, such as \('ibp',\)"),
        ({"certify": ("crown",)}, r"certify must be some of \('ibp', 'crown-ibp'\)"),
        ({"certify": ("ibp", "ibp")}, "each once, got"),
        ({"certify": (), "skip_certified": True}, "skip_certified needs certify"),
        ({"attacks": (PGD(epsilon=0.5, norm="l2"),)}, "attacks of norm 'l2': give an attack"),
        ({"attacks": (DeepFool(),)}, "attacks of no attack with a budget: give an attack"),
        ({"smoothing": 0.25}, "smoothing must be a robust_zoo.Smoothing, got 0.25"),
    ],
)
def test_refused(robust, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        measured(robust, **options)


def test_layers_without_a_rule_are_refused_at_once(images):
    import keras

    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.LayerNormalization(name="norm")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    with pytest.raises(NoRuleError, match="none for 'norm'"):
        plan_evaluation(
            model, (images(4, (4, 4, 1)), [0, 1, 2, 0]), attacks=ATTACKS, certify=("ibp",)
        )


def test_every_record_of_the_zoo_keeps_its_order():
    for entry in list_models(role="all"):
        record = load_record(entry.name)
        for proof in record.certified:
            same = [
                part
                for part in record.attacks
                if part.n_examples == proof.n_examples and proof.smoothing is None
            ]
            assert all(proof.correct <= part.correct for part in same)
        assert entry.certificate == record.certificate
