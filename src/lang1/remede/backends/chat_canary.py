"""The canary of a chat API (canary.py says why): what it takes, what it tells, whether it reads all."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

from lang1.errors import InputError
from lang1.remede.backends.answers import model_of, named_option, next_token_entries, prompt_tokens_of, samples_of
from lang1.remede.backends.chat import PLAIN, ChatDialect, RemedeChat, texts_of
from lang1.remede.backends.probes import Seen, easy_lines, named_fault, refused_probe
from lang1.remede.backends.transport import Malformed, Refusal, ask
from lang1.tasks.prompts import LETTERS


@dataclass(frozen=True)
class TriedChat:
    """What the canary found of a chat."""

    dialect: ChatDialect
    facts: dict[str, Any]


def try_chat(model: RemedeChat, long_text: str, long_tokens: int) -> TriedChat:
    """Try a chat server; `long_text` is as long as the longest question will be, of `long_tokens` tokens at least.

    Raises InputError with the name of the fault, Unfinished for a server that does not answer.
    """
    probe = _ChatProbe(model)
    try:
        return _try(probe, long_text, long_tokens)
    except Refusal as refusal:
        raise probe.fault(*refused_probe(refusal)) from None


def _try(probe: _ChatProbe, long_text: str, long_tokens: int) -> TriedChat:
    model = probe.model
    dialect = probe.negotiate()
    wish = model.line.api.chat_scores
    tells = wish != "samples" and probe.tells_logprobs(dialect)
    if wish == "top_logprobs" and not tells:
        raise probe.fault(
            "no log-probabilities",
            "no letter stands among the likeliest tokens of an answer; set chat_scores=samples",
        )
    right, readable = probe.known_answers(dialect)
    if tells:
        dialect = replace(dialect, way="top_logprobs")
    elif not readable:
        raise probe.fault(
            "names no option",
            "no answer to an easy question is a letter; raise evaluate.api.max_answer_tokens for a model that thinks "
            "first, or give evaluate.api.instruction",
        )
    facts = {
        "read": dialect.way,
        "model": probe.named,
        "answers_a_request": model.line.api.samples if dialect.many else 1,
        "limit_field": dialect.limit_field,
        "drawn_with": dict(dialect.plain),
        "longest_question_tried": probe.cut(dialect, long_text, long_tokens),
        "known_answers_right": right,
        "known_answers_readable": readable,
        "known_answers_asked": len(easy_lines()),
    }
    return TriedChat(replace(dialect, model=probe.named), facts)


class _ChatProbe:
    """The chat server under trial."""

    def __init__(self, model: RemedeChat) -> None:
        self.model = model
        self.line = model.line
        self.named: str | None = None
        """the model that answers, as it says itself"""

    def fault(self, name: str, why: str) -> InputError:
        return named_fault(self.line.server, name, why)

    def ask(self, dialect: ChatDialect, text: str, *, greedy: bool = True, n: int = 1) -> dict[str, Any]:
        """The whole answer to one question. Raises Refusal."""
        payload = self.model.payload(dialect, text, greedy=greedy, n=n, seed=1)
        body: dict[str, Any] = ask(self.line, payload, lambda answer: answer)
        self.named = model_of(body)
        return body

    def negotiate(self) -> ChatDialect:
        """The fields that the server takes, the best first, and whether `n` gives as many answers."""
        text, wanted = easy_lines()[0].text, self.line.api.samples
        limits: tuple[Literal["max_tokens", "max_completion_tokens"], ...] = ("max_tokens", "max_completion_tokens")
        for limit, n, plain in itertools.product(limits, dict.fromkeys((wanted, 1)), PLAIN):
            dialect = ChatDialect("samples", limit, many=n == wanted, plain=plain)
            try:
                body = self.ask(dialect, text, greedy=False, n=n)
            except Refusal:
                continue
            choices = body.get("choices")
            count = len(choices) if isinstance(choices, list) else 0
            try:
                texts_of(body, count)
            except Malformed as error:
                raise self.fault("answers in another shape", f"/chat/completions answers {error}") from None
            if count == 0:
                raise self.fault("answers nothing", "a question gets no choices")
            return replace(dialect, many=count == wanted)
        raise self.fault("refuses questions", "a chat of one short message is not taken (HTTP 400)")

    def tells_logprobs(self, dialect: ChatDialect) -> bool:
        """Whether answers tell their likeliest first tokens, with letters among them."""
        asking, seen = replace(dialect, way="top_logprobs"), []
        for line in easy_lines():
            try:
                body = self.ask(asking, line.text)
                seen.append(Seen(next_token_entries(samples_of(body, 1)[0]), prompt_tokens_of(body)))
            except (Refusal, Malformed):
                return False
        if all(seen[0].distance(other) == 0 for other in seen[1:]):
            raise self.fault("constant", "different questions get the same answer")
        told = {entry.text.strip() for answer in seen for entry in answer.entries if entry.text is not None}
        return all(len(answer.entries) > 1 for answer in seen) and bool(told & {"A", "B"})

    def known_answers(self, dialect: ChatDialect) -> tuple[int, int]:
        """Easy questions that are answered rightly, and those whose answer can be read at all."""
        right, readable = 0, 0
        for line in easy_lines():
            try:
                (answer,) = texts_of(self.ask(dialect, line.text), 1)
            except Refusal as refusal:
                raise self.fault(
                    "refuses temperature 0",
                    f"a question that is taken at temperature 1 is not taken at 0 (HTTP {refusal.status})",
                ) from None
            except Malformed as error:
                raise self.fault("answers in another shape", f"/chat/completions answers {error}") from None
            named = named_option(answer, line.options, LETTERS[: len(line.options)])
            readable += named is not None
            right += named is not None and LETTERS[named] == line.answer
        return right, readable

    def cut(self, dialect: ChatDialect, long_text: str, long_tokens: int) -> str:
        """That a question as long as any is read whole, where the server counts."""
        try:
            counted = prompt_tokens_of(self.ask(dialect, long_text))
        except Refusal as refusal:
            raise self.fault(
                "refuses long prompts",
                f"one of about {long_tokens} tokens, as long as the longest row's, is not taken (HTTP "
                f"{refusal.status}); lower evaluate.max_note_tokens",
            ) from None
        if counted is None:
            return "not counted"
        if counted < long_tokens:
            raise self.fault("cuts the prompt", f"a question of {long_tokens} tokens or more was read as {counted}")
        return f"{counted} tokens"
