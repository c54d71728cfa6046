import ast
import pathlib
import re
import shutil

import pytest
import yaml

from robust_zoo.describe import describe_attack
from robust_zoo.places import recipe_files
from robust_zoo.record import BaseModelInfo, Reported, RobustnessRecord
from robust_zoo.report.card import costs_table, model_card, readme_table, write_card, zoo_table
from robust_zoo.report.citations import bibtex
from robust_zoo.zoo import CheckpointError, list_models, load_record
from robust_zoo.zoo.cards import write_cards


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
    assert data["datasets"] == ["ylecun/mnist"]
    assert set(data["tags"]) == {"robust_zoo", "adversarial-robustness", "linf"}
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] == record.clean.accuracy
    attacks, worst = metrics[1 : 1 + len(record.attacks)], metrics[1 + len(record.attacks)]
    distances = metrics[2 + len(record.attacks) :]
    assert worst["value"] == record.worst_case.accuracy
    assert worst["args"]["n_examples"] == record.worst_case.n_examples
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
    assert record.weights.sha256 in card
    for dataset_word in ("within linf distance 0.3", "Not for decisions that matter"):
        assert dataset_word in card
    assert f"at commit {record.training.commit} of robust_zoo" in card
    assert "![accuracy against epsilon](accuracy.png)" in card


def test_the_paper_s_number_stands_beside_ours(record):
    more = Reported(source="Somebody 2020", setting="SquareAttack-5000", accuracy=0.5)
    twice = Reported(source="Somebody 2020", setting="clean", accuracy=0.97)
    card = model_card(record.model_copy(update={"reported": (*record.reported, more, twice)}))
    rows = {line.split(" | ")[0].strip("| "): line for line in card.splitlines()}
    assert {reported.setting for reported in record.reported[1:]} <= set(rows)
    for reported in record.reported[1:]:
        assert rows[reported.setting].endswith(f"| {100 * reported.accuracy:.2f}% |")
    assert rows["clean"].endswith("| 98.80%, 97.00% |")
    assert rows["**worst case of all attacks, per example**"].endswith("|  |")
    assert rows["SquareAttack-5000 (not measured here)"].endswith("|  |  |  |  | 50.00% |")
    assert (
        "those of AutoAttack on Madry et al.'s weights; Madry et al. 2017, Table 1; Somebody 2020."
        in card
    )
    alone = model_card(record.model_copy(update={"reported": ()}))
    assert "reported" not in alone


def test_how_to_load_and_reproduce(record):
    here = model_card(record, recipe=True)
    assert 'rz.load_model("madry_cnn.pgd_mnist")  # or this directory' in here
    assert "`keras.saving.load_model(directory)`" in here
    assert "`robust-zoo train madry_cnn.pgd_mnist` trains and measures it; recipe.json has" in here
    hub = model_card(record, handle="hf://me/robust")
    assert 'rz.load_model("hf://me/robust")\n' in hub
    assert '`keras.saving.load_model("hf://me/robust")`' in hub
    assert "`robust-zoo train madry_cnn.pgd_mnist` trains and measures it. These" in hub
    training = record.training.model_copy(update={"recipe": "mine.py"})
    card = model_card(record.model_copy(update={"training": training}))
    assert "`robust-zoo train mine.py` trains" in card
    assert 'rz.load_model("file:///hub/x")\n' in model_card(record, handle="file:///hub/x")


@pytest.mark.parametrize(
    ("handle", "name"),
    [
        ("", "mlp.pgd_digits"),
        ("file:///hub/x", "mlp.pgd_digits"),
        ("hf://me/robust@" + "a" * 40, "me/robust"),
    ],
)
def test_lineage(record, handle, name):
    base = BaseModelInfo(name="mlp.pgd_digits", weights_sha256="b" * 64, handle=handle)
    card = model_card(record.model_copy(update={"base_model": base}))
    front = front_matter(card)
    if handle.startswith("hf"):
        assert (front["base_model"], front["base_model_relation"]) == (name, "finetune")
        assert "finetuned_from" not in front
    else:
        # The hub takes nothing but its own repositories for a base model.
        assert "base_model" not in front
        assert front["finetuned_from"] == name
    assert "b" * 64 in card
    assert handle in card
    assert "base_model" not in front_matter(model_card(record))
    unnamed = record.model_copy(update={"base_model": base.model_copy(update={"name": "no: name"})})
    if not handle.startswith("hf"):
        assert "base_model" not in front_matter(model_card(unnamed))
        assert "no: name" in model_card(unnamed)


