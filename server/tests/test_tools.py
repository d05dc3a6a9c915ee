"""Tools, as the `openai` package uses them: on a fake card whose model calls none by itself, or on
the server at --url, whose model must know tools."""
import json

import jsonschema
import openai
import pytest

WEATHER = {"type": "object", "required": ["place"], "additionalProperties": False,
           "properties": {"place": {"type": "string", "maxLength": 10},
                          "days": {"type": "integer", "minimum": 1, "maximum": 9}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Of a place",
                                           "parameters": WEATHER}},
         {"type": "function", "function": {"name": "clock", "parameters": {
             "type": "object", "properties": {}, "additionalProperties": False}}}]
QUESTION = [{"role": "user", "content": "What is the weather in Rome?"}]


def ask(client, model, messages=None, **more):
    more = {"max_tokens": 800, "tools": TOOLS, **more}
    return client.chat.completions.create(model=model, messages=messages or QUESTION, **more)


def check(calls):
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        assert call.type == "function" and call.function.name in ("weather", "clock")
        if call.function.name == "weather":
            jsonschema.validate(json.loads(call.function.arguments), WEATHER)
        else:
            assert json.loads(call.function.arguments) == {}


@pytest.mark.parametrize("seed", range(6))
def test_required(client, model, seed):
    answer = ask(client, model, tool_choice="required", seed=seed, n=2)
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        check(choice.message.tool_calls)
    names, arguments = {}, {}
    reason = None
    for chunk in ask(client, model, tool_choice="required", seed=seed, stream=True):
        delta = chunk.choices[0].delta
        assert not delta.content
        for call in delta.tool_calls or []:
            names[call.index] = call.function.name
            arguments[call.index] = arguments.get(call.index, "") + call.function.arguments
        reason = chunk.choices[0].finish_reason or reason
    whole = answer.choices[0].message.tool_calls
    assert list(names.values()) == [call.function.name for call in whole]
    assert list(arguments.values()) == [call.function.arguments for call in whole]
    assert reason == "tool_calls"


def test_one_tool_and_one_call(client, model):
    for seed in range(4):
        choice = ask(client, model, seed=seed, parallel_tool_calls=False,
                     tool_choice={"type": "function", "function": {"name": "clock"}}).choices[0]
        assert [call.function.name for call in choice.message.tool_calls] == ["clock"]
        choice = ask(client, model, seed=seed, parallel_tool_calls=False,
                     tool_choice="required").choices[0]
        assert len(choice.message.tool_calls) == 1
        check(choice.message.tool_calls)


def test_auto_and_none_give_text_or_calls(client, model):
    choice = ask(client, model, max_tokens=60).choices[0]
    assert choice.message.content or choice.message.tool_calls
    choice = ask(client, model, max_tokens=60, tool_choice="none", seed=1).choices[0]
    assert choice.message.content and not choice.message.tool_calls
    plain = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=60, seed=1)
    assert choice.message.content == plain.choices[0].message.content, "the tools are not shown"
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(
        client, model, max_tokens=60, temperature=0, stream=True))
    assert streamed == (ask(client, model, max_tokens=60, temperature=0).choices[0].message.content
                        or "")


def test_a_conversation_with_a_result(client, model):
    first = ask(client, model, tool_choice="required", parallel_tool_calls=False).choices[0].message
    messages = [*QUESTION, first.model_dump(exclude_none=True),
                {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "21 degrees"}]
    answer = ask(client, model, messages, max_tokens=30)
    assert answer.usage.prompt_tokens > ask(client, model, max_tokens=30).usage.prompt_tokens
    reply = client.post("/../apply-template", cast_to=object,
                        body={"messages": messages, "tools": TOOLS})
    for part in ("weather", "21 degrees", "Of a place"):
        assert part in reply["prompt"]


def test_cut_calls_are_text(client, model):
    choice = ask(client, model, tool_choice="required", max_tokens=5).choices[0]
    assert choice.finish_reason == "length" and not choice.message.tool_calls


def test_a_schema_is_only_compiled_where_it_must_hold(client, model):
    tool = {"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"x": {"not": {}}}}}}
    assert ask(client, model, tools=[tool], max_tokens=5).choices
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model, tools=[tool], tool_choice="required")
    assert caught.value.param == "tools[0].function.parameters.properties.x.not"
