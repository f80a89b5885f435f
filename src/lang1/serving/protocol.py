"""The requests that are understood, field by field; every other field, and every other value, is refused by name.

The legacy completions protocol of OpenAI with two fields of vLLM's (`logprob_token_ids`, `return_tokens_as_token_ids`),
and the smallest chat. A field that a client may send at its neutral value (`top_p: 1`) is taken at that value only:
to ignore what a request asks for would be to answer another question.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_PROMPTS = 1024
MOST_SAMPLES = 128
MOST_LOGPROBS = 1000

Seed = Annotated[int, Field(ge=0, lt=2**63)]
TokenId = Annotated[int, Field(ge=0)]


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
    stop: list[None] | Literal[""] | None = Field(default=None, max_length=0)
    logit_bias: dict[str, None] | None = Field(default=None, max_length=0)


class CompletionRequest(_Request):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    logprob_token_ids: Annotated[list[TokenId], Field(max_length=MOST_LOGPROBS)] | None = None
    return_tokens_as_token_ids: bool | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None


class Message(BaseModel):
    """One turn of a conversation, text only."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(_Request):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
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


def error_body(status: int, field: str | None, why: str) -> dict[str, Any]:
    """The JSON of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = f"{field}: {why}" if field else why
    return {"error": {"message": message, "type": kind, "param": field, "code": status}}
