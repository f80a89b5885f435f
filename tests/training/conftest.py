"""Fixtures of the training tests: see training_data.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_data import write_tasks, write_tokenizer, write_tokens

from lang1 import runs


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens", {"clinical": 600})


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks", 240)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny model, exported with its tokenizer."""
    from lang1.models.build import build_model
    from lang1.models.export import export_model

    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder / "tokenizer")
    model = build_model("tiny", 600, seed=1, context_length=256, bos_id=0, eos_id=1)
    return export_model(model, folder / "tokenizer", folder / "export", {})


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny encoder, exported with its tokenizer."""
    from lang1.models.encoder import build_encoder, name_special_tokens, special_ids
    from lang1.models.export import export_model

    root = tmp_path_factory.mktemp("encoder")
    write_tokenizer(root / "plain")
    write_tokenizer(root / "tokenizer")
    name_special_tokens(root / "tokenizer", root / "plain")
    model = build_encoder("encoder-tiny", special_ids(root / "plain"), 1, 64)
    return export_model(model, root / "tokenizer", root / "export", {"init": "random"})


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    runs.set_quiet(True)
