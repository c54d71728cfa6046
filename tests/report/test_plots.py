import numpy as np
import pytest
from PIL import Image

from robust_zoo.attacks import FGSM, BasicIterative
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import (
    RobustnessCurve,
    evaluate,
    fooling_images,
    loss_landscape,
    roll_off,
    rubbish_test,
    top_k,
    transfer_matrices,
)
from robust_zoo.record import Accuracy
from robust_zoo.report import plots
from robust_zoo.report.plots import (
    accuracy_against_epsilon,
    compare_models,
    is_picture_of,
    landscapes,
    roll_offs,
    transfer,
)
from robust_zoo.zoo import load_model, load_record


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_pictures_are_written(tmp_path, ending):
    record = load_record("mlp.pgd_digits")
    path = accuracy_against_epsilon([record], tmp_path / f"curve.{ending}")
    content = path.read_bytes()
    assert len(content) > 5_000
    assert content.startswith(b"\x89PNG" if ending == "png" else b"<?xml")


def test_only_one_model_and_norm(tmp_path):
    records = [load_record("mlp.pgd_digits"), load_record("mlp.natural_digits")]
    with pytest.raises(ValueError, match=r"of one model under attacks of one norm, got models"):
        accuracy_against_epsilon(records, tmp_path / "curve.png")
    with pytest.raises(ValueError, match="of one model"):
        accuracy_against_epsilon([], tmp_path / "curve.png")


@pytest.mark.slow
def test_a_curve_joins_an_attack_across_epsilons(tmp_path):
    model, data = load_model("mlp.pgd_digits"), load_dataset("digits")
    records = [
        evaluate(model, data, attacks=attacks, n=20, checks=False)
        for epsilon in (2 / 255, 8 / 255)
        for attacks in [[BasicIterative(epsilon=epsilon), FGSM(epsilon=epsilon)]]
    ]
    # The number of steps follows from epsilon: still one curve.
    assert records[0].attacks[0].config["steps"] != records[1].attacks[0].config["steps"]
    text = accuracy_against_epsilon(records, tmp_path / "curve.svg").read_text()
    assert text.count("<!-- BasicIterative") == 1
    assert text.count("<!-- FGSM") == 1
    other = evaluate(model, data, attacks=[FGSM(epsilon=0.1)], n=20, checks=False)
    with pytest.raises(ValueError, match="the same attacks in the same order"):
        accuracy_against_epsilon([records[0], other], tmp_path / "curve.svg")


def test_one_record_is_drawn_as_its_curve(tmp_path):
    record = load_record("mlp.pgd_digits")
    drawn = accuracy_against_epsilon([record], tmp_path / "curve.svg").read_text()
    assert drawn.count("<!-- worst case with PGD-20") == 1
    assert drawn.count("<!-- AutoAttack") == 1
    bare = record.model_copy(update={"curve": None})
    assert "PGD-20" not in accuracy_against_epsilon([bare], tmp_path / "bare.svg").read_text()


def test_a_picture_knows_its_records(tmp_path):
    record = load_record("mlp.pgd_digits")
    path = tmp_path / "curve.png"
    assert not is_picture_of([record], path)
    accuracy_against_epsilon([record], path)
    assert is_picture_of([record], path)
    assert not is_picture_of([record.model_copy(update={"license": "MIT"})], path)
    again = accuracy_against_epsilon([record], tmp_path / "again.png")
    assert again.read_bytes() == path.read_bytes()
    path.write_bytes(b"no picture")
    assert not is_picture_of([record], path)


def test_models_are_compared_by_their_curves(tmp_path):
    records = [load_record("mlp.pgd_digits"), load_record("mlp.natural_digits")]
    text = compare_models(records, tmp_path / "models.svg", title="both").read_text()
    for name in ("mlp.pgd_digits", "mlp.natural_digits", "both"):
        assert text.count(f"<!-- {name} -->") == 1
    attacked = [record.model_copy(update={"attacks": record.attacks[:2]}) for record in records]
    without = compare_models(attacked, tmp_path / "without.svg", title="both").read_text()
    assert text.count("<use ") == without.count("<use ") + 2  # a cross a model, of AutoAttack
    failed = records[0].checks[0].model_copy(update={"passed": False})
    flagged = records[0].model_copy(update={"checks": (failed,)})
    assert "<!-- mlp.pgd_digits* -->" in compare_models([flagged], tmp_path / "f.svg").read_text()
    bare = records[0].model_copy(update={"curve": None})
    mnist = load_record("madry_cnn.pgd_mnist")
    for wrong in ([], [bare], [records[0], mnist]):
        with pytest.raises(ValueError, match="must have curves on one dataset in one norm, got"):
            compare_models(wrong, tmp_path / "wrong.svg")


