"""A real llama.cpp, where scripts/llama-cpp-cpu.sh has set one up: LANG1_LLAMA_CPP is its folder (docs/api-models.md).

Its file is in memory too, with weights of fp32: llama.cpp rounds what it multiplies with quantised ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from api_servers import CONFIG, chat, probabilities, run, scores, write_letter_model
from scipy.stats import chisquare
from small_benchmark import write_tasks

from lang1.remede import Server
from smollm2 import SMOLLM2

ROOT = Path(__file__).parents[2]
CONTEXT = 256
BATCHED = 0.02
"""nats: requests that run at once share a batch, which moves them by 0.005 with weights of fp32"""
LLAMA_CPP = Path(os.environ.get("LANG1_LLAMA_CPP", ROOT / ".llama-cpp-cpu"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (LLAMA_CPP / "xllamacpp").exists(), reason="scripts/llama-cpp-cpu.sh install sets llama.cpp up"
    ),
]


def write_gguf(folder: Path, path: Path) -> Path:
    """A small Llama of a Hugging Face folder as one GGUF file, weights in fp32."""
    from gguf import GGUFWriter
    from transformers import AutoTokenizer, LlamaForCausalLM

    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    shape, state = model.config, {name: value.numpy() for name, value in model.state_dict().items()}
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(shape.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    special = set(tokenizer.all_special_ids)
    writer.add_token_list([tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))])
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokenizer))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    heads = {"q_proj": shape.num_attention_heads, "k_proj": shape.num_key_value_heads}
    for theirs, ours in NAMES.items():
        for layer in range(shape.num_hidden_layers if "{}" in theirs else 1):
            value = state[theirs.format(layer)]
            for projection, count in heads.items():
                if projection in theirs:  # llama.cpp turns neighbours, Hugging Face halves
                    rows, columns = value.shape
                    value = value.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
            writer.add_tensor(ours.format(layer), np.ascontiguousarray(value))
    _finish(writer)
    return path


NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "model.layers.{}.input_layernorm.weight": "blk.{}.attn_norm.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blk.{}.ffn_norm.weight",
    "model.layers.{}.self_attn.q_proj.weight": "blk.{}.attn_q.weight",
    "model.layers.{}.self_attn.k_proj.weight": "blk.{}.attn_k.weight",
    "model.layers.{}.self_attn.v_proj.weight": "blk.{}.attn_v.weight",
    "model.layers.{}.self_attn.o_proj.weight": "blk.{}.attn_output.weight",
    "model.layers.{}.mlp.gate_proj.weight": "blk.{}.ffn_gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "blk.{}.ffn_up.weight",
    "model.layers.{}.mlp.down_proj.weight": "blk.{}.ffn_down.weight",
}


def in_fp32(source: Path, path: Path) -> Path:
    """A GGUF file with the same numbers, no longer quantised."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize

    read = GGUFReader(source)
    writer = GGUFWriter(path, str(read.fields["general.architecture"].contents()))
    left = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")
    for name, field in read.fields.items():
        if not name.startswith(left):
            kind, of = field.types[0], field.types[1:]
            writer.add_key_value(name, field.contents(), kind, of[0] if kind == GGUFValueType.ARRAY else None)
    for tensor in read.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    _finish(writer)
    return path


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module", params=["letters", "smollm2"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GGUF file and what it was made of: a small model that was taught to answer with letters; and SmolLM2."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "smollm2":
        if not SMOLLM2.is_file():
            pytest.skip("tests/smollm2.py says how to get SmolLM2")
        return in_fp32(SMOLLM2, folder / "smollm2.gguf"), SMOLLM2
    model = write_letter_model(folder / "model")
    return write_gguf(model, folder / "letters.gguf"), model


@pytest.fixture(scope="module")
def url(served: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("llama_cpp") / "log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [ROOT / "scripts" / "llama-cpp-cpu.sh", "serve", served[0], str(port), LLAMA_CPP],
            stdout=sink,
            stderr=sink,
            env=os.environ | {"N_CTX": str(CONTEXT), "SLOTS": "3"},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not _is_up(port):
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.2)
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


