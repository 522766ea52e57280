"""What scenarios, steps and checks are built from: strict frozen models, names that refer to a thing, one-key mappings.

A scenario file has `- reach: {from: a, to: b}`: a mapping of one key, whose name picks the model of what follows.
`OneKey` is that, for pydantic. `PodName` and `NetworkName` are strings that must name a pod or a
network of the same file; being types of their own, they are found in any model without it having to list them.
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
        raise ValueError(f"no regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles), Field(description="A regular expression, searched for anywhere.")]


def _kebab(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


class Model(BaseModel):
    """Strict, frozen, no unknown keys; `same_as` in Python is `same-as` in the file, `from_` is `from`."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=_kebab, validate_by_alias=True, validate_by_name=False
    )


class Named(Model):
    """What stands behind one key of a one-key mapping: a check, a step."""

    key: ClassVar[str]  # its name in files
    shorthand: ClassVar[str] = ""  # the field that a value which is no mapping goes to: `same-node: [a, b]`
    example: ClassVar[str] = ""  # YAML, for people


class Reference(str):
    """A string that names something of the same file."""

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
    """Every reference in a model, with the path that leads to it in the file."""
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
    """The inside of a one-key mapping, on its way to the model that the key names."""

    key: str


#: Stands in a JSON Schema for the list of all checks or steps, until that is known.
ONE_KEY = "one-key"


class OneKey:
    """For `Annotated[X, OneKey("check", registry)]`: one key of the registry, then what its model takes."""

    def __init__(self, what: str, known: Mapping[str, type[Named]]) -> None:
        self.what, self.known = what, known

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {key: handler.generate_schema(model) for key, model in self.known.items()}
        union = core_schema.tagged_union_schema(choices, discriminator=lambda opened: opened.key)
        return core_schema.no_info_before_validator_function(
            self._open, union, serialization=core_schema.plain_serializer_function_ser_schema(_closed)
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {ONE_KEY: self.what}  # steps hold steps: `harness.scenario.schema` makes a reference of it

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
    """Whether the name alone will do: `- nothing-left`."""
    return not any(field.is_required() for field in model.model_fields.values())


def first_line(model: type) -> str:
    """The first sentence of a model's docstring, for lists and schemas."""
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")


PLACE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")


def fill(value: Any, values: Mapping[str, str]) -> Any:
    """A value with each `{{ name }}` in its texts replaced."""
    return change_texts(value, lambda text: PLACE.sub(lambda found: values[found[1]], text))
