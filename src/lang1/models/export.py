"""From weights to a Hugging Face folder: safetensors, config, generation config, tokenizer, model card.

The folder loads in plain transformers, PEFT, vLLM and lm-eval. `save_pretrained` writes into a scratch folder and
its files pass through runs/files.py, since it would leave model.safetensors at mode 0600 whatever the configuration
says.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.errors import InputError
from lang1.models.build import parameter_count
from lang1.models.load import VOCABULARIES, hide_progress_bars, is_encoder, is_gguf, load_config, load_tokenizer
from lang1.models.origin import CARD

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer"
"""folder in a tokens folder, and beside the checkpoints of a pretraining run"""
MODEL = "model."
"""of a checkpoint's tensors: what the names of weights begin with; others are the optimizer's"""
HASHES = "hashes.json"
"""of a checkpoint folder, written last: its files and their SHA-256"""
FACTS = "facts.json"
"""of a checkpoint folder: what the model card says of the run"""


def export_model(model: Any, tokenizer: Path, out: Path, facts: dict[str, Any]) -> Path:
    """Write `model` (any Hugging Face causal LM or encoder) with the tokenizer of a folder; `facts` go into lang1.json
    and the model card."""
    hide_progress_bars()
    with _scratch(out) as scratch:
        model.save_pretrained(scratch)
        if not is_encoder(scratch):
            _write_generation_config(model.config, scratch)
        for file in sorted(scratch.iterdir()):
            with runs.atomic_path(out / file.name) as path:
                shutil.copyfile(file, path)
    copy_tokenizer(tokenizer, out)
    runs.write_json(out / CARD, facts)
    runs.write_text(out / "README.md", model_card(model, facts))
    return out


def export_checkpoint(*, checkpoint: Path, out: Path) -> Path:
    """A resumable checkpoint (`checkpoints/step-XXXXXXXX`) as a Hugging Face folder; optimizer state stays behind.

    Raises InputError when the checkpoint is not whole or `out` holds other files.
    """
    check_hashes(checkpoint)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; choose another --out")
    facts = runs.read_json(checkpoint / FACTS)
    return export_model(read_checkpoint(checkpoint), checkpoint.parent / TOKENIZER, out, facts)


def read_checkpoint(checkpoint: Path) -> Any:
    """The model of a resumable checkpoint in this process, whatever number of ranks wrote it; not checked for damage.

    Raises InputError when its weights are not those of its configuration.
    """
    import torch
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kind = AutoModelForMaskedLM if is_encoder(checkpoint) else AutoModelForCausalLM
    with torch.device("cpu"):
        model = kind.from_config(load_config(checkpoint), dtype=torch.float32)
    # torch says so of every process that is alone, which is no fault here
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    there = {
        name.removeprefix(MODEL): size for name, size in saved_shapes(checkpoint).items() if name.startswith(MODEL)
    }
    _refuse_other_weights({name: p.shape for name, p in model.named_parameters()}, there)
    state = {MODEL + name: parameter.detach() for name, parameter in model.named_parameters()}
    load(state, storage_reader=HuggingFaceStorageReader(str(checkpoint)), no_dist=True)
    return model


def saved_shapes(checkpoint: Path) -> dict[str, Any]:
    """Whole shapes of the tensors in the shards of a checkpoint, by name."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    there = HuggingFaceStorageReader(str(checkpoint)).read_metadata().state_dict_metadata
    return {name: found.size for name, found in there.items() if isinstance(found, TensorStorageMetadata)}


def load_weights(model: Any, weights: dict[str, Any]) -> None:
    """Copy named weights into the parameters of `model` that are trained; names and shapes must agree.

    Raises InputError when they do not.
    """
    import torch

    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _refuse_other_weights({n: p.shape for n, p in parameters.items()}, {n: w.shape for n, w in weights.items()})
    with torch.no_grad():
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)


def _refuse_other_weights(wanted: dict[str, Any], given: dict[str, Any]) -> None:
    wrong = sorted(wanted.keys() ^ given.keys()) or [name for name, shape in given.items() if shape != wanted[name]]
    if wrong:
        raise InputError(
            f"weights do not fit the model's configuration: {', '.join(wrong[:3])}; "
            "the checkpoint belongs to another model"
        )


