"""What the API says of itself: OpenAPI entries of the plain ASGI routes, and a page for people.

The page is plain HTML: FastAPI's own loads scripts from elsewhere, which a closed network has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from html import escape
from typing import Any

DESCRIPTION = (
    "Looks up counterfactual pairs and sets, their pictures and the bias report of the current "
    "release. Every answer names its release in the header `x-release-id`; within one answer all "
    "is of one release. A request may name another release in the same header, with a key of the "
    "scope `shadow` as bearer token. Errors are `application/problem+json` whose `detail` says "
    "what to do."
)

_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and what to do."},
    },
}
_HEADERS = {
    "x-release-id": {
        "description": "The release that the answer is from, or `none`.",
        "schema": {"type": "string"},
    }
}


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _HEADERS,
        "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA}},
    }


def _answer(description: str, media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _HEADERS,
        "content": {media_type: {"schema": schema}},
    }


PROBLEMS: dict[int | str, dict[str, Any]] = {
    422: _problem("The request is malformed."),
    503: _problem("No release is current, or a store does not answer."),
}
REPORT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The report.", "content": {"text/html": {}, "application/json": {}}},
    404: _problem("The release has no report in this format."),
    **PROBLEMS,
}

_ERRORS = {
    "404": _problem("The current release has nothing of that id."),
    "422": PROBLEMS[422],
    "503": PROBLEMS[503],
}
_ID = {"type": "string", "pattern": "^s[0-9a-f]{15}-[A-Za-z0-9_.+ -]+$", "maxLength": 200}
_RECORD = {"type": "object", "additionalProperties": True}


def _get(
    summary: str, parameter: str, schema: Mapping[str, Any], answers: dict[str, Any]
) -> dict[str, Any]:
    return {
        "get": {
            "tags": ["lookups"],
            "summary": summary,
            "parameters": [{"name": parameter, "in": "path", "required": True, "schema": schema}],
            "responses": {**answers, **_ERRORS},
        }
    }


HOT_PATHS: dict[str, Any] = {
    "/v1/pairs/{record_id}": _get(
        "One counterfactual pair, by its id",
        "record_id",
        _ID,
        {"200": _answer("The pair.", "application/json", _RECORD)},
    ),
    "/v1/pairs/batch": {
        "post": {
            "tags": ["lookups"],
            "summary": "Up to 500 pairs at once, in the order asked for",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["ids"],
                            "additionalProperties": False,
                            "properties": {
                                "ids": {
                                    "type": "array",
                                    "items": _ID,
                                    "minItems": 1,
                                    "maxItems": 500,
                                }
                            },
                        }
                    }
                },
            },
            "responses": {
                "200": _answer(
                    "A slot for each id: `{id, found: true, pair}` or `{id, found: false}`.",
                    "application/json",
                    _RECORD,
                ),
                "400": _problem("The body is not JSON."),
                "408": _problem("The body did not come in time."),
                "413": _problem("The body is too large."),
                "422": PROBLEMS[422],
                "503": PROBLEMS[503],
            },
        }
    },
    "/v1/sets/{record_id}": _get(
        "One counterfactual set with all its pairs, by its id",
        "record_id",
        _ID,
        {"200": _answer("The set.", "application/json", _RECORD)},
    ),
    "/v1/images/{sha256}": _get(
        "One picture of the current release, by the hash of its bytes",
        "sha256",
        {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        {
            "200": _answer(
                "The picture; it may be kept for ever.",
                "image/png",
                {"type": "string", "format": "binary"},
            ),
            "304": {"description": "The ETag sent with If-None-Match is this picture's."},
        },
    ),
}


# A request may name the release that it is answered from.
_NAMED: dict[str, Any] = {
    "parameters": [
        {
            "name": "x-release-id",
            "in": "header",
            "description": "Another release than the current one; needs a key of the scope shadow.",
            "schema": {"type": "string", "pattern": "^r[0-9a-f]{12}$"},
        }
    ],
    "responses": {
        "401": _problem("A release is named, and no valid key was sent."),
        "403": _problem("A release is named, and the key lacks the scope shadow."),
    },
}
_OF_A_RELEASE = (*HOT_PATHS, "/v1/releases/current", "/v1/report")


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's OpenAPI document with the plain ASGI routes, and what holds for several routes."""
    schema["paths"].update(deepcopy(HOT_PATHS))
    schema.setdefault("components", {})["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "cfl_<key_id>_<secret>"}
    }
    for path in _OF_A_RELEASE:
        for entry in schema["paths"][path].values():
            entry["parameters"] = [*entry.get("parameters", []), *_NAMED["parameters"]]
            entry["responses"] = {**_NAMED["responses"], **entry["responses"]}
            entry["security"] = [{}, {"key": []}]
    return schema


def page(schema: Mapping[str, Any]) -> str:
    """The OpenAPI document as a page for people."""
    rows = "\n".join(
        f"<tr><td><code>{method.upper()}</code></td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(entry.get('description') or entry.get('summary', ''))}</td></tr>"
        for path, methods in sorted(schema["paths"].items())
        for method, entry in methods.items()
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(schema['info']['title'])}</title><style>"
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.3rem 1rem .3rem 0;vertical-align:top}</style></head><body>"
        f"<h1>{escape(schema['info']['title'])}</h1><p>{escape(schema['info']['description'])}</p>"
        f'<table>{rows}</table><p>In full: <a href="/openapi.json">openapi.json</a></p>'
        "</body></html>"
    )
