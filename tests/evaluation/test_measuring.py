import keras
import numpy as np
import pytest
from keras import ops

import robust_zoo as rz
from robust_zoo import architectures
from robust_zoo.attacks import FGSM, JSMA, PGD, AutoAttack, CarliniWagner, DeepFool, PixelSwap
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import evaluate
from robust_zoo.record import wilson_interval
from robust_zoo.weights import describe_weights


@pytest.fixture
def model(trained):
    return trained


@pytest.mark.slow
def test_numbers_against_a_count_by_hand(model):
    attacks = [
        PGD(epsilon=0.08, steps=5, labels="random", targeted=True),
        PGD(epsilon=0.08, steps=2, labels="least_likely", targeted=True),
    ]
    record = evaluate(model, "digits", attacks=attacks, n=120, seed=3, checks=False)
    chosen = np.random.default_rng(3).permutation(500)[:120]
    data = load_dataset("digits")
    x, y = data.images[chosen], data.labels[chosen]
    clean = ops.convert_to_numpy(model(x)).argmax(1) == y
    assert record.clean.correct == clean.sum()
    assert record.clean.ci95 == wilson_interval(int(clean.sum()), 120)
    survivors = []
    for attack, outcome in zip(attacks, record.attacks, strict=True):
        x_adv = attack.run(model, x, y, seed=3).x_adv
        held = clean & (ops.convert_to_numpy(model(x_adv)).argmax(1) == y)
        assert outcome.correct == held.sum()
        assert outcome.n_examples == 120
        assert outcome.max_distance == pytest.approx(0.08, rel=1e-4)
        assert outcome.config == attack.get_config()
        survivors.append(held)
    both = survivors[0] & survivors[1]
    assert record.worst_case.correct == both.sum()
    assert record.worst_case.correct < min(outcome.correct for outcome in record.attacks)
    assert record.worst_case.attacks == ("PGD", "PGD")


def test_the_record_says_where_it_comes_from(model):
    record = evaluate(model, "digits", attacks=[FGSM(epsilon=0.1)], n=20, checks=False)
    assert (record.dataset.name, record.dataset.split) == ("digits", "test")
    assert record.dataset.version.startswith("scikit-learn 1.")
    assert record.threat_model.model_dump() == {"norm": "linf", "epsilon": 0.1}
    assert (record.architecture, record.parameters, record.num_classes) == ("mlp", 2410, 10)
    assert record.input.shape == (8, 8, 1)
    assert record.weights == describe_weights(model)
    assert set(record.versions) == {"robust_zoo", "keras", "numpy", keras.config.backend()}
    assert record.versions["robust_zoo"] == rz.__version__
    assert record.versions["keras"] == keras.__version__


@pytest.mark.slow
def test_each_attack_can_have_its_own_n(model):
    attacks = [FGSM(epsilon=0.1), PGD(epsilon=0.1, steps=3)]
    record = evaluate(model, "digits", attacks=attacks, n=[80, 30], checks=False)
    assert [outcome.n_examples for outcome in record.attacks] == [80, 30]
    assert (record.clean.n_examples, record.worst_case.n_examples) == (80, 30)


@pytest.mark.long
def test_nothing_depends_on_the_batch_size(model):
    attack = PGD(epsilon=0.08, steps=5, restarts=2)
    first, second = (
        evaluate(model, "digits", attacks=[attack], n=70, batch_size=size) for size in (16, 70)
    )
    assert first.attacks[0].correct == second.attacks[0].correct
    for one, two in zip(first.checks, second.checks, strict=True):
        assert one.passed == two.passed
        assert one.value == pytest.approx(two.value, rel=1e-5)


def test_clean_only(model):
    record = evaluate(model, "digits")
    assert record.clean.n_examples == 500
    assert (record.attacks, record.worst_case, record.threat_model) == ((), None, None)


def test_arrays_as_data(model):
    data = load_dataset("digits")
    record = evaluate(model, (data.images, data.labels), checks=False)
    assert record.dataset.name == "arrays"
    assert record.clean.correct == evaluate(model, data, checks=False).clean.correct


