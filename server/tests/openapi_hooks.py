"""What schemathesis is told beyond /openapi.json (SCHEMATHESIS_HOOKS)."""

import re

import schemathesis


@schemathesis.hook
def map_body(context, body):
    """OpenAPI cannot say which JSON schemas are served (test_structured.py tries those), that
    names of tools differ, or that a text is that of a JSON object."""
    form = body.get("response_format") if isinstance(body, dict) else None
    asked = form.get("json_schema") if isinstance(form, dict) else None
    if isinstance(asked, dict) and isinstance(asked.get("schema"), dict):
        asked["schema"] = {"type": "integer"}
    if isinstance(body, dict):
        names = rename_tools(body.get("tools"))
        choice = body.get("tool_choice")
        function = choice.get("function") if isinstance(choice, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            function["name"] = names[0] if names else "none"
        messages = body.get("messages")
        for message in messages if isinstance(messages, list) else []:
            calls = message.get("tool_calls") if isinstance(message, dict) else None
            for call in calls if isinstance(calls, list) else []:
                function = call.get("function") if isinstance(call, dict) else None
                if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                    function["arguments"] = '{"x": 1}'
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    """Cases at the bounds of the description do not come through map_body()."""
    map_body(context, case.body)


def rename_tools(tools):
    """Gives the tools different names, where they have good ones, and schemas that are served."""
    names = []
    for i, tool in enumerate(tools if isinstance(tools, list) else []):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            continue
        if isinstance(function.get("parameters"), dict):
            function["parameters"] = {"type": "object", "properties": {"x": {"type": "integer"}}}
        if re.fullmatch("[a-zA-Z0-9_-]{1,64}", str(function.get("name"))):
            function["name"] = f"f{i}"
            names.append(function["name"])
    return names
