"""Facts as JSON and YAML: dataclasses become objects with camelCase names."""

from __future__ import annotations

import dataclasses
import enum
import json
from datetime import datetime
from typing import Any

from kubectl_restore.inspect.facts import API_VERSION


def document_of(value: Any, kind: str) -> dict[str, Any]:
    """``value`` as an object that says what it is, as Kubernetes' own do."""
    return {"apiVersion": API_VERSION, "kind": kind, **_plain(value)}


def as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2)


def as_yaml(document: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=120)
    return text


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {_camel(field.name): _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