def test_a_changed_activation_is_seen(model):
    before = evaluate(model, "digits", checks=False)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert evaluate(copy, "digits", checks=False).clean == before.clean
    copy.layers[3].activation = keras.activations.linear
    after = evaluate(copy, "digits", checks=False)
    data = load_dataset("digits")
    right = ops.convert_to_numpy(copy(data.images)).argmax(1) == data.labels
    assert after.clean.correct == right.sum()
    assert after.config != before.config
    assert after.weights == before.weights


@pytest.mark.slow
def test_mixed_precision_models_are_measured_in_float32(model):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = architectures.mlp((8, 8, 1), hidden=(32,))
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    options = {"attacks": [FGSM(epsilon=0.08)], "checks": False}
    a, b = evaluate(model, "digits", **options), evaluate(mixed, "digits", **options)
    assert a.attacks[0].correct == b.attacks[0].correct
    assert a.weights == b.weights


@pytest.mark.slow
def test_anybody_s_saved_model_is_measured_in_one_line(model, tmp_path):
    theirs = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            model,
            keras.layers.Softmax(),
        ]
    )
    theirs.save(tmp_path / "mine.keras")
    record = rz.evaluate(
        rz.as_classifier(
            keras.saving.load_model(tmp_path / "mine.keras"),
            input_range=(0, 255),
            output="softmax",
        ),
        "digits",
        attacks=[FGSM(epsilon=0.08)],
        checks=False,
    )
    expected = evaluate(model, "digits", attacks=[FGSM(epsilon=0.08)], checks=False)
    assert record.clean.correct == expected.clean.correct
    assert abs(record.attacks[0].correct - expected.attacks[0].correct) <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attacks": ["pgd"]}, TypeError, "attacks must be robust_zoo attacks, got 'pgd'"),
        (
            {"attacks": [FGSM(epsilon=0.1), FGSM(epsilon=0.2)]},
            ValueError,
            r"share one norm and epsilon.*0\.1.*0\.2",
        ),
        (
            {"attacks": [PGD(epsilon=0.1, targeted=True)]},
            ValueError,
            "must not aim at the labels given.*'least_likely' or 'random'",
        ),
        ({"n": 501}, ValueError, r"n must be integers in 1\.\.500"),
        ({"attacks": [FGSM(epsilon=0.1)], "n": [1, 2]}, ValueError, "one for each of 1 attacks"),
        (
            {"attacks": [FGSM(epsilon=0.1)] * 2, "n": [80, -5]},
            ValueError,
            "n must be integers in 1",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer >= 1, got 0"),
        ({"data": 5}, TypeError, "data must be a Dataset, a name,"),
        ({"data": "nosuchset"}, ValueError, "unknown dataset 'nosuchset'"),
    ],
)
def test_bad_arguments(model, arguments, error, message):
    with pytest.raises(error, match=message):
        evaluate(model, **{"data": "digits", **arguments})


def test_softmax_models_are_refused(model):
    with pytest.raises(ValueError, match="as_classifier"):
        evaluate(keras.Sequential([model, keras.layers.Softmax()]), "digits")


