"""The endpoints: check a request, put it into the one queue, answer. No request's text is ever logged."""

from __future__ import annotations

import asyncio
import hmac
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from lang1.serving import answers
from lang1.serving.engine import Engine, Gone, Wish, complete
from lang1.serving.prompting import chat_ids, text_ids
from lang1.serving.protocol import MOST_TOLD, ChatRequest, CompletionRequest, Refused, error_body, parse

MOST_BYTES = 4 * 2**20
"""of a request's body: 1,024 prompts of 512 token ids take three"""
MOST_AT_ONCE = 64
"""requests that are read, wait or are answered; one more is told to come again, so that bodies fill no memory"""
BODY_S = 30.0
"""seconds that a client may take to send a request"""
CLOSED = 499
"""status of a request whose client is gone; nobody reads it"""
_HEADERS = {503: {"Retry-After": "1"}, 408: {"Connection": "close"}, 413: {"Connection": "close"}}
"""of refusals: when to come again; that the rest of a body is not wanted"""


def make_app(engine: Engine, name: str, api_key: str | None = None, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The application that serves `engine` as the model `name`. One worker: forwards run one after another.

    `hosts`: names by which a request may call the server. Without a key, a web page that points its own name at this
    machine would reach it through a browser otherwise.
    """
    app = FastAPI(title="lang1", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forward")
    places = asyncio.Semaphore(MOST_AT_ONCE)

    async def answer(request: Request, make: Callable[[Any, Gone], dict[str, Any]], kind: type[BaseModel]) -> Response:
        try:
            _check_key(request, api_key)
            if places.locked():
                raise Refused(503, None, f"{MOST_AT_ONCE} requests are under way; try again")
            async with places:
                asked = parse(await _body(request), kind)
                _check_model(asked, name)
                return await _work(request, worker, lambda gone: make(asked, gone))
        except Refused as refused:
            return JSONResponse(refused.body(), status_code=refused.status, headers=_HEADERS.get(refused.status))
        except ClientDisconnect:
            return Response(status_code=CLOSED)
        except Exception as error:  # its words may hold what was asked
            print(f"serve: a request failed with {type(error).__name__}", file=sys.stderr, flush=True)
            return JSONResponse(error_body(500, None, f"failed with {type(error).__name__}"), status_code=500)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await answer(request, lambda asked, gone: _complete(engine, name, asked, gone), CompletionRequest)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await answer(request, lambda asked, gone: _chat(engine, name, asked, gone), ChatRequest)

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


async def _work(request: Request, worker: ThreadPoolExecutor, make: Callable[[Gone], dict[str, Any]]) -> Response:
    """What `make` answers; nothing once the client is gone: what waits is taken back, what runs is told to stop."""
    gone = threading.Event()
    made = asyncio.get_running_loop().run_in_executor(worker, make, gone.is_set)
    leaving = asyncio.create_task(_until_gone(request))
    try:
        waited_for: set[asyncio.Future[Any]] = {made, leaving}
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        if made.done():
            return JSONResponse(made.result())
        raise ClientDisconnect
    finally:
        gone.set()
        made.cancel()
        leaving.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _complete(engine: Engine, name: str, asked: CompletionRequest, gone: Gone) -> dict[str, Any]:
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
    told = None if asked.logprobs is None else len(asked.logprob_token_ids or ()) or asked.logprobs
    read = sum(max_tokens + (len(ids) if asked.echo else 0) for ids in prompts)
    _check_size(read * (asked.n or 1), told)
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
        complete(engine, prompts, wish, gone),
        echo=wish.echo,
        logprobs=wish.top is not None,
        as_ids=bool(asked.return_tokens_as_token_ids),
    )


def _chat(engine: Engine, name: str, asked: ChatRequest, gone: Gone) -> dict[str, Any]:
    if asked.top_logprobs is not None and not asked.logprobs:
        raise Refused(400, "top_logprobs", "needs logprobs: true")
    prompt = chat_ids(engine.tokenizer, asked.messages)
    if not prompt:
        raise Refused(400, "messages", "empty; give at least one token")
    wanted = asked.max_completion_tokens or asked.max_tokens
    max_tokens = max(1, engine.context_length - len(prompt)) if wanted is None else wanted
    _check_room(engine, "messages", [prompt], max_tokens)
    _check_size(max_tokens * (asked.n or 1), (asked.top_logprobs or 0) if asked.logprobs else None)
    wish = Wish(
        max_tokens=max_tokens,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        n=asked.n or 1,
        seed=asked.seed,
        top=(asked.top_logprobs or 0) if asked.logprobs else None,
    )
    (samples,) = complete(engine, [prompt], wish, gone)
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


def _check_size(tokens: int, told: int | None) -> None:
    """That an answer of so many tokens, each with `told` log-probabilities beside its own, fits into memory."""
    size = tokens if told is None else tokens * (2 + told)
    if size > MOST_TOLD:
        raise Refused(
            400,
            None,
            f"an answer of {size} tokens and log-probabilities; at most {MOST_TOLD}: ask for fewer samples, prompts or "
            "log-probabilities at once",
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
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise Refused(413, None, f"the request is larger than {MOST_BYTES // 2**20} MiB")
    except TimeoutError:
        raise Refused(408, None, f"the request did not arrive within {BODY_S:g} s") from None
    return bytes(body)
