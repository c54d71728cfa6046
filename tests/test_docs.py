import importlib
import importlib.util
import os
import pathlib
import re
import sys

import keras
import pytest

from robust_zoo.evaluation import checks
from robust_zoo.zoo import list_models, load_record

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


def test_every_check_is_explained():
    page = (DOCS / "explanation.md").read_text()
    explained = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    found = {
        check.name for entry in list_models(role="all") for check in load_record(entry.name).checks
    }
    ours = {*checks._ORDER, checks.certificates_hold(0, 1).name}
    assert found | ours == explained


def test_links_lead_somewhere():
    for page in [
        *DOCS.glob("*.md"),
        DOCS.parent / "README.md",
        DOCS.parent / "benchmark/README.md",
    ]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def _needed(text):
    """Libraries that a tutorial imports and nobody has to have."""
    return [
        name for name in ("torch", "pandas") if re.search(rf"^import {name}\b", text, re.MULTILINE)
    ]


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize(
    "page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda page: page.stem
)
def test_tutorials_run_as_typed(page, tmp_path, monkeypatch, few_planted):
    text = page.read_text()
    for name in _needed(text):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.long
def test_commands_of_tutorials(command, tmp_path, monkeypatch, few_planted):
    """Those that need nothing from elsewhere."""
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "tutorials" / "many_machines.md").read_text()
    for line in re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1].strip().splitlines():
        name, *arguments = line.split()
        assert name == "robust-zoo"
        if arguments[0] == "plan":
            arguments += ["--n", "40"]
        status, _, err = command(*arguments)
        assert status == 0, err
    assert (tmp_path / "record.json").is_file()


def test_every_public_name_is_in_the_reference():
    """Packages that are lazy, which documentation tools do not look into, name by name."""
    text = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    told = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    whole = {
        "attacks",
        "testing",
        "defenses",
        "recipe",
        "evaluation",
        "datasets",
        "porting",
        "exporting",
    }
    assert {f"robust_zoo.{name}" for name in whole} <= told
    for package in ("zoo", "architectures", "certification", "site"):
        module = importlib.import_module(f"robust_zoo.{package}")
        for name in module.__all__:
            found = getattr(module, name)
            if hasattr(found, "__module__"):
                assert f"{found.__module__}.{name}" in told, name


@pytest.mark.long
@pytest.mark.home
@pytest.mark.parametrize("name", ["load_and_measure", "harden_your_model"])
def test_notebooks_are_the_tutorials_and_run(name, tmp_path, monkeypatch):
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook, page = DOCS / "notebooks" / f"{name}.ipynb", DOCS / "tutorials" / f"{name}.md"
    kept, made = (jupytext.read(path) for path in (notebook, page))
    assert [cell.source for cell in kept.cells] == [cell.source for cell in made.cells], (
        f"jupytext --to ipynb {page} -o {notebook}"
    )
    monkeypatch.setenv("PATH", str(pathlib.Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent), prepend=os.pathsep)
    # Any kernel that is named "python3" would be another environment's: ipykernel's own is this one's.
    client = nbclient.NotebookClient(
        kept, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert any(cell.get("outputs") for cell in kept.cells)
