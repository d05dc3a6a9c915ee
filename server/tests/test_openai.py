"""The server as its clients see it, through the official `openai` package.

    pytest server/tests/test_openai.py --url http://127.0.0.1:8080
    FLEXLLM_BUILD=build/release pytest server/tests/test_openai.py    (on a fake card)
"""
import concurrent.futures
import time
import urllib.request

import openai
import pytest

MESSAGES = [{"role": "system", "content": "You are brief."},
            {"role": "user", "content": "Tell me about cards."}]


def chat(client, model, **more):
    more = {"max_tokens": 24, "temperature": 0, **more}
    return client.chat.completions.create(model=model, messages=MESSAGES, **more)


def joined(stream):
    """Text and finish reason of each choice of a chat stream, and its usage."""
    texts, reasons, usage = {}, {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, usage


def metric(url, key, name):
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request) as reply:
        for line in reply.read().decode().splitlines():
            if line.startswith(f"flexllm_{name} "):
                return float(line.split()[1])
    raise KeyError(name)


def test_models(client, model):
    assert client.models.retrieve(model).id == model
    assert client.models.retrieve(model).max_model_len > 0
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_chat(client, model):
    answer = chat(client, model)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert abs(answer.created - time.time()) < 3600
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 24


def test_greedy_is_reproducible_and_streams_the_same(client, model):
    whole = chat(client, model).choices[0]
    assert chat(client, model).choices[0].message.content == whole.message.content
    texts, reasons, usage = joined(chat(client, model, stream=True))
    assert texts == {0: whole.message.content}
    assert reasons == {0: whole.finish_reason}
    assert usage is None
    _, _, usage = joined(chat(client, model, stream=True, stream_options={"include_usage": True}))
    assert usage == chat(client, model).usage


def test_timings_tell_where_the_time_went(client, model):
    start = time.monotonic()
    answer = chat(client, model, extra_body={"ignore_eos": True})
    took = (time.monotonic() - start) * 1000
    chunks = list(chat(client, model, stream=True, extra_body={"ignore_eos": True}))
    timed = [chunk for chunk in chunks if getattr(chunk, "timings", None)]
    assert timed == [chunks[-1]]
    for timings in (answer.timings, timed[0].timings):
        assert timings["predicted_n"] == answer.usage.completion_tokens == 24
        assert timings["prompt_n"] + timings["cached_n"] == answer.usage.prompt_tokens
        assert timings["predicted_ms"] > 0
        speed = 23000 / timings["predicted_ms"]
        assert timings["predicted_per_second"] == pytest.approx(speed)
    parts = ("queue_ms", "prompt_ms", "predicted_ms")
    assert 0 < sum(answer.timings[part] for part in parts) <= took


def test_seed_is_reproducible_and_choices_differ(client, model):
    more = {"temperature": 1, "seed": 11, "n": 3, "max_tokens": 32}
    first = [choice.message.content for choice in chat(client, model, **more).choices]
    assert first == [choice.message.content for choice in chat(client, model, **more).choices]
    assert len(set(first)) > 1
    texts, _, _ = joined(chat(client, model, stream=True, **more))
    assert [texts[i] for i in range(3)] == first


def test_first_chunk_has_the_role_and_last_only_the_reason(client, model):
    chunks = list(chat(client, model, stream=True))
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    deltas = [chunk.choices[0] for chunk in chunks]
    assert deltas[0].delta.role == "assistant"
    assert not any(delta.delta.role for delta in deltas[1:])
    assert deltas[-1].finish_reason and not deltas[-1].delta.content
    assert not any(delta.finish_reason for delta in deltas[:-1])


def test_stop_string(client, model):
    text = chat(client, model, max_tokens=40).choices[0].message.content
    assert len(text) > 8
    stop = text[4:8]
    cut = chat(client, model, max_tokens=40, stop=["no such text", stop]).choices[0]
    assert cut.message.content == text[:text.index(stop)]
    assert cut.finish_reason == "stop"
    texts, reasons, _ = joined(chat(client, model, max_tokens=40, stop=stop, stream=True))
    assert texts.get(0, "") == cut.message.content and reasons == {0: "stop"}


