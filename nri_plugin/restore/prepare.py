"""One restore, top to bottom: from the runtime's request to the plan restore-runc follows."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import partial
from threading import Event

from nri_plugin.config import Config
from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import CRI_METADATA, NotFound, layered_needed
from nri_plugin.containerd.images import pull
from nri_plugin.restore import options, policy, preflight, rootfs
from nri_plugin.restore.cache import ImageCache
from nri_plugin.restore.images import StoredImage, find_image
from nri_plugin.restore.node import Node, OpenedCheckpoint
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.plan_files import write_plan
from nri_plugin.restore.pull_rights import Puller, WantedImage
from nri_plugin.restore.report import RestoreReport
from nri_plugin.restore.request import RestoreRequest
from shared import contract
from shared.errors import Refused, RestoreError, Unavailable
from shared.judge import check_command, pod_identity
from shared.judge.links import check_links
from shared.judge.mounts import check_mounts
from shared.spec import parse_spec

FIRST_POLL_S, LAST_POLL_S = 0.002, 0.02
"""How long to wait before the runtime's record is looked for: soon at first, for it mostly comes within 5 ms."""

Answer = Callable[[RestoreError | None], None]
"""Called once, as soon as CreateContainer can be answered: with the refusal, or None to go on."""


def prepare(
    node: Node, cache: ImageCache, request: RestoreRequest, plan: Plan, answer: Answer, cancelled: Event
) -> RestoreReport:
    """Decides and prepares; the outcome is the plan's status. The caller holds the plan's lock.

    Raises nothing but what is a defect of ours, and then the plan says refused already: a restore that cannot be
    decided must never become a start from somewhere else.
    """
    report = RestoreReport(request)
    found = False
    config = node.config  # the same from the first step to the last, whatever is read again meanwhile
    try:
        image = find_checkpoint(node, cache, request, report, answer, cancelled)
        found = True
        if image is None:
            plan.write("status", "plain\n")
            report.outcome = "plain"
        else:
            if image.layered and request.checkpoint is None:
                plan.write("remove", "")
            if restores(request):
                admit(node, config, request, image, report, answer, cancelled)
                cache.remember(image, request.checkpoint or request.image)
                restore(node, config, request, plan, image, report, answer, cancelled)
            else:
                start_instead(request, plan, image, report)
        answer(None)
    except RestoreError as error:
        refuse(node, request, plan, report, error, answer, found=found)
    except Exception as error:
        broken = Unavailable("Internal", f"{type(error).__name__}: {error}")
        refuse(node, request, plan, report, broken, answer, found=found)
        raise
    return report


def restore(
    node: Node,
    config: Config,
    request: RestoreRequest,
    plan: Plan,
    image: StoredImage,
    report: RestoreReport,
    answer: Answer,
    cancelled: Event,
) -> None:
    """The steps of a restore; raises the RestoreError of the first that cannot be done."""
    opened = check(node, request, plan, image, report)
    policy.check_memory_size(config.policy, opened.dump.memory_bytes)
    if not image.layered and request.checkpoint is None and config.policy.registries != ("*",):
        policy.check_base_registry(config.policy, rootfs.base_names(node.containerd, opened.checkpoint.base))
    answer(None)
    # A root file system that stands was verified before; another one is made once this dump has been.
    stands = node.containerd.has_snapshot(rootfs.snapshot_name(opened.image))
    lower = prepare_rootfs(node, config, request, opened, report, cancelled) if stands else None
    with report.phase("record"):
        record = wait_for_record(node, request, cancelled)
    live = parse_spec(record.spec.value, file="config.json")
    if live.annotations.get(contract.CRIU_CONFIG) != str(plan.path / "criu.conf"):
        raise Unavailable(
            "AnsweredTooLate",
            "the runtime created the container without nri-restore's adjustment, which came too late; the next attempt "
            f"restores it. On CRI-O, allowed_annotations of the handler must have {contract.CRIU_CONFIG} "
            "(nri-restore node configure)",
        )
    with report.phase("verify"):
        dumped, identity = opened.checkpoint.spec, pod_identity(record.extensions[CRI_METADATA].value)
        special = opened.special + node.special_in_diff(opened)
        may = policy.waived(config.policy, request)
        digest = opened.image.digest
        verdict = node.verdicts.verify(digest, opened.dump, dumped, live, identity, special, may, node.side(live))
        report.warnings.extend(f"{each.reason} is waived: {each.sentence}" for each in verdict.judgement.waived)
    with report.phase("write"):
        images = node.images_for(opened, verdict)
    if not stands:
        lower = prepare_rootfs(node, config, request, opened, report, cancelled)
    overlay = None
    if request.checkpoint is not None:
        overlay = fill_own_rootfs(node, request, opened, record, report)
    elif lower is not None:
        overlay = rootfs.over_lower(node.containerd, record.snapshot_key, lower)
    with report.phase("files"):
        root_seen = preflight.check_rest(node, request, opened, record.snapshot_key, overlay)
        preflight.check_volumes(opened.dump, live)
    with report.phase("plan"):
        write_plan(node, request, plan, opened, live, record, overlay, images, root_seen=root_seen)
        plan.write("status", "ok\n")
    report.outcome = "ready"


