from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from nri_plugin.config import Config, ConfigInvalid, Waiver, load, parse, read_document

SECTIONS = {entry.name: get_type_hints(Config)[entry.name] for entry in fields(Config)}
KEYS = [(name, key, get_type_hints(kind)[key]) for name, kind in SECTIONS.items() for key in get_type_hints(kind)]
OTHER: dict[Any, tuple[str, Any]] = {
    Path: ('"/elsewhere"', Path("/elsewhere")),
    str: ('"77"', "77"),
    float: ("1.5", 1.5),
    int: ("7", 7),
    bool: ("true", True),
    tuple[str, ...]: ('["a/b", "c/*"]', ("a/b", "c/*")),
    tuple[Path, ...]: ('["/a", "/b"]', (Path("/a"), Path("/b"))),
    tuple[Waiver, ...]: (
        '[{reason = "SchedulerExceeds", namespaces = ["batch"]}]',
        (Waiver("SchedulerExceeds", ("batch",)),),
    ),
}
OTHER[Path | None] = OTHER[Path]  # type: ignore[index]
"""A valid value of each type as TOML and as read."""
WRONG: dict[Any, tuple[str, ...]] = {
    Path: ("1", "true", "[]", '"relative/path"', '""'),
    str: ("1", "true", "[]", "{}"),
    float: ('"1"', "true", "[]", "-0.5", "-1"),
    int: ('"1"', "true", "[]", "1.5", "-1"),
    bool: ("1", '"true"', "[]"),
    tuple[str, ...]: ('"a"', "1", "[1]", '[["a"]]'),
    tuple[Path, ...]: ('"/a"', '["a"]', "[1]"),
    tuple[Waiver, ...]: (
        '"SchedulerExceeds"',
        '["SchedulerExceeds"]',
        '[{reason = "SchedulerExceeds"}]',
        '[{namespaces = ["*"]}]',
        '[{reason = "SchedulerExceeds", namespaces = "*"}]',
        '[{reason = "SchedulerExceeds", namespaces = ["*"], until = "noon"}]',
        '[{reason = "CapabilitiesExceed", namespaces = ["*"]}]',
        '[{reason = "Everything", namespaces = ["*"]}]',
    ),
}


def other(kind: Any) -> tuple[str, Any]:
    """A valid value that is not the default, as TOML and as read."""
    if get_origin(kind) is Literal:
        return f'"{get_args(kind)[1]}"', get_args(kind)[1]
    return OTHER[kind]


WRONG[Path | None] = WRONG[Path]  # type: ignore[index]


def refusal(text: str) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, source="/etc/config.toml")
    assert caught.value.reason == "ConfigInvalid"
    assert "/etc/config.toml" in caught.value.sentence
    return caught.value


def test_empty_document_gives_the_defaults() -> None:
    assert parse("", source="x") == Config()
    assert parse("# nothing\n[limits]\n", source="x") == Config()


@pytest.mark.parametrize(("section", "key", "kind"), KEYS, ids=lambda each: getattr(each, "__name__", each))
def test_every_key_can_be_set_and_changes_nothing_else(section: str, key: str, kind: type) -> None:
    text, value = other(kind)
    found = parse(f"[{section}]\n{key} = {text}\n", source="x")
    defaults = Config()
    changes: dict[str, Any] = {section: replace(getattr(defaults, section), **{key: value})}
    assert found == replace(defaults, **changes)
    assert found != defaults


@pytest.mark.parametrize(("section", "key", "kind"), KEYS, ids=lambda each: getattr(each, "__name__", each))
def test_every_key_refuses_values_of_another_type_or_sense(section: str, key: str, kind: type) -> None:
    for text in ('"loud"', "1") if get_origin(kind) is Literal else WRONG[kind]:
        assert f"{section}.{key}" in refusal(f"[{section}]\n{key} = {text}\n").sentence, text


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_refuses_unknown_keys_and_names_the_known(section: str) -> None:
    sentence = refusal(f"[{section}]\nsocet = 1\n").sentence
    assert f"{section} has no key socet" in sentence
    assert all(key in sentence for key in get_type_hints(SECTIONS[section]))


def test_unknown_section_is_refused_and_the_known_are_named() -> None:
    sentence = refusal("[metric]\nport = 1\n").sentence
    assert "has no section [metric]" in sentence
    assert all(section in sentence for section in SECTIONS)


