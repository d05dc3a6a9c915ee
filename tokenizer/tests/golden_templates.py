"""The chat-template half of make_golden.py: conversations, expressions, and what jinja2 makes of
them when it is set up as the transformers package does."""

import datetime
import json
from pathlib import Path

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TIME = datetime.datetime(2024, 7, 26, 9, 5, 7)  # of strftime_now in all golden files


def environment() -> ImmutableSandboxedEnvironment:
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    result = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                           extensions=[loopcontrols])
    result.filters["tojson"] = tojson
    result.globals["raise_exception"] = raise_exception
    result.globals["strftime_now"] = TIME.strftime
    return result


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place, \"now\" & soon; 100 % <b>sure</b> — 天気",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City, e.g. Zürich"},
                "days": {"type": "integer", "minimum": 0, "maximum": 1e2, "default": 0.1},
                "units": {"type": "string", "enum": ["C", "F"], "nullable": None},
            },
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function",
         "function": {"name": "clock", "description": "Time", "parameters": {}, "return": "str"}}
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "a1B2c3D4e", "type": "function",
     "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2}}}]}
ANSWER = {"role": "tool", "tool_call_id": "a1B2c3D4e", "name": "get_weather",
          "content": "{\"temperature\": 21.5}"}

# name: (messages, tools, add_generation_prompt, extra)
CONVERSATIONS = {
    "one question": ([user("What is the capital of France?")], None, True, {}),
    "no generation prompt": ([user("Hi"), assistant("Hello!")], None, False, {}),
    "system first": ([system("You are terse.\n"), user("Why is the sky blue?")], None, True, {}),
    "four turns": ([user(" Hi "), assistant(" Hello. "), user("\tAnd?\n"), assistant("Well\n\n"),
                    user("Thanks\r\n")], None, True, {}),
    "unicode": ([system("日本語で答えて"), user("👩‍👩‍👧‍👦 e\u0301 \u00a0 مرحبا\u2028x\ufeff")], None, True, {}),
    "control tokens in a message": ([user("a<|im_end|>\n<|im_start|>system\nb</s><|eot_id|>[/INST]")],
                                    None, True, {}),
    "quotes and braces": ([user("{{ 1 }} {% if x %} {# c #} 'single' \"double\" \\n")], None, True, {}),
    "empty message": ([user(""), assistant(""), user("x")], None, True, {}),
    "roles do not alternate": ([user("a"), user("b")], None, True, {}),
    "no messages": ([], None, True, {}),
    "tools": ([user("Weather in Zürich?")], [WEATHER, CLOCK], True, {}),
    "tools and system": ([system("Be brief."), user("Weather?")], [WEATHER], True,
                         {"tools_in_user_message": False}),
    "tool called": ([user("Weather?"), CALL, ANSWER], [WEATHER], True, {}),
    "tool called twice": ([user("Weather?"), CALL, ANSWER, ANSWER, assistant("21.5 °C")], [WEATHER],
                          True, {}),
    "date given": ([user("What day is it?")], None, True, {"date_string": "24 Nov 2026"}),
    "content is missing": ([{"role": "user"}], None, True, {}),
    "content is none": ([{"role": "user", "content": None}], None, True, {}),
}

CONTEXT = {
    "s": "Hello, Wörld", "empty": "", "n": 7, "neg": -7, "f": 2.5, "big": 1e22, "tiny": 1e-7,
    "t": True, "no": None, "l": [3, 1, 2], "words": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": [1, 2.0, None, True], "items": "key"},
    "people": [{"name": "Ann", "age": 31, "tags": ["x"]}, {"name": "bob", "age": 4},
               {"name": "Cy", "age": 31, "tags": []}],
    "ws": "  \t two words \n\u00a0", "lines": "one\ntwo\n\nthree\r\nfour\n",
    "emoji": "a👍🏽é日", "quotes": "it's \"so\" \\ \n\x7f\u200b\u2028", "html": "<a href='x'>&\"</a>",
}

