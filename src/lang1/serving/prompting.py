"""Texts and conversations as token ids. What a request writes is never read as a special token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lang1.serving.protocol import Message, Refused

_PLACE = "\ue000{}\ue000"
"""stands for a message while the template is rendered: a private-use character, in no vocabulary's special tokens"""


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens, BOS first where the tokenizer's own rule puts one. Raises Refused for what is no Unicode."""
    _check_text(text)
    found = tokenizer(text, split_special_tokens=True, return_attention_mask=False, verbose=False)
    return [int(token) for token in found["input_ids"]]


def chat_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """A conversation by the model's own template; without one, its texts, one after another, as one prompt.

    The template's parts may hold special tokens, the messages never do.
    """
    if not tokenizer.chat_template:
        return text_ids(tokenizer, "\n".join(message.content for message in messages))
    for message in messages:
        _check_text(message.content)
    places = [_PLACE.format(number) for number in range(len(messages))]
    turns = [{"role": message.role, "content": place} for message, place in zip(messages, places, strict=True)]
    try:
        rest = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of the model's makers, and may raise anything
        raise Refused(400, "messages", f"the model's chat template refuses them ({type(error).__name__})") from None
    ids: list[int] = []
    for message, place in zip(messages, places, strict=True):
        before, found, rest = rest.partition(place)
        if not found:
            raise Refused(400, "messages", f"the model's chat template has no place for a {message.role} message")
        ids += _template_ids(tokenizer, before)
        ids += tokenizer(message.content, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
    return [*ids, *_template_ids(tokenizer, rest)]


def _check_text(text: str) -> None:
    """JSON can spell half a character, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(400, None, "a text is not Unicode: it holds half of a surrogate pair") from None


def _template_ids(tokenizer: Any, text: str) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=False, verbose=False).input_ids] if text else []