@pytest.mark.parametrize("text", ["limits = 3\n", 'nri = "x"\n', "[[paths]]\n"])
def test_section_that_is_no_table_is_refused(text: str) -> None:
    assert "must be a table" in refusal(text).sentence


@pytest.mark.parametrize("text", ["[limits", "a = \n", "a = 1\na = 2\n", "\x00"])
def test_what_is_no_toml_is_refused(text: str) -> None:
    assert "is no TOML" in refusal(text).sentence


@pytest.mark.parametrize("index", ["1", "123", "1a", "", "-1", "٣٤"])
def test_index_must_be_two_digits(index: str) -> None:
    assert "two digits" in refusal(f'[nri]\nindex = "{index}"\n').sentence


def test_whole_numbers_do_for_seconds() -> None:
    found = parse("[limits]\nanswer_s = 1\n", source="x")
    assert found.limits.answer_s == 1.0
    assert isinstance(found.limits.answer_s, float)


@pytest.mark.parametrize("text", ["nan", "inf"])
def test_seconds_must_be_a_number_that_ends(text: str) -> None:
    assert "limits.answer_s" in refusal(f"[limits]\nanswer_s = {text}\n").sentence


def test_missing_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "config.toml") == Config()


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[paths]\nplans = "/run/other"\n')
    assert load(path).paths.plans == Path("/run/other")
    assert asdict(load(path))["paths"]["state"] == Config().paths.state


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=str(tmp_path)):
        load(tmp_path)
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigInvalid, match=r"cannot be read"):
        load(path)
    path.write_text("[")
    with pytest.raises(ConfigInvalid, match=r"config\.toml is no TOML"):
        load(path)


KEY = "-----BEGIN PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), ("-----BEGIN PRIVATE KEY-----", "no public key")]
)
def test_file_that_holds_no_key_is_named(tmp_path: Path, content: str | None, says: str) -> None:
    good, bad = tmp_path / "good.pub", tmp_path / "bad.pub"
    good.write_text(KEY)
    if content is not None:
        bad.write_text(content)
    path = tmp_path / "config.toml"
    path.write_text(f'[policy]\nsignature_keys = ["{good}"]\n')
    assert load(path).policy.signature_keys == (good,)
    path.write_text(f'[policy]\nsignature_keys = ["{good}", "{bad}"]\n')
    with pytest.raises(ConfigInvalid, match=f"{bad} .*{says}"):
        load(path)


def test_configuration_reaches_the_worker_as_it_is() -> None:
    text = "".join(
        f"[{section}]\n{key} = {OTHER[kind][0]}\n" for section, key, kind in KEYS if key in ("index", "waive")
    )
    config = parse(text + '[paths]\nstate = "/elsewhere"\n', source="x")
    assert read_document(json.loads(json.dumps(config.document())), source="x") == config


def test_what_is_read_again_leaves_the_rest_as_it_was() -> None:
    old = Config()
    newer = parse(
        '[paths]\nplans = "/x"\n[policy]\nnamespaces = []\n[limits]\npull_s = 1\n[cache]\nunused = 1\n', source="x"
    )
    reloaded = old.reloaded(newer)
    assert (reloaded.policy, reloaded.limits, reloaded.cache) == (newer.policy, newer.limits, newer.cache)
    assert (reloaded.nri, reloaded.runtime, reloaded.paths) == (old.nri, old.runtime, old.paths)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"keys": []}'])
def test_service_accounts_need_the_keys_of_the_cluster(tmp_path: Path, content: str | None) -> None:
    keys = tmp_path / "keys.jwks"
    if content is not None:
        keys.write_text(content)
    path = tmp_path / "config.toml"
    path.write_text(f'[policy]\nservice_accounts = ["a/b"]\nservice_account_keys = "{keys}"\n')
    with pytest.raises(ConfigInvalid, match="kubectl get --raw"):
        load(path)
    keys.write_text('{"keys": [{}]}')
    assert load(path).policy.service_accounts == ("a/b",)


def test_service_account_without_a_namespace_is_refused() -> None:
    assert "namespace/name" in refusal('[policy]\nservice_accounts = ["builder"]\n').sentence