def few(served: tuple[Path, Path], many: int) -> dict[str, int]:
    """Rows of the test: as many as given, of SmolLM2 six."""
    return {"test": 6 if served[1] == SMOLLM2 else many}


def test_llama_cpp_gives_the_probabilities_in_memory(url: str, served: tuple[Path, Path], tmp_path: Path) -> None:
    """The context that it tells, the file as the tokenizer, a name with slashes; and one by one, what was asked before
    moves no bit."""
    rows, (file, model) = few(served, 200), served
    tasks = write_tasks(tmp_path, ("los",), rows)
    server = Server(url, str(file), "completions", model)
    api = replace(CONFIG.api, context_length=None, timeout_s=300, top_logprobs=3000, concurrency=1)
    cfg = replace(CONFIG, tasks=("los",), api=api)
    manifest = run(tmp_path / "scores", tasks, {"served": server, "memory": model, "again": server}, cfg)
    facts = manifest["facts"]["api"]["served"]
    assert facts["context_length"] == CONTEXT
    assert (facts["canary"]["echo"], facts["canary"]["prompt_cache"]) == ("ignored", "off")
    assert facts["rows_by_method"] == {"completions, top 3000": rows["test"]}
    assert facts["options_missing"] == 0
    first, memory, again = (probabilities(tmp_path / "scores", name, "los") for name in ("served", "memory", "again"))
    assert np.abs(first - memory).max() < 1e-3
    assert (first == again).all()


def test_of_the_likeliest_twenty_the_rest_are_bounds(url: str, served: tuple[Path, Path], tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path, ("los",), few(served, 30))
    server = Server(url, str(served[0]), "completions", served[1])
    found = {}
    for top in (20, 3000):
        cfg = replace(CONFIG, tasks=("los",), api=replace(CONFIG.api, timeout_s=300, top_logprobs=top))
        run(tmp_path / str(top), tasks, {"served": server}, cfg)
        found[top] = scores(tmp_path / str(top), "served", "los")
    bounds, exact = (np.column_stack([t[f"logit_{k}"].to_numpy() for k in range(4)]) for t in found.values())
    missing = np.array(found[20]["options_missing"].to_pylist())
    assert (bounds > exact - BATCHED).all()
    assert ((bounds > exact + BATCHED).sum(axis=1) <= missing).all()


def test_a_drawn_answer_is_drawn_from_all_that_the_model_says(
    url: str, served: tuple[Path, Path], tmp_path: Path
) -> None:
    """llama.cpp's own settings leave out what is unlikely: top_k 40, top_p 0.95, min_p 0.05."""
    if served[1] == SMOLLM2:
        pytest.skip("200 draws a row take minutes")
    tasks = write_tasks(tmp_path, ("los",), {"test": 8})
    api = replace(CONFIG.api, samples=200, max_answer_tokens=1, timeout_s=300, top_logprobs=3000)
    found = {}
    ways: tuple[Literal["top_logprobs", "samples"], ...] = ("top_logprobs", "samples")
    for way in ways:
        cfg = replace(CONFIG, tasks=("los",), api=replace(api, chat_scores=way))
        manifest = run(tmp_path / way, tasks, {"served": chat(url)}, cfg)
        found[way] = probabilities(tmp_path / way, "served", "los")
    canary = manifest["facts"]["api"]["served"]["canary"]
    assert canary["drawn_with"] == {"top_p": 1, "top_k": 0, "min_p": 0, "cache_prompt": False}
    refused = np.array(scores(tmp_path / "samples", "served", "los")["answers_refused"].to_pylist())
    for p, q, n in zip(found["top_logprobs"], found["samples"], 200 - refused, strict=True):
        assert chisquare(q * n, p * n).pvalue > 1e-4
