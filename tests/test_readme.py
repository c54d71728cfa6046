import pathlib
import re
import warnings

import pytest

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", [0, 1], ids=["load", "harden"])
def test_examples_run_as_typed(number, tmp_path, monkeypatch):
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
    assert second == 'pip install ".[cpu,test]" && pytest'