def admit(
    node: Node,
    config: Config,
    request: RestoreRequest,
    image: StoredImage,
    report: RestoreReport,
    answer: Answer,
    cancelled: Event,
) -> None:
    """What the node's administrator says, and whether the pod could pull the image; registries are asked after the
    answer."""
    with report.phase("policy"):
        policy.check_pod(config.policy, request)
        policy.check_image_size(config.policy, image)
        # Of an image with several names, the runtime says any of them, which may not be the pod's.
        others = [each.name for each in node.containerd.images_by_digest(image.target)]
        names = [request.checkpoint or request.image, *others]
        policy.check_registry(config.policy, names)
    # The kubelet verifies the pod's own image where it is new enough, and CRI-O has no way to be asked.
    if request.checkpoint is not None or (config.policy.node_images == "verify" and not node.containerd.layered_only):
        wanted = WantedImage("checkpoint image", image.chain_id, image.target, names)
        pod = puller(node, config, request, cancelled)
        if not pod.may(wanted):
            answer(None)
            with report.phase("pull rights"):
                pod.require(wanted)
    if not node.signatures.known(config, image):
        answer(None)
        with report.phase("signature"):
            node.signatures.check(config, node.containerd, image, names)


def puller(node: Node, config: Config, request: RestoreRequest, cancelled: Event) -> Puller:
    """The pod as who pulls, or could pull, an image."""
    logins = partial(node.logins, request.subject)
    return Puller(node.pull_rights, node.containerd, config.policy, request.subject, logins, cancelled)


def restores(request: RestoreRequest) -> bool:
    """Whether this attempt restores, or the pod wants a restarted container to start afresh."""
    return request.attempt == 0 or request.on_restart == "restore"


def start_instead(request: RestoreRequest, plan: Plan, image: StoredImage, report: RestoreReport) -> None:
    """Lets the container start from its own image; raises Refused("NothingToStart") where that holds no programs."""
    if not request.can_start(layered=image.layered):
        raise Refused(
            "NothingToStart",
            "the pod asks to start the container afresh, but its image is a checkpoint without the base image's files; "
            f"use the base image with the annotation {contract.POD_CHECKPOINT}, or a layered checkpoint image",
        )
    plan.write("status", "plain\n")
    report.outcome = "started afresh"


def refuse(
    node: Node,
    request: RestoreRequest,
    plan: Plan,
    report: RestoreReport,
    error: RestoreError,
    answer: Answer,
    *,
    found: bool,
) -> None:
    """Records the refusal; with ``on-failure: start`` a container that has an image to start from starts instead.

    ``found``: whether its image was looked at. Where not, an ordinary container is not held up.
    """
    report.warnings.append(f"{error.reason}: {error.sentence}")
    report.error = error
    try:
        let_go(node, plan)
    except (RestoreError, OSError) as left:  # tried again when the runtime is connected again
        report.warnings.append(f"the view of the checkpoint image stays: {left}")
    if request.on_failure == "start" and request.can_start(layered=plan.has("remove")):
        plan.write("status", "plain\n")
        report.outcome = "started afresh, restore refused"
        answer(None)
    elif request.by_default and not found:
        plan.leave(error)
        report.outcome = "undecided"
        answer(None)
    else:
        plan.refuse(error)
        report.outcome = "refused"
        answer(error)


def let_go(node: Node, plan: Plan) -> None:
    """Ends the plan's use of a view; the last one unmounts it."""
    if (digest := plan.read("image")) is not None:
        plan.drop("image")
        node.release(digest)


def find_checkpoint(
    node: Node,
    cache: ImageCache,
    request: RestoreRequest,
    report: RestoreReport,
    answer: Answer,
    cancelled: Event,
) -> StoredImage | None:
    """The checkpoint image to restore from, pulled if only the annotation names it; None for an ordinary container."""
    containerd = node.containerd
    with report.phase("find"):
        if request.checkpoint is None:
            image = find_image(containerd, request.image)
            if image.is_checkpoint and not image.layered and containerd.layered_only:
                raise layered_needed()
            return image if image.is_checkpoint else None
        if containerd.layered_only:
            raise layered_needed()
        found: StoredImage | None
        try:
            found = find_image(containerd, request.checkpoint)
        except NotFound:
            # The kubelet's image collection sees only the pod's own image; what our lease kept is still whole.
            found = cache.recall(request.checkpoint)
    if found is None:
        if restores(request):  # nothing is fetched that would not be restored
            policy.check_pod(node.config.policy, request)
            policy.check_registry(node.config.policy, [request.checkpoint])
        answer(None)
        with report.phase("pull"):
            pod = puller(node, node.config, request, cancelled)
            login = pull(
                containerd,
                request.checkpoint,
                timeout_s=node.config.limits.pull_s,
                cancelled=cancelled,
                logins=pod.logins,
            )
            found = find_image(containerd, request.checkpoint)
            pod.granted(found.chain_id, request.checkpoint, login)
    if not found.is_checkpoint:
        raise Refused(
            "NotACheckpoint",
            f"{request.checkpoint} is an ordinary image; the annotation {contract.POD_CHECKPOINT} must name an image "
            "made by `kubectl restore build`, checkpointctl, Podman or buildah from a checkpoint archive",
        )
    return found


