import importlib.util
import pathlib
import shutil
import time

import pytest

from robust_zoo.places import checkpoints_directory

SERVER = pathlib.Path(__file__).parents[1] / "hub_server.py"
TOKEN = "hf_secretsecretsecretsecretsecretsecr"


def _load_server():
    spec = importlib.util.spec_from_file_location("hub_server", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on loopback that the Hugging Face client of this process talks to, with an empty cache."""
    from huggingface_hub import constants

    server = _load_server().HubServer(tokens=(TOKEN,))
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    sleep = time.sleep  # the client waits up to eight seconds before it tries again
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    yield server
    server.close()


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a shipped checkpoint: of another model of the same architecture, if asked for."""

    def copy(name="mlp.pgd_digits"):
        return pathlib.Path(shutil.copytree(checkpoints_directory() / name, tmp_path / name))

    return copy
