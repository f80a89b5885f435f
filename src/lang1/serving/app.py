"""The endpoints: check a request, put it into the one queue, answer. No request's text is ever logged."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from lang1.serving import answers
from lang1.serving.engine import Engine, Wish, complete
from lang1.serving.prompting import chat_ids, text_ids
from lang1.serving.protocol import MOST_PROMPTS, ChatRequest, CompletionRequest, Refused, error_body

MOST_BYTES = 64 * 2**20
"""of a request's body"""


def make_app(engine: Engine, name: str, api_key: str | None = None) -> FastAPI:
    """The application that serves `engine` as the model `name`. One worker: forwards run one after another."""
    app = FastAPI(title="lang1", docs_url=None, redoc_url=None, openapi_url=None)
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forward")

    async def answer(request: Request, make: Callable[[Any], dict[str, Any]], kind: type[BaseModel]) -> JSONResponse:
        try:
            _check_key(request, api_key)
            asked = _parse(await _body(request), kind)
            _check_model(asked, name)
            return JSONResponse(await asyncio.get_running_loop().run_in_executor(worker, make, asked))
        except Refused as refused:
            return JSONResponse(refused.body(), status_code=refused.status)
        except Exception as error:  # its words may hold what was asked
            print(f"serve: a request failed with {type(error).__name__}", file=sys.stderr, flush=True)
            return JSONResponse(error_body(500, None, f"failed with {type(error).__name__}"), status_code=500)

    @app.post("/v1/completions")
    async def completions(request: Request) -> JSONResponse:
        return await answer(request, lambda asked: _complete(engine, name, asked), CompletionRequest)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> JSONResponse:
        return await answer(request, lambda asked: _chat(engine, name, asked), ChatRequest)

    @app.get("/v1/models")
    async def models(request: Request) -> JSONResponse:
        try:
            _check_key(request, api_key)
        except Refused as refused:
            return JSONResponse(refused.body(), status_code=refused.status)
        card = {"id": name, "object": "model", "owned_by": "lang1", "max_model_len": engine.context_length}
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _complete(engine: Engine, name: str, asked: CompletionRequest) -> dict[str, Any]:
    prompts = _prompts(engine, asked.prompt)
    max_tokens = 16 if asked.max_tokens is None else asked.max_tokens
    if max_tokens == 0 and not asked.echo:
        raise Refused(400, "max_tokens", "0 is for echo only; give 1 or more")
    if asked.logprob_token_ids is not None and asked.logprobs is None:
        raise Refused(400, "logprob_token_ids", "needs logprobs")
    for field, lists in (("prompt", prompts), ("logprob_token_ids", [asked.logprob_token_ids or []])):
        largest = max((token for ids in lists for token in ids), default=0)
        if largest >= engine.vocabulary:
            raise Refused(400, field, f"a token id of {largest}; the model has {engine.vocabulary}")
    _check_room(engine, "prompt", prompts, max_tokens)
    wish = Wish(
        max_tokens=max_tokens,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        n=asked.n or 1,
        seed=asked.seed,
        echo=bool(asked.echo),
        top=asked.logprobs,
        named=tuple(asked.logprob_token_ids or ()),
    )
    return answers.completion(
        engine.tokenizer,
        name,
        prompts,
        complete(engine, prompts, wish),
        echo=wish.echo,
        logprobs=wish.top is not None,
        as_ids=bool(asked.return_tokens_as_token_ids),
    )


def _chat(engine: Engine, name: str, asked: ChatRequest) -> dict[str, Any]:
    if asked.top_logprobs is not None and not asked.logprobs:
        raise Refused(400, "top_logprobs", "needs logprobs: true")
    prompt = chat_ids(engine.tokenizer, asked.messages)
    wanted = asked.max_completion_tokens or asked.max_tokens
    max_tokens = max(1, engine.context_length - len(prompt)) if wanted is None else wanted
    _check_room(engine, "messages", [prompt], max_tokens)
    wish = Wish(
        max_tokens=max_tokens,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        n=asked.n or 1,
        seed=asked.seed,
        top=(asked.top_logprobs or 0) if asked.logprobs else None,
    )
    (samples,) = complete(engine, [prompt], wish)
    return answers.chat(engine.tokenizer, name, prompt, samples, logprobs=wish.top is not None)


def _prompts(engine: Engine, prompt: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
    """The prompts of a request as token ids: a text, texts, ids or lists of ids."""
    if isinstance(prompt, str):
        prompts = [text_ids(engine.tokenizer, prompt)]
    elif prompt and all(isinstance(part, int) for part in prompt):
        prompts = [[int(part) for part in prompt if isinstance(part, int)]]
    else:
        prompts = [
            text_ids(engine.tokenizer, part) if isinstance(part, str) else part
            for part in prompt
            if not isinstance(part, int)
        ]
    if not prompts or not all(prompts):
        raise Refused(400, "prompt", "empty; give at least one token")
    if len(prompts) > MOST_PROMPTS:
        raise Refused(400, "prompt", f"{len(prompts)} prompts; at most {MOST_PROMPTS} a request")
    return prompts


def _check_room(engine: Engine, field: str, prompts: list[list[int]], max_tokens: int) -> None:
    longest = max(map(len, prompts))
    if longest + max_tokens > engine.context_length:
        raise Refused(
            400,
            field,
            f"{longest} tokens and {max_tokens} to write, together more than the model's {engine.context_length}; "
            "no prompt is cut here",
        )


def _check_key(request: Request, api_key: str | None) -> None:
    if api_key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), api_key.encode()):
        raise Refused(401, None, "no key, or not the one that this server asks for (Authorization: Bearer ...)")


def _check_model(asked: Any, name: str) -> None:
    if asked.model != name:
        raise Refused(404, "model", f"not served here; /v1/models names what is: {name}")


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise Refused(413, None, f"the request is larger than {MOST_BYTES // 2**20} MiB")
        parts.append(part)
    return b"".join(parts)


def _parse(body: bytes, kind: type[BaseModel]) -> BaseModel:
    """The request, checked. The refusal names the field and never repeats its value."""
    try:
        return kind.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = str(first["loc"][0]) if first["loc"] else None
        if first["type"] == "extra_forbidden":
            raise Refused(400, field, "not supported") from None
        raise Refused(400, field, f"not supported with this value ({first['msg']})") from None
    except (ValueError, RecursionError):
        raise Refused(400, None, "the request is not JSON") from None
