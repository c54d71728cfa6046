"""The examples in docstrings run, and give what they say."""

import doctest
import importlib
import pathlib
import pkgutil

import keras
import pytest

import robust_zoo

FINDER = doctest.DocTestFinder(exclude_empty=True)


def examples():
    found = {}
    for module in pkgutil.walk_packages(robust_zoo.__path__, "robust_zoo."):
        if "__main__" in module.name:
            continue
        text = pathlib.Path(importlib.util.find_spec(module.name).origin).read_text()
        if ">>>" in text:
            loaded = importlib.import_module(module.name)
            for test in FINDER.find(loaded, module.name, module=loaded):
                if test.examples:
                    found[test.name] = test
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def names():
    """What examples take for granted."""
    from robust_zoo import architectures, attacks, datasets

    train, test = (datasets.load_dataset("digits", split) for split in ("validation", "test"))
    some = test.sample(12, 0)
    return {
        "architectures": architectures,
        "keras": keras,
        "PGD": attacks.PGD,
        "model": robust_zoo.load_model("mlp.natural_digits"),
        "load_model": robust_zoo.load_model,
        "measure": robust_zoo.measure,
        "merge": robust_zoo.merge,
        "smooth": robust_zoo.smooth,
        "x": some.images,
        "y": some.labels,
        "x_val": train.images,
        "y_val": train.labels,
    }


def test_there_are_examples():
    assert len(EXAMPLES) >= 14


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    softmax = keras.layers.Dense(10, activation="softmax")(flat)
    keras.Model(images, softmax).save("mine.keras")
    test = EXAMPLES[name]
    made = robust_zoo.architectures.mlp((8, 8, 1), hidden=(8,))
    test.globs |= {**names, "classifier": made}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    told = []
    assert runner.run(test, out=told.append).failed == 0, "".join(told)
