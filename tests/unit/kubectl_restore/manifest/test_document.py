from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kubectl_restore.manifest.document import read_document
from shared.errors import RestoreError


def read(folder: Path, text: str) -> object:
    path = folder / "pod.yaml"
    path.write_text(text)
    return read_document(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metadata: 5", "metadata is 5, not a mapping"),
        ("metadata: {name: 5}", "metadata.name is 5, not a string; quote it"),
        ("spec: {containers: 7}", "spec.containers is 7, not a list"),
        ("spec: {containers: [5]}", "spec.containers[0] is 5, not a mapping"),
        ("spec: {containers: [{image: a}]}", "spec.containers[0] has no name"),
        ("spec: {containers: [{name: a, command: [sleep, 5]}]}", "spec.containers[0].command[1] is 5, not a string"),
        ("spec: {containers: [{name: a, volumeMounts: [5]}]}", "spec.containers[0].volumeMounts[0] is 5"),
        ("spec: {containers: [{name: a, resources: {limits: 5}}]}", "spec.containers[0].resources.limits is 5"),
        ("spec: {volumes: [{emptyDir: {}}]}", "spec.volumes[0] has no name"),
    ],
)
@pytest.mark.parametrize("kind", ["Pod", "Deployment", "CronJob"])
def test_what_is_of_another_type_is_named(tmp_path: Path, kind: str, text: str, said: str) -> None:
    template = yaml.safe_load(text)
    document = {
        "Pod": template,
        "Deployment": {"spec": {"template": template}},
        "CronJob": {"spec": {"jobTemplate": {"spec": {"template": template}}}},
    }[kind]
    with pytest.raises(RestoreError) as error:
        read(tmp_path, yaml.safe_dump({"kind": kind, **document}))
    assert error.value.reason == "PodManifestInvalid"
    assert said in str(error.value)


def test_null_is_nothing(tmp_path: Path) -> None:
    text = "kind: Pod\nmetadata: {name: a, annotations: }\nspec: {volumes: , containers: [{name: b, resources: }]}\n"
    document = {"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "b"}]}}
    assert read(tmp_path, text) == document


def test_what_is_not_read_here_is_left_alone(tmp_path: Path) -> None:
    document = {"kind": "Pod", "spec": {"containers": [{"name": "a", "ports": 5, "image": 7}], "unknown": [None]}}
    assert read(tmp_path, yaml.safe_dump(document)) == document
