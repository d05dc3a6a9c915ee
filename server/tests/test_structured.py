"""Structured output, as the `openai` package asks for it: on a fake card whose model knows no
JSON, or on the server at --url."""
import concurrent.futures
import enum
import json

import jsonschema
import openai
import pydantic
import pytest

PERSON = {"type": "object", "additionalProperties": False, "required": ["name", "tags"],
          "properties": {"name": {"type": "string", "maxLength": 12},
                         "age": {"type": "integer", "minimum": 0, "maximum": 150},
                         "tags": {"type": "array", "maxItems": 3,
                                  "items": {"enum": ["red", "green", None]}}}}


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}


def ask(client, model, schema=None, **more):
    more = {"max_tokens": 400, **more}
    if schema is not None:
        more["response_format"] = schema_format(schema)
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Answer in JSON."}], **more)


@pytest.mark.parametrize("seed", range(8))
def test_schema(client, model, seed):
    answer = ask(client, model, PERSON, seed=seed, n=4)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), PERSON)
    texts = [choice.message.content for choice in answer.choices]
    again = ask(client, model, PERSON, seed=seed, n=4)
    assert [choice.message.content for choice in again.choices] == texts
    chunks = [c for c in ask(client, model, PERSON, seed=seed, stream=True) if c.choices]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == texts[0]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_any_object(client, model):
    ended = 0
    for seed in range(20):
        choice = ask(client, model, response_format={"type": "json_object"}, seed=seed,
                     max_tokens=300).choices[0]
        if choice.finish_reason == "stop":
            ended += 1
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length" and choice.message.content.startswith("{")
    assert ended


def test_completions_with_echo_and_several_prompts(client, model):
    answer = client.completions.create(
        model=model, prompt=["A: ", "B: "], n=2, echo=True, max_tokens=400, seed=1, logprobs=1,
        extra_body={"response_format": schema_format(PERSON)})
    assert len(answer.choices) == 4
    for choice in answer.choices:
        assert choice.text[:3] in ("A: ", "B: ") and choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.text[3:]), PERSON)
        assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs)


def test_nothing_else_beats_the_grammar(client, model):
    schema = {"enum": ["yes", "no"]}
    ids = client.post("/../tokenize", cast_to=object, body={"prompt": "yesno\""})["tokens"]
    for more in ({"logit_bias": {str(i): -100 for i in ids}}, {"temperature": 0},
                 {"extra_body": {"min_tokens": 100}}, {"extra_body": {"ignore_eos": True}},
                 {"frequency_penalty": 2, "temperature": 2, "top_p": .1}):
        choice = ask(client, model, schema, **more).choices[0]
        assert choice.message.content in ('"yes"', '"no"') and choice.finish_reason == "stop", more


def test_a_text_that_may_go_on_ends(client, model):
    for more in ({}, {"extra_body": {"ignore_eos": True}}, {"extra_body": {"min_tokens": 5}}):
        choice = ask(client, model, {"type": "integer"}, seed=4, **more).choices[0]
        assert choice.finish_reason == "stop"
        assert len(str(int(choice.message.content))) <= 19


def test_length_and_stop_strings_cut(client, model):
    choice = ask(client, model, PERSON, max_tokens=4).choices[0]
    assert choice.finish_reason == "length" and choice.message.content.startswith("{")
    cut = ask(client, model, PERSON, stop=["name"]).choices[0]
    assert cut.finish_reason == "stop" and "name" not in cut.message.content


def test_logprobs_are_those_of_the_model(client, model):
    choice = ask(client, model, {"const": "yes"}, logprobs=True, top_logprobs=2).choices[0]
    assert b"".join(bytes(t.bytes) for t in choice.logprobs.content) == b'"yes"'
    for entry in choice.logprobs.content:
        assert entry.logprob <= entry.top_logprobs[0].logprob <= 0


class Colour(enum.Enum):
    red = "red"
    green = "green"


class Leaf(pydantic.BaseModel):
    weight: float = pydantic.Field(ge=0, le=1)
    colour: Colour


class Tree(pydantic.BaseModel):
    label: str = pydantic.Field(max_length=5)
    leaves: list[Leaf] = pydantic.Field(max_length=2)
    parent: "Tree | None"


@pytest.mark.parametrize("seed", range(4))
def test_parse_with_pydantic(client, model, seed):
    answer = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "A tree."}], response_format=Tree,
        seed=seed, max_tokens=1000)
    assert isinstance(answer.choices[0].message.parsed, Tree)


def test_a_bad_schema_is_named(client, model):
    inner = {"properties": {"a": {"type": "integer", "multipleOf": 2}}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model, inner)
    assert caught.value.param == "response_format.json_schema.schema.properties.a.multipleOf"
    assert "multipleOf" in caught.value.message and caught.value.code == "invalid_schema"
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model, {"type": "object", "properties": {f"p{i}": {} for i in range(2000)}})
    assert "1000" in caught.value.message


def test_many_at_once(client, model):
    def one(seed):
        schema = PERSON if seed % 2 else {"type": "array", "items": PERSON, "maxItems": seed % 5}
        choice = ask(client, model, schema, seed=seed).choices[0]
        if choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content), schema)
        return choice.message.content

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, range(16)))
    assert together == [one(seed) for seed in range(16)]
