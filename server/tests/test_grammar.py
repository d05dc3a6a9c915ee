"""Grammars of JSON schemas against the `jsonschema` package: what a walk through the masks makes
is valid, and what is valid is accepted. Runs server_grammar_tool out of the build."""
import json
import os
import pathlib
import random
import re
import string
import subprocess

import jsonschema
import pytest

NAMES = ["name", "age", "id", "items", "na\"me", "zoë", "a b", "nam", "\\x", "value"]


@pytest.fixture(scope="module")
def tool():
    program = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release"),
                           "server/tests/server_grammar_tool")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          encoding="utf-8") as process:
        def ask(**request):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        yield ask
        process.stdin.close()
        assert process.wait(60) == 0


def random_word(rng, low=0, high=8):
    alphabet = string.ascii_letters + " \"\\/{}[],:\n\t\x01é€😀"
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def random_value(rng, depth=0):
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [random_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind == 6:
        return {random_word(rng): random_value(rng, depth + 1) for _ in range(rng.randint(0, 3))}
    return [None, rng.random() < .5, rng.randint(-10**6, 10**6), round(rng.uniform(-1e3, 1e3), 4),
            random_word(rng)][kind]


class Maker:
    """A random schema and, for it, random valid values."""

    def __init__(self, rng):
        self.rng = rng
        self.defs = {}

    def make(self, depth=0):
        kinds = [self.text, self.patterned, self.integer, self.number, self.simple, self.listed]
        if depth < 3:
            kinds += [self.object, self.object, self.array, self.tuple, self.union, self.mapping,
                      self.everything, self.defined]
        return self.rng.choice(kinds)(depth)

    def text(self, _):
        low, span = self.rng.randint(0, 5), self.rng.randint(0, 6)
        schema = {"type": "string"}
        if self.rng.random() < .5:
            schema["minLength"] = low
        if self.rng.random() < .5:
            schema["maxLength"] = low + span
        return schema, lambda: random_word(self.rng, low, low + span)

    def patterned(self, _):
        rng = self.rng
        pattern, good = rng.choice([
            ("^[a-z]{2,4}$", lambda: "".join(rng.choices(string.ascii_lowercase, k=3))),
            ("^(foo|bar)+-\\d+$", lambda: "foobar-" + str(rng.randint(0, 999))),
            ("\\d", lambda: random_word(rng) + "7" + random_word(rng)),
            ("^x", lambda: "x" + random_word(rng)),
            ("y$", lambda: random_word(rng) + "y"),
            ("^a|b$", lambda: rng.choice(["a" + random_word(rng), random_word(rng) + "b"])),
            ("^[^\"a-c]*$", lambda: "dé\n\\"),
            ("^(?:[A-Z]\\w*\\s?){1,3}$", lambda: "The Card"),
            ("^\"[\\\\/]+\"$", lambda: "\"\\/\\\""),
        ])
        return {"type": "string", "pattern": pattern}, good

    def integer(self, _):
        rng = self.rng
        low = rng.choice([-1000, -100, -15, -1, 0, 1, 7, 95, 1234])
        high = low + rng.choice([0, 1, 10, 99, 1000, 12345])
        schema = {"type": "integer"}
        if rng.random() < .7:
            schema.update(rng.choice([{"minimum": low}, {"exclusiveMinimum": low - 1},
                                      {"minimum": low - .5}]))
        if rng.random() < .7:
            schema.update(rng.choice([{"maximum": high}, {"exclusiveMaximum": high + 1},
                                      {"maximum": high + .25}]))
        return schema, lambda: rng.randint(low, high)

    def number(self, _):
        rng = self.rng
        low = rng.choice([-12.5, -1, -.25, 0, .001, .5, 3.75, 100])
        high = low + rng.choice([.125, 1, 10.5, 1000])
        schema = {"type": "number"}
        if rng.random() < .6:
            schema[rng.choice(["minimum", "exclusiveMinimum"])] = low
        if rng.random() < .6:
            schema[rng.choice(["maximum", "exclusiveMaximum"])] = high
        return schema, lambda: round(low + (high - low) * rng.uniform(.01, .99), 6)

    def simple(self, _):
        return self.rng.choice([({"type": "boolean"}, lambda: self.rng.random() < .5),
                                ({"type": "null"}, lambda: None),
                                ({"type": ["integer", "null"]}, lambda: None)])

    def listed(self, _):
        values = [random_value(self.rng, 2) for _ in range(self.rng.randint(1, 4))]
        if self.rng.random() < .3:
            return {"const": values[0]}, lambda: values[0]
        return {"enum": values}, lambda: self.rng.choice(values)

    def object(self, depth):
        rng = self.rng
        names = rng.sample(NAMES, rng.randint(0, 4))
        parts = {name: self.make(depth + 1) for name in names}
        required = [name for name in names if rng.random() < .6]
        schema = {"type": "object", "properties": {n: s for n, (s, _) in parts.items()},
                  "required": required}
        extra = None
        kind = rng.random()
        if kind < .4:
            schema["additionalProperties"] = False
        elif kind < .7:
            inner, extra = self.make(depth + 1)
            schema["additionalProperties"] = inner

        def value():
            out = {n: g() for n, (_, g) in parts.items() if n in required or rng.random() < .5}
            if extra:
                for _ in range(rng.randint(0, 2)):
                    name = random_word(rng)
                    if name not in names:
                        out[name] = extra()
            return out
        return schema, value

    def mapping(self, depth):
        inner, value = self.make(depth + 1)
        return ({"type": "object", "additionalProperties": inner},
                lambda: {random_word(self.rng): value() for _ in range(self.rng.randint(0, 3))})

    def array(self, depth):
        inner, value = self.make(depth + 1)
        low, span = self.rng.randint(0, 3), self.rng.randint(0, 3)
        schema = {"type": "array", "items": inner, "minItems": low}
        if self.rng.random() < .5:
            schema["maxItems"] = low + span
        return schema, lambda: [value() for _ in range(low + self.rng.randint(0, span))]

    def tuple(self, depth):
        parts = [self.make(depth + 1) for _ in range(self.rng.randint(1, 3))]
        schema = {"type": "array", "prefixItems": [s for s, _ in parts]}
        if self.rng.random() < .5:
            schema["items"] = False
        if self.rng.random() < .5:
            schema["minItems"] = len(parts)
        return schema, lambda: [g() for _, g in parts]

    def union(self, depth):
        parts = [self.make(depth + 1) for _ in range(self.rng.randint(1, 3))]
        return {"anyOf": [s for s, _ in parts]}, lambda: self.rng.choice(parts)[1]()

    def everything(self, _):
        return self.rng.choice([True, {}]), lambda: random_value(self.rng)

    def defined(self, depth):
        name = f"d{len(self.defs)}"
        self.defs[name] = None
        inner, value = self.make(depth + 1)
        self.defs[name] = inner
        return {"$ref": f"#/$defs/{name}"}, value


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("seed", range(150))
def test_random_schemas(tool, seed):
    rng = random.Random(seed)
    maker = Maker(rng)
    schema, value = maker.make()
    if isinstance(schema, dict):
        schema = {**schema, "$defs": maker.defs}
    validator = jsonschema.Draft202012Validator(schema)
    reply = tool(schema=schema, walks=12, seed=seed)
    assert "texts" in reply, (schema, reply)
    for text in reply["texts"]:
        assert text is not None, f"a walk did not end: {schema}"
        validator.validate(json.loads(text))
    values = [value() for _ in range(12)]
    for instance in values:
        validator.validate(instance)
    texts = [compact(instance) for instance in values]
    texts += [json.dumps(instance, ensure_ascii=False) for instance in values[:2]
              if "enum" not in compact(schema) and "const" not in compact(schema)]
    accepted = tool(schema=schema, accept=texts, seed=seed)["accepted"]
    assert all(accepted), (schema, [t for t, a in zip(texts, accepted) if not a])


def damaged(rng, value):
    """A value that differs in one place."""
    if isinstance(value, dict) and value and rng.random() < .7:
        name = rng.choice(list(value))
        if rng.random() < .3:
            return {n: v for n, v in value.items() if n != name}
        return {**value, name: damaged(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < .7:
        i = rng.randrange(len(value))
        return value[:i] + [damaged(rng, value[i])] * rng.randint(0, 2) + value[i + 1:]
    return random_value(rng, 2)


@pytest.mark.parametrize("seed", range(1000, 1100))
def test_what_is_accepted_is_valid(tool, seed):
    rng = random.Random(seed)
    maker = Maker(rng)
    schema, value = maker.object(0)
    schema["$defs"] = maker.defs
    validator = jsonschema.Draft202012Validator(schema)
    values = [damaged(rng, value()) for _ in range(40)]
    accepted = tool(schema=schema, accept=[compact(v) for v in values], seed=seed)["accepted"]
    for instance, taken in zip(values, accepted):
        if taken:
            validator.validate(instance)


@pytest.mark.parametrize("seed", range(5))
def test_json_object(tool, seed):
    rng = random.Random(seed)
    for text in tool(walks=20, seed=seed)["texts"]:
        assert isinstance(json.loads(text), dict)
    values = [{random_word(rng): random_value(rng) for _ in range(3)} for _ in range(30)]
    texts = [compact(v) for v in values] + [json.dumps(v) for v in values]
    texts += [json.dumps(v, indent=2, ensure_ascii=False) for v in values]
    assert all(tool(accept=texts, seed=seed)["accepted"])
    bad = ["", "[]", "1", "{", '{"a"}', '{"a":1,}', "{'a':1}", '{"a":01}', '{"a":1}}', '{"a":.5}',
           '{"a":"\n"}', '{"a":"\\x"}', '{"a":"\\ud800"}', '{"a":tru}', '{"a":1} ', '{"a":   1}']
    assert not any(tool(accept=bad, seed=seed)["accepted"])


# The schema, texts that it takes, texts that it does not.
CASES = [
    # A search, unless it is anchored.
    ({"pattern": "b"}, ['"b"', '"abc"'], ['"a"', '""']),
    ({"pattern": "^b"}, ['"b"', '"bc"'], ['"ab"']),
    ({"pattern": "b$"}, ['"b"', '"ab"'], ['"bc"']),
    ({"pattern": "^a|b$"}, ['"ax"', '"xb"'], ['"xa"', '"bx"']),
    ({"pattern": "(^a$)|(^b+$)"}, ['"a"', '"bb"'], ['"aa"', '"ab"']),
    ({"pattern": "^.$", "maxLength": 2}, ['"a"', '"\u20ac"', '"\\""'], ['""', '"ab"', '"\\n"']),
    ({"pattern": "^a*$", "minLength": 2, "maxLength": 3}, ['"aa"', '"aaa"'], ['"a"', '"aaaa"']),
    ({"pattern": "^[\\x41-\\u0043\\]-]+?$"}, ['"ABC]-"'], ['"D"']),
    ({"type": "string", "maxLength": 1}, ['"\U0001F600"', '"\\ud83d\\ude00"', '"\\n"', '"\\u00e9"'],
     ['"ab"', '"\\ud83d"', '"\\ude00"']),
    # Bounds.
    ({"type": "integer"}, ["0", "-1", "123456789012345678"], ["01", "1.0", "1e3", "+1", "--1"]),
    ({"type": "integer", "minimum": 10, "maximum": 1234},
     ["10", "99", "100", "1000", "1234"], ["9", "1235", "2000", "12345", "-10"]),
    ({"type": "integer", "exclusiveMinimum": -20, "exclusiveMaximum": 0},
     ["-1", "-9", "-19"], ["0", "-0", "-20", "1", "-100"]),
    ({"type": "number", "minimum": 0.5, "maximum": 12.25},
     ["0.5", "0.50", "1", "12", "12.25", "12.0", "9.99"], ["0.49", "12.26", "13", "-1", "0", "1e0"]),
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
     ["0.1", "0.001", "0.999"], ["0", "0.0", "1", "1.0", "-0.1", "-0"]),
    ({"type": "number", "maximum": -2.5}, ["-2.5", "-3", "-100.25"], ["-2.4", "-2", "2.5", "0"]),
    ({"type": "number", "minimum": 1e-05}, ["0.00001", "1"], ["0.000001", "0"]),
    # Kinds of texts.
    ({"format": "date"}, ['"2024-02-29"', '"1999-12-31"'],
     ['"2023-02-29"', '"2024-04-31"', '"2024-13-01"', '"1900-02-29"', '"24-01-01"']),
    ({"format": "date-time"}, ['"2024-02-29T23:59:59Z"', '"2024-01-01T00:00:00.5+02:00"'],
     ['"2024-01-01"', '"2024-01-01T24:00:00Z"', '"2024-01-01 00:00:00Z"']),
    ({"format": "time"}, ['"12:30:00Z"'], ['"12:30"', '"12:60:00Z"']),
    ({"format": "duration"}, ['"P1D"', '"PT1H30M"', '"P1Y2M3DT4H"', '"P3W"'], ['"P"', '"PT"', '"1D"']),
    ({"format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']),
    ({"format": "ipv4"}, ['"192.168.0.1"', '"255.255.255.255"'], ['"256.1.1.1"', '"1.2.3"']),
    ({"format": "email"}, ['"a.b@example.org"'], ['"a@b"', '"@b.c"']),
    ({"format": "uri"}, ['"https://example.org/a?b=c#d"'], ['"example.org"']),
    # Objects.
    ({"properties": {"a": {"type": "integer"}, "b": {"type": "null"}}},
     ['{}', '{"a":1}', '{"b":null}', '{"a":1,"b":null}', '{ "a": 1 }', '{\n  "a": 1\n}'],
     ['{"b":null,"a":1}', '{"a":1,}', '{"c":1}', '{"a":1,"a":1}', '{  "a":1}']),
    ({"properties": {"a": True}, "required": ["b"]}, ['{"b":1}', '{"a":[],"b":{}}'], ['{"a":1}']),
    ({"properties": {"ab": {"type": "null"}}, "additionalProperties": {"type": "integer"}},
     ['{"a":1}', '{"abc":1}', '{"ab":null,"":2}'], ['{"ab":1}', '{"a\\u0062":1}', '{"x":null}']),
    ({"type": "object", "properties": {}, "additionalProperties": False}, ["{}"], ['{"a":1}']),
    # Lists.
    ({"items": {"type": "null"}, "minItems": 2, "maxItems": 3},
     ["[null,null]", "[ null, null, null ]"], ["[]", "[null]", "[null,null,null,null]"]),
    ({"type": "array", "maxItems": 0}, ["[]", "[ ]"], ["[1]"]),
    ({"prefixItems": [{"type": "null"}, {"const": 1}], "items": False},
     ["[]", "[null]", "[null,1]"], ["[1]", "[null,1,1]"]),
    ({"prefixItems": [{"type": "null"}], "items": {"type": "integer"}, "minItems": 3},
     ["[null,1,2]", "[null,1,2,3]"], ["[null,1]", "[null,1,null]"]),
    # Several at once.
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "null"}, "a": {"minimum": 5}}}]},
     ['{"a":5}', '{"a":7,"b":null}'], ['{"a":4}', '{"b":null}']),
    ({"type": ["string", "null", "integer"], "allOf": [{"type": ["number", "string"]}],
      "maxLength": 1, "minimum": 3}, ['"a"', "3"], ["null", '"ab"', "2", "3.5"]),
    ({"properties": {"a": True, "b": True}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
     ['{"a":1}', '{"b":1}'], ["{}"]),
    ({"$ref": "#/$defs/a~1b", "maximum": 3, "$defs": {"a/b": {"type": "integer", "minimum": 1}}},
     ["1", "3"], ["0", "4"]),
    ({"oneOf": [{"type": "integer"}, {"type": "null"}], "title": "x", "default": 1}, ["1", "null"], ["true"]),
    ({"enum": [1, "a", None, {"k": [1.5]}], "type": ["integer", "object"]},
     ["1", '{"k":[1.5]}'], ['"a"', "null"]),
    ({"const": "\u0001\"\u20ac"}, ['"\\u0001\\"\u20ac"'], ['"\u20ac"']),
    # A tree.
    ({"$defs": {"t": {"properties": {"v": {"type": "integer"},
                                     "c": {"items": {"$ref": "#/$defs/t"}, "type": "array"}},
                      "required": ["v"], "type": "object"}}, "$ref": "#/$defs/t"},
     ['{"v":1}', '{"v":1,"c":[{"v":2,"c":[]},{"v":3}]}'], ['{"c":[]}', '{"v":1,"c":[{}]}']),
]