def test_a_failed_check_stands_out(record):
    failed = record.checks[0].model_copy(update={"passed": False})
    broken = record.model_copy(update={"checks": (failed,)})
    assert f"| {failed.name} | **failed** |" in model_card(broken)
    assert f"**Flagged**: {failed.name} failed" in model_card(broken)
    passed = record.model_copy(update={"checks": record.checks[:1]})
    assert "Flagged" not in model_card(passed)
    assert f"failed: {failed.name}" in zoo_table([broken])


def test_cards_of_models_without_defense_or_attacks(record):
    plain = record.model_copy(
        update={
            "defense": None,
            "threat_model": None,
            "attacks": (),
            "worst_case": None,
            "minimum_norm": (),
            "curve": None,
        }
    )
    assert "accuracy.png" not in model_card(plain)
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


def test_a_card_says_how_to_cite_the_paper_and_the_library(record):
    page = model_card(record)
    entry = page.partition("```bibtex\n")[2].partition("```")[0]
    assert re.findall(r"eprint = \{(.*)\}", entry) == ["1706.06083"]
    assert "Madry, Aleksander and Makelov" in entry
    assert entry.count("@software{robust_zoo,") == 1
    assert "eprint" not in model_card(record.model_copy(update={"defense": None}))


def test_every_paper_of_a_recipe_can_be_cited():
    for path in recipe_files():
        for paper in re.findall(r'paper"?[=:] ?"(arXiv:.*)"', path.read_text()):
            assert bibtex(paper), f"{path.name}: {paper} is not in papers.bib"


def test_shipped_cards_are_not_stale(tmp_path):
    checkout = pathlib.Path(__file__).resolve().parents[2]
    names = ["MODEL_CARDS.md"]
    for record in list_models(role="all"):
        folder = tmp_path / "checkpoints" / record.name
        folder.mkdir(parents=True)
        for name in ("robustness.json", "recipe.json", "accuracy.png"):
            shutil.copy(checkout / "checkpoints" / record.name / name, folder / name)
        names += [f"checkpoints/{record.name}/{name}" for name in ("README.md", "accuracy.png")]
    for folder in ("docs", "training"):
        (tmp_path / folder).mkdir()
    for name in ("README.md", "training/README.md", "docs/accuracy.png"):
        shutil.copy(checkout / name, tmp_path / name)
        names.append(name)
    assert len(write_cards(tmp_path / "checkpoints")) == len(list_models(role="all"))
    readme = (tmp_path / "README.md").read_text()
    for record in list_models():
        star = "\\*" if record.failed_checks else ""
        assert f"| [{record.name}](checkpoints/{record.name}/README.md){star} |" in readme
    for name in names:
        fresh, shipped = (tmp_path / name).read_bytes(), (checkout / name).read_bytes()
        assert fresh == shipped, f"{name} is stale: run robust-zoo cards"


def test_a_readme_without_a_place_for_the_table_is_left_alone(record, tmp_path):
    folder = tmp_path / "checkpoints" / record.name
    folder.mkdir(parents=True)
    (folder / "robustness.json").write_text(record.to_json())
    (tmp_path / "README.md").write_text("mine")
    write_cards(tmp_path / "checkpoints")
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "docs").exists()


def test_the_table_of_the_readme(record):
    (row,) = readme_table([record]).splitlines()[2:]
    assert "| linf, epsilon 0.3 | 99.09% | 90.60% (88.63 to 92.26) | 88.50%, AutoAttack" in row
    changes = {"attacks": record.attacks[:1], "reported": (), "checks": record.checks[:1]}
    bare = record.model_copy(update=changes)
    assert readme_table([bare]).splitlines()[2].endswith("| 99.09% |  |  |")
    reported = (Reported(source="S", setting="clean", accuracy=0.98),)
    failed = record.checks[0].model_copy(update={"passed": False})
    other = bare.model_copy(update={"reported": reported, "checks": (failed,)})
    (row,) = readme_table([other]).splitlines()[2:]
    assert row.endswith("| 98.00%, clean (S) |")
    assert "/README.md)\\* |" in row
    assert "\\*" not in readme_table([bare]).splitlines()[2]


