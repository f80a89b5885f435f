"""The requests that are understood, field by field; every other field, and every other value, is refused by name.

The legacy completions protocol of OpenAI with two fields of vLLM's (`logprob_token_ids`, `return_tokens_as_token_ids`),
and the smallest chat. A field that a client may send at its neutral value (`top_p: 1`) is taken at that value only:
to ignore what a request asks for would be to answer another question.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import PydanticCustomError

MOST_PROMPTS = 1024
MOST_MESSAGES = 1024
MOST_SAMPLES = 128
MOST_LOGPROBS = 1000
MOST_TOLD = 2**20
"""tokens and log-probabilities of one answer: samples of all prompts together"""
ELSEWHERE = frozenset(
    (
        *("add_special_tokens", "audio", "best_of", "echo", "frequency_penalty", "function_call"),
        *("functions", "guided_choice", "guided_json", "guided_regex", "ignore_eos"),
        *("include_stop_str_in_output", "length_penalty", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "messages", "metadata", "min_p", "min_tokens"),
        *("modalities", "parallel_tool_calls", "prediction", "presence_penalty", "prompt"),
        *("prompt_logprobs", "reasoning_effort", "repetition_penalty", "response_format"),
        *("service_tier", "skip_special_tokens", "stop", "stop_token_ids", "store", "stream"),
        *("stream_options", "structured_outputs", "suffix", "tool_choice", "tools", "top_k"),
        *("top_logprobs", "top_p", "truncate_prompt_tokens", "use_beam_search", "verbosity"),
        "web_search_options",
    )
)
"""fields of OpenAI's and vLLM's requests: a refusal names these, and repeats no other name that a request brings"""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Tokens = Annotated[int, Field(ge=1, lt=2**31)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


def _kind_of_prompt(value: Any) -> str | None:
    """Which of the four forms of a prompt is meant, by its first part; None for none of them."""
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return None
    first = value[0] if value else ""
    return "texts" if isinstance(first, str) else "lists of ids" if isinstance(first, list) else "ids"


# A list is read up to its first fault: a million faults of one request would fill the memory.
Prompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MOST_PROMPTS), Tag("texts")]
    | Annotated[list[TokenId], Field(fail_fast=True), Tag("ids")]
    | Annotated[
        list[Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]],
        Field(fail_fast=True, max_length=MOST_PROMPTS),
        Tag("lists of ids"),
    ],
    Discriminator(
        _kind_of_prompt,
        custom_error_type="prompt",
        custom_error_message="Input should be a text, texts, token ids or lists of token ids",
    ),
]


def _nothing(value: Any) -> Any:
    """A list, a text or an object without anything in it says nothing."""
    return None if isinstance(value, str | list | dict) and not value else value


Nothing = Annotated[None, BeforeValidator(_nothing)]


class _Request(BaseModel):
    """What both endpoints share."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] | None = None
    seed: Seed | None = None
    user: str | None = None
    """who asks; not used, not kept"""
    # at their neutral value only
    stream: Literal[False] | None = None
    top_p: Literal[1] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    stop: Nothing = None
    logit_bias: Nothing = None


class CompletionRequest(_Request):
    """`POST /v1/completions`."""

    prompt: Prompt
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    logprob_token_ids: Annotated[list[TokenId], Field(fail_fast=True, max_length=MOST_LOGPROBS)] | None = None
    return_tokens_as_token_ids: bool | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None


class Message(BaseModel):
    """One turn of a conversation, text only."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str

    @model_validator(mode="before")
    @classmethod
    def _has_no_other_fields(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.keys() - cls.model_fields.keys():  # one fault, not one a field
            raise PydanticCustomError("message", "a message has a role and a content, nothing else")
        return value


class ChatRequest(_Request):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None


class Refused(Exception):
    """A request that is not answered: HTTP status, the field, and why, in words that hold nothing of the request."""

    def __init__(self, status: int, field: str | None, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.field = field
        self.why = why

    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        return error_body(self.status, self.field, self.why)


def parse(body: bytes, kind: type[BaseModel]) -> BaseModel:
    """A request, checked. Raises Refused, which names the field and never repeats its value."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, None, "the request is not JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, None, "the request is not a JSON object")
    unknown = found.keys() - kind.model_fields.keys()
    if unknown:  # before the fields, or each would be a fault of its own
        named = min(unknown & ELSEWHERE, default=None)
        raise Refused(400, named, "not supported" if named else "a field that is not known here")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = str(first["loc"][0]) if first["loc"] else None
        raise Refused(400, field, f"not supported with this value ({first['msg']})") from None


def error_body(status: int, field: str | None, why: str) -> dict[str, Any]:
    """The JSON of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = f"{field}: {why}" if field else why
    return {"error": {"message": message, "type": kind, "param": field, "code": status}}
