"""The parts of scenarios, steps and checks: strict frozen models, names of pods and networks, one-key mappings.

A scenario file has `- reach: {from: a, to: b}`: a mapping of one key, which selects the model for the value. `OneKey`
implements this for pydantic. `PodName` and `NetworkName` are strings that must name a pod or a network of the same
file. They are separate types, so the harness finds them in every model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from harness.values import change_texts
from harness.yamlfile import hint

T = TypeVar("T")

Many = Annotated[tuple[T, ...], Field(strict=False)]
OneOrMany = Annotated[
    tuple[T, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=T | list[T]),
]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[
    str, AfterValidator(_compiles), Field(description="A regular expression that matches anywhere in the text.")
]


def _milliseconds(value: object) -> object:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s)", value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"expected a duration such as 500ms or 2s, got {value!r}")
    return float(found[1]) * (1000 if found[2] == "s" else 1)


#: A duration with its unit, such as 500ms or 2s; in Python, milliseconds.
Milliseconds = Annotated[float, Field(gt=0), BeforeValidator(_milliseconds, json_schema_input_type=str)]


def _kebab(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


class Model(BaseModel):
    """A strict frozen model without unknown keys; `same_as` in Python is `same-as` in the file, `from_` is `from`."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=_kebab, validate_by_alias=True, validate_by_name=False
    )


class Named(Model):
    """The value of a one-key mapping: a check or a step."""

    key: ClassVar[str]  # its name in files
    shorthand: ClassVar[str] = ""  # the field for a value that is not a mapping: `same-node: [a, b]`
    example: ClassVar[str] = ""  # YAML, for people


class Reference(str):
    """A string that names a pod or network of the same file."""

    what: ClassVar[str]
    pattern: ClassVar[str] = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls._of, core_schema.str_schema(strict=True))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": cls.pattern, "description": f"The name of {cls.what} of this file."}

    @classmethod
    def _of(cls, value: str) -> Self:
        if not re.fullmatch(cls.pattern.strip("^$"), value):
            raise PydanticCustomError(
                "name", "expected the name of {what}, got {value}", {"what": cls.what, "value": value}
            )
        return cls(value)


class PodName(Reference):
    """Names a pod under `pods`."""

    what = "a pod"


class NetworkName(Reference):
    """Names one of `networks` or `own-networks`."""

    what = "a network"


def references(value: object, loc: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Reference]]:
    """Every reference in a model, with its path in the file."""
    if isinstance(value, Reference):
        yield loc, value
    elif isinstance(value, Named):
        yield from _fields(value, (*loc, value.key))
    elif isinstance(value, BaseModel):
        yield from _fields(value, loc)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(item, (*loc, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from references(item, (*loc, index))


def _fields(model: BaseModel, loc: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Reference]]:
    for name, field in type(model).model_fields.items():
        yield from references(getattr(model, name), (*loc, field.alias or name))
    for name, value in (model.model_extra or {}).items():
        yield from references(value, (*loc, name))


class _Opened(dict[str, Any]):
    """The value of a one-key mapping, for the model that the key names."""

    key: str


#: A placeholder in the JSON Schema for the list of all checks or steps, until that is complete.
ONE_KEY = "one-key"


class OneKey:
    """For `Annotated[X, OneKey("check", registry)]`: one key of the registry, with a value for its model."""

    def __init__(self, what: str, known: Mapping[str, type[Named]]) -> None:
        self.what, self.known = what, known

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {key: handler.generate_schema(model) for key, model in self.known.items()}
        union = core_schema.tagged_union_schema(choices, discriminator=lambda opened: opened.key)
        return core_schema.no_info_before_validator_function(
            self._open, union, serialization=core_schema.plain_serializer_function_ser_schema(_closed)
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {ONE_KEY: self.what}  # steps contain steps, so `harness.scenario.schema` makes it a reference

    def _open(self, value: object) -> object:
        if isinstance(value, Named):
            return value
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict) or len(value) != 1:
            raise PydanticCustomError(
                "one_key", "expected one {what}, such as `{example}`", {"what": self.what, "example": self._example()}
            )
        [(key, inside)] = value.items()
        if key not in self.known:
            raise PydanticCustomError(
                "unknown_name",
                "unknown {what} {key}{hint}",
                {"what": self.what, "key": repr(key), "hint": hint(str(key), self.known)},
            )
        shorthand = self.known[key].shorthand
        if not isinstance(inside, dict) and inside is not None and shorthand:
            inside = {_kebab(shorthand): inside}
        if not isinstance(inside, dict | None):
            raise PydanticCustomError(
                "no_mapping",
                "{key} takes a mapping, such as `{example}`",
                {"key": key, "example": self.known[key].example},
            )
        opened = _Opened(inside or {})
        opened.key = key
        return opened

    def _example(self) -> str:
        return next((model.example for model in self.known.values() if model.example), "")


def _closed(value: Named) -> dict[str, Any]:
    return {value.key: value.model_dump(mode="json", by_alias=True, exclude_defaults=True)}


def needs_nothing(model: type[BaseModel]) -> bool:
    """Whether the name alone is enough: `- nothing-left`."""
    return not any(field.is_required() for field in model.model_fields.values())


def first_line(model: type) -> str:
    """The first sentence of a model's docstring, for lists and schemas."""
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")


PLACE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")


def fill(value: Any, values: Mapping[str, str]) -> Any:
    """A value with each `{{ name }}` in its texts replaced."""
    return change_texts(value, lambda text: PLACE.sub(lambda found: values[found[1]], text))
