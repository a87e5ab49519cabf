"""Frozen, closed settings: the base class of everything read from YAML, with readable errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from tunetrail.errors import TuneTrailError, unknown


class Settings(pydantic.BaseModel):
    """A frozen group of settings; a key it does not know is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        """YAML's ``yes`` and ``on`` are true, which would pass for the number 1."""
        allowed = cls.model_fields[info.field_name or ""].annotation is bool
        values = value if isinstance(value, list) else [value]
        if not allowed and any(isinstance(v, bool) for v in values):
            raise ValueError("true and false are not valid here (quote it if it is a text)")
        return value


S = TypeVar("S", bound=pydantic.BaseModel)


class _UniqueKeys(yaml.SafeLoader):
    """YAML itself lets the last of two equal keys win, silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        TuneTrailError: The file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise TuneTrailError(
            f"{path} does not exist", "run inside a TuneTrail project, or name the file"
        ) from None
    except OSError as error:
        raise TuneTrailError(
            f"{path} cannot be read: {error.strerror}", "name a readable file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TuneTrailError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}",
            "correct the line that it names",
        ) from None
    if not isinstance(content, dict):
        raise TuneTrailError(f"{path} must be a mapping of keys to values", "see params.yaml")
    return content


def parse(model: type[S], values: Any, where: str) -> S:
    """Validate ``values`` as ``model``.

    Args:
        model: The settings class.
        values: What was read from YAML.
        where: File, or file and key, for the message.

    Raises:
        TuneTrailError: The first rule that is broken, with the key, the value and the way out.
    """
    try:
        return model.model_validate(values)
    except TuneTrailError as error:
        raise TuneTrailError(f"{where}: {error.problem}", error.fix) from None
    except pydantic.ValidationError as error:
        # A key that is not known is often the one that is missing, misspelt.
        errors = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise _readable(model, errors[0], where) from None


#: What pydantic says in terms of Python, by its type of error.
_PLAIN = {
    "dict_type": "must be keys with values, {key: value}",
    "model_type": "must be keys with values, {key: value}",
    "tuple_type": "must be a list, [a, b]",
    "string_type": "must be a text (in quotes if it is a number)",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}


def _readable(model: type[pydantic.BaseModel], error: Any, where: str) -> TuneTrailError:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        parent = _model_at(model, location[:-1])
        sep = "." if ": " in where else ": "
        prefix = sep.join([where, ".".join(location[:-1])]) if len(location) > 1 else where
        return unknown("key", location[-1], parent.model_fields if parent else [], prefix)
    if error["type"] == "missing":
        parent = _model_at(model, location[:-1])
        field = parent.model_fields.get(location[-1]) if parent else None
        fix = f"add the key '{location[-1]}'"
        if field and field.examples:
            fix += f", such as `{location[-1]}: {field.examples[0]}`"
        return TuneTrailError(f"{where}: '{key}' is missing", fix)
    rule = _PLAIN.get(error["type"], error["msg"].removeprefix("Value error, "))
    rule = rule[0].lower() + rule[1:]
    place = f"{where}: '{key}'" if key else where
    shown = repr(error["input"])
    if len(shown) <= 80:
        place += f" is {shown}"
    elif not isinstance(error["input"], dict):  # of many keys the rule says which
        place += f" is {shown[:77]}..."
    return TuneTrailError(f"{place}: {rule}", f"change '{key or where.rpartition(': ')[2]}'")


def _model_at(
    model: type[pydantic.BaseModel], location: list[str]
) -> type[pydantic.BaseModel] | None:
    """The settings class that holds the key at ``location`` (names the valid keys in an error)."""
    current: Any = model
    for part in location:
        fields = getattr(current, "model_fields", {})
        annotation = fields[part].annotation if part in fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        current = next(
            (c for c in candidates if isinstance(c, type) and issubclass(c, pydantic.BaseModel)),
            current if annotation is None else None,
        )
    found: type[pydantic.BaseModel] | None = current
    return found
