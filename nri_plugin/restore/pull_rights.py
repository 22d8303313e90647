"""Whether a pod may use an image that is on the node: only one that it could pull, as the kubelet sees it for its own.

The kubelet verifies the image that a pod's spec names (KEP-2535, ``imagePullCredentialsVerificationPolicy``); it never
hears of one that an annotation or a checkpoint names. What a registry granted is remembered by the image's content,
and for whom: everybody, where it asked for no login; else the namespace and the login that it took, and the pod itself,
so that a restart of its container asks nobody. Otherwise the registry is asked with the pod's logins, through the
runtime, with its mirrors, certificates and settings: of an image that is there, that is one request for the manifest.

Images are told by their chain ID, which names the layers that would be read: whatever a checkpoint says of its base,
it is the base that counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from nri_plugin.config import Policy
from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd, NotFound
from nri_plugin.containerd.images import Login, Logins, pull
from nri_plugin.logs import Subject
from nri_plugin.restore import policy as node_policy
from nri_plugin.restore.images import stored_image
from nri_plugin.restore.pull_records import PullRecords
from shared import oci
from shared.errors import Refused, RestoreError, Unavailable

ASK_S: Final = 20.0
"""For all that is asked for one pod: less than restore-runc waits, so that the refusal gets out."""
REPOSITORIES_MAX: Final = 4


class PullRights:
    """One node's records, and who is asking a registry just now; safe to use from several threads."""

    def __init__(self, state: Path) -> None:
        self.records = PullRecords(state / "pulls")
        self.asking: dict[object, Future[None]] = {}
        self.guard = threading.Lock()


@dataclass(frozen=True)
class WantedImage:
    """An image on the node that a pod wants to have used."""

    what: str
    """As messages call it."""
    chain_id: str
    digest: str
    """Of what its names point at, manifest or index; empty where nothing tells."""
    names: Sequence[str]
    """Where it may be pulled from: as the node calls it, for the first one is believed that grants it."""


