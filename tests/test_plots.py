import pytest

from robust_zoo.attacks import FGSM, BasicIterative
from robust_zoo.datasets import load_dataset
from robust_zoo.evaluation import evaluate
from robust_zoo.plots import accuracy_against_epsilon, is_picture_of
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
    assert drawn.count("<!-- PGD-20") == 1
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
