"""A model behind a completions API, as lm-eval's LocalCompletionsAPI with what that class lacks.

Token ids are sent, never text. How the options are read depends on what the canary found the server to honour:

    named    `logprob_token_ids` (ours, vLLM): exactly the options, one request a row
    echo     the prompt with an option behind it, its log-probability echoed: exact, a prompt an option
    top      the likeliest tokens after the prompt: an option that is not among them gets a bound, and is counted

Options of several tokens need echo. The harness runs this class too (`simple_evaluate(model=...)`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lm_eval.models.openai_completions import LocalCompletionsAPI  # type: ignore[import-untyped]

from lang1.errors import InputError
from lang1.models.load import load_tokenizer
from lang1.remede.backends.answers import (
    Option,
    choices_of,
    echoed_logprobs,
    next_token_entries,
    of_model,
    option_logprobs,
    prompt_tokens_of,
)
from lang1.remede.backends.transport import Line, Malformed, Refusal, ask_all

SEED = 1234
"""sent with every request, as lm-eval does; nothing is drawn"""


@dataclass(frozen=True)
class Dialect:
    """What a server was found to honour."""

    way: Literal["named", "echo", "top"]
    as_ids: bool
    """tokens come back as `token_id:N`"""
    counts: bool
    """usage.prompt_tokens counts the prompt's tokens"""
    echo: bool
    """echo gives the prompt's log-probabilities"""
    fresh: bool = False
    """a prompt is read anew: llama.cpp goes on from the last one's numbers otherwise, whose batches were others"""
    model: str | None = None
    """the model that answers, as it says itself"""

    def method(self, top: int) -> str:
        """What a score file says of it."""
        return {"named": "completions, named tokens", "echo": "completions, echo", "top": f"completions, top {top}"}[
            self.way
        ]


@dataclass(frozen=True)
class Asked:
    """A prompt with the tokens of its options, one or more an option."""

    ids: Sequence[int]
    options: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Answered:
    """Log-probabilities of the options, and how many of them are bounds."""

    logprobs: list[float]
    missing: int


