"""The canary of a chat API (canary.py says why): what it takes, what it tells, whether it reads all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lang1.errors import InputError
from lang1.remede.backends.answers import model_of, named_option, next_token_entries, prompt_tokens_of, samples_of
from lang1.remede.backends.chat import PLAIN, ChatDialect, RemedeChat, texts_of
from lang1.remede.backends.probes import SAME, Seen, check_steady, easy_lines, named_fault, refused_probe
from lang1.remede.backends.transport import Malformed, Refusal, ask
from lang1.tasks.prompts import LETTERS

DRAWS = 10
"""at least, to each easy question, before a chat that says one letter to all is held for one that reads nothing"""


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
    said = probe.easy_answers(dialect)
    right, readable = known_answers(said)
    if tells:
        dialect = replace(dialect, way="top_logprobs")
    elif not readable:
        raise probe.fault(
            "names no option",
            "no answer to an easy question is a letter; raise evaluate.api.max_answer_tokens for a model that thinks "
            "first, or give evaluate.api.instruction",
        )
    elif len(set(said)) == 1 and probe.draws_only(dialect, said[0]):
        raise probe.fault("constant", "different questions get the same answer, and so does every one that is drawn")
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
        asking, lines = replace(dialect, way="top_logprobs"), easy_lines()
        try:
            seen = [self.see(asking, line.text) for line in lines]
        except (Refusal, Malformed):
            return False
        if all(answer.is_certain for answer in seen):
            return False  # what is told is the letter that it writes
        if all(seen[0].distance(other) == 0 for other in seen[1:]):
            raise self.fault("constant", "different questions get the same answer")
        told = {entry.text.strip() for answer in seen for entry in answer.entries if entry.text is not None}
        if not (all(len(answer.entries) > 1 for answer in seen) and told & {"A", "B"}):
            return False
        check_steady(self.line.server, seen[0], self.see(asking, lines[0].text))
        return True

    def see(self, asking: ChatDialect, text: str) -> Seen:
        """The first token's log-probabilities of an answer. Raises Refusal and Malformed."""
        return _seen(self.ask(asking, text))

    def easy_answers(self, dialect: ChatDialect) -> list[str]:
        """What is said to each easy question, not drawn."""
        said = []
        for line in easy_lines():
            try:
                said += texts_of(self.ask(dialect, line.text), 1)
            except Refusal as refusal:
                raise self.fault(
                    "refuses temperature 0",
                    f"a question that is taken at temperature 1 is not taken at 0 (HTTP {refusal.status})",
                ) from None
            except Malformed as error:
                raise self.fault("answers in another shape", f"/chat/completions answers {error}") from None
        return said

    def draws_only(self, dialect: ChatDialect, answer: str) -> bool:
        """Whether every answer that is drawn, to any easy question, is this one."""
        at_once = self.line.api.samples if dialect.many else 1
        for line, draw in itertools.product(easy_lines(), range(-(-DRAWS // at_once))):
            payload = self.model.payload(dialect, line.text, greedy=False, n=at_once, seed=draw)
            if set(ask(self.line, payload, lambda body: texts_of(body, at_once))) != {answer}:
                return False
        return True

    def cut(self, dialect: ChatDialect, long_text: str, long_tokens: int) -> str:
        """That a question as long as any is read whole, where the server counts or tells log-probabilities."""
        try:
            body = self.ask(dialect, long_text)
            counted = prompt_tokens_of(body)
            if counted is not None and counted < long_tokens:
                raise self.fault("cuts the prompt", f"a question of {long_tokens} tokens or more was read as {counted}")
            if dialect.way == "top_logprobs":
                self._reads_both_ends(dialect, long_text, _seen(body))
        except Refusal as refusal:
            raise self.fault(
                "refuses long prompts",
                f"one of about {long_tokens} tokens, as long as the longest row's, is not taken (HTTP "
                f"{refusal.status}); lower evaluate.max_note_tokens",
            ) from None
        except Malformed as error:
            raise self.fault("no log-probabilities", f"a long question is answered {error}") from None
        return "not counted" if counted is None else f"{counted} tokens"

    def _reads_both_ends(self, dialect: ChatDialect, long_text: str, seen: Seen) -> None:
        words = long_text.split(" ")
        part = max(4, len(words) // 8)
        begun, ended = [*reversed(words[:part]), *words[part:]], [*words[:-part], *reversed(words[-part:])]
        for where, changed in (("beginning", " ".join(begun)), ("end", " ".join(ended))):
            if changed != long_text and seen.distance(self.see(dialect, changed)) < SAME / 10:
                raise self.fault("cuts the prompt", f"another {where} of a long question changes nothing")


def _seen(body: dict[str, Any]) -> Seen:
    return Seen(next_token_entries(samples_of(body, 1)[0]), prompt_tokens_of(body))


def known_answers(said: Sequence[str]) -> tuple[int, int]:
    """How many easy questions were answered rightly, and how many answers can be read at all."""
    right, readable = 0, 0
    for line, answer in zip(easy_lines(), said, strict=True):
        named = named_option(answer, line.options, LETTERS[: len(line.options)])
        readable += named is not None
        right += named is not None and LETTERS[named] == line.answer
    return right, readable
