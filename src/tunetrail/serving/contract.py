"""What a request may be and what comes back: checked here, and described here for OpenAPI."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pydantic
from pydantic import ConfigDict, Field, StringConstraints, create_model

from tunetrail.errors import unknown
from tunetrail.serving.batching import Row
from tunetrail.serving.models import Model
from tunetrail.settings import Settings

#: No NUL, and something besides blanks. Written so that every dialect reads it alike.
_VISIBLE = r"^[^\x00]*[^\x00\t\n\x0b\f\r ][^\x00]*$"


class Limits(Settings):
    """What a request may have.

    Attributes:
        rows: Of a request.
        characters: Of a text.
        body_bytes: Of the body of a request.
    """

    rows: int = Field(default=256, ge=1)
    characters: int = Field(default=20_000, ge=1)
    body_bytes: int = Field(default=4 << 20, ge=1)


class Refused(Exception):
    """A request that is not answered; the client is told why.

    Attributes:
        status: Of the HTTP response.
        problem: The value and the rule that it breaks.
        fix: What to do about it.
        headers: Of the HTTP response.
    """

    def __init__(
        self, status: int, problem: str, fix: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(problem)
        self.status, self.problem, self.fix = status, problem, fix
        self.headers = headers or {}


class Contract:
    """Requests and responses of one model.

    Args:
        model: Answers them.
        limits: Of a request.
    """

    #: Names of the components of OpenAPI that are of one model.
    SCHEMAS = ("Request", "Row", "Response", "Prediction")

    def __init__(self, model: Model, limits: Limits) -> None:
        self._model, self._limits = model, limits
        text = Annotated[
            str,
            StringConstraints(min_length=1, max_length=limits.characters, pattern=_VISIBLE),
        ]
        needed: dict[str, Any] = {name: (text, ...) for name in model.columns}
        # Missing is missing: null is not a text.
        allowed: dict[str, Any] = {
            name: (text, Field(default="", json_schema_extra=_without_default))
            for name in model.optional
        }
        config = ConfigDict(extra="forbid", strict=True)
        row = create_model("Row", __config__=config, **needed, **allowed)
        many = Annotated[list[row], Field(min_length=1, max_length=limits.rows)]
        self._request = create_model("Request", __config__=config, rows=(many, ...))

    @property
    def example(self) -> dict[str, Any]:
        """A request."""
        return {"rows": [{name: f"a {name.replace('_', ' ')}" for name in self._model.columns}]}

    def read(self, body: bytes) -> list[Row]:
        """The rows of a request.

        Raises:
            Refused: 400 for what is not JSON, 422 for what is not rows of this model.
        """
        try:
            request: Any = self._request.model_validate_json(body)
        except pydantic.ValidationError as error:
            # A key that is not known is often the one that is missing, misspelt.
            found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
            raise self._refusal(found[0]) from None
        names = (*self._model.columns, *self._model.optional)
        texts = ([getattr(row, name) for name in names] for row in request.rows)
        return [row[0] if len(row) == 1 or not row[1] else (row[0], row[1]) for row in texts]

    def _refusal(self, error: Any) -> Refused:
        shape = f"send {json.dumps(self.example)}"
        kind, context = error["type"], error.get("ctx", {})
        if kind == "json_invalid":
            return Refused(400, f"the body is not valid JSON: {context['error']}", shape)
        place = _place(error["loc"])
        limits = self._limits
        if kind == "extra_forbidden":
            inside = len(error["loc"]) > 1
            names = (*self._model.columns, *self._model.optional) if inside else ("rows",)
            found = unknown("key", str(error["loc"][-1])[:40], names, _place(error["loc"][:-1]))
            return Refused(422, found.problem, found.fix)
        if kind == "missing":
            return Refused(422, f"{place} is missing", shape)
        if kind == "string_too_long":
            return Refused(
                422,
                f"{place} has {len(error['input']):,} characters, more than the "
                f"{limits.characters:,} that are allowed",
                "shorten it, or start the server with a higher --max-characters",
            )
        if kind in ("string_too_short", "string_pattern_mismatch"):
            nul = "\0" in error["input"]
            return Refused(
                422,
                f"{place} holds a NUL character, which no text has"
                if nul
                else f"{place} is blank: a text needs a visible character",
                "remove the character" if nul else "leave the row out, or send its text",
            )
        if kind == "too_long":
            return Refused(
                422,
                f"{place} has more than the {limits.rows} rows that are allowed",
                "send them in several requests, or start the server with a higher --max-rows",
            )
        if kind == "too_short":
            return Refused(422, f"{place} is empty: one row is the least", shape)
        wanted = {"string_type": "a text", "list_type": "a list of rows"}.get(kind, "an object")
        return Refused(422, f"{place} is {_shown(error['input'])}, not {wanted}", shape)

    def answer(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        """The body of a response."""
        model = self._model
        return {"model": model.name, "version": model.version, "predictions": predictions}

    def schemas(self) -> dict[str, Any]:
        """Components of OpenAPI, by the names in ``SCHEMAS``."""
        place = "#/components/schemas/{model}"
        request = self._request.model_json_schema(ref_template=place)
        parts = request.pop("$defs")
        request["example"] = self.example
        response = _object(
            model={"type": "string"},
            version={"anyOf": [{"type": "string"}, {"type": "null"}]},
            predictions={
                "type": "array",
                "items": {"$ref": place.format(model="Prediction")},
                "description": "One for each row, in order.",
            },
        )
        return {**parts, "Request": request, "Response": response, "Prediction": self._prediction()}

    def _prediction(self) -> dict[str, Any]:
        if self._model.predicts == "answers":
            return _object(
                answer={"type": "string", "description": "Part of the context."},
                start={"type": "integer", "minimum": 0, "description": "Its first character."},
                score={
                    "anyOf": [{"type": "number"}, {"type": "null"}],
                    "description": "Sum of the logits of its first and last token; null where "
                    "the context has nothing that the model reads.",
                },
            )
        if self._model.predicts == "a number":
            return _object(number={"type": "number"})
        labels = self._model.predictor.labels
        share = {"type": "number", "minimum": 0, "maximum": 1}
        return _object(
            label={"type": "string", "enum": labels},
            scores=_object(**{label: share for label in labels}),
        )


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default")


def _place(location: tuple[int | str, ...]) -> str:
    """``rows[3].text``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "the body"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
