"""packaging/admission: a document that Kubernetes takes, and expressions that deny what they should and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import cel
import kubernetes_validate
import pytest
import yaml

from nri_plugin.config import Config
from nri_plugin.restore.request import KEYS

ROOT: Final = Path(__file__).resolve().parents[3]
DOCUMENTS: Final = list(yaml.safe_load_all((ROOT / "packaging/admission/restore-namespaces.yaml").read_text()))
POLICY, BINDING = DOCUMENTS
SPEC: Final = POLICY["spec"]
KINDS: Final = (
    "Pod",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "CronJob",
)
RESOURCES: Final = {f"{kind.lower()}s" for kind in KINDS}
ANNOTATION: Final = {"nri-restore/checkpoint": "registry.example/a:1"}
HANDLER: Final = Config().runtime.handler


def of(kind: str, annotations: dict[str, str] | None = None, runtime_class: str | None = None) -> dict[str, Any]:
    """An object of this kind whose pods have these annotations and this RuntimeClass, as the API server sees it."""
    spec: dict[str, Any] = {"containers": [{"name": "app", "image": "app"}]}
    if runtime_class:
        spec["runtimeClassName"] = runtime_class
    metadata = {"annotations": annotations} if annotations is not None else {}
    if kind == "Pod":
        return {"kind": kind, "metadata": {"name": "a", **metadata}, "spec": spec}
    template = {"metadata": metadata, "spec": spec}
    if kind == "CronJob":
        return {"kind": kind, "metadata": {"name": "a"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    return {"kind": kind, "metadata": {"name": "a"}, "spec": {"template": template}}


def denied(
    made: dict[str, Any], before: dict[str, Any] | None = None, labels: dict[str, str] | None = None
) -> str | None:
    """The policy's message, None when the object is admitted; expressions run as the API server would run them."""
    namespace: dict[str, Any] = {"metadata": {"name": "shop"} if labels is None else {"name": "shop", "labels": labels}}
    known: dict[str, Any] = {
        "object": made,
        "oldObject": before,
        "request": {"namespace": "shop"},
        "namespaceObject": namespace,
        "variables": {},
    }
    for variable in SPEC["variables"]:
        known["variables"][variable["name"]] = cel.evaluate(variable["expression"], known)
    (validation,) = SPEC["validations"]
    if cel.evaluate(validation["expression"], known) is True:
        return None
    # join() belongs to Kubernetes' own string library, which the evaluator here does not have.
    start, rest = validation["messageExpression"].split(".join(', ')")
    return str(cel.evaluate(f"{start}[0]{rest}", known))


@pytest.mark.parametrize("minor", [30, 35, 36, 37])
def test_kubernetes_takes_both_documents(minor: int) -> None:
    for document in DOCUMENTS:
        kubernetes_validate.validate(document, f"1.{minor}", strict=True)


def test_binding_names_the_policy_and_denies() -> None:
    assert BINDING["spec"]["policyName"] == POLICY["metadata"]["name"]
    assert "Deny" in BINDING["spec"]["validationActions"]


def test_every_kind_that_makes_pods_is_looked_at_when_it_is_made_and_when_it_is_changed() -> None:
    rules = SPEC["matchConstraints"]["resourceRules"]
    assert {resource for rule in rules for resource in rule["resources"]} == RESOURCES
    assert all(set(rule["operations"]) == {"CREATE", "UPDATE"} for rule in rules)


@pytest.mark.parametrize("kind", KINDS)
def test_what_asks_for_a_restore_is_denied(kind: str) -> None:
    for key in KEYS:
        assert f"this asks for {key}=x; " in (denied(of(kind, {"a": "b", key: "x"})) or "")
        assert f"{key}.app=x" in (denied(of(kind, {f"{key}.app": "x"})) or "")
    assert "runtimeClassName=nri-restore" in (denied(of(kind, runtime_class=HANDLER)) or "")
    assert "namespace shop" in (denied(of(kind, ANNOTATION, HANDLER), labels={"nri-restore/allowed": "yes"}) or "")


@pytest.mark.parametrize("kind", KINDS)
def test_what_asks_for_none_is_admitted(kind: str) -> None:
    for notes in (None, {}, {"a": "b"}, {"nri-restored/x": "y"}, {"x.nri-restore/x": "y"}):
        assert denied(of(kind, notes)) is None
    assert denied(of(kind, runtime_class="kata")) is None


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_labelled_namespace_everything_is_admitted(kind: str) -> None:
    assert denied(of(kind, ANNOTATION, HANDLER), labels={"nri-restore/allowed": "true"}) is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_there_before_can_be_changed_in_other_ways_but_not_pointed_elsewhere(kind: str) -> None:
    before = of(kind, ANNOTATION, HANDLER)
    assert denied({**before, "metadata": {**before["metadata"], "finalizers": []}}, before) is None
    assert denied(of(kind), before) is None
    elsewhere = {"nri-restore/checkpoint": "evil.example/a:1"}
    assert "evil.example" in (denied(of(kind, elsewhere, HANDLER), before) or "")
    assert "nri-restore/tcp" in (denied(of(kind, {**ANNOTATION, "nri-restore/tcp": "close"}, HANDLER), before) or "")
    assert denied(of(kind, ANNOTATION), of(kind))


def test_a_controller_without_a_template_is_admitted() -> None:
    assert denied({"kind": "ReplicationController", "metadata": {}, "spec": {"replicas": 1}}) is None