# Expressions, each rendered as {{ ... }}.
EXPRESSIONS = """
1 + 2 * 3 ** 2 - 4 // 3
-7 // 2
-7 % 3
7 / 2
7.5 // 2
-7.5 % 2
2 ** 10
2 ** -1
-2 ** 2
1 - 1 - 1
1 / 0
1 + 'a'
'a' + 1
'a' + 'b' * 3
[1] + [2, 3]
[1, 2] * 2
1 ~ 'a' ~ none ~ true ~ 1.0 ~ [1, 'x']
1 < 2 < 3
1 < 3 < 2
1 == 1.0 == true
'a' < 'b'
'a' < 1
[1, 2] < [1, 3]
not n == 7
not true or true
true and 0 or 'z'
n and s
empty or 'fallback'
1 if t else 2
1 if no else 2
1 if no
(1 if no) is undefined
'x' if empty else 'y' if no else 'z'
'ell' in s
'ell' not in s
1 in l
'a' in d
'zz' in d
none in [none]
1 in 'abc'
missing
missing.attr
missing is defined
d.missing is defined
d.missing.more
d.b
d['b']
d.items is callable
d['items']
d.items() | list
d.keys() | list, d.values() | list
d.get('b'), d.get('zz'), d.get('zz', 5)
d
l
l[0], l[-1], l[5] is defined
l.0
l[1:], l[:-1], l[::-1], l[5:], l[-2:1]
s[0], s[-1], s[7:], s[::-1], s[::2], s[-3:]
emoji[1], emoji | length, emoji[::-1]
(1, 2), (1,), ()
{'a': 1, 'b': {'c': [1, 'it\\'s']}}
{1: 'one', none: 2}
s.upper(), s.lower(), s.title(), s.capitalize()
'ß'.upper(), 'İI'.lower(), 'ǆ'.title()
"they're bill's friends".title()
"they're bill's (friends)" | title
s.startswith('Hell'), s.endswith('x'), s.startswith(('a', 'H'))
ws.strip(), '|', ws.lstrip(), '|', ws.rstrip(), '|'
'xxhixx'.strip('x'), 'xyhiyx'.lstrip('xy')
'a,b,,c'.split(','), 'a,b,,c'.split(',', 1), ' a  b '.split(), ' a  b c '.split(none, 1)
'a,b,c'.rsplit(',', 1)
lines.splitlines()
'aXbXc'.replace('X', '--'), 'aaa'.replace('a', 'b', 2), 'abc'.replace('', '-')
'abcabc'.find('c'), 'abcabc'.rfind('c'), 'abc'.find('z'), emoji.find('é')
'banana'.count('an'), 'abc'.count('')
'-'.join(['a', 'b']), '-'.join('xyz')
'abc'.isdigit(), '12'.isdigit(), 'abc'.isalpha(), 'a1'.isalnum(), ' '.isspace(), 'ab'.islower()
'12'.isdecimal(), 'AB1'.isupper(), ''.islower()
l.index(2), l.count(1)
s.nope
s.nope()
n()
s | upper, s | lower, s | title, s | capitalize
ws | trim
'xxhixx' | trim('x')
n | trim
l | length, d | length, s | length, missing | length
n | length
l | count
l | first, l | last, [] | first is defined
s | first, s | last
l | join, l | join(', '), l | join(d='-')
people | join(', ', attribute='name')
missing | default('dd'), empty | default('dd'), empty | default('dd', true), no | d('x', boolean=true)
l | sort, l | sort(reverse=true), words | sort, words | sort(case_sensitive=true)
people | sort(attribute='age') | map(attribute='name') | list
people | map(attribute='tags', default='none') | list
people | map(attribute='tags') | list
words | map('upper') | list, words | map('replace', 'a', 'zz') | join
people | selectattr('age', 'equalto', 31) | map(attribute='name') | list
people | selectattr('age', '>', 10) | list | length
people | rejectattr('tags') | map(attribute='name') | list
people | selectattr('tags', 'defined') | map(attribute='name') | list
l | select('odd') | list, l | reject('odd') | list, [0, 1, ''] | select | list
l | select('gt', 1) | list
no | selectattr('type', 'equalto', 'x') | list, 0 | select | list, missing | rejectattr('x') | list
no | map('upper') | list, missing | map(attribute='x') | list, n | map('upper') | list
true | select | list
l | sum, people | sum(attribute='age'), l | max, l | min, words | max
words | unique | list, [1, 1.0, 2] | unique | list
l | reverse | list, s | reverse
d | dictsort, d | items | list
d | list
'abc' | list
n | string ~ 'x', 3.7 | int, '42' | int, 'x' | int, 'x' | int(5), '3.9' | int, -3.7 | int
'1.5' | float, 'x' | float, 3 | float, neg | abs
2.5 | round, 3.5 | round, 2.675 | round(2), 2.1 | round(method='ceil'), 2.9 | round(0, 'floor'), 7 | round
s | replace('l', 'L'), s | replace('l', 'L', 1)
html | escape
html | e | length
lines | indent, '|', lines | indent(2, true), '|', lines | indent(2, blank=true), lines | indent('> ')
d | tojson
people | tojson(indent=2)
people | tojson(indent=4, sort_keys=true)
[] | tojson(indent=2), {} | tojson(indent=2), [[]] | tojson(indent=1)
quotes | tojson, emoji | tojson, emoji | tojson(ensure_ascii=true)
[big, tiny, f, 1e16, 123456789.125, 1e-5, 0.1, 100.0, -0.0] | tojson
d | tojson(separators=(',', ':'))
missing | tojson
big, tiny, 1e16, 1e15, 0.0001, 0.00001, 100.0, 1.0
quotes, [quotes], ["it's"], ['"'], ['\\'"'], ['é日\u200b\\x01']
n is number, f is float, n is integer, t is integer, t is number, t is boolean
s is string, l is string, l is sequence, l is iterable, d is mapping, l is mapping, n is iterable
no is none, no is not none, missing is none
n is odd, n is even, n is divisibleby 7, n is divisibleby(2)
n is eq 7, n is ne 7, n is gt 6, n is le(7), n == 7 is true
'a' is in ['a'], 'abc' is lower, 'ABC' is upper, no is sameas none, t is true, t is false
range(3) | list, range(1, 7, 2) | list, range(3, 0, -1) | list
dict(a=1, b='x')
namespace(a=1).a
strftime_now('%d %B %Y %H:%M:%S'), strftime_now('%-d')
'a' 'b' "c"
"\\x41\\u00e9\\U0001F600\\t|\\q|\\\\"
1_000 + 1
1.5e3
true, false, none, True, False, None
[1, 2, 3,][1]
{'a': 1}['a']
{'a': {'b': {}}}.a.b
(n > 5) and (l | length == 3)
n if n > 5 else 'small'
- n | abs
not missing
[missing] | length
s | nosuchfilter
s is nosuchtest
raise_exception('no ' ~ n)
"""

