from __future__ import annotations

import json

import pytest

from shared import oci
from shared.errors import RestoreError

DIGEST = "sha256:" + "a" * 64
LAYER = {"mediaType": oci.LAYER, "digest": DIGEST, "size": 7}
MANIFEST = {"schemaVersion": 2, "config": LAYER, "layers": [LAYER]}


def test_what_is_no_reference_is_shown_in_one_short_printable_line() -> None:
    with pytest.raises(RestoreError) as refusal:
        oci.parse_reference("\x1b[2J/" + "a" * 9000 + "/B:\n")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 800


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("user/app:1", "docker.io/user/app:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b__c/d-e:v1.0_x", "localhost:5000/a/b__c/d-e:v1.0_x"),
        ("registry.example/app", "registry.example/app:latest"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        (f"registry.example/app@{DIGEST}", f"registry.example/app@{DIGEST}"),
        (f"registry.example/app:1@{DIGEST}", f"registry.example/app:1@{DIGEST}"),
    ],
)
def test_references_are_completed_as_docker_does(text: str, full: str) -> None:
    assert str(oci.parse_reference(text)) == full


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "repository"),
        ("registry.example/", "repository"),
        ("registry.example/App", "repository"),
        ("registry.example/app/../x", "repository"),
        ("registry.example/app:", "tag"),
        ("registry.example/app:a b", "tag"),
        ("registry.example/app:" + "t" * 129, "tag"),
        ("registry.example/app@sha256:12", "digest"),
        ("registry.example/app@", "digest"),
        ("registry.example/app@md5:" + "a" * 32, "digest"),
        ("reg_istry:5000/app", "registry host"),
        ("user:secret@registry.example/app", "digest"),
        ("registry.example/" + "a/" * 200 + "a", "repository"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_part_that_is_wrong(text: str, why: str) -> None:
    with pytest.raises(RestoreError, match=why) as refusal:
        oci.parse_reference(text)
    assert refusal.value.reason == "ReferenceInvalid"


def test_the_digest_is_asked_for_when_a_reference_has_both() -> None:
    assert oci.parse_reference(f"a.example/b:1@{DIGEST}").target == DIGEST
    assert oci.parse_reference("a.example/b:1").target == "1"


def test_a_manifest_survives_a_round_trip() -> None:
    parsed = oci.parse_document(json.dumps({**MANIFEST, "annotations": {"k": "v"}}).encode())
    assert isinstance(parsed, oci.Manifest)
    assert oci.parse_document(oci.encode(parsed.as_json())) == parsed
    assert parsed.as_json()["mediaType"] == oci.MANIFEST


def test_the_same_document_always_has_the_same_bytes() -> None:
    assert oci.encode({"b": 1, "a": "ü"}) == oci.encode({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()


def test_docker_manifests_are_read_and_named_the_oci_way() -> None:
    layer = {**LAYER, "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}
    parsed = oci.parse_document(json.dumps({**MANIFEST, "mediaType": oci.DOCKER_MANIFEST, "layers": [layer]}).encode())
    assert isinstance(parsed, oci.Manifest)
    assert parsed.layers[0].as_oci().media_type == oci.LAYER_GZIP
    assert oci.Descriptor("application/x-other", DIGEST, 1).as_oci().media_type == "application/x-other"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"not json",
        b"[" * 100_000,
        json.dumps({**MANIFEST, "schemaVersion": 1}).encode(),
        json.dumps({"schemaVersion": 2}).encode(),
        json.dumps({**MANIFEST, "manifests": []}).encode(),
        json.dumps({**MANIFEST, "layers": {}}).encode(),
        json.dumps({**MANIFEST, "layers": ["x"]}).encode(),
        json.dumps({**MANIFEST, "config": None}).encode(),
        json.dumps({**MANIFEST, "layers": [{**LAYER, "digest": "sha256:../../etc"}]}).encode(),
        json.dumps({**MANIFEST, "layers": [{**LAYER, "size": -1}]}).encode(),
        json.dumps({**MANIFEST, "layers": [{**LAYER, "size": True}]}).encode(),
        json.dumps({**MANIFEST, "layers": [{**LAYER, "mediaType": 3}]}).encode(),
        json.dumps({**MANIFEST, "x": "x" * oci.MAX_DOCUMENT_BYTES}).encode(),
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(RestoreError) as refusal:
        oci.parse_document(content)
    assert refusal.value.reason == "ManifestInvalid"


def _entry(architecture: str, variant: str | None = None) -> dict[str, object]:
    platform = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
    return {**LAYER, "mediaType": oci.MANIFEST, "digest": oci.digest_of(str(platform).encode()), "platform": platform}


def test_an_index_gives_the_manifest_of_a_platform() -> None:
    entries = [_entry("amd64"), _entry("arm", "v6"), _entry("arm", "v7"), _entry("unknown")]
    index = oci.parse_document(json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
    assert isinstance(index, oci.Index)
    assert index.choose(oci.Platform("linux", "amd64")) == index.manifests[0]
    assert index.choose(oci.Platform("linux", "arm", "v7")) == index.manifests[2]
    assert index.choose(oci.Platform("linux", "arm")) == index.manifests[1]
    assert index.choose(oci.Platform("linux", "s390x")) is None
    assert index.choose(oci.Platform("windows", "amd64")) is None


def test_the_only_manifest_of_an_index_needs_no_platform_several_do() -> None:
    one = {**LAYER, "mediaType": oci.MANIFEST}
    single = oci.parse_document(json.dumps({"schemaVersion": 2, "manifests": [one]}).encode())
    double = oci.parse_document(json.dumps({"schemaVersion": 2, "manifests": [one, one]}).encode())
    assert isinstance(single, oci.Index)
    assert isinstance(double, oci.Index)
    assert single.choose(oci.Platform("linux", "amd64")) == single.manifests[0]
    assert double.choose(oci.Platform("linux", "amd64")) is None


def test_content_is_checked_against_either_digest_algorithm() -> None:
    import hashlib

    assert oci.matches(b"x", oci.digest_of(b"x"))
    assert not oci.matches(b"y", oci.digest_of(b"x"))
    assert oci.matches(b"x", "sha512:" + hashlib.sha512(b"x").hexdigest())
