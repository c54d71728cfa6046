import ast
import importlib
import pathlib
import statistics
import subprocess
import sys
import tomllib

import pytest

import robust_zoo as rz
from robust_zoo.zoo.index import read_index

PACKAGE = pathlib.Path(rz.__file__).parent
ROOT = pathlib.Path(__file__).parents[1]

# Who may know whom, from the ground up; a module may import from lower layers and itself.
LAYERS = [
    {"sentences", "typing"},
    {"attack_names", "backend", "fingerprint", "layers", "npz", "places"},
    {"contract", "record", "progress", "files"},
    {"architectures", "copies", "datasets", "describe", "inference", "weights"},
    {"classifier"},
    {"attacks", "certification"},
    {"defenses", "evaluation", "exporting", "porting"},
    {"testing"},
    {"report"},
    {"zoo"},
    {"papers", "recipe", "site"},
    {"cli"},
]


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robust_zoo"):
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [name.name for name in node.names]
            yield from (name for name in names if not name.startswith("__"))
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("robust_zoo."):
                    yield name.name.split(".")[1]


def test_imports_only_go_down():
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__" or "checkpoints" in path.parts or "recipes" in path.parts:
            continue
        seen.add(own)
        for other in imports_of(path):
            lower = level[other] < level[own]
            assert lower or other == own, f"{path.name} of {own} imports {other}"
    assert seen == set(level)


def test_the_wheel_and_the_repository_stay_small():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    bundled = {
        source: target for source, target in included.items() if source.startswith("checkpoints/")
    }
    assert all(target == f"robust_zoo/{source}" for source, target in bundled.items())
    assert all((ROOT / source / "robustness.json").is_file() for source in bundled)

    def size(folder):
        return sum(file.stat().st_size for file in folder.rglob("*"))

    assert sum(size(ROOT / source) for source in bundled) < 60e6
    kept = {f"checkpoints/{entry.name}" for entry in read_index() if entry.role != "study"}
    assert set(bundled) == kept
    assert size(ROOT / "checkpoints") < 200e6


@pytest.mark.parametrize("name", rz.__all__)
def test_public_names_exist(name):
    assert getattr(rz, name) is not None
    assert name in dir(rz)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="attribute nonsense"):
        _ = rz.nonsense


@pytest.mark.long
def test_importing_adds_little_to_importing_keras():
    """Less than a tenth of Keras's own processor time, in the median of three, with all that load_model needs."""
    code = (
        "import time; begin = time.process_time(); import keras; start = time.process_time(); import robust_zoo; "
        "robust_zoo.load_model, robust_zoo.evaluate; "
        "print((time.process_time() - start) / (start - begin))"
    )
    ratios = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(3)
    ]
    assert statistics.median(ratios) < 0.1


@pytest.mark.long
def test_loading_a_model_imports_what_loading_needs():
    code = (
        "import sys, robust_zoo; robust_zoo.load_model('mlp.pgd_digits'); "
        "print(*(name for name in sys.modules if name.startswith('robust_zoo.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name.split(".")[1] for name in done.stdout.split()}
    assert not found & {"attacks", "defenses", "evaluation", "report", "datasets", "recipe", "cli"}


def test_every_public_function_and_class_says_what_it_is():
    missing = []
    for module in ("architectures", "attacks", "defenses", "evaluation", "zoo"):
        loaded = importlib.import_module(f"robust_zoo.{module}")
        for name in loaded.__all__:
            if not (getattr(loaded, name).__doc__ or "").strip():
                missing.append(f"{module}.{name}")
    assert missing == []
