"""What schemathesis is told beyond /openapi.json (SCHEMATHESIS_HOOKS)."""

import schemathesis


@schemathesis.hook
def map_body(context, body):
    """OpenAPI cannot say which JSON schemas are served; test_structured.py tries those."""
    form = body.get("response_format") if isinstance(body, dict) else None
    asked = form.get("json_schema") if isinstance(form, dict) else None
    if isinstance(asked, dict) and isinstance(asked.get("schema"), dict):
        asked["schema"] = {"type": "integer"}
    return body