@dataclass(frozen=True)
class Puller:
    """A pod, and what is needed to know what it may pull."""

    rights: PullRights
    containerd: Containerd
    policy: Policy
    subject: Subject
    logins: Logins
    cancelled: Event

    def may(self, wanted: WantedImage) -> bool:
        """Whether no registry and no API server needs to be asked; takes a millisecond."""
        if self.policy.node_images == "everyone" or self._known(wanted):
            return True
        return self.policy.node_images == "preloaded" and not self._was_pulled(wanted)

    def require(self, wanted: WantedImage) -> None:
        """Raises PullNotAllowed (Refused), or Unavailable: RuntimeAway, Cancelled. May take ASK_S."""
        if self.may(wanted):
            return
        names = self._repositories(wanted.names)
        logins = {name: tuple(self.logins(name)) for name in names}
        if not self._remembered(wanted, logins):
            self._ask_once(wanted, logins)

    def granted(self, chain_id: str, name: str, login: Login | None) -> None:
        """Remembers that the registry gave the image: to everybody, or to this pod and others with its login."""
        if login is None:
            self.rights.records.remember("everybody", chain_id)
        else:
            self.rights.records.remember(*self._login_right(chain_id, oci.parse_reference(name).name, login))
            self._remember_pod(chain_id)

    def _known(self, wanted: WantedImage) -> bool:
        knows = self.rights.records.knows
        return knows("everybody", wanted.chain_id) or (
            bool(self.subject.pod_uid) and knows("pod", wanted.chain_id, self.subject.namespace, self.subject.pod_uid)
        )

    def _remembered(self, wanted: WantedImage, logins: Mapping[str, Sequence[Login]]) -> bool:
        """Whether the pod, or who has one of its logins, was granted the image; then the pod needs no login again."""
        if self._known(wanted):
            return True
        rights = [self._login_right(wanted.chain_id, name, login) for name in logins for login in logins[name]]
        if found := any(self.rights.records.knows(*right) for right in rights):
            self._remember_pod(wanted.chain_id)
        return found

    def _remember_pod(self, chain_id: str) -> None:
        if self.subject.pod_uid:
            self.rights.records.remember("pod", chain_id, self.subject.namespace, self.subject.pod_uid)

    def _login_right(self, chain_id: str, repository: str, login: Login) -> tuple[str, ...]:
        return "login", chain_id, self.subject.namespace, repository, *login

    def _was_pulled(self, wanted: WantedImage) -> bool:
        """False only of what the runtime has, and never got from a registry."""
        if not wanted.digest:
            return True
        try:
            image = stored_image(self.containerd, api.Descriptor(digest=wanted.digest))
            return any(self.containerd.was_pulled(digest) for digest in {image.target, image.digest})
        except NotFound:
            return True

    def _repositories(self, names: Sequence[str]) -> list[str]:
        """Which repositories may be asked: names that lead to a registry, of those that the policy allows."""
        found = []
        for name in names:
            if not oci.is_digest(name) and node_policy.from_allowed(self.policy, name):
                with suppress(RestoreError):
                    found.append(oci.parse_reference(name).name)
        return list(dict.fromkeys(found))[:REPOSITORIES_MAX]

    def _ask_once(self, wanted: WantedImage, logins: Mapping[str, Sequence[Login]]) -> None:
        """Asks the registries; pods that would ask the same at the same time share the answer."""
        key = (wanted.chain_id, wanted.digest, self.subject.namespace, tuple(logins.items()))
        while True:
            with self.rights.guard:
                running = self.rights.asking.get(key)
                if running is None:
                    mine: Future[None] = Future()
                    self.rights.asking[key] = mine
            if running is None:
                break
            try:
                running.result()
            except Unavailable as error:
                if error.reason == "Cancelled" and not self.cancelled.is_set():
                    continue  # that was the other pod's end
                raise
            self._remembered(wanted, logins)
            return
        try:
            # Another pod may have had its answer since this one looked.
            if not self._remembered(wanted, logins):
                self.granted(wanted.chain_id, *self._ask(wanted, logins))
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(None)
        finally:
            with self.rights.guard:
                del self.rights.asking[key]

    def _ask(self, wanted: WantedImage, logins: Mapping[str, Sequence[Login]]) -> tuple[str, Login | None]:
        """Anonymously first: what anybody gets needs no secrets from then on."""
        ends = time.monotonic() + ASK_S
        why = "it has no name in a registry that could be asked"
        for name, tried in logins.items() if wanted.digest else ():
            for login in (None, *tried):
                left = ends - time.monotonic()
                if left <= 0:
                    break
                try:
                    pull(
                        self.containerd,
                        f"{name}@{wanted.digest}",
                        timeout_s=left,
                        cancelled=self.cancelled,
                        logins=lambda _, login=login: [login] if login else [],  # type: ignore[misc]
                    )
                except Unavailable as error:
                    if error.reason != "ImagePullFailed":
                        raise
                    why = error.sentence
                else:
                    # By its digest, but that of a base image that is gone is the checkpoint's word.
                    if stored_image(self.containerd, api.Descriptor(digest=wanted.digest)).chain_id == wanted.chain_id:
                        return name, login
                    why = f"{name}@{wanted.digest} is another image"
        raise self._not_allowed(wanted, why, any(logins.values()))

    def _not_allowed(self, wanted: WantedImage, why: str, with_login: bool) -> Refused:
        named = [each for each in wanted.names if not oci.is_digest(each)]
        name = named[0] if named else wanted.digest or wanted.chain_id
        asked = "with the pod's logins" if with_login else "without a login, for it found none of the pod's"
        return Refused(
            "PullNotAllowed",
            f"the {wanted.what} {name} is on this node, but nothing shows that this pod may pull it: {why} "
            f"(nri-restore asked {asked}); give the pod an imagePullSecret for that registry; "
            f"{node_policy.IN_THE_CONFIGURATION} (node_images)",
        )