@pytest.mark.slow
@pytest.mark.home
def test_minimum_norm_numbers_against_a_count_by_hand(model):
    attacks = [DeepFool(), CarliniWagner(steps=30, binary_search_steps=3), JSMA(gamma=0.1)]
    data = load_dataset("digits")
    x, y = data.images[:60], data.labels[:60].copy()
    y[:6] = (y[:6] + 1) % 10
    record = evaluate(model, (x, y), attacks=attacks, seed=3, checks=False)
    assert record.threat_model is None
    assert record.worst_case is None
    assert record.attacks == ()
    order = np.random.default_rng(3).permutation(60)
    x, y = x[order], y[order]
    clean = ops.convert_to_numpy(model(x)).argmax(1)
    for attack, item in zip(attacks, record.minimum_norm, strict=True):
        left = clean if isinstance(attack, DeepFool) else y
        x_adv = attack.run(model, x, y, seed=3).x_adv
        fooled = ops.convert_to_numpy(model(x_adv)).argmax(1) != left
        change = (x_adv - x).reshape(60, -1)
        flat = x.reshape(60, -1)
        if attack.norm == "l2":
            distance, norm = np.linalg.norm(change, axis=1), np.linalg.norm(flat, axis=1)
        else:
            distance, norm = (change != 0).sum(1), np.full(60, 64)
        assert (item.name, item.norm, item.n_examples) == (type(attack).__name__, attack.norm, 60)
        for part, rows in ((item.found, fooled), (item.clean_correct_only, fooled & (clean == y))):
            assert part.n_examples == rows.sum()
            assert part.mean == pytest.approx(distance[rows].mean(), rel=1e-5)
            assert part.median == pytest.approx(np.median(distance[rows]), rel=1e-5)
            assert part.rho == pytest.approx((distance / norm)[rows].mean(), rel=1e-5)
    deepfool, carlini, _ = record.minimum_norm
    assert deepfool.found.n_examples == 60
    # Misclassified images have a distance for the predicted label, and none for the true one.
    assert deepfool.found.mean == pytest.approx(deepfool.clean_correct_only.mean, rel=0.2)
    assert carlini.found.mean < carlini.clean_correct_only.mean


def test_black_images_have_no_relative_distance(model):
    x = np.zeros((3, 8, 8, 1), "float32")
    y = ops.convert_to_numpy(model(x)).argmax(1)
    item = evaluate(model, (x, y), attacks=[DeepFool()], checks=False).minimum_norm[0]
    assert item.found.rho is None
    assert item.found.mean > 0


@pytest.mark.long
@pytest.mark.home
def test_autoattack_in_a_record(model, tmp_path):
    options = {"n": 40, "seed": 1, "state_directory": tmp_path / "state"}
    attacks = [AutoAttack(epsilon=0.1), FGSM(epsilon=0.1), DeepFool()]
    record = evaluate(model, "digits", attacks=attacks, **options)
    outcome = record.attacks[0]
    assert list(outcome.components) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert outcome.components["square"] == outcome.accuracy
    assert outcome.accuracy <= record.attacks[1].accuracy
    assert record.worst_case.attacks == ("AutoAttack", "FGSM")
    names = [check.name for check in record.checks]
    assert len(names) == len(set(names))
    assert {"square_stronger_than_white_box", "too_few_classes", "zero_gradients"} <= set(names)
    assert record.failed_checks == ()
    # 40 examples do not tell 0.2% from chance.
    assert [check.name for check in record.checks if check.passed is None] == [
        "square_stronger_than_white_box"
    ]
    files = sorted(path.name for path in (tmp_path / "state").iterdir())
    # Predictions, three attacks, the curve, AutoAttack's flags and the checks.
    assert files == [f"part_{number:05}.npz" for number in range(7)]
    again = evaluate(model, "digits", attacks=attacks, **options)
    assert again.attacks[0].components == outcome.components
    assert again.attacks[0].seconds == pytest.approx(outcome.seconds, rel=0.5)  # what it took
    with pytest.raises(ValueError, match=r"part_00000\.npz belongs to another plan"):
        evaluate(model, "digits", attacks=attacks, **{**options, "seed": 2})


@pytest.mark.slow
def test_an_l0_threat_model(model):
    record = evaluate(model, "digits", attacks=[PixelSwap(epsilon=8)], n=30)
    assert record.threat_model.model_dump() == {"norm": "l0", "epsilon": 8.0}
    # No gradient attack has that norm: only the record's own looks for what is planted.
    assert [check.name for check in record.checks] == [
        "zero_gradients",
        "gradients_not_finite",
        "softmax_output",
        "logit_scale",
        "randomness",
        "clean_above_chance",
        "binarisation_test",
    ]