def is_checkpoint(folder: Path) -> bool:
    """A whole `step-XXXXXXXX` folder of lang1 pretrain."""
    return (folder / HASHES).is_file()


def check_hashes(folder: Path) -> None:
    """Raise InputError unless `folder` is a whole checkpoint: every file there, every hash right."""
    if not is_checkpoint(folder):
        raise InputError(f"{folder}: no whole checkpoint (no {HASHES}); give a step-XXXXXXXX folder of lang1 pretrain")
    for name, sha256 in runs.read_json(folder / HASHES).items():
        if not (folder / name).is_file() or runs.sha256_file(folder / name) != sha256:
            raise InputError(f"{folder / name}: missing or damaged (hash differs); use the checkpoint before it")


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the files of a tokenizer folder, byte by byte; that of a GGUF file is written out."""
    if is_gguf(source):
        with _scratch(out) as scratch:
            load_tokenizer(source).save_pretrained(scratch)
            copy_tokenizer(scratch, out)
        return
    names = [p for p in sorted(source.glob("*")) if p.is_file() and _is_tokenizer_file(p.name)]
    if not names:
        raise InputError(f"{source}: no tokenizer files; give the folder that lang1 tokenize wrote")
    for file in names:
        if file.resolve() != (out / file.name).resolve():
            with runs.atomic_path(out / file.name) as path:
                shutil.copyfile(file, path)


def _is_tokenizer_file(name: str) -> bool:
    begins = name.startswith(("tokenizer", "special_tokens_map", "added_tokens", "chat_template"))
    return begins or name in VOCABULARIES


def check_tokenizer_copies(source: Path) -> None:
    """Raise InputError unless what `copy_tokenizer` takes from `source` is its whole tokenizer: before a training."""
    if is_gguf(source):
        return
    with tempfile.TemporaryDirectory(prefix="lang1-") as folder:
        copy = Path(folder)
        copy_tokenizer(source, copy)
        if (source / "config.json").is_file():  # may alone say whose tokenizer it is
            shutil.copyfile(source / "config.json", copy / "config.json")
        whole = load_tokenizer(source).get_vocab()
        try:
            ours = load_tokenizer(copy).get_vocab()
        except InputError:
            ours = {}
    if whole != ours:
        raise InputError(
            f"{source}: its vocabulary is in a file that lang1 does not know as a tokenizer's ({len(ours):,} of "
            f"{len(whole):,} entries are in those that it knows); save the tokenizer as tokenizer.json"
        )


def model_card(model: Any, facts: dict[str, Any]) -> str:
    """README.md with the front matter that model hubs read; `facts` as a table."""
    config = model.config
    rows = {
        "parameters": f"{parameter_count(model):,}",
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads, key-value heads": (
            f"{config.num_attention_heads}, {getattr(config, 'num_key_value_heads', config.num_attention_heads)}"
        ),
        "vocabulary": f"{config.vocab_size:,}",
        "context length": f"{getattr(config, 'max_position_embeddings', 0):,}",
        **{key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in facts.items()},
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    kind = type(model).__name__
    task = {"ForMaskedLM": "fill-mask", "ForSequenceClassification": "text-classification"}
    tag = next((name for end, name in task.items() if kind.endswith(end)), "text-generation")
    what = "A decoder language model" if tag == "text-generation" else "An encoder language model"
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: {tag}\nlanguage: en\nlicense: other\n"
        "tags:\n- lang1\n- clinical\n---\n\n# LANG1\n\n"
        f"{what} trained on a health system's own notes by `lang1`, after LANG1/ReMedE. Treat the\n"
        "weights as you treat the notes they were trained on: a language model can repeat its training text.\n"
        "Not a medical device; its probabilities were measured on the data of one site only.\n\n"
        f"| fact | value |\n|---|---|\n{table}\n"
    )


def _write_generation_config(config: Any, folder: Path) -> None:
    from transformers import GenerationConfig

    GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.eos_token_id
    ).save_pretrained(folder)


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=".export-", dir=out.parent))
    except OSError as error:
        raise runs.disk_error(out, error) from None
    try:
        yield path
    except OSError as error:
        raise runs.disk_error(out, error) from None
    finally:
        shutil.rmtree(path, ignore_errors=True)
