"""Written tokens as the JSON that OpenAI's clients, vLLM's and lm-eval read."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from lang1.serving.engine import Read, Written


def completion(
    tokenizer: Any,
    model: str,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Written]],
    *,
    echo: bool,
    logprobs: bool,
    as_ids: bool,
) -> dict[str, Any]:
    """The body of `/v1/completions`: choices prompt by prompt, sample by sample."""
    choices: list[dict[str, Any]] = []
    for ids, samples in zip(prompts, answers, strict=True):
        for written in samples:
            shown = [*ids, *written.tokens] if echo else written.tokens
            choices.append(
                {
                    "index": len(choices),
                    "text": _text(tokenizer, shown),
                    "finish_reason": written.finish,
                    "logprobs": _completion_logprobs(tokenizer, written.reads, as_ids) if logprobs else None,
                }
            )
    return _frame("cmpl", "text_completion", model, choices, prompts, answers)


def chat(
    tokenizer: Any, model: str, prompt: Sequence[int], samples: Sequence[Written], *, logprobs: bool
) -> dict[str, Any]:
    """The body of `/v1/chat/completions`."""
    choices = [
        {
            "index": number,
            "message": {"role": "assistant", "content": _text(tokenizer, written.tokens)},
            "finish_reason": written.finish,
            "logprobs": {"content": [_chat_logprobs(tokenizer, read) for read in written.reads]} if logprobs else None,
        }
        for number, written in enumerate(samples)
    ]
    return _frame("chatcmpl", "chat.completion", model, choices, [prompt], [samples])


def _frame(
    prefix: str,
    kind: str,
    model: str,
    choices: list[dict[str, Any]],
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Written]],
) -> dict[str, Any]:
    asked = sum(map(len, prompts))
    written = sum(len(sample.tokens) for samples in answers for sample in samples)
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written},
    }


def _completion_logprobs(tokenizer: Any, reads: Sequence[Read], as_ids: bool) -> dict[str, Any]:
    names = [_name(tokenizer, read.token, as_ids) for read in reads]
    offsets = [0]
    for name in names[:-1]:
        offsets.append(offsets[-1] + len(name))
    return {
        "tokens": names,
        "token_logprobs": [read.logprob for read in reads],
        "top_logprobs": [None if read.top is None else _named(tokenizer, read.top, as_ids) for read in reads],
        "text_offset": offsets[: len(names)],
    }


def _named(tokenizer: Any, top: dict[int, float], as_ids: bool) -> dict[str, float]:
    """By the token's text, where two tokens may read the same: the likelier is then kept."""
    found: dict[str, float] = {}
    for token, logprob in top.items():
        name = _name(tokenizer, token, as_ids)
        found[name] = max(logprob, found.get(name, logprob))
    return found


def _chat_logprobs(tokenizer: Any, read: Read) -> dict[str, Any]:
    def entry(token: int, logprob: float | None) -> dict[str, Any]:
        text = _name(tokenizer, token, False)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    top = [entry(token, logprob) for token, logprob in (read.top or {}).items()]
    return entry(read.token, read.logprob) | {"top_logprobs": top}


def _name(tokenizer: Any, token: int, as_ids: bool) -> str:
    return f"token_id:{token}" if as_ids else str(tokenizer.decode([token]))


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))
