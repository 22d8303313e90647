"""The image that a run pushes, and its way back: the tag as it was, and what was pushed deleted where that is possible.

Source: OCI distribution-spec v1.1, "Content Management": DELETE of a manifest by its digest; a registry may answer 405
or 400 where deleting is not enabled. Layers that no manifest names any more are the registry's to collect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from kubectl_restore.image.access import Access
from kubectl_restore.image.registry import Answer, Registry
from kubectl_restore.image.registry_images import RegistryDestination
from kubectl_restore.kube.undisturbed import undisturbed
from shared import oci
from shared.errors import RestoreError

_TIMEOUT_S: Final = 15.0


class Recorded(RegistryDestination):
    """Remembers what it is about to give the tag to."""

    digest = ""

    def finish(self, config: bytes, manifest: bytes) -> None:
        self.digest = oci.digest_of(manifest)
        super().finish(config, manifest)


@dataclass(frozen=True)
class Tag:
    """``registry/repository:tag`` and what it named before we came."""

    reference: oci.Reference
    access: Access
    before: Answer | None

    @classmethod
    def of(cls, reference: oci.Reference, access: Access) -> Tag:
        """Asks the registry, as somebody who may push; raises what Registry raises."""
        registry = Registry(reference.registry, reference.repository, access, push=True)
        return cls(reference, access, _find(registry, reference.target))

    def take_back(self, digest: str) -> None:
        """Raises RestoreError when the registry does not let us, Unavailable."""
        if self.before and oci.matches(self.before.body, digest):
            return
        reference = self.reference
        # Asked for only here: a token service might refuse a login that may not delete.
        registry = Registry(reference.registry, reference.repository, self.access, push=True, delete=True)
        now = _find(registry, reference.target)
        if self.before and now and oci.matches(now.body, digest):
            registry.request(
                "PUT",
                registry.url(f"manifests/{reference.target}"),
                headers={"Content-Type": self.before.headers.get("Content-Type", oci.MANIFEST)},
                body=self.before.body,
                expect=(201,),
                read_timeout_s=_TIMEOUT_S,
            )
        url = registry.url(f"manifests/{digest}")
        registry.request("DELETE", url, expect=(200, 202, 404), read_timeout_s=_TIMEOUT_S)


@contextmanager
def taken_back(tag: Tag, digest: Callable[[], str], note: Callable[[str], None]) -> Iterator[None]:
    """Takes back what was pushed when the block fails or is interrupted; ``digest`` is empty when nothing was."""
    try:
        yield
    except BaseException:
        if pushed := digest():
            with undisturbed():
                note(_tell(tag, pushed))
        raise


def _tell(tag: Tag, digest: str) -> str:
    try:
        tag.take_back(digest)
    except RestoreError as error:
        return f"the image {tag.reference}@{digest} stays, with the container's memory in it: {error}"
    if tag.before:
        return f"what was pushed is deleted again, and {tag.reference} is what it was before"
    return f"the image {tag.reference} is deleted again"


def _find(registry: Registry, target: str) -> Answer | None:
    answer = registry.request(
        "GET",
        registry.url(f"manifests/{target}"),
        headers={"Accept": ", ".join(oci.ACCEPTED_MANIFESTS)},
        expect=(200, 404),
        read_timeout_s=_TIMEOUT_S,
    )
    return answer if answer.status == 200 else None
