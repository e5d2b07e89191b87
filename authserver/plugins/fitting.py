"""Checks that a plugin's methods and declarations fit the hooks, and prepares how each method is called.

A method that is not marked, takes an argument that its hook does not have, or is asynchronous would be ignored or fail
in each request. Therefore it stops the start, with a sentence that says what to change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from inspect import Parameter, signature
from types import MethodType
from typing import Any

from authserver.containment import contained, described
from authserver.hooks import DECIDING, PROJECT, Contributing, Hook
from authserver.ini import did_you_mean

# The attributes that are collections of names. A single text would be read as a collection of letters.
COLLECTIONS = ("serves", "reasons")
MARK = f"{PROJECT}_impl"


def misfits(plugin: object, hooks: Mapping[str, Hook]) -> list[str]:
    """The problems that must be solved before the server can ask this plugin; each is a sentence."""
    problems = [
        problem
        for attribute, raw in sorted(_attributes(type(plugin)).items())
        for problem in _of_attribute(plugin, attribute, raw, hooks)
    ]
    declared = (hook.declared for hook in hooks.values() if isinstance(hook, Contributing) and hook.declared)
    return problems + [
        problem for name in dict.fromkeys((*COLLECTIONS, *declared)) for problem in _of_names(plugin, name)
    ]


@cache
def arguments_of(hook: Hook) -> tuple[str, ...]:
    """The arguments that an implementation of this hook may take, in the order of the declaration."""
    names = tuple(signature(hook.function).parameters)
    return (*names, "question") if hook.name in DECIDING else names


def callable_as_asked(
    function: Callable[..., Any], arguments: Sequence[str]
) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """The function so that it can be called with positional arguments, and the names of those.

    It gets each argument that it names; `**others` gets all the rest, except `question`. An argument with a default
    that the hook does not have keeps its default.
    """
    by_position: list[str] = []
    by_name: list[str] = []
    skips_one = False  # whether an earlier argument is left out, because the hook does not have it
    for name, parameter in _parameters(function).items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            by_name += [
                other for other in arguments if other not in (*by_position, *by_name, name, "question")
            ]
        elif name not in arguments:
            skips_one = True
        elif parameter.kind is Parameter.KEYWORD_ONLY or skips_one:
            by_name.append(name)
        else:
            by_position.append(name)
    if by_name:
        function = partial(_by_name, function, len(by_position), tuple(by_name))
    return function, (*by_position, *by_name)


def _parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters of a function. Those of a method are read once for all plugins of its class."""
    if isinstance(function, MethodType):
        return _parameters_of_method(function.__func__)
    return signature(function).parameters


@cache
def _parameters_of_method(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    return signature(MethodType(function, object())).parameters


def _by_name(function: Callable[..., Any], positional: int, names: Sequence[str], *values: Any) -> Any:
    return function(*values[:positional], **dict(zip(names, values[positional:], strict=True)))


def _attributes(kind: type) -> Mapping[str, Any]:
    """The attributes that a class and its bases define, by name; no property is called."""
    return {name: raw for base in reversed(kind.__mro__) for name, raw in vars(base).items()}


def _of_attribute(plugin: object, attribute: str, raw: Any, hooks: Mapping[str, Hook]) -> list[str]:
    """The problems of one attribute; none if it has nothing to do with hooks."""
    plain = getattr(raw, "__func__", raw)
    options = getattr(plain, MARK, None)
    if options is None:
        if attribute not in hooks or not inspect.isfunction(plain) or _is_of_protocol(plain):
            return []
        problem = (
            f"the method {attribute} has the name of a hook and is not marked, so it would never be asked"
        )
        return [f"{problem}; write @hookimpl of authserver.api above it, or give it another name"]
    hook = hooks.get(attribute)
    if options.get("specname"):
        return [f"{attribute}: name the method {options['specname']}, and remove `specname` from its mark"]
    if options.get("optionalhook"):
        return [f"{attribute}: remove `optionalhook` from its mark; it hides a hook that does not exist"]
    if hook is None:
        return [f"there is no hook {attribute}; {did_you_mean(attribute, hooks, '')}"]
    return _of_function(getattr(plugin, attribute), plain, hook, options)


def _of_function(
    function: Callable[..., Any], plain: Callable[..., Any], hook: Hook, options: Mapping[str, Any]
) -> list[str]:
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        return [f"{hook.name} is `async`, and the server does not await it; write `def`"]
    wraps = options.get("wrapper") or options.get("hookwrapper")
    if inspect.isgeneratorfunction(plain) and not wraps:
        return [f"{hook.name} has a `yield`, so it returns a generator; write `return`"]
    arguments = arguments_of(hook)
    problems = []
    for name, parameter in _parameters(function).items():
        if parameter.kind is Parameter.VAR_POSITIONAL:
            problems.append(
                f"{hook.name} takes *{name}, which gets nothing: arguments are given by their names; it may take "
                + (", ".join(arguments) or "none")
            )
        elif (
            name not in arguments
            and parameter.kind is not Parameter.VAR_KEYWORD
            and parameter.default is Parameter.empty
        ):
            hint = did_you_mean(name, arguments, "") if arguments else "it has none"
            problems.append(f"{hook.name} takes `{name}`, an argument that this hook does not have; {hint}")
    return problems


def _of_names(plugin: object, attribute: str) -> list[str]:
    """The problems of a collection of names that a plugin declares."""
    try:
        value = contained(getattr, plugin, attribute, ())
    except Exception as error:
        return [f"`{attribute}` cannot be read: {described(error)}"]
    if isinstance(value, str):
        return [f"`{attribute}` is one text, whose letters would be taken for names; write ({value!r},)"]
    if not isinstance(value, Collection):
        return [f"`{attribute}` is a {type(value).__name__}; make it a tuple or a set of names"]
    return []


def _is_of_protocol(function: Any) -> bool:
    """Whether a plugin only inherits this function from the Protocol of a hook (`authserver.protocols`)."""
    return bool(function.__module__ == "authserver.protocols")