@pytest.mark.slow
def test_metrics_are_drawn(tmp_path):
    model, data = load_model("mlp.natural_digits"), load_dataset("digits").sample(20, 0)
    found = loss_landscape(model, data.images[0], data.labels[0], epsilon=0.1, steps=3, restarts=2)
    text = landscapes({"a": found, "b": found}, tmp_path / "l.svg", title="losses").read_text()
    for part in (
        "losses",
        "a",
        "b",
        "final loss",
        "angle between final perturbations, degrees",
        f"spread {found.spread:.2g}, apart {found.distances[0, 1]:.2g} ({found.random_distance:.2g} at random)",
    ):
        assert f"<!-- {part} -->" in text
    models = {"one": model, "two": load_model("mlp.pgd_digits")}
    matrices = transfer_matrices(FGSM(epsilon=0.1), models, data.images, data.labels)
    text = transfer(matrices, tmp_path / "t.svg").read_text()
    assert text.count(f"<!-- {matrices.error_rate[0, 1]:.2f} -->") >= 1
    # A column in each of two panels, and a row with the images that its rates are of.
    assert text.count("<!-- two -->") == 2
    for count in (matrices.kept[1], 20):
        assert f"<!-- two ({count}) -->" in text
    curve = roll_off(FGSM, model, data.images, data.labels, (0.1, 0.3))
    text = roll_offs({"mine": curve}, tmp_path / "r.svg", magnitude="pixels").read_text()
    assert f"<!-- mine, area {curve.area:.3f} -->" in text
    for draw in (landscapes, lambda found, path: roll_offs(found, path, magnitude="x")):
        with pytest.raises(ValueError, match=r"must be (the images of )?at least one"):
            draw({}, tmp_path / "none.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.svg", "r.svg", "t.svg"]


@pytest.mark.slow
def test_more_metrics_are_drawn(tmp_path):
    model, data = load_model("mlp.natural_digits"), load_dataset("digits").sample(20, 0)
    ranks = top_k(FGSM, model, data.images, data.labels, epsilons=(0.1,), k=(1, 3))
    text = plots.top_k({"mine": ranks}, tmp_path / "k.svg").read_text()
    assert text.count("<!-- mine, top 1 -->") == text.count("<!-- mine, top 3 -->") == 1
    assert "<!-- ratio to clean accuracy -->" in text
    test = rubbish_test(model, (0.1, 0.5), n=3)
    text = plots.fooling({"mine": test}, tmp_path / "f.svg", title="noise").read_text()
    for part in ("noise", "mine", "success rate", "margin"):
        assert text.count(f"<!-- {part} -->") == 1
    images = fooling_images(model, steps=1)
    text = plots.fooling_images({"mine": images}, tmp_path / "i.svg").read_text()
    assert text.count("<image") == 10
    assert f"<!-- 3: {images.confidence[3]:.2f} -->" in text
    curve = RobustnessCurve(("a", "b"), (1.0, 2.0), (0.9, 0.8))
    text = plots.robustness_curves({"PGN": curve}, tmp_path / "c.svg", distance="L2").read_text()
    assert "<!-- PGN -->" in text
    half = Accuracy.count(1, 2)
    scales = {1: ({"clean": half, "FGSM": half}, 0.5), 2: ({"clean": half, "FGSM": half}, 0.1)}
    kinds = {"natural": scales, "pgd": scales}
    text = plots.capacity(kinds, tmp_path / "s.svg", title="width").read_text()
    assert text.count("<!-- FGSM -->") == 1  # in the legend that the panels share
    for part in ("width", "natural training", "pgd training", "loss against own attack"):
        assert text.count(f"<!-- {part} -->") == 1
    rows = [
        {"epoch": 1, "loss": 2.0, "val_loss": 2.5, "accuracy": 0.1, "val_certified_accuracy": 0.2},
        {"epoch": 2, "loss": 1.0, "val_loss": 1.5, "accuracy": 0.5, "val_certified_accuracy": 0.3},
    ]
    text = plots.training({"ours": rows, "theirs": rows[:1]}, tmp_path / "t.svg").read_text()
    for part in ("loss", "accuracy", "certified accuracy", "ours", "theirs", "epoch"):
        assert text.count(f"<!-- {part} -->") == 1
    assert text.count("<!-- epoch (dashed: validation) -->") == 2
    assert "robust accuracy" not in text
    for draw in (
        plots.training,
        plots.top_k,
        plots.fooling,
        plots.fooling_images,
        plots.capacity,
        lambda found, path: plots.robustness_curves(found, path, distance="L2"),
    ):
        with pytest.raises(ValueError, match=r"must be (the images of )?at least one"):
            draw({}, tmp_path / "none.svg")


def test_examples(tmp_path):
    model = load_model("mlp.pgd_digits")
    data = load_dataset("digits", "test")
    x, y = data.images[:3], data.labels[:3]
    x_adv = FGSM(epsilon=0.3).run(model, x, y, progress=False).x_adv
    place = plots.examples(model, x, x_adv, tmp_path / "examples.png", y=y, title="digits")
    with Image.open(place) as picture:
        assert picture.width > 500
    svg = plots.examples(
        model, x, x_adv, tmp_path / "examples.svg", y=y, class_names=list("abcdefghij")
    )
    assert svg.read_text().startswith("<?xml")
    for arguments, message in (
        ((x, x_adv[:2]), "x and x_adv must have the same shape"),
        ((np.repeat(x, 7, axis=0), np.repeat(x_adv, 7, axis=0)), "of 1 to 20 images"),
    ):
        with pytest.raises(ValueError, match=message):
            plots.examples(model, *arguments, tmp_path / "no.png")
    with pytest.raises(ValueError, match="class_names must be 10"):
        plots.examples(model, x, x_adv, tmp_path / "no.png", class_names=["one"])
    with pytest.raises(ValueError, match="must end in one of"):
        plots.examples(model, x, x_adv, tmp_path / "no.bmp")
    assert not (tmp_path / "no.png").exists()
