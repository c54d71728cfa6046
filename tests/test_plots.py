import pytest

from robust_zoo.plots import accuracy_against_epsilon
from robust_zoo.zoo import load_record


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