class RemedeCompletions(LocalCompletionsAPI):
    """See the module. `dialect` is None until the canary has set it; nothing is scored before."""

    def __init__(self, line: Line, context_length: int, tokenizer: Any = None) -> None:
        """`tokenizer`: the served model's; None reads the folder that the server is given with."""
        folder = line.server.tokenizer
        if folder is None:
            raise InputError(f"{line.server}: needs the folder of its tokenizer; give --tokenizer FOLDER")
        super().__init__(
            model=line.server.model,
            base_url=line.server.url + line.server.endpoint,
            tokenizer_backend=None,  # "auto" would ask the server for one, "huggingface" would look beyond the folder
            num_concurrent=line.api.concurrency,
            max_length=context_length,  # 2048 otherwise, whatever the model takes
            seed=SEED,
        )
        self.line = line
        self.context_length = context_length
        self.tokenizer = load_tokenizer(folder) if tokenizer is None else tokenizer
        self.tokenizer_backend, self.tokenized_requests = "huggingface", True
        self.dialect: Dialect | None = None

    def _create_payload(
        self,
        messages: Any,
        generate: bool = False,
        gen_kwargs: dict[str, Any] | None = None,
        seed: int = SEED,
        eos: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """lm-eval's payload where it writes text; where it reads options, what the dialect says."""
        if generate or self.dialect is None:
            return dict(super()._create_payload(messages, generate, gen_kwargs, seed, eos, **kwargs))
        return self.payload(self.dialect, messages, kwargs.get("named", ()))

    def payload(self, dialect: Dialect, prompts: Any, named: Sequence[int] = ()) -> dict[str, Any]:
        """A request for the token after each of `prompts`, or for their echo."""
        asked: dict[str, Any] = {
            "model": self.model,
            "prompt": prompts,
            "max_tokens": 1,
            "temperature": 0,
            "seed": SEED,
            "logprobs": {"named": len(named), "echo": 1, "top": self.line.api.top_logprobs}[dialect.way],
        }
        if dialect.way == "echo":
            asked["echo"] = True
        if dialect.way == "named":
            asked["logprob_token_ids"] = list(named)
        if dialect.as_ids:
            asked["return_tokens_as_token_ids"] = True
        if dialect.fresh:
            asked["cache_prompt"] = False
        return asked

    def option(self, token: int) -> Option:
        """How an option's token is recognised in an answer."""
        return Option(token, str(self.tokenizer.decode([token])))

    def score(self, rows: Sequence[Asked], keep: Callable[[int, Answered], None]) -> None:
        """Ask about every row; `keep` gets a row's place and answer as soon as it is there.

        Raises Unfinished, with what was kept kept, and InputError where options need echo and there is none.
        """
        dialect = self.dialect_for(rows)
        asked = (
            (self._row_payload(dialect, row), of_model(dialect.model, self._reader(dialect, row)), _keeper(keep, place))
            for place, row in enumerate(rows)
        )
        try:
            ask_all(self.line, asked)
        except Refusal as refusal:
            raise InputError(
                f"{self.line.server}: took the canary's prompts and refuses a row's (HTTP {refusal.status}"
                + (f", {refusal.field}" if refusal.field else "")
                + "); a prompt may be longer than it takes: set evaluate.api.context_length"
            ) from None

    def dialect_for(self, rows: Sequence[Asked]) -> Dialect:
        """How these rows are read: options of several tokens by echo. Raises InputError where there is none."""
        dialect = self._dialect(rows)
        if all(len(option) == 1 for row in rows for option in row.options):
            return dialect
        if not dialect.echo:
            raise InputError(
                f"{self.line.server}: the options take several tokens, which needs echo with log-probabilities, "
                "and this server does not honour it"
            )
        return replace(dialect, way="echo")

    def _dialect(self, rows: Sequence[Asked]) -> Dialect:
        """The canary's; it is sent here where nobody has sent it before (the harness)."""
        if self.dialect is None:
            from lang1.remede.backends.canary import try_completions

            options = sorted({option[0] for row in rows for option in row.options})
            longest = max(len(row.ids) + max(map(len, row.options)) for row in rows)
            self.dialect = try_completions(self, options, min(longest, self.context_length - 1)).dialect
        return self.dialect

    def _row_payload(self, dialect: Dialect, row: Asked) -> dict[str, Any]:
        if dialect.way == "echo":
            return self.payload(dialect, [[*row.ids, *option] for option in row.options])
        return self.payload(dialect, [list(row.ids)], [option[0] for option in row.options])

    def _reader(self, dialect: Dialect, row: Asked) -> Callable[[dict[str, Any]], Answered]:
        def read(body: dict[str, Any]) -> Answered:
            if dialect.way == "echo":
                return _read_echo(body, row, dialect)
            choice = choices_of(body, 1)[0]
            _check_count(body, len(row.ids), dialect)
            options = [self.option(option[0]) for option in row.options]
            return Answered(*option_logprobs(next_token_entries(choice), options))

        return read

    # --- lm-eval's contract ---

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        """Options of the same context share a request; `is_greedy` is whether the option is the likeliest of them."""
        rows: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for _, context, option in requests:
            longest = self.max_length - len(option)
            rows.setdefault(tuple(context[-longest:]), []).append(tuple(option))
        asked = [Asked(context, list(dict.fromkeys(options))) for context, options in rows.items()]
        answers: dict[tuple[int, ...], dict[tuple[int, ...], tuple[float, bool]]] = {}

        def keep(place: int, answer: Answered) -> None:
            best = max(answer.logprobs)
            row = asked[place]
            answers[tuple(row.ids)] = {
                tuple(option): (value, value == best)
                for option, value in zip(row.options, answer.logprobs, strict=True)
            }

        self.score(asked, keep)
        return [
            answers[tuple(context[-(self.max_length - len(option)) :])][tuple(option)]
            for _, context, option in requests
        ]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Texts by our own transport: the parent's takes a proxy of the environment and logs what a refusal quotes."""

        def payload(context: Any, wanted: dict[str, Any]) -> dict[str, Any]:
            most: int = wanted.get("max_gen_toks") or wanted.get("max_tokens") or self._max_gen_toks
            room = self.max_length - most
            ids = self.tok_encode(str(context))[-max(room, 1) :]
            return self._create_payload([ids], generate=True, gen_kwargs=wanted, seed=self._seed)

        return generated(self.line, requests, payload, lambda body: _text_of(choices_of(body, 1)[0]))


def generated(
    line: Line,
    requests: Any,
    payload: Callable[[Any, dict[str, Any]], dict[str, Any]],
    read: Callable[[dict[str, Any]], str],
) -> list[str]:
    """What the harness asks to be written, in its order. Raises Unfinished, and InputError for a refused request."""
    texts: dict[int, str] = {}

    def keeper(place: int) -> Callable[[str], None]:
        return lambda text: texts.update({place: text})

    asked = (
        (payload(request.args[0], dict(request.args[1])), read, keeper(place)) for place, request in enumerate(requests)
    )
    try:
        ask_all(line, asked)
    except Refusal as refusal:
        named = f", {refusal.field}" if refusal.field else ""
        raise InputError(f"{line.server}: refuses a request to write text (HTTP {refusal.status}{named})") from None
    return [texts[place] for place in range(len(requests))]


def _text_of(choice: dict[str, Any]) -> str:
    text = choice.get("text")
    if not isinstance(text, str):
        raise Malformed("without a text")
    return text


def _keeper(keep: Callable[[int, Answered], None], place: int) -> Callable[[Answered], None]:
    return lambda answer: keep(place, answer)


def _read_echo(body: dict[str, Any], row: Asked, dialect: Dialect) -> Answered:
    choices = choices_of(body, len(row.options))
    _check_count(body, sum(len(row.ids) + len(option) for option in row.options), dialect)
    sums = []
    for choice, option in zip(choices, row.options, strict=True):
        values = echoed_logprobs(choice, len(row.ids) + len(option))[len(row.ids) : -1]
        told = [value for value in values if value is not None]
        if len(told) != len(option):
            raise Malformed("without the log-probability of an option's token")
        sums.append(sum(told))
    return Answered(sums, 0)


def _check_count(body: dict[str, Any], sent: int, dialect: Dialect) -> None:
    counted = prompt_tokens_of(body)
    if dialect.counts and counted != sent:
        raise Malformed(f"a prompt of {counted} tokens where {sent} were sent: it is cut, or tokens were added")
