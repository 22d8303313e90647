"""Groups of options that several verbs share, each a frozen dataclass that a verb takes as one parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_type_hints

Verb = Callable[..., None]


def with_flags(**groups: type) -> Callable[[Verb], Verb]:
    """``@with_flags(cluster=ClusterFlags)`` replaces the parameter ``cluster`` by an option for each of its fields.

    A field's annotation is what typer would take on a parameter, and its default the option's.
    """

    def decorate(function: Verb) -> Verb:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
        missing = set(groups) - {each.name for each in parameters}
        assert not missing, f"{function.__name__} has no parameter {missing}"
        kept = [
            each.replace(annotation=hints.get(each.name, Any), kind=inspect.Parameter.KEYWORD_ONLY)
            for each in parameters
            if each.name not in groups
        ]
        added = [each for name, group in groups.items() for each in _parameters(name, group)]

        def verb(**given: Any) -> None:
            for name, group in groups.items():
                given[name] = group(**{each.name: given.pop(f"{name}__{each.name}") for each in fields(group)})
            function(**given)

        verb.__name__, verb.__doc__, verb.__module__ = function.__name__, function.__doc__, function.__module__
        verb.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
        verb.__annotations__ = {each.name: each.annotation for each in [*kept, *added]}
        return verb

    return decorate


def _parameters(name: str, group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            f"{name}__{each.name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=hints[each.name],
        )
        for each in fields(group)
    ]
