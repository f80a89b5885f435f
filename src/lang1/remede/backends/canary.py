"""Questions that are asked before any note is sent: what does the server honour, and is it what it seems?

A server that answers something else than what was asked gives scores near chance and no error, so it is refused by
the name of its fault. Nothing is known of the model's weights, but much of its answers: log-probabilities are at most
0, finite and of several tokens; a prompt asked twice gets one answer, and has as many tokens as were sent; echo gives
them back; an answer read by echo and one read at the next token are the same number; the same text as ids and as text
are the same prompt; another beginning, with or without BOS, is another prompt and gives another answer. What the
model makes of a few easy lines (`known answers`) is recorded and not judged: a small model may fail them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lang1.errors import InputError
from lang1.remede.backends.answers import (
    choices_of,
    echoed_logprobs,
    is_of_llama_cpp,
    model_of,
    next_token_entries,
    option_logprobs,
    prompt_tokens_of,
)
from lang1.remede.backends.completions import Dialect, RemedeCompletions
from lang1.remede.backends.probes import (
    AGREE,
    SAME,
    Seen,
    check_steady,
    easy_lines,
    named_fault,
    passage,
    refused_probe,
)
from lang1.remede.backends.transport import Malformed, Refusal, ask


@dataclass(frozen=True)
class Tried:
    """What the canary found."""

    dialect: Dialect
    facts: dict[str, Any]


def try_completions(model: RemedeCompletions, option_ids: Sequence[int], longest: int) -> Tried:
    """Try a completions server with prompts of up to `longest` tokens and the tokens of the options that will be asked.

    Raises InputError with the name of the fault, Unfinished for a server that does not answer.
    """
    probe = _Probe(model, list(option_ids))
    try:
        return _try(probe, longest)
    except Refusal as refusal:
        raise probe.fault(*refused_probe(refusal)) from None


def _try(probe: _Probe, longest: int) -> Tried:
    model = probe.model
    text = passage(model.context_length - 2, lambda part: len(probe.ids(part)))
    ids = probe.ids(text)
    dialect, plain = probe.negotiate(ids)
    known, answers = probe.known_answers(dialect)
    if all(seen.is_certain for seen in [plain, *answers]):
        raise probe.fault(
            "certain",
            "one token is told as certain and every other as impossible, as after temperature 0 "
            "(vLLM: --logprobs-mode raw_logprobs)",
        )
    if all(plain.distance(other) == 0 for other in answers):
        raise probe.fault("constant", "different prompts get the same answer")
    check_steady(model.line.server, plain, probe.see(dialect, ids))
    counts = probe.count(plain, ids)
    echo = probe.echo(dialect, ids, plain)
    cut = probe.cut(dialect, ids, longest, counts)
    bos = probe.bos(dialect, ids, plain)
    as_text = probe.as_text(dialect, text, ids, plain)
    options = [model.option(token) for token in probe.option_ids]
    missing = option_logprobs(plain.entries, options)[1]
    if dialect.way == "top" and echo == "honoured":
        dialect = replace(dialect, way="echo", counts=counts, echo=True)
    elif dialect.way == "top" and all(probe.misses_all(seen) for seen in [plain, *answers]):
        raise probe.fault(
            "options out of reach",
            f"none of them is among the {model.line.api.top_logprobs} likeliest tokens of any probe, and echo is "
            f"{echo}; raise evaluate.api.top_logprobs (vLLM: --max-logprobs)",
        )
    else:
        dialect = replace(dialect, counts=counts, echo=echo == "honoured")
    dialect = replace(dialect, model=probe.named)
    facts = {
        "read": dialect.way,
        "model": probe.named,
        "token_ids_in_answers": dialect.as_ids,
        "counts_prompt_tokens": counts,
        "echo": echo,
        "prompt_cache": "off" if dialect.fresh else "as the server has it",
        "bos": bos,
        "longest_prompt_tried": cut,
        "same_as_text": as_text,
        "options_missing_in_probe": missing,
        "known_answers_right": known,
        "known_answers_asked": len(answers),
        "answers": [seen.told(options) for seen in [plain, *answers]],
    }
    return Tried(dialect, facts)


class _Probe:
    """The server under trial."""

    def __init__(self, model: RemedeCompletions, option_ids: list[int]) -> None:
        self.model = model
        self.line = model.line
        self.option_ids = option_ids
        self.named: str | None = None
        """the model that answers, as it says itself"""

    def fault(self, name: str, why: str) -> InputError:
        return named_fault(self.line.server, name, why)

    def ids(self, text: str) -> list[int]:
        """A text's tokens, BOS by the tokenizer's own rule."""
        return [int(token) for token in self.model.tokenizer(text)["input_ids"]]

    def see(self, dialect: Dialect, prompt: Any) -> Seen:
        """The answer to one prompt, of ids or a text. Raises Refusal."""
        prompts = prompt if isinstance(prompt, str) else [prompt]
        return self._seen(self._ask(self.model.payload(dialect, prompts, self.option_ids)))

    def _body(self, dialect: Dialect, ids: list[int], named: list[int]) -> dict[str, Any] | None:
        """An answer unread; None for a request that is refused."""
        try:
            return self._ask(self.model.payload(dialect, [ids], named))
        except Refusal:
            return None

    def _names_on_request(self, dialect: Dialect, ids: list[int]) -> bool:
        """Whether a server tells of the tokens that are named: asked for odd ones, so that none is told by chance."""
        entries = len(self.model.tokenizer)
        odd = sorted({entries * part // 11 for part in (2, 5, 7, 9)})
        body = self._body(dialect, ids, odd)
        if body is None:
            return False
        try:
            told = {entry.token for entry in next_token_entries(choices_of(body, 1)[0])}
        except Malformed:
            return False
        return set(odd) <= told and len(told) <= len(odd) + 1

    def _seen(self, body: dict[str, Any]) -> Seen:
        self.named = model_of(body)
        try:
            return Seen(next_token_entries(choices_of(body, 1)[0]), prompt_tokens_of(body))
        except Malformed as error:
            shape = "answers in the chat shape" if _is_chat(body) else "no log-probabilities"
            raise self.fault(shape, f"/completions answers {error}") from None

    def _ask(self, payload: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = ask(self.line, payload, lambda answer: answer)
        return body

    def negotiate(self, ids: list[int]) -> tuple[Dialect, Seen]:
        """The best way of reading options that the server understands."""
        for way, as_ids in (("named", True), ("top", True), ("top", False)):
            dialect = Dialect("named" if way == "named" else "top", as_ids, counts=False, echo=False)
            if way == "named" and not self._names_on_request(dialect, ids):
                continue
            body = self._body(dialect, ids, self.option_ids)
            if body is None:
                continue
            seen = self._seen(body)
            told = {entry.token for entry in seen.entries}
            if as_ids and None in told:
                continue  # tokens come back as text
            if way == "top" and len(seen.entries) < 2:
                raise self.fault("no log-probabilities", "only of the token that it wrote, not of others")
            if not as_ids and None in told:
                self._check_texts()
            return self._read_anew(dialect, ids, seen) if is_of_llama_cpp(body) else (dialect, seen)
        fewer = self.model.payload(Dialect("top", False, counts=False, echo=False), [ids]) | {"logprobs": 1}
        try:
            self._ask(fewer)
        except Refusal:
            raise self.fault(
                "refuses token ids", "no prompt of token ids with log-probabilities is taken (HTTP 400)"
            ) from None
        raise self.fault(
            "too many log-probabilities",
            f"{self.line.api.top_logprobs} a token are refused and fewer are not; lower evaluate.api.top_logprobs",
        )

    def _read_anew(self, dialect: Dialect, ids: list[int], seen: Seen) -> tuple[Dialect, Seen]:
        """The same without llama.cpp's prompt cache, where it takes that: what stood in a slot before moves an answer,
        by 0.2 nats in a 4-bit file."""
        fresh = replace(dialect, fresh=True)
        body = self._body(fresh, ids, self.option_ids)
        return (dialect, seen) if body is None else (fresh, self._seen(body))

    def _check_texts(self) -> None:
        """An option's text must be no other token's, where answers name tokens by text."""
        tokenizer = self.model.tokenizer
        for token in self.option_ids:
            text = str(tokenizer.decode([token]))
            letter = text.strip()
            twins = {
                tokenizer.convert_tokens_to_ids(form) for form in (letter, f" {letter}", f"Ġ{letter}", f"▁{letter}")
            }
            same = [twin for twin in twins - {None, token, tokenizer.unk_token_id} if tokenizer.decode([twin]) == text]
            if same:
                raise self.fault(
                    "ambiguous tokens",
                    f"answers name tokens by text, and {len(same) + 1} tokens read {text!r}; the server must know "
                    "return_tokens_as_token_ids",
                )

    def known_answers(self, dialect: Dialect) -> tuple[int, list[Seen]]:
        """How many easy lines are answered rightly, and the answers."""
        right, seen = 0, []
        for line in easy_lines():
            answer = self.see(dialect, self.ids(line.text))
            seen.append(answer)
            options = [self.model.option(token) for token in self.option_ids]
            logprobs, missing = option_logprobs(answer.entries, options)
            best = options[logprobs.index(max(logprobs))].text.strip()
            right += missing < len(options) and best == line.answer
        return right, seen

    def count(self, seen: Seen, ids: list[int]) -> bool:
        """Whether the server counts a prompt's tokens; a wrong count is a fault."""
        if seen.counted is None:
            return False
        if seen.counted != len(ids):
            raise self.fault(*_miscounted(seen.counted, len(ids)))
        return True

    def echo(self, dialect: Dialect, ids: list[int], plain: Seen) -> Literal["honoured", "ignored", "refused"]:
        """Whether the prompt's log-probabilities come back, token for token, and agree with the next token's."""
        asked = [*ids, self.option_ids[0]]
        payload = self.model.payload(Dialect("echo", dialect.as_ids, False, True), [asked])
        try:
            body = self._ask(payload)
            choice = choices_of(body, 1)[0]
        except (Refusal, Malformed):
            return "refused"
        logprobs = choice.get("logprobs")
        values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        if not isinstance(values, list) or len(values) <= 1:
            return "ignored"
        tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
        if len(values) != len(asked) + 1:
            raise self.fault(*_miscounted(len(values) - 1, len(asked)))
        if dialect.as_ids and isinstance(tokens, list) and tokens[:-1] != [f"token_id:{token}" for token in asked]:
            raise self.fault("other tokens", "echo gives back other tokens than were sent")
        try:
            echoed = echoed_logprobs(choice, len(asked))[-2]
        except Malformed as error:
            raise self.fault("no log-probabilities", f"echo answers {error}") from None
        logprob, missing = option_logprobs(plain.entries, [self.model.option(self.option_ids[0])])
        if echoed is None or (not missing and abs(echoed - logprob[0]) > AGREE):
            raise self.fault("two answers", "echo and the next token give an option different log-probabilities")
        return "honoured"

    def bos(self, dialect: Dialect, ids: list[int], plain: Seen) -> str:
        """That BOS is neither dropped nor added: a prompt with it and one without it are two prompts."""
        bos = self.model.tokenizer.bos_token_id
        if bos is None:
            return "the tokenizer has none"
        bare = ids[1:] if ids[0] == bos else ids
        other = self.see(dialect, [bos, *bare] if ids == bare else bare)
        if plain.distance(other) < SAME:
            raise self.fault("adds or drops BOS", "a prompt with BOS and one without it get the same answer")
        return "kept as sent"

    def cut(self, dialect: Dialect, ids: list[int], longest: int, counts: bool) -> int:
        """That a prompt as long as any that will be sent is read from its beginning to its end."""
        start, words = ids[: _bos_length(self.model, ids)], ids[_bos_length(self.model, ids) :]
        length = max(longest, len(ids))
        body = (words * (length // len(words) + 1))[: length - len(start)]
        part = max(4, len(body) // 8)
        long = [*start, *body]
        begun = [*start, *reversed(body[:part]), *body[part:]]
        ended = [*start, *body[:-part], *reversed(body[-part:])]
        try:
            seen, *changed = (self.see(dialect, prompt) for prompt in (long, begun, ended))
        except Refusal as refusal:
            raise self.fault(
                "refuses long prompts",
                f"one of {length} tokens, as long as the longest row's, is not taken (HTTP {refusal.status}); set "
                "evaluate.api.context_length or lower evaluate.max_note_tokens",
            ) from None
        if counts and seen.counted != len(long):
            raise self.fault(*_miscounted(seen.counted or 0, len(long)))
        for where, other in zip(("beginning", "end"), changed, strict=True):
            if seen.distance(other) < SAME / 10:
                raise self.fault("cuts the prompt", f"another {where} of {len(long)} tokens changes nothing")
        return len(long)

    def as_text(self, dialect: Dialect, text: str, ids: list[int], plain: Seen) -> str:
        """That the tokenizer is the server's own: the same passage as text has as many tokens and the same answer."""
        try:
            seen = self.see(dialect, text)
        except Refusal:
            return "texts are refused"
        if seen.counted is None:
            return "not counted"
        if abs(seen.counted - len(ids)) > 1:
            raise self.fault(
                "another tokenizer",
                f"it reads a passage as {seen.counted} tokens, the tokenizer given as {len(ids)}; give the model's own",
            )
        if seen.counted != len(ids):
            return "but for BOS"
        if plain.distance(seen) > AGREE:
            raise self.fault(
                "another tokenizer", "the same passage as text and as token ids gets different answers: BOS or tokens"
            )
        return "yes"

    def misses_all(self, seen: Seen) -> bool:
        """True when no option is among the tokens that an answer tells about."""
        options = [self.model.option(token) for token in self.option_ids]
        return option_logprobs(seen.entries, options)[1] == len(options)


def _bos_length(model: RemedeCompletions, ids: list[int]) -> int:
    return int(bool(ids) and ids[0] == model.tokenizer.bos_token_id)


def _miscounted(counted: int, sent: int) -> tuple[str, str]:
    """Name and reason of the fault behind a wrong number of tokens."""
    why = f"{sent} tokens were sent, {counted} were read"
    if counted == sent + 1:
        return "adds BOS", why
    if counted == sent - 1:
        return "drops BOS", why
    return ("cuts the prompt" if counted < sent else "adds tokens"), why


def _is_chat(body: dict[str, Any]) -> bool:
    choices = body.get("choices")
    return isinstance(choices, list) and any(isinstance(choice, dict) and "message" in choice for choice in choices)
