"""A SentencePiece model (Llama-2's tokenizer.model) taken as it is: the corpus is encoded by sentencepiece itself.

For every other reader the folder also gets a tokenizer.json that gives the same ids: transformers' own conversion does
not where a text has leading or double spaces. What makes it the same: one normaliser puts the mark of a space in front
of any text, and each pair of pieces that joins to a piece is a merge, ranked by that piece's score.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL = "tokenizer.model"
SPACE = "\u2581"
PROBES = (
    "BP 120/80, HR 88. Denies chest pain;  no fever.\nAnswer: A",
    "caf\u00e9 \u00b5g \u60a3\u8005 \U0001f600 <s> </s> <unk> <pad> [INST] <0x41> \u2581 \u2581\u2581x",
    "  leading,   double and trailing  ",
    " ",
    "---------- ======= ....... ______ ))))) 0000000 aaaaaaa hahahaha\n\n\n\t\t\r\n",
    "\x00\x01\x1b\x7f\u00a0\u200b\u3000\ufeff\ufb01 e\u0301",
)
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED = range(1, 6)
"""kinds of pieces in the model file"""


def open_model(path: Path) -> Any:
    """A sentencepiece processor. Raises InputError for a file that sentencepiece cannot read."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise InputError(f"{path}: needs sentencepiece and protobuf; pip install 'lang1[train]'") from None
    try:
        return SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError, ValueError):
        raise InputError(f"{path}: not a tokenizer that sentencepiece can read") from None


def write_model(path: Path, folder: Path) -> dict[str, str]:
    """Write tokenizer.model as it is and a tokenizer.json of the same ids; returns the names of its special tokens.

    Raises InputError where no tokenizer.json gives the same ids.
    """
    own = open_model(path)
    backend = _convert(path)
    backend.encode_special_tokens = True
    probes = [*PROBES, *(f"a {own.id_to_piece(i)} b" for i in range(len(own)) if own.is_control(i))]
    different = [p for p in probes if backend.encode(p, add_special_tokens=False).ids != own.encode(p)]
    if different:
        raise InputError(
            f"{path}: no tokenizer.json gives the ids of this SentencePiece model (symbols of its own?); "
            "give a tokenizer.json that you made of it"
        )
    runs.write_text(folder / "tokenizer.json", backend.to_str() + "\n")
    with runs.atomic_write(folder / MODEL) as sink:
        sink.write(path.read_bytes())
    named = {"bos": own.bos_id(), "eos": own.eos_id(), "unk": own.unk_id(), "pad": own.pad_id()}
    return {f"{name}_token": own.id_to_piece(i) for name, i in named.items() if i >= 0}


def _convert(path: Path) -> Tokenizer:
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

    proto: Any = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    spec, trainer = proto.normalizer_spec, proto.trainer_spec
    unknown = next((p.piece for p in proto.pieces if p.type == _UNKNOWN), None)
    if trainer.model_type != trainer.BPE:
        raise InputError(f"{path}: not of type bpe, as Llama's models are; give its tokenizer.json instead")
    model = models.BPE(
        vocab={p.piece: i for i, p in enumerate(proto.pieces)},
        merges=_merges(proto.pieces),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=trainer.byte_fallback,
    )
    steps: list[Any] = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex("^ | $"), "")]
    steps += [normalizers.Prepend(SPACE)] if spec.add_dummy_prefix else []
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    special = [p.piece for p in proto.pieces if p.type in {_UNKNOWN, _CONTROL}]
    backend.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in special])
    return backend


def _merges(pieces: Any) -> list[tuple[str, str]]:
    """Every pair of pieces that joins to a piece, best score first: sentencepiece joins any such pair it finds."""
    scores = {p.piece: (-p.score, i) for i, p in enumerate(pieces) if p.type in {_NORMAL, _USER, _UNUSED}}
    pairs = [
        (score, -cut, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for _, _, left, right in sorted(pairs)]