def test_chat_logprobs(client, model):
    choice = chat(client, model, logprobs=True, top_logprobs=3).choices[0]
    assert choice.logprobs.content
    for entry in choice.logprobs.content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[2].logprob
        assert entry.token == entry.top_logprobs[0].token  # greedy
    data = b"".join(bytes(entry.bytes) for entry in choice.logprobs.content)
    assert data.decode(errors="replace") == choice.message.content


def test_completions(client, model):
    more = {"model": model, "temperature": 0, "max_tokens": 8}
    one = client.completions.create(prompt="Once upon", **more)
    assert one.object == "text_completion"
    several = client.completions.create(prompt=["Once upon", "In the end"], n=2, **more)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == one.choices[0].text
    stream = client.completions.create(prompt="Once upon", stream=True, **more)
    assert "".join(chunk.choices[0].text for chunk in stream) == one.choices[0].text


def test_echo_with_logprobs(client, model):
    answer = client.completions.create(model=model, prompt="Once upon a time", echo=True,
                                       logprobs=2, max_tokens=2, temperature=0)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text.startswith("Once upon a time")
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert len(logprobs.tokens) == len(logprobs.text_offset) == len(logprobs.top_logprobs)
    assert logprobs.text_offset == sorted(logprobs.text_offset)
    scored = client.completions.create(model=model, prompt="Once upon a time", echo=True,
                                       logprobs=0, max_tokens=0)
    count = scored.usage.prompt_tokens
    assert scored.choices[0].text == "Once upon a time"
    assert scored.choices[0].logprobs.token_logprobs == logprobs.token_logprobs[:count]


def test_token_ids_as_prompt(client, model):
    reply = client.post("/../tokenize", cast_to=object, body={"prompt": "Once upon a time"})
    answer = client.completions.create(model=model, prompt=reply["tokens"], max_tokens=4,
                                       temperature=0)
    text = client.completions.create(model=model, prompt="Once upon a time", max_tokens=4,
                                     temperature=0)
    assert answer.choices[0].text == text.choices[0].text
    assert answer.usage.prompt_tokens == reply["count"]


@pytest.mark.parametrize("more, param", [
    ({"temperature": 9}, "temperature"),
    ({"n": 0}, "n"),
    ({"extra_body": {"beam_width": 4}}, "beam_width"),
    ({"logit_bias": {"999999999": 1}}, "logit_bias"),
    ({"top_logprobs": 2}, "top_logprobs"),
])
def test_bad_fields_are_named(client, model, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, model, **more)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_other_errors(client, model, url):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, "no-such-model")
    assert caught.value.type == "not_found_error"
    limit = client.models.retrieve(model).max_model_len
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model, prompt=[1] * (limit + 1))
    assert caught.value.type == "exceed_context_size_error"
    assert caught.value.body["n_prompt_tokens"] == limit + 1
    assert caught.value.body["n_ctx"] == limit
    with pytest.raises(openai.APIStatusError) as caught:
        chat(client, model, functions=[{"name": "f"}])
    assert caught.value.status_code == 501 and caught.value.param == "functions"


def test_wrong_key(model, url, key):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger:
        if key == "none":  # the server asks for no key
            assert chat(stranger, model).choices
            return
        with pytest.raises(openai.AuthenticationError) as caught:
            chat(stranger, model)
    assert caught.value.type == "authentication_error"


def test_many_at_once_get_their_own_answers(client, model):
    def ask(i):
        return client.completions.create(model=model, prompt=f"Story number {i}:", max_tokens=16,
                                         temperature=0).choices[0].text

    alone = [ask(i) for i in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone


def test_a_client_that_leaves_frees_its_slot(client, model, url, key):
    stream = chat(client, model, stream=True, max_tokens=400, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 60
    while metric(url, key, "requests_running") > 0:
        assert time.monotonic() < deadline, "the slot is still held"
        time.sleep(0.05)
    assert metric(url, key, "kv_pages_used") == 0