@pytest.mark.parametrize("schema, good, bad", CASES, ids=[json.dumps(c[0])[:60] for c in CASES])
def test_cases(tool, schema, good, bad):
    assert tool(schema=schema, accept=good)["accepted"] == [True] * len(good)
    assert tool(schema=schema, accept=bad)["accepted"] == [False] * len(bad)
    validator = jsonschema.Draft202012Validator(schema)
    for text in tool(schema=schema, walks=20, seed=3)["texts"]:
        assert text is not None
        validator.validate(json.loads(text))


NESTED = {"properties": {"a": {"items": {"uniqueItems": True}}}}


@pytest.mark.parametrize("schema, path, word", [
    ({"not": {}}, "not", "not"),
    ({"properties": {"x": {"multipleOf": 2}}}, "properties.x.multipleOf", "multipleOf"),
    ({"anyOf": [{"if": {}}]}, "anyOf[0].if", "if"),
    (NESTED, "properties.a.items.uniqueItems", "uniqueItems"),
    ({"patternProperties": {}}, "patternProperties", "patternProperties"),
    ({"type": "object", "minProperties": 1}, "minProperties", "minProperties"),
    ({"pattern": "(?=a)"}, "pattern", "looks around"),
    ({"pattern": "(a)\\1"}, "pattern", "refers back"),
    ({"pattern": "a^b"}, "pattern", "anchor"),
    ({"pattern": "\\bx"}, "pattern", "\\b"),
    ({"pattern": "("}, "pattern", "'('"),
    ({"pattern": "[z-a]"}, "pattern", "wrong order"),
    ({"pattern": "(((x{1000}){1000}){1000})"}, "pattern", "too large"),
    ({"pattern": "(a|b)*a(a|b){40}"}, "pattern", "too large"),
    ({"format": "colour"}, "format", "colour"),
    ({"type": "text"}, "type", "type"),
    ({"$ref": "#/$defs/none"}, "", "#/$defs/none"),
    ({"$ref": "http://example.org/x"}, "", "'#'"),
    ({"$ref": "#"}, "", "No text"),
    ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "", "itself"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "", "No text"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "", "No text"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "", "No text"),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "", "pattern"),
    ({"allOf": [{"properties": {"a": True}, "additionalProperties": False},
                {"properties": {"b": True}}]}, "", "additionalProperties"),
    ({"enum": ["a"], "maxLength": 3}, "", "maxLength"),
    ({"type": "string", "maxLength": -1}, "", "maxLength"),
    ([], "", "object"),
])
def test_refused_by_name(tool, schema, path, word):
    error = tool(schema=schema, walks=1)["error"]
    assert error["path"] == path and word in error["message"], error


