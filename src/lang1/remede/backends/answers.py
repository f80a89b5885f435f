"""What servers answer, read strictly: vLLM's and ours (a dict a token), llama.cpp's and chat's (a list of entries)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lang1.remede.backends.transport import Malformed

_BY_ID = re.compile(r"token_id:(\d{1,9})")
_MODEL = re.compile(r"[\w.:/@+-]{1,200}", re.ASCII)
LEAST = -1e6
"""nats: what is told as less than this is no log-probability; vLLM writes -9999 for minus infinity"""
_ANSWER = re.compile(
    r"(?:(?i:(?:the )?(?:correct )?answer(?: is)?\s*:?)\s*)?[(*]*(?P<letter>[A-Z])[)*.:]*(?:\s+(?P<words>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Entry:
    """A token with its log-probability; known by id, by text, or both."""

    token: int | None
    text: str | None
    logprob: float


@dataclass(frozen=True)
class Option:
    """The token of an option, by which an answer's entry is recognised."""

    token: int
    text: str
    """as the tokenizer writes it out"""


def choices_of(body: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The choices of an answer in the order asked: by their indices, which all have or none.

    Raises Malformed for another number of choices, and for indices that are not 0 to `count` - 1.
    """
    choices = samples_of(body, count)
    if all("index" not in choice for choice in choices):
        return choices
    by_index = {choice.get("index"): choice for choice in choices if type(choice.get("index")) is int}
    if by_index.keys() != set(range(count)):
        raise Malformed(f"with choices whose indices are not 0 to {count - 1}")
    return [by_index[index] for index in range(count)]


def samples_of(body: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The choices of an answer to one prompt, whose order says nothing. Raises Malformed for another number of them."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise Malformed("without choices")
    if len(choices) != count:
        raise Malformed(f"with {len(choices)} choices where {count} were asked for")
    return choices


def prompt_tokens_of(body: dict[str, Any]) -> int | None:
    """Tokens of the prompts, as the server counted them; None when it does not say, or says no count."""
    usage = body.get("usage")
    found = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return found if type(found) is int and 0 <= found < 2**31 else None


def model_of(body: dict[str, Any]) -> str | None:
    """The model that a server says has answered, which may be more exact than the name asked for; None for no name."""
    found = body.get("model")
    return found if isinstance(found, str) and _MODEL.fullmatch(found) else None


def of_model(named: str | None, read: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """`read` for the answers of one model: Malformed where another one says that it has answered.

    `named`: the one that answered the canary; None where it said no name. A server may be given another snapshot, or be
    several behind one address, and rows of two models are no score.
    """

    def checked(body: dict[str, Any]) -> Any:
        if named is not None and model_of(body) not in {named, None}:
            raise Malformed("as another model than the one that the canary met")
        return read(body)

    return checked


def is_of_llama_cpp(body: dict[str, Any]) -> bool:
    """Whether llama.cpp has answered: it alone tells a completion's log-probabilities in the chat's form."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    logprobs = first.get("logprobs") if isinstance(first, dict) else None
    return isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list)


def next_token_entries(choice: dict[str, Any]) -> list[Entry]:
    """Every token that the answer tells about at its first place. Raises Malformed when there is none."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        raise Malformed("without log-probabilities")
    content = logprobs.get("content")
    if isinstance(content, list) and content and isinstance(content[0], dict):
        top = content[0].get("top_logprobs")
        listed = [*(top if isinstance(top, list) else []), content[0]]
        entries = [_entry(found) for found in listed if isinstance(found, dict)]
    else:
        top = logprobs.get("top_logprobs")
        first = top[0] if isinstance(top, list) and top else None
        if not isinstance(first, dict):
            raise Malformed("without log-probabilities")
        entries = [_named_entry(name, value) for name, value in first.items()]
    if not entries:
        raise Malformed("without log-probabilities")
    return entries


def echoed_logprobs(choice: dict[str, Any], length: int) -> list[float | None]:
    """Log-probabilities of a prompt of `length` tokens and of the one written after it.

    Raises Malformed when there are others than these.
    """
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list):
        raise Malformed("without the log-probabilities of the prompt (echo)")
    if len(values) != length + 1:
        raise Malformed(f"with log-probabilities of {len(values)} tokens where echo asks for {length + 1}")
    return [None if value is None else _logprob(value) for value in values]


def option_logprobs(entries: Sequence[Entry], options: Sequence[Option]) -> tuple[list[float], int]:
    """Each option's log-probability, and how many are missing.

    A missing option is at most as likely as the least likely token that was told, and as all that was not told; the
    lesser of the two stands for it.
    """
    found = told_of(entries, options)
    told = {(entry.token, entry.text): entry.logprob for entry in entries}.values()
    rest = 1.0 - math.fsum(math.exp(value) for value in told)
    bound = min(min(told), math.log(max(rest, 1e-12)))
    return [bound if value is None else value for value in found], sum(value is None for value in found)


def told_of(entries: Sequence[Entry], options: Sequence[Option]) -> list[float | None]:
    """Each option's log-probability; None where the answer does not tell it."""
    return [_of_option(entries, option) for option in options]


def letter_logprobs(entries: Sequence[Entry], letters: Sequence[str]) -> tuple[list[float], int]:
    """`option_logprobs` of a chat, whose answer begins with the letter or with a space before it: the two are added."""
    told = {entry.text: entry.logprob for entry in entries}
    sums = [
        math.fsum(math.exp(value) for text, value in told.items() if text is not None and text.strip() == letter)
        for letter in letters
    ]
    rest = 1.0 - math.fsum(math.exp(value) for value in told.values())
    bound = min(min(told.values()), math.log(max(rest, 1e-12)))
    return [math.log(value) if value > 0 else bound for value in sums], sum(value == 0 for value in sums)


def named_option(answer: str, options: Sequence[str], letters: Sequence[str]) -> int | None:
    """The option that an answer names, by its letter alone or with its own words; None for anything else.

    `B`, `(B)`, `B.`, `Answer: B` and `B. Yes` name B where B is "Yes" (or begins so: an answer may be cut). `A patient
    ...`, `A or B` and `b` name nothing. What a model thinks aloud, up to `</think>`, is no answer.
    """
    said = answer.rpartition("</think>")[2].strip()
    found = _ANSWER.fullmatch(said)
    if found is None or found["letter"] not in letters:
        return None
    place = list(letters).index(found["letter"])
    words = (found["words"] or "").strip().strip("*.").casefold()
    return place if options[place].casefold().startswith(words) else None


def _of_option(entries: Sequence[Entry], option: Option) -> float | None:
    for entry in entries:
        if entry.token == option.token or (entry.token is None and entry.text == option.text):
            return entry.logprob
    return None


def _named_entry(name: str, value: Any) -> Entry:
    by_id = _BY_ID.fullmatch(name)
    return Entry(int(by_id[1]) if by_id else None, None if by_id else name, _logprob(value))


def _entry(found: dict[str, Any]) -> Entry:
    token, text = found.get("id"), found.get("token")
    return Entry(
        token if isinstance(token, int) else None,
        text if isinstance(text, str) else None,
        _logprob(found.get("logprob")),
    )


def _logprob(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= LEAST:  # NaN is not
        raise Malformed("with a log-probability that is no number")
    if value > 1e-3:
        raise Malformed("with a log-probability above 0")
    return min(float(value), 0.0)