def test_the_table_of_costs(record):
    bare = record.model_copy(update={"training": None})
    (row,) = costs_table([record, bare]).splitlines()[2:]
    seconds = sum(part.seconds for part in (*record.attacks, *record.minimum_norm))
    assert row.startswith(f"| `madry_cnn.pgd_mnist` | 24 min | {seconds / 60:.0f} min | x86_64 CPU")


def test_a_picture_is_drawn_anew_only_for_another_record(record, tmp_path):
    write_card(tmp_path, record)
    picture = tmp_path / "accuracy.png"
    before = picture.stat().st_mtime_ns
    write_card(tmp_path, record)
    assert picture.stat().st_mtime_ns == before
    write_card(tmp_path, record.model_copy(update={"name": "another"}))
    assert picture.stat().st_mtime_ns != before
    write_card(tmp_path, record.model_copy(update={"curve": None}))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_writing_cards(tmp_path):
    names = []
    for record in (load_record(entry.name) for entry in list_models("*digits")):
        folder = tmp_path / "checkpoints" / record.name
        folder.mkdir(parents=True)
        (folder / "robustness.json").write_text(record.to_json())
        names.append(record.name)
    written = write_cards(tmp_path / "checkpoints")
    assert {path.parent.name for path in written} == set(names)
    table = (tmp_path / "MODEL_CARDS.md").read_text()
    for name in names:
        assert f"[{name}](checkpoints/{name}/README.md)" in table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MODEL_CARDS.md", "checkpoints"]


def test_cards_need_records(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoints with a robustness\.json in"):
        write_cards(pathlib.Path(tmp_path))


def test_cards_only_use_the_record(record):
    assert model_card(RobustnessRecord.from_json(record.to_json())) == model_card(record)


HOSTILE = "</b><script>alert(1)</script> [x](javascript:alert(1)) ![i](http://t/i.png) a|b `c` [/red] $a_{"


def test_text_of_a_record_is_only_ever_text(record, tmp_path):
    """Rendered by a parser of Markdown, what a record says makes no tag, link, picture, cell or code."""
    from markdown_it import MarkdownIt

    training = record.training.model_copy(
        update={"hardware": HOSTILE, "deviations": (HOSTILE, "[x]: javascript:a")}
    )
    check = record.checks[0].model_copy(
        update={"explanation": HOSTILE, "name": HOSTILE, "passed": False}
    )
    told = {
        "name": HOSTILE, "architecture": HOSTILE, "notice": HOSTILE, "training": training, "checks": (check,),
        "dataset": record.dataset.model_copy(update={"name": HOSTILE, "version": HOSTILE}),
        "reported": (Reported(source=HOSTILE, setting=HOSTILE, accuracy=0.5),),
    }  # fmt: skip
    evil = RobustnessRecord.from_json(record.model_copy(update=told).to_json())
    parser = MarkdownIt("commonmark").enable("table")
    card = model_card(evil)
    for text in (card.split("---\n", 2)[2], zoo_table([evil]), readme_table([evil])):
        html = parser.render(text)
        assert "<script" not in html
        assert not re.search(r'(href|src)="(?!accuracy\.png|checkpoints/)', html)
        for table in re.findall("<table>.*?</table>", html, re.DOTALL):
            cells = {len(re.findall("<t[hd]", row)) for row in table.split("<tr>")[1:]}
            assert len(cells) == 1
    assert front_matter(card)["model-index"][0]["name"] == HOSTILE


@pytest.mark.slow
def test_text_of_a_record_is_only_ever_text_in_pictures(record, tmp_path):
    evil = record.model_copy(update={"name": HOSTILE})
    write_card(tmp_path, evil)
    assert (tmp_path / "accuracy.png").is_file()


def test_names_and_recipes_are_no_code(record):
    name = 'x"); import os; os.system("evil'
    training = record.training.model_copy(update={"recipe": "x.py; evil `$(id)`"})
    card = model_card(record.model_copy(update={"name": name, "training": training}))
    code = card.split("```python\n")[1].split("```")[0]
    (_, assignment, _) = ast.parse(code).body
    assert ast.literal_eval(assignment.value.args[0]) == name
    assert "`robust-zoo train 'x.py; evil &#96;$(id)&#96;'`" in card
