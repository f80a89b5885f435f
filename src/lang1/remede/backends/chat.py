"""A model behind a chat API, as lm-eval's LocalChatCompletion with the log-likelihoods that that class refuses.

Where the server tells the likeliest first tokens of an answer (`top_logprobs`), the options' letters are read there.
Where it does not: answers drawn at temperature 1, whose counts are the probabilities, and one greedy answer with
probabilities 0 and 1 for tasks whose classes are very unequal (Appendix J). An answer that names no option by its
letter is refused and counted; a row of nothing but such answers gets equal probabilities.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lm_eval.models.api_models import JsonChatStr  # type: ignore[import-untyped]
from lm_eval.models.openai_completions import LocalChatCompletion  # type: ignore[import-untyped]

from lang1.errors import InputError
from lang1.remede.backends.answers import (
    letter_logprobs,
    named_option,
    next_token_entries,
    of_model,
    prompt_tokens_of,
    samples_of,
)
from lang1.remede.backends.completions import generated
from lang1.remede.backends.transport import Line, Malformed, Refusal, ask_all
from lang1.tasks.prompts import LETTERS

PLAIN: tuple[dict[str, Any], ...] = (
    {"top_p": 1, "top_k": 0, "min_p": 0, "cache_prompt": False},
    {"top_p": 1},
    {},
)
"""Fields that draw from all that a model says, the most that a server takes: llama.cpp leaves out what is unlikely
otherwise, and vLLM does what generation_config.json says. llama.cpp's cache lets what was asked before move an
answer."""
_OPTION_LINE = re.compile(r"^\(?([A-Z])[.)] (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class ChatDialect:
    """What a server was found to honour."""

    way: Literal["top_logprobs", "samples"]
    limit_field: Literal["max_tokens", "max_completion_tokens"]
    many: bool
    """`n` gives several answers to one request"""
    plain: Mapping[str, Any] = field(default_factory=dict)
    """those of PLAIN that are sent"""
    model: str | None = None
    """the model that answers, as it says itself"""

    def method(self, top: int, samples: int, greedy: bool) -> str:
        """What a score file says of it."""
        if self.way == "top_logprobs":
            return f"chat, top {top}"
        return "chat, greedy" if greedy else f"chat, {samples} samples"


@dataclass(frozen=True)
class ChatRow:
    """A question as text, what may be answered, and how."""

    key: str
    """fixes the draws, with the seed"""
    text: str
    options: Sequence[str]
    greedy: bool = False


@dataclass(frozen=True)
class ChatAnswered:
    """Option probabilities, and what they are made of."""

    p: list[float]
    logprobs: list[float] | None
    """before they were made to sum to 1; None for counts"""
    missing: int | None
    refused: int | None
    prompt_tokens: int | None


class RemedeChat(LocalChatCompletion):
    """See the module. `dialect` is None until the canary has set it; nothing is scored before."""

    def __init__(self, line: Line, seed: int) -> None:
        super().__init__(
            model=line.server.model,
            base_url=line.server.url + line.server.endpoint,
            num_concurrent=line.api.concurrency,
            seed=seed,
        )
        self.line = line
        self.seed = seed
        self.dialect: ChatDialect | None = None

    def messages(self, text: str) -> list[dict[str, str]]:
        """The conversation that asks `text`."""
        system = self.line.api.instruction
        before = [{"role": "system", "content": system}] if system else []
        return [*before, {"role": "user", "content": text}]

    def payload(self, dialect: ChatDialect, text: str, *, greedy: bool, n: int = 1, seed: int = 0) -> dict[str, Any]:
        """A request for answers to one question."""
        api = self.line.api
        asked = self._create_payload(self.messages(text), generate=True, gen_kwargs={}, seed=seed)
        del asked["stop"], asked["max_tokens"]  # ours are short, and not every server takes a list of nothing
        asked["temperature"] = 0 if greedy else 1
        asked[dialect.limit_field] = api.max_answer_tokens
        asked |= dialect.plain
        if dialect.way == "top_logprobs":
            asked |= {"logprobs": True, "top_logprobs": api.top_logprobs, dialect.limit_field: 1}
        elif n > 1:
            asked["n"] = n
        return asked

    def score(self, rows: Sequence[ChatRow], keep: Callable[[int, ChatAnswered], None]) -> None:
        """Ask about every row; `keep` gets a row's place and answer as soon as it is whole. Raises Unfinished."""
        dialect = self._dialect(rows)
        named = dialect.model
        partial: dict[int, list[tuple[list[str], int | None]]] = {}

        def gather(place: int, part: tuple[list[str], int | None]) -> None:
            row, parts = rows[place], partial.setdefault(place, [])
            parts.append(part)
            answers = [answer for said, _ in parts for answer in said]
            if len(answers) == (1 if row.greedy else self.line.api.samples):
                del partial[place]
                keep(place, counted(answers, row.options, part[1]))

        def asked() -> Any:
            for place, row in enumerate(rows):
                if dialect.way == "top_logprobs":
                    yield (
                        self.payload(dialect, row.text, greedy=True),
                        of_model(named, _log_reader(row)),
                        _to(keep, place),
                    )
                    continue
                wanted = 1 if row.greedy else self.line.api.samples
                at_once = wanted if dialect.many else 1
                for draw in range(0, wanted, at_once):
                    seed = draw_seed(self.seed, row.key, draw)
                    payload = self.payload(dialect, row.text, greedy=row.greedy, n=at_once, seed=seed)
                    yield payload, of_model(named, _text_reader(at_once)), _to(gather, place)

        try:
            ask_all(self.line, asked())
        except Refusal as refusal:
            raise InputError(
                f"{self.line.server}: took the canary's questions and refuses a row's (HTTP {refusal.status}"
                + (f", {refusal.field}" if refusal.field else "")
                + "); it may be longer than the model takes: lower evaluate.max_note_tokens"
            ) from None

    def _dialect(self, rows: Sequence[ChatRow]) -> ChatDialect:
        """The canary's; it is sent here where nobody has sent it before (the harness)."""
        if self.dialect is None:
            from lang1.remede.backends.chat_canary import try_chat

            longest = max((row.text for row in rows), key=len)
            self.dialect = try_chat(self, longest, len(longest.split())).dialect
        return self.dialect

    # --- lm-eval's contract ---

    def loglikelihood(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        """Log-probabilities of the letters that a multiple-choice task offers. Raises InputError for other options."""
        contexts: dict[str, list[str]] = {}
        for request in requests:
            context, option = request.args
            contexts.setdefault(str(context), []).append(str(option).strip())
        rows = [ChatRow(text, text, options_in(text, len(set(options)))) for text, options in contexts.items()]
        for row, options in zip(rows, contexts.values(), strict=True):
            if sorted(set(options)) != list(LETTERS[: len(row.options)]):
                raise InputError(f"{self.line.server}: a chat is scored on letters from A on, not on other options")
        answers: dict[str, list[float]] = {}
        self.score(rows, lambda place, answer: answers.update({rows[place].key: answer.p}))
        found = []
        for request in requests:
            context, option = request.args
            p = answers[str(context)]
            value = p[LETTERS.index(str(option).strip())]
            found.append((math.log(value) if value > 0 else -math.inf, value == max(p)))
        return found

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """As that of RemedeCompletions: by our own transport. A context is a text, or the harness's conversation."""

        def payload(context: Any, wanted: dict[str, Any]) -> dict[str, Any]:
            messages = json.loads(context.prompt) if isinstance(context, JsonChatStr) else self.messages(str(context))
            return dict(self._create_payload(messages, generate=True, gen_kwargs=wanted, seed=self.seed))

        return generated(self.line, requests, payload, lambda body: texts_of(body, 1)[0])


def options_in(text: str, count: int) -> list[str]:
    """The words of `count` options as a question's last lines give them (`B. Yes`); empty where no line does."""
    written = {found[1]: found[2] for found in _OPTION_LINE.finditer(text)}
    return [written.get(letter, "") for letter in LETTERS[:count]]


def counted(answers: Sequence[str], options: Sequence[str], prompt_tokens: int | None) -> ChatAnswered:
    """Answers as probabilities: how often each option was named (Appendix J); equal where none was."""
    letters = LETTERS[: len(options)]
    named = [named_option(answer, options, letters) for answer in answers]
    counts = [named.count(place) for place in range(len(options))]
    total = sum(counts)
    p = [count / total for count in counts] if total else [1 / len(options)] * len(options)
    return ChatAnswered(p, None, None, len(answers) - total, prompt_tokens)


def draw_seed(seed: int, key: str, draw: int) -> int:
    """A seed of its own for every row and draw: with one for all, a server would draw the same numbers for each."""
    digest = hashlib.sha256(f"{seed}:{key}:{draw}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _log_reader(row: ChatRow) -> Callable[[dict[str, Any]], ChatAnswered]:
    letters = LETTERS[: len(row.options)]

    def read(body: dict[str, Any]) -> ChatAnswered:
        logprobs, missing = letter_logprobs(next_token_entries(samples_of(body, 1)[0]), letters)
        highest = max(logprobs)
        shares = [math.exp(value - highest) for value in logprobs]
        p = [share / sum(shares) for share in shares]
        return ChatAnswered(p, logprobs, missing, None, prompt_tokens_of(body))

    return read


def texts_of(body: dict[str, Any], count: int) -> list[str]:
    """The answers of a chat. Raises Malformed for another number of them, or another shape."""
    texts = []
    for choice in samples_of(body, count):
        message = choice.get("message")
        if not isinstance(message, dict):
            raise Malformed("in the shape of completions, without messages")
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise Malformed("with a message that is no text")
        texts.append(content or "")
    return texts


def _text_reader(count: int) -> Callable[[dict[str, Any]], tuple[list[str], int | None]]:
    return lambda body: (texts_of(body, count), prompt_tokens_of(body))


def _to(keep: Callable[[int, Any], None], place: int) -> Callable[[Any], None]:
    return lambda answer: keep(place, answer)
