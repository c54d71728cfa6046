import pathlib

import pytest
import yaml

from robust_zoo.record import RobustnessRecord
from robust_zoo.zoo import CheckpointError, list_models, load_record
from robust_zoo.zoo.card import describe_attack, model_card, zoo_table
from robust_zoo.zoo.cards import generate_cards, write_cards


@pytest.fixture
def record():
    return load_record("madry_cnn.pgd_mnist")


def front_matter(card):
    _, text, _ = card.split("---\n", 2)
    return yaml.safe_load(text)


def test_front_matter_holds_the_numbers(record):
    data = front_matter(model_card(record))
    assert data["library_name"] == "keras"
    assert data["pipeline_tag"] == "image-classification"
    assert data["license"] == "apache-2.0"
    assert data["datasets"] == ["mnist"]
    assert set(data["tags"]) == {"robust_zoo", "adversarial-robustness", "linf"}
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] == record.clean.accuracy
    attacks, distances = metrics[1 : 1 + len(record.attacks)], metrics[1 + len(record.attacks) :]
    for metric, item in zip(distances, record.minimum_norm, strict=True):
        assert metric["type"] == "mean_adversarial_distance"
        assert metric["value"] == item.clean_correct_only.mean
        assert metric["args"]["norm"] == item.norm
    for metric, outcome in zip(attacks, record.attacks, strict=True):
        assert metric["type"] == "robust_accuracy"
        assert metric["value"] == outcome.accuracy
        assert metric["args"]["n_examples"] == outcome.n_examples
        assert metric["args"]["epsilon"] == 0.3


def test_the_card_shows_every_number_check_and_deviation(record):
    card = model_card(record)
    for part in (record.clean, record.worst_case, *record.attacks):
        low, high = part.ci95
        assert f"{100 * part.accuracy:.2f}% | {100 * low:.2f} to {100 * high:.2f}" in card
    for outcome in record.attacks:
        for component, accuracy in outcome.components.items():
            assert f"{100 * accuracy:.2f}% after {component}" in card
    assert record.minimum_norm
    for item in record.minimum_norm:
        for part in (item.found, item.clean_correct_only):
            values = f"{part.mean:.4g} | {part.median:.4g} | {part.rho:.4g} |"
            assert f"| {part.n_examples} of {item.n_examples} | {values}" in card
        assert f"{item.norm} {item.clean_correct_only.mean:.3g}" in zoo_table([record])
    for check in record.checks:
        assert check.name in card
        assert check.explanation in card
    for deviation in record.training.deviations:
        assert deviation in card
    for reported in record.reported:
        assert f"| {reported.setting} | {100 * reported.accuracy:.2f}% |" in card
    assert record.weights.sha256 in card


def test_a_failed_check_stands_out(record):
    failed = record.checks[0].model_copy(update={"passed": False})
    broken = record.model_copy(update={"checks": (failed,)})
    assert f"| {failed.name} | **failed** |" in model_card(broken)
    assert f"failed: {failed.name}" in zoo_table([broken])


def test_cards_of_models_without_defense_or_attacks(record):
    plain = record.model_copy(
        update={
            "defense": None,
            "threat_model": None,
            "attacks": (),
            "worst_case": None,
            "minimum_norm": (),
        }
    )
    assert "## Closest adversarial examples" not in model_card(plain)
    assert "none (natural training)" in model_card(plain)
    assert "| threat model | none |" in model_card(plain)
    assert plain.name in zoo_table([plain])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"steps": 40}, "PGD-40"),
        ({"steps": 100, "restarts": 20}, "PGD-100 x 20"),
        ({"loss": {"name": "cw_margin", "confidence": 0}}, "PGD, cw_margin 0"),
        ({"labels": "random"}, "PGD, random labels"),
        ({"labels": "predicted"}, "PGD, predicted labels"),
        ({"steps": 100, "loss": {"name": "dlr"}, "targets": 9}, "PGD-100, dlr, 9 targets"),
        ({"scale": 100.0}, "PGD, scale 100"),
    ],
)
def test_short_names_of_attacks(record, config, expected):
    outcome = record.attacks[0].model_copy(update={"name": "PGD", "config": config})
    assert describe_attack(outcome) == expected


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("DeepFool", {"steps": 50, "labels": "predicted", "candidates": 10}, "DeepFool-50"),
        ("DeepFool", {"steps": 5, "labels": "true"}, "DeepFool-5, true labels"),
        ("JSMA", {"gamma": 0.02, "theta": 1.0, "targeted": True}, "JSMA, gamma 0.02"),
        (
            "CarliniWagner",
            {"steps": 100, "abort_early": False},
            "CarliniWagner-100, abort_early False",
        ),
        ("PixelSwap", {"permutation": 3, "norm": "l0"}, "PixelSwap, permutation 3"),
        ("SomebodyElses", {"gamma": 3}, "SomebodyElses"),
    ],
)
def test_names_tell_what_is_not_the_default(record, name, config, expected):
    item = record.minimum_norm[0].model_copy(update={"name": name, "config": config})
    assert describe_attack(item) == expected


def test_shipped_cards_are_not_stale():
    checkout = pathlib.Path(__file__).resolve().parents[2]
    cards = generate_cards(checkout / "checkpoints")
    assert len(cards) == len(list_models()) + 1
    for path, text in cards.items():
        assert path.read_text() == text, f"{path} is stale: run robust-zoo cards"


def test_writing_cards(tmp_path):
    names = []
    for record in list_models("*digits"):
        folder = tmp_path / "checkpoints" / record.name
        folder.mkdir(parents=True)
        (folder / "robustness.json").write_text(record.to_json())
        names.append(record.name)
    written = write_cards(tmp_path / "checkpoints")
    assert [path.parent.name for path in written] == names
    table = (tmp_path / "MODEL_CARDS.md").read_text()
    for name in names:
        assert f"[{name}](checkpoints/{name}/README.md)" in table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MODEL_CARDS.md", "checkpoints"]


def test_cards_need_records(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoints with a robustness\.json in"):
        write_cards(pathlib.Path(tmp_path))


def test_cards_only_use_the_record(record):
    assert model_card(RobustnessRecord.from_json(record.to_json())) == model_card(record)
