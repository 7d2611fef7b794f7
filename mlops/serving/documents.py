"""The API's OpenAPI document, made for the version that is served: its fields, their limits, a working example."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mlops.contract import Json
from mlops.serving.deciding import Nouns

Schema = dict[str, Any]

ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"field": {"type": ["string", "null"]}, "reason": {"type": "string"}},
            "required": ["field", "reason"],
        }
    },
    "required": ["error"],
}
ERRORS: Mapping[int, str] = {
    400: "The body is not one JSON object.",
    401: "No valid API key.",
    403: "The API key does not open this.",
    404: "There is no such thing.",
    409: "The id was decided with other values.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "A field is not what it must be; the error names it.",
    429: "Too many requests for this key.",
    503: "Not ready, or too many requests in work.",
}
MODEL = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "version": {"type": "integer"}, "arm": {"type": "string"}},
    "required": ["name", "version", "arm"],
}
CONTRIBUTION = {
    "type": "object",
    "properties": {
        "feature": {"type": "string"},
        "value": {"type": ["number", "string", "null"]},
        "contribution": {"type": "number"},
        "text": {"type": "string"},
    },
    "required": ["feature", "value", "contribution", "text"],
}
BY_DECISION: Schema = {
    "type": "object",
    "properties": {"decision_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"}},
    "required": ["decision_id"],
    "additionalProperties": False,
}
ID = "^[!-~]([ -~]{0,62}[!-~])?$"
OBJECT: Schema = {"type": "object"}
KEY: list[Schema] = [{"key": []}]


@dataclass(frozen=True)
class Described:
    """What a version's requests and answers are.

    `example` is a request, its id first. `said` has a schema for each field of what is said of one, `label` is that of
    what is told of the truth, such as `truth`.
    """

    request: type[msgspec.Struct]
    example: Json
    said: Json
    label: Schema
    truth: Any


def document(title: str, nouns: Nouns, about: Described, most: int) -> Schema:
    """Describe every route; `most` requests may stand in one body."""
    one, ours = _schema(about.request), _Schemas(nouns, about)
    many = {
        "type": "object",
        "properties": {nouns.many: {"type": "array", "items": one, "minItems": 1, "maxItems": most}},
        "required": [nouns.many],
    }
    explained = {"parameters": [{"name": "explain", "in": "query", "schema": {"type": "boolean"}}]}
    by_id = {"name": "decision_id", "in": "path", "required": True, "schema": {"type": "string"}}
    example = about.example
    label = {nouns.id: str(next(iter(example.values()))), nouns.label: about.truth}
    paths = {
        "/predict": {"post": _post(f"Decide one {nouns.one}", one, example, ours.answer, (409,)) | explained},
        "/predict/batch": {
            "post": _post(f"Decide {nouns.many} in order", many, {nouns.many: [example]}, ours.results, ())
        },
        "/explain": {
            "post": _post(
                f"Explain a decision by its id, or a {nouns.one}",
                {"anyOf": [one, BY_DECISION]},
                example,
                ours.explanation,
                (404, 409),
            )
        },
        "/feedback": {"post": _post("Say what the truth turned out to be", ours.feedback, label, OBJECT, (404,))},
        "/invocations": {"post": _post("SageMaker's door", {"anyOf": [one, many]}, example, OBJECT, (409,))},
        "/decisions/{decision_id}": {
            "get": _get("The journal's entry of a decision", (401, 403, 404, 429, 503))
            | {"parameters": [by_id], "security": KEY}
        },
        "/model": {"get": _get("What is served", (401, 403, 429, 503)) | {"security": KEY}},
        "/health": {"get": _get("Alive", ())},
        "/ready": {"get": _get("A model is awake and the stores answer", (503,))},
        "/ping": {"get": _get("SageMaker's form of /ready", (503,))},
        "/metrics": {"get": _text("Metrics for Prometheus")},
    }
    scheme = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0", "info": {"title": title, "version": "1"}, "paths": paths,
        "components": {"securitySchemes": {"key": scheme}},
    }  # fmt: skip


class _Schemas:
    """The schemas of a module's answers."""

    def __init__(self, nouns: Nouns, about: Described) -> None:
        ids = {nouns.id: {"type": "string"}, "decision_id": {"type": "string"}}
        said = {**about.said, "model": MODEL}
        flags = {"replayed": {"type": "boolean"}, "degraded": {"type": "boolean"}}
        reasons = {"type": "array", "items": CONTRIBUTION}
        parts = {"base_value": {"type": "number"}, "contributions": reasons, "margin": {"type": "number"}}
        self.answer: Schema = {
            "type": "object", "properties": {**ids, **said, **flags, "reasons": reasons},
            "required": [*ids, *said, "replayed"],
        }  # fmt: skip
        self.explanation: Schema = {
            "type": "object", "properties": {**ids, **said, **parts}, "required": [*said, *parts],
        }  # fmt: skip
        self.results: Schema = {
            "type": "object",
            "properties": {"results": {"type": "array", "items": {"anyOf": [self.answer, ERROR]}}},
            "required": ["results"],
        }
        self.feedback: Schema = {
            "type": "object",
            "properties": {
                nouns.id: {"type": "string", "minLength": 1, "maxLength": 64, "pattern": ID},
                nouns.label: about.label,
                "known_at": {"type": ["string", "null"], "format": "date-time"},
            },
            "required": [nouns.id, nouns.label],
            "additionalProperties": False,
        }


def _schema(request: type[msgspec.Struct]) -> Schema:
    """The schema of a request, without the definitions that OpenAPI keeps elsewhere."""
    schema = msgspec.json.schema(request)
    found: Schema = schema["$defs"][request.__name__]
    for field in found["properties"].values():
        for kind in [field, *field.get("anyOf", [])]:
            if "pattern" in kind:
                kind["pattern"] = kind["pattern"].replace(r"\Z", "$")
    return found | {"additionalProperties": False}


def _post(summary: str, body: Schema, example: Json, answer: Schema, further: tuple[int, ...]) -> Schema:
    content = {"application/json": {"schema": body, "example": example}}
    codes = (400, 401, 403, 413, 415, 422, 429, 503, *further)
    return {
        "summary": summary, "requestBody": {"required": True, "content": content}, "security": KEY,
        "responses": _responses(answer, codes),
    }  # fmt: skip


def _get(summary: str, codes: tuple[int, ...]) -> Schema:
    return {"summary": summary, "responses": _responses(OBJECT, codes)}


def _text(summary: str) -> Schema:
    found = {"description": "The answer.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": found}}


def _responses(answer: Schema, codes: tuple[int, ...]) -> Schema:
    found: Schema = {"200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}}}
    for code in sorted(codes):
        found[str(code)] = {"description": ERRORS[code], "content": {"application/json": {"schema": ERROR}}}
    return found