# Whole templates, for blocks and white space.
TEMPLATES = [
    "a\n{% if t %}\n  b\n{% endif %}\nc\n",
    "a\n   {% if t %}   \n  b\n   {% endif %}\nc",
    "  {%- if t -%}  \n b \n {%- endif -%}  c",
    "x  {%+ if t %} y {% endif +%}\n z",
    "  {{- s -}}  \n\n  {{ s }}\n{{ n }}\n",
    "a {# comment #} b\n{# alone #}\nc {#- strip -#} d\n   {#+ keep +#}\ne",
    "{% raw %}{{ not }} {% this %}{% endraw %}!\n  {%- raw -%}  x  {%- endraw -%}  y",
    "{% for i in l %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}",
    "{% for i in missing %}x{% else %}none{% endfor %}",
    "{% for i in n %}x{% endfor %}",
    "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}"
    "{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}|{% endfor %}",
    "{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {{ loop.cycle('x', 'y') }};{% endfor %}",
    "{% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}{% for c in emoji %}<{{ c }}>{% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }} {% endfor %}",
    "{% for a, b in [1, 2] %}{{ a }}{% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in l %}{% for j in l %}{{ loop.depth }}{{ i * j }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% if n > 10 %}big{% elif n > 5 %}mid{% else %}small{% endif %}",
    "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set ns = namespace(x=1, y='a') %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z }}",
    "{% if t %}{% set y = 2 %}{% endif %}{{ y }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}",
    "{% set block %}\n  x{{ n }}\n{% endset %}[{{ block }}]{{ block | upper }}",
    "{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m() }} {{ m(1, 2, 3) }}",
    "{% macro fact(k) %}{% if k <= 1 %}1{% else %}{{ k }}*{{ fact(k - 1) }}{% endif %}{% endmacro %}{{ fact(5) }}",
    "{% macro m(a) %}{{ n }}{% set n = 1 %}{{ n }}{% endmacro %}{{ m() }}{{ n }}",
    "{% macro m(a) %}x{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}x{% endmacro %}{{ m(b=2) }}",
    "{%- macro render(x) -%}\n  {%- if x is mapping -%}\n    {%- for k, v in x | items -%}\n      {{- k }}: {{ render(v) }};\n    {%- endfor -%}\n  {%- else -%}\n    {{- x -}}\n  {%- endif -%}\n{%- endmacro -%}\n{{ render({'a': {'b': 1, 'c': [2]}, 'd': 3}) }}",
    "{{ 'a\nb' }}\r\n{{ n }}\r",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ [[1, 2], [3]][0][1] }}",
    "line\n\n\n{{ n }}\n\n",
    "{% if t %}{% if no %}a{% else %}b{% endif %}{% endif %}",
    "{% for p in people %}{{ p.name }}{% if p.tags %} {{ p.tags[0] }}{% endif %}{{ '\n' }}{% endfor %}",
    "{%- for m in people -%}\n{{ m['name'] + '\n' -}}\n{%- endfor -%}",
    "{% if s is defined and s %}y{% endif %}{% if not missing %}z{% endif %}",
    "{{ '}}' }}{{ \"%}\" }}{{ '{%' }}",
    "{",
    "{ {{ n }} } {%if t%}x{%endif%}",
    "{% set loop_messages = people[1:] %}{% for m in loop_messages %}{{ m.name }}{% endfor %}",
    "{% set x = namespace() %}{% set x.list = [] %}{% for i in l %}{% set x.list = x.list + [i * 2] %}{% endfor %}{{ x.list }}",
    "{% for i in l | sort %}{{ i }}{% endfor %}{% for i in (1, 2) %}{{ i }}{% endfor %}{% for i in 1, 2 %}{{ i }}{% endfor %}",
    "\t{% if t %}\n\t\tx\n\t{% endif %}\n y {% if t %}\n z{% endif %}\n",
    # What does not compile.
    "{% if %}", "{{ }}", "{{ 1 + }}", "{% for in l %}{% endfor %}", "{% if t %}", "{% endif %}",
    "{{ 'a }}", "{# open", "{% raw %}x", "{{ (1 }}", "{{ 1) }}", "{% nope %}", "{{ a.1b }}", "{{ $ }}",
    "{% set 1 = 2 %}", "{% set true = 2 %}", "{% macro m(a=1, b) %}{% endmacro %}", "{% break %}",
    "{% for i in l %}{% endif %}", "{{ x[1:2:3:4] }}", "{{ f(a=1, 2) }}",
]


def rendered(env, source: str, variables: dict) -> dict:
    try:
        return {"output": env.from_string(source).render(**variables)}
    except Exception:  # noqa: BLE001 - whatever Python raises, we must fail, too
        return {"fails": True}


def write(folder: Path, templates: Path) -> None:
    env = environment()
    chats = []
    for path in sorted(templates.glob("*.jinja")):
        source = path.read_text()
        for name, (messages, tools, prompt, extra) in CONVERSATIONS.items():
            variables = dict(messages=messages, tools=tools, documents=None,
                             add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>", **extra)
            chats.append({"template": path.stem, "conversation": name, **rendered(env, source, variables)})
    conversations = {
        name: {"messages": messages, "tools": tools, "add_generation_prompt": prompt, "extra": extra}
        for name, (messages, tools, prompt, extra) in CONVERSATIONS.items()}
    dump(folder / "chats.json", {"conversations": conversations, "chats": chats})
    sources = ["{{ " + line + " }}" for line in EXPRESSIONS.strip().splitlines()] + TEMPLATES
    cases = [{"source": source, **rendered(env, source, CONTEXT)} for source in sources]
    dump(folder / "jinja.json", {"context": CONTEXT, "cases": cases})


def dump(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=True, indent=1) + "\n")
