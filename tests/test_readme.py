import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import warnings

import pytest

from robust_zoo.zoo import load_record

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
PUBLISH = README.parent / "docs" / "how_to" / "publish.md"


def blocks(language, page=README):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_it_is_short():
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.long
@pytest.mark.parametrize("number", [0, 1], ids=["load", "harden"])
def test_examples_run_as_typed(number, tmp_path, monkeypatch, few_planted):
    monkeypatch.chdir(tmp_path)
    code = blocks("python")[number]
    scope = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*new head")
        exec(compile(code, str(README), "exec"), scope)
    record = scope["record"] if number else scope["model"].robustness
    assert record.worst_case.accuracy > 0.5
    if number:
        assert (tmp_path / "odd_digits" / "robustness.json").is_file()


def test_the_two_commands_stand_first():
    first, second = blocks("sh")[0].strip().splitlines()
    assert first == 'pip install ".[cpu]" && robust-zoo evaluate mlp.pgd_digits --attack pgd'
    assert second == 'pip install -e ".[cpu,test]" && pytest -n auto'


@pytest.mark.long
@pytest.mark.parametrize(
    "hub", ["hub_server.py", "file:///"], ids=["a local server", "a directory"]
)
def test_publishing_works_as_typed(hub, tmp_path):
    """What is published is a copy of a shipped model, by the name that the second example gives its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (script,) = [text for text in blocks("sh", PUBLISH) if hub in text]
    script = script.replace("8765", str(port)).replace("/tmp/zoo", f"{tmp_path}/zoo")
    root = README.parent
    shutil.copytree(root / "checkpoints" / "mlp.pgd_digits", tmp_path / "odd_digits")
    (tmp_path / "tests").symlink_to(root / "tests")
    (tmp_path / "bin").mkdir()
    for name, module in (("robust-zoo", "-m robust_zoo.cli"), ("python", "")):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-ec", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
            "HF_HOME": str(tmp_path / "home"),
        },
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    handle = "hf://me/odd-digits" if hub == "hub_server.py" else f"file://{tmp_path}/zoo/odd-digits"
    assert done.stdout.count(handle) >= 2  # published, listed
    accuracy = load_record("mlp.pgd_digits").worst_case.accuracy
    assert f"accuracy={accuracy} " in done.stdout  # loaded, with its record
