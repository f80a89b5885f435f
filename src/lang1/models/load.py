"""Read a model from disk: never the network, never code from the folder, never pickle.

A model is a Hugging Face folder, or one GGUF file, whose weights transformers turns back into fp32 and whose tokenizer
it makes from what the file holds. A quantised file gives the numbers of its quantised weights.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from lang1.errors import InputError, require_package

VOCABULARIES = frozenset(
    {"vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "spiece.model", "sentencepiece.bpe.model"}
)
"""files of a tokenizer folder whose names do not begin with `tokenizer`"""


def load_model(folder: Path, config: Any = None) -> Any:
    """The causal LM of a folder or GGUF file, fp32 on the CPU, in evaluation mode; `config`: in place of its own.

    Raises InputError when it cannot be read, or lacks weights that transformers would draw at random.
    """
    from transformers import AutoModelForCausalLM

    refuse_encoder(folder)
    model, missing = read_weights(AutoModelForCausalLM, folder, "a causal language model", config)
    if missing:
        raise InputError(f"{folder}: weights lack {', '.join(missing[:3])}; give the folder of a whole causal model")
    return model


def read_weights(
    auto: Any, folder: Path, kind: str, config: Any = None, is_fresh: Callable[[str], bool] = lambda name: False
) -> tuple[Any, list[str]]:
    """The model that transformers' class `auto` makes of a folder or GGUF file, fp32 on the CPU, in evaluation mode,
    and the weights that the folder lacks, which transformers has drawn at random.

    Raises InputError when it cannot be read, or has weights of other sizes, but for those that `is_fresh` names.
    """
    import torch

    place, options = _source(folder)
    _refuse_pickle(folder)
    hide_progress_bars()
    wanted = f"a GGUF file of {kind}" if options else "a Hugging Face folder with safetensors"
    with refusing(f"{folder}: not {kind} that transformers reads", f"give {wanted}"), _quietly(folder):
        model, found = auto.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, in one line in place of a table
            **options,
        )
    if any(not is_fresh(name) for name, *_ in found["mismatched_keys"]):
        raise InputError(
            f"{folder}: its weights have other sizes than its config.json says (a checkpoint of another vocabulary or "
            "shape); give weights and config of one model"
        )
    return model.eval(), sorted(found["missing_keys"])


def load_scorer(folder: Path, dtype: Any) -> tuple[Any, Any]:
    """Model and tokenizer of a folder or GGUF file, ready to be asked: on the GPU where there is one, on a CPU with the
    layers that are fastest there for products in `dtype`.

    Raises InputError where they cannot be read or are not of one model.
    """
    from lang1.models.fast import use_fast_attention

    model, tokenizer = load_model(folder), load_tokenizer(folder)
    check_vocabulary(folder, model, tokenizer)
    use_fast_attention(on_device(model), dtype)
    return model, tokenizer


def check_vocabulary(folder: Path, model: Any, tokenizer: Any) -> None:
    """Raise InputError for a tokenizer that has ids without an embedding."""
    entries = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > entries:
        raise InputError(
            f"{folder}: the tokenizer has {len(tokenizer)} entries and the model {entries}; "
            "the two are not of one model"
        )


def on_device(model: Any) -> Any:
    """The model, moved to the first GPU where there is one."""
    import torch

    return model.to("cuda") if torch.cuda.is_available() else model


def load_config(folder: Path) -> Any:
    """The model configuration of a folder or GGUF file. Raises InputError when it cannot be read."""
    from transformers import AutoConfig

    place, options = _source(folder)
    what = "its header" if options else "its config.json"
    with refusing(f"{folder}: {what} cannot be read"):
        return AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False, **options)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder or GGUF file. Raises InputError when it cannot be read."""
    from transformers import AutoTokenizer

    place, options = _source(folder)
    belongs = (
        "the file holds none that transformers reads"
        if options
        else "a tokenizer.json or tokenizer.model belongs there"
    )
    with refusing(f"{folder}: its tokenizer cannot be read", belongs):
        return AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False, **options)


def is_encoder(folder: Path) -> bool:
    """Whether a Hugging Face folder holds an encoder: a masked LM, or a classifier that was made of one."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("architectures") or []
    except (ValueError, AttributeError):
        return False  # load_config says what is wrong with it
    return any(str(name).endswith(("ForMaskedLM", "ForSequenceClassification")) for name in named)


def refuse_encoder(folder: Path) -> None:
    """Raise InputError for an encoder: transformers would read it as a causal LM that lacks nothing."""
    if is_encoder(folder):
        raise InputError(
            f"{folder}: an encoder, not a causal language model; only finetune, sweep and evaluate take it"
        )


def without_dropout(config: Any) -> Any:
    """The configuration with every dropout at 0, those of attention, residuals and embeddings alike."""
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


def is_gguf(path: Path) -> bool:
    """True for one GGUF file in place of a folder."""
    return path.suffix.lower() == ".gguf" and path.is_file()


def hide_progress_bars() -> None:
    """transformers draws a bar for every load and save; a log is no place for them."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@contextlib.contextmanager
def refusing(what: str, wanted: str = "") -> Iterator[None]:
    """Make an InputError of what transformers raises over a user's files: `what (why); wanted`.

    Nearly any error may come of a config.json with a wrong value in it. One of memory is none of the files'.
    """
    try:
        yield
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        ImportError,
        RuntimeError,
        SafetensorError,
        StrictDataclassError,
    ) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error):
            raise
        raise InputError(f"{what} ({_why(error)})" + (f"; {wanted}" if wanted else "")) from None


def _why(error: Exception) -> str:
    """A type's name; where transformers says which package or which value it is, that line of it."""
    lines = str(error).strip().splitlines()
    if isinstance(error, ImportError | StrictDataclassError) and lines:
        return lines[-1 if isinstance(error, StrictDataclassError) else 0].strip().rstrip(".")
    return type(error).__name__


@contextlib.contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """transformers warns in tables of weights that fit badly; what we refuse we say ourselves. Of a GGUF file it draws
    a bar that no setting of its own hides."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()) if is_gguf(path) else contextlib.nullcontext():
            yield
    finally:
        logging.set_verbosity(before)


def _source(path: Path) -> tuple[Path, dict[str, str]]:
    """The folder that transformers reads, and the GGUF file in it. Raises InputError for anything else."""
    if is_gguf(path):
        require_package("gguf", f"{path}: a GGUF file", "gguf")
        return path.parent, {"gguf_file": path.name}
    if not (path / "config.json").is_file() and not (path / "tokenizer_config.json").is_file():
        raise InputError(f"{path}: not a Hugging Face folder (no config.json); give the folder of an exported model")
    return path, {}


def _refuse_pickle(folder: Path) -> None:
    """Weights that only unpickling could read are told apart from weights that are not there."""
    if is_gguf(folder) or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind))
    if pickles:
        raise InputError(
            f"{folder}: its weights are a pickle ({pickles[0]}), which can run code when it is read; "
            "give the model as safetensors"
        )
