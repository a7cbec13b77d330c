"""`POST /v1/chat/completions`: checks in vLLM's order, the policy's text, and the answer whole or as a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hack.engine_sim import errors
from hack.engine_sim.engine import Generation
from hack.engine_sim.policy.situation import read_situation
from hack.engine_sim.policy.speak import Speech, speak
from hack.engine_sim.prompt import Conversation, read_messages, tokenize
from hack.engine_sim.protocol import ChatRequest, forced_text, reasoning_fields, sse, usage_of
from hack.engine_sim.reasoning import StopScanner, StreamSplitter, split_reasoning
from hack.engine_sim.state import Seen, Simulator
from hack.engine_sim.tokens import THINK_END, Token, split_text

END_OF_TURN = Token(1, "")  # <|im_end|>, which is generated and counted but not shown


class ConnectionCutError(Exception):
    """Raised to make the server close the connection in the middle of an answer."""


@dataclass(frozen=True)
class Plan:
    """What will be generated: the tokens, the text they make, and how it ends."""

    tokens: list[Token]
    text: str
    finish_reason: str
    stop_reason: str | None


@dataclass
class Job:
    """An accepted chat request."""

    request: ChatRequest
    seen: Seen
    plan: Plan
    generation: Generation
    drop_after: int | None
    created: int


def plan_output(text: str, stops: list[str], *, include: bool, limit: int, endless: bool = False) -> Plan:
    """Cut a text at its first stop string or at `limit` tokens, whichever comes first; `endless` says it again."""
    scanner = StopScanner(stops, include=include)
    tokens = [*split_text(text), END_OF_TURN]
    if endless:
        tokens *= -(-limit // len(tokens)) + 1
    for count, token in enumerate(tokens[:limit], start=1):
        scanner.feed(token.text)
        if scanner.stop:
            return Plan(tokens[:count], scanner.text, "stop", scanner.stop.string)
    finish = "stop" if len(tokens) <= limit else "length"
    return Plan(tokens[:limit], scanner.text, finish, None)


def check_request(request: ChatRequest, sim: Simulator) -> None:
    """Refuse what vLLM refuses before it reads the messages."""
    options = sim.options
    if request.model is not None and request.model not in options.served_names:
        raise errors.unknown_model(request.model, options.served_names)
    if request.cache_salt == "":
        raise errors.bad_value("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if request.n != 1:
        raise errors.ApiError(f"The engine simulator gives one answer to a request, not n={request.n}.", param="n")
    if request.limit is not None and request.limit < 1:
        raise errors.no_tokens_asked(request.limit)
    if request.limit is not None and request.limit > options.max_model_len:
        raise errors.more_than_context(request.limit, options.max_model_len)


async def read_prompt(
    messages: list[dict[str, object]], sim: Simulator, seen: Seen | None = None
) -> tuple[Conversation, list[int]]:
    """Read messages and count their tokens.

    Raises:
        ApiError: 400 for what cannot be read or is over the context.
    """

    def work() -> tuple[Conversation, list[int], int]:
        conversation = read_messages(messages, sim.options, sim.behaviour, sim.media)
        return conversation, *tokenize(conversation)

    conversation, tokens, text_tokens = await sim.rendered(work)
    if seen:
        seen.images = conversation.refs
        seen.prompt_tokens = len(tokens)
    limit = sim.options.max_model_len
    if text_tokens > limit:
        raise errors.text_too_long(limit)
    if len(tokens) > limit:
        raise errors.images_too_long(len(tokens), limit)
    return conversation, tokens


def output_limit(asked: int | None, prompt: int, sim: Simulator) -> int:
    """Return how many tokens may be generated; raises ApiError where the version refuses instead of cutting."""
    room = sim.options.max_model_len - prompt
    if room < 1:
        raise errors.text_too_long(sim.options.max_model_len)
    if asked is not None and asked > room and not sim.behaviour.cuts_max_tokens:
        raise errors.no_room_for_output(prompt, asked, sim.options.max_model_len)
    return room if asked is None else min(asked, room)


async def accept(request: ChatRequest, seen: Seen, sim: Simulator) -> Job:
    """Check a request, decide what is said, and hand it to the engine.

    Raises:
        ApiError: for everything that is refused or injected.
    """
    failure = sim.injector.failure()
    if failure is not None:
        raise errors.ApiError(f"injected failure {failure}", status=failure, kind="InjectedError")
    check_request(request, sim)
    forced = forced_text(request.structured_outputs)
    conversation, tokens = await read_prompt(request.messages, sim, seen)
    limit = output_limit(request.limit, len(tokens), sim)
    speech = _speech(forced, conversation, sim)
    seen.scenario, seen.state = speech.scenario, speech.state
    plan = plan_output(
        speech.text,
        request.stops,
        include=request.include_stop_str_in_output,
        limit=limit,
        endless=request.ignore_eos and forced is None,
    )
    generation = sim.engine.submit(
        tokens, plan.tokens, reason=plan.finish_reason, salt=request.cache_salt, delay=speech.token_delay
    )
    return Job(request, seen, plan, generation, sim.injector.drop_after(), int(time.time()))


def _speech(forced: str | None, conversation: Conversation, sim: Simulator) -> Speech:
    injected = sim.injector.text()
    if injected is not None:
        return Speech(injected, "/sim/faults", 0, 0.0)
    if forced is not None:
        # Without enable_in_reasoning the constraint begins after the thinking.
        free_thinking = sim.options.reasoning_parser and not sim.options.constrain_reasoning
        return Speech(f"{THINK_END}{forced}" if free_thinking else forced, "structured_outputs", 0, 0.0)
    return speak(read_situation(conversation), sim.scenarios)


def _usage(job: Job, sim: Simulator) -> dict[str, object]:
    texts = [token.text for token in job.plan.tokens]
    reasoning = texts.index(THINK_END) if THINK_END in texts else 0
    cached = job.generation.cached if sim.options.report_cached_tokens else None
    return usage_of(len(job.generation.prompt), job.generation.done, cached, reasoning, sim.behaviour)


def _close(job: Job) -> None:
    job.seen.cached_tokens = job.generation.cached
    job.seen.completion_tokens = job.generation.done
    job.seen.finish_reason = job.plan.finish_reason if job.generation.finished else "abort"
    job.seen.status = 200


async def whole(job: Job, sim: Simulator) -> dict[str, object]:
    """Generate everything and return the `chat.completion` object.

    Raises:
        ConnectionCutError: where a fault says so.
        ApiError: when the engine was stopped under it.
    """
    try:
        async for _ in sim.engine.tokens(job.generation):
            if job.drop_after is not None and job.generation.done >= job.drop_after:
                raise ConnectionCutError
    finally:
        _close(job)
    reasoning, content = None, job.plan.text or None
    if sim.options.reasoning_parser:
        reasoning, content = split_reasoning(job.plan.text)
    shown = reasoning if job.request.include_reasoning else None
    message = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        **reasoning_fields(shown, sim.behaviour),
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": job.plan.finish_reason,
        "stop_reason": job.plan.stop_reason,
        "token_ids": None,
    }
    return {
        **_head(job, sim, "chat.completion"),
        "choices": [choice],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": _usage(job, sim),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "kv_transfer_params": None,
    }


async def stream(job: Job, sim: Simulator) -> AsyncIterator[bytes]:
    """Yield the answer as server-sent events, one for about every token.

    Raises:
        ConnectionCutError: where a fault says so.
    """
    request, plan = job.request, job.plan
    head = _head(job, sim, "chat.completion.chunk")
    scanner = StopScanner(request.stops, include=request.include_stop_str_in_output)
    splitter = StreamSplitter(active=bool(sim.options.reasoning_parser))
    left = len(plan.tokens)
    options = request.stream_options
    continuous = options is not None and options.include_usage and options.continuous_usage_stats

    def chunk(**fields: object) -> bytes:
        """A chunk, with what was generated by now where that was asked for."""
        prompt, done = len(job.generation.prompt), job.generation.done - len(job.generation.ready)
        counted = {"prompt_tokens": prompt, "total_tokens": prompt + done, "completion_tokens": done}
        return sse({**head, **fields, **({"usage": counted} if continuous else {})})

    try:
        yield chunk(**_choice({"role": "assistant", "content": ""}), prompt_token_ids=None)
        if job.drop_after == 0:
            raise ConnectionCutError
        async for batch in sim.engine.tokens(job.generation):
            reasoning = content = ""
            for token in batch:
                left -= 1
                text = scanner.feed(token.text) + ("" if left else scanner.flush())
                thought, said = splitter.split(token.text, text)
                reasoning, content = reasoning + thought, content + said
            if reasoning and request.include_reasoning:
                yield chunk(**_choice(dict(reasoning_fields(reasoning, sim.behaviour))))
            if content:
                yield chunk(**_choice({"content": content}))
            if job.drop_after is not None and job.generation.done >= job.drop_after:
                raise ConnectionCutError
        yield chunk(**_choice({"content": ""}, plan.finish_reason, plan.stop_reason))
        if options and options.include_usage:
            yield sse({**head, "choices": [], "usage": _usage(job, sim)})
    except errors.ApiError as error:
        yield sse(error.body())
    finally:
        _close(job)
    yield b"data: [DONE]\n\n"


def _head(job: Job, sim: Simulator, kind: str) -> dict[str, object]:
    model = job.request.model or sim.options.served_names[0]
    return {"id": job.seen.id, "object": kind, "created": job.created, "model": model}


def _choice(delta: dict[str, object], finish: str | None = None, stop: str | None = None) -> dict[str, object]:
    choice: dict[str, object] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    if finish:
        choice["stop_reason"] = stop
    return {"choices": [choice]}


def new_seen(request: ChatRequest, body_bytes: int) -> Seen:
    """Begin the record of a request."""
    return Seen(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        body_bytes=body_bytes,
        stream=request.stream,
        model=request.model,
        cache_salt=request.cache_salt,
        max_tokens=request.limit,
        stop=request.stops,
        include_stop_str_in_output=request.include_stop_str_in_output,
        roles=[str(message.get("role")) for message in request.messages],
    )