def doubling(levels):
    """Merges that double with each level."""
    defs = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "object"}}}


@pytest.mark.parametrize("schema", [
    doubling(30),
    {"enum": ["x" * 1000] * 200},
    {"properties": {f"p{i}": {"type": "integer"} for i in range(1200)}},
    {"pattern": "^(" + "|".join("a" * i + ".*" for i in range(1, 80)) + ")*$", "maxLength": 9000},
    {"prefixItems": [{"pattern": f"^[a-z]{{{i},900}}$"} for i in range(300)]},
], ids=["merges", "bytes", "properties", "product", "instructions"])
def test_what_is_too_large_is_refused(tool, schema):
    assert "error" in tool(schema=schema, walks=1)


def test_wide_and_deep_schemas_are_taken(tool):
    wide = {"type": "object", "additionalProperties": False,
            "properties": {f"p{i}": {"type": "integer"} for i in range(900)}}
    for text in tool(schema=wide, walks=3)["texts"]:
        jsonschema.validate(json.loads(text), wide)
    deep = {"type": "null"}
    for _ in range(50):
        deep = {"type": "array", "items": deep, "minItems": 1, "maxItems": 1}
    assert json.loads(tool(schema=deep, walks=1)["texts"][0])
    branches = {"anyOf": [{"type": "string", "maxLength": i} for i in range(1, 300)]}
    for text in tool(schema=branches, walks=3)["texts"]:
        jsonschema.validate(json.loads(text), branches)
    assert re.fullmatch(r'"(?s:.){500}"', compact("x" * 500))
    long = {"type": "string", "minLength": 500, "maxLength": 500}
    assert tool(schema=long, accept=[compact("x" * 500), compact("x" * 499)])["accepted"] == [
        True, False]