def check(
    node: Node, request: RestoreRequest, plan: Plan, image: StoredImage, report: RestoreReport
) -> OpenedCheckpoint:
    """Everything that can be refused before the container exists; quick, and quicker the second time."""
    plan.write("image", image.digest)
    with report.phase("view"):
        opened = node.open(image)
    with report.phase("check"):
        if not request.native:
            # containerd's own restore creates the container from the base image, whose command means nothing here.
            check_command(opened.checkpoint.spec, request.args)
        report.warnings.extend(check_mounts(opened.checkpoint.spec.mounts, request.mounts))
        if request.checkpoint is not None:
            check_base(node, request, opened)
        if not image.layered:
            rootfs.check_diff(opened.checkpoint)
            if request.checkpoint is None and not request.native:
                rootfs.check_base(node.containerd, image, opened.checkpoint)
        options.criu_config(request, opened.dump)
        check_links(opened.dump, root_unseen=request.native, kernel=platform.release())
    with report.phase("preflight"):
        preflight.check(node, request, opened)
    return opened


def check_base(node: Node, request: RestoreRequest, opened: OpenedCheckpoint) -> None:
    """With an annotation the pod's own image must be the dump's base image; raises Refused("BaseImageDiffers")."""
    if request.native:
        raise Refused(
            "BaseImageDiffers",
            f"the container's image {request.image} is a checkpoint too, which the runtime restores by itself; with "
            f"the annotation {contract.POD_CHECKPOINT}, use the image that the checkpoint was made on",
        )
    own = find_image(node.containerd, request.image)
    base = opened.checkpoint.base
    if base.digest in {own.digest, own.target} or base.config_digest == own.config_digest:
        return
    if opened.image.layered and opened.image.diff_ids[: len(own.diff_ids)] == own.diff_ids:
        return
    known = rootfs.find_base(node.containerd, base)
    if known is not None and known.chain_id == own.chain_id:
        return
    named = base.reference or base.name or request.image
    raise Refused(
        "BaseImageDiffers",
        f"the container's image {request.image} is not the one the checkpoint was made on"
        f"{f' ({named})' if named != request.image else ''}; use that image, or name the container the checkpoint "
        f"belongs to with {contract.POD_CHECKPOINT}.<container>",
    )


def prepare_rootfs(
    node: Node,
    config: Config,
    request: RestoreRequest,
    opened: OpenedCheckpoint,
    report: RestoreReport,
    cancelled: Event,
) -> tuple[str, ...] | None:
    """What to put below the container's own directory, topmost first; None where its image is no archive."""
    if opened.image.layered or request.checkpoint is not None or request.native:
        return None
    with report.phase("rootfs"), opened.files() as files:
        name = rootfs.ensure_snapshot(
            node.containerd,
            opened.image,
            opened.checkpoint,
            files,
            rootfs.Pulling(
                config.limits.pull_s,
                puller(node, config, request, cancelled),
                partial(policy.check_base_registry, config.policy),
                always=config.policy.base_pull == "Always",
            ),
            lock=node.image_lock,
            making=lambda: node.lowers.pop(opened.image.digest, None),  # what is known is of one that was collected
        )
        lower = node.lowers.get(opened.image.digest)
        if lower is None:
            lower = rootfs.lower_directories(node.containerd, name, opened.image.lease)
            node.lowers[opened.image.digest] = lower
        return lower


def fill_own_rootfs(
    node: Node, request: RestoreRequest, opened: OpenedCheckpoint, record: api.Container, report: RestoreReport
) -> rootfs.Overlay:
    """Brings a container that was created from the base image to the state of the dump's."""
    with report.phase("rootfs"), opened.files() as files:
        return rootfs.fill_own(
            node.containerd,
            opened.image,
            find_image(node.containerd, request.image),
            opened.checkpoint,
            files,
            record.snapshot_key,
            lock=node.image_lock,
        )


def wait_for_record(node: Node, request: RestoreRequest, cancelled: Event) -> api.Container:
    """The runtime's record of the container, which appears just after CreateContainer was answered."""
    deadline = time.monotonic() + node.config.limits.record_s
    pause_s = FIRST_POLL_S
    while not cancelled.wait(pause_s):
        pause_s = min(1.5 * pause_s, LAST_POLL_S)
        try:
            return node.containerd.container(request.container_id)
        except NotFound:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "ContainerNotCreated", "the runtime never finished creating the container; the next attempt will"
                ) from None
    raise Unavailable("Cancelled", "the container was stopped or removed while its restore was being prepared")
