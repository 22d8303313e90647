# shellcheck shell=sh disable=SC2154,SC2016,SC2174
# Read by restore-runc when there is something to restore; works with its variables. Every fork here is a millisecond of
# StartContainer: what builtins can do, they do.

mount_overlay() { # <command to run first, in the directory of the overlay's links>: in place of what is on the rootfs
	IFS= read -r options <"$plan/mount"
	umount "$rootfs" && (cd "$plan/l" && "$@" && LIBMOUNT_FORCE_MOUNT2=always mount -t overlay -o "$options" overlay "$rootfs")
}

identity() { # the settings of the pod's IPC namespace, which a restore overwrites; "save" prints them, "load" reads stdin
	ipc=''
	[ -f "$plan/restores-ipc" ] || return 0
	while read -r type path; do
		[ "$type" = ipc ] && ipc=$path
	done <"$plan/namespaces"
	[ "$ipc" ] || return 0
	script='for f do [ -r "$f" ] && read -r v <"$f" && printf "%s=%s\n" "$f" "$v"; done; :'
	[ "$1" = load ] && script='while IFS="=" read -r f v; do
		read -r now <"$f"; [ "$now" = "$v" ] || printf %s "$v" >"$f"; done; :'
	k=/proc/sys/kernel m=/proc/sys/fs/mqueue
	nsenter "--ipc=$ipc" sh -c "$script" sh $k/msgmax $k/msgmnb $k/msgmni $k/sem $k/shmall $k/shmmax $k/shmmni \
		$k/shm_rmid_forced $m/queues_max $m/msg_max $m/msgsize_max $m/msg_default $m/msgsize_default 2>/dev/null
}

namespace() { # <type>: path of the pod's namespace, nothing if it is the node's
	while read -r type path; do
		[ "$type" = "$1" ] && printf '%s' "$path" && return
	done <"$plan/namespaces"
}

in_groups() { # <arguments of find>: in the container's own cgroup, in every hierarchy
	group=''
	[ -f "$plan/cgroup" ] && IFS= read -r group <"$plan/cgroup"
	[ "$group" ] || return
	for top in /sys/fs/cgroup "/sys/fs/cgroup"/*; do
		[ -d "$top/$group" ] && [ ! -L "$top" ] && find "$top/$group" "$@" 2>/dev/null
	done
}

explain() { # <exit status>: why the restore failed, from CRIU's log, else the runtime's
	[ -f "$plan/cancelled" ] && printf 'Cancelled: the pod was stopped while its container was restored' && return
	[ "$1" = 0 ] && printf 'NodeStorageFailed: %s cannot be written; is its file system full?' "$plan" && return
	[ "$1" = adjust ] && printf "AdjustFailed: the restored processes cannot be given the pod's limits" && return
	[ "$1" = opened ] && printf 'FileExceeds: the checkpoint has %s open, which is not the file at its path: a link on a volume leads elsewhere; such a file cannot be restored' "$busy" && return
	[ "$1" = rights ] && printf "FileExceeds: the checkpoint has %s, which no user of the checkpoint may open so; give the pod's user or fsGroup that right, or take a new checkpoint when the file is closed" "$busy" && return
	[ "$1" = cover ] && [ "$busy" ] && printf 'WritableFileOpen: the pod asks for %s read-only, where a process of the checkpoint has a file open for writing; leave that out, or take a new checkpoint when the file is closed' "$busy" && return
	[ "$1" = cover ] && printf "CoverFailed: the restored container's mounts cannot be made what the pod asks for" && return
	[ "$1" = root ] && printf "MountFailed: the runtime did not start CRIU in the root that was made for it; see whether %s takes criu from its PATH" "$runtime" && return
	[ -f "$plan/ns/failed" ] && printf 'MountFailed: the root and the cgroup namespace that CRIU is started in cannot be made: %s' "$(tail -n 1 "$plan/work/criu-root.log")" && return
	[ "$1" = 137 ] && printf 'RestoreTimeout: CRIU did not finish within %s s' "$restore_s" && return
	why=$(grep -a 'Error (' "$plan/work/restore.log" 2>/dev/null | grep -avE "Can't setup RLIMIT|cgroupd: recv req" | head -n 1)
	[ "$why" ] || why=$(sed -n 's/.*"level":"error".*"msg":"\(.*\)","time.*/\1/p' "$plan/work/runc.log" 2>/dev/null | tail -n 1)
	why=$(printf '%s' "${why:-it gave no reason}" | sed 's/^([0-9. ]*) *\([0-9]*: \)\{0,1\}Error ([^)]*): //')
	case $why in
	"Can't open file proc/"*) printf 'CriuFailed: CRIU cannot restore the container: %s' "$why" ;;
	"Can't open file "*' on restore: No such file or directory' | 'File '*' has bad size '*)
		printf 'OpenFileDiffers: a process has a file open that is not there as it was; what volumes and /dev/shm hold is not part of a checkpoint, so give the pod the same volume with that file in it, or take a new checkpoint when the file is closed: %s' "$why" ;;
	"Can't open file "*' on restore: Read-only file system')
		why=${why#"Can't open file "} && printf 'WritableFileOpen: the checkpoint has /%s open for writing, which the pod mounts read-only; remove readOnly from that volumeMount, or take a new checkpoint when the file is closed' "${why% on restore: *}" ;;
	*': Too many levels of symbolic links')
		printf 'FileExceeds: a file or Unix socket of the checkpoint has a link on the way to its path, which CRIU does not follow here; give the program a path without links (below /var/run they may be), and take a new checkpoint: %s' "$why" ;;
	*) printf 'CriuFailed: CRIU cannot restore the container: %s' "$why" ;;
	esac
	printf ' (full log: %s/restore.log)' "$keep"
}

# What crun does otherwise than runc: CRIU's options come by its own flags, which win over any file, and before crun 1.26
# the file itself only by CRIU's environment; with --manage-cgroups-mode=ignore it leaves the processes in its own cgroup.
case ${runtime##*/} in *crun*) crun=1 ;; *) crun='' ;; esac

crun_options() { # sets $own to those of criu.conf for which this crun has flags
	can=$("$runtime" restore --help)
	own='--manage-cgroups-mode ignore'
	while read -r word; do
		case $can in *" --$word"*) own="$own --$word" ;; esac
	done <"$plan/criu.conf"
	# Before crun 1.26 CRIU manages cgroups all the same, of which its image has none, and wants a directory for them.
	echo 'cgroup-yard /tmp' >>"$plan/criu.conf"
	# runc dumps masked files under this name, crun looks for each under its own.
	echo 'external mnt[/dev/null]:/dev/null' >>"$plan/criu.conf"
	export CRIU_CONFIG_FILE="$plan/criu.conf"
}

into_groups() { # <pid>: brings it and all below into the container's cgroup
	descend "$1"
	for file in $(in_groups -maxdepth 1 -name cgroup.procs); do
		for each in $tree; do
			printf %s "$each" >"$file" || return
		done
	done
}

criu_root() { # starts the process that gives us a session keyring, and makes CRIU's own root once criu_root_go tells it
	holder=''
	[ -f "$plan/own-root" ] || return 0
	{ IFS= read -r python && IFS= read -r program; } <"$plan/own-root"
	# Open for writing as well, it makes nobody wait for the other side.
	exec 9<>"$plan/ns/go" 7<>"$plan/ns/keyring"
	"$python" -I -S "$program" $$ "$plan" </dev/null >/dev/null 2>"$plan/work/criu-root.log" 8<&- 9<&- &
	holder=$!
	# From here on, the other side is that process alone: what it leaves unsaid when it ends is the end of the file.
	exec 6<"$plan/ns/keyring" 7<&-
}

criu_root_go() { # sets $within to what the runtime is to be started by, and its environment
	within='' folder=${root:-/run/${crun:-runc}} below=$id/criu-root
	# Where the runtime mounts the rootfs for CRIU (runc libcontainer/criu_linux.go, crun src/libcrun/criu.c).
	[ "$crun" ] && folder=$bundle below=criu-root
	case $folder in /var/run/*) folder=${folder#/var} ;; esac
	if [ "$holder" ]; then
		read -r _ <&6 || { : >"$plan/ns/failed" && return 1; }
		exec 6<&-
		printf '%s\t%s\t%s\n' "$folder" "$below" "$rootfs" >&9
	fi
	[ -d "$plan/bin" ] || return 0
	export NRI_RESTORE_PLAN="$plan" NRI_RESTORE_CRIU_ROOT="$folder/$below" NRI_RESTORE_HOLDER="$holder"
	[ -f "$plan/own-cgroup" ] || return 0
	# Where crun has systemd make a scope, it puts the container into a group below it (crun(1), run.oci.systemd.subgroup).
	subgroup=''
	[ "$crun" ] && [ "$flags" ] && [ -f /sys/fs/cgroup/cgroup.controllers ] &&
		! grep -qF run.oci.systemd.subgroup "$bundle/config.json" && subgroup=/container
	within="$here/criu-root"
}

run_restore() { # the runtime's own restore, ended with us or when it takes too long
	set --
	while IFS= read -r word; do set -- "$@" "$word"; done <"$plan/argv"
	own=--no-subreaper
	[ "$crun" ] && crun_options
	# What runc and CRIU mount outside the container is gone with them, also when they are killed.
	apart='unshare --mount --propagation slave'
	[ -f "$plan/shares-mounts" ] && apart=''
	# shellcheck disable=SC2086
	set -- "$runtime" ${root:+--root "$root"} --log "$plan/work/runc.log" --log-format json $flags restore "$@" \
		--bundle "$bundle" ${pidfile:+--pid-file "$pidfile"} ${console:+--console-socket "$console"} $nopivot \
		--detach $own "$id"
	criu_root_go || { result=1 && exec 6<&- 9<&- && return 0; }
	[ "$within" ] && set -- "$within" "$plan" "$subgroup" "$@"
	# Our criu comes first in the runtime's PATH.
	# shellcheck disable=SC2086
	PATH="$plan/bin:$PATH" setpriv --pdeathsig KILL timeout --foreground -s KILL "$restore_s" setpriv --pdeathsig KILL $apart "$@" 9<&-
	result=$?
	[ "$holder" ] && kill -KILL "$holder" 2>/dev/null
	exec 9<&-
	# With shared mounts, the cgroup namespace was held by a mount on the node itself.
	[ "$apart" ] || [ ! -f "$plan/own-cgroup" ] || umount -l "$plan/ns/cgroup" 2>/dev/null
	[ "$result" = 0 ] && [ -d "$plan/bin" ] && [ ! -f "$plan/ns/entered" ] && result=root
	return 0
}

guard() { # undoes the restore when we are killed in the middle of it: only a process that outlives us can
	IFS= read -r keep <"$plan/keep"
	{
		printf '%s' "$root" >"$plan/root" && printf '%s' "$runtime" >"$plan/runtime" &&
			{ identity save || :; } >"$plan/identity" && read -r uptime _ </proc/uptime && printf '%s' "$uptime" >"$plan/restoring"
	} 2>/dev/null || fail "NodeStorageFailed: $plan cannot be written; is its file system full?"
	exec 8<"$plan/restoring"
	flock 8
	setsid flock "$plan/restoring" "$here/undo-restore" "$plan" </dev/null >/dev/null 2>&1 6<&- 8<&- 9<&- &
}

inherited() { # sets $lower to limits of the checkpoint that are more than our own, which an ordinary container inherits
	lower='' own=''
	[ -f "$plan/inherited" ] && IFS= read -r highest <"$plan/inherited" || return 0
	while IFS= read -r line; do
		# A name of 26 characters, blanks in it; the soft limit, the hard one.
		# shellcheck disable=SC2086
		set -- ${line#??????????????????????????}
		own="$own $2"
	done </proc/self/limits
	# shellcheck disable=SC2086
	set -- $own
	for limit in $highest; do # both are by number, ours below a heading
		shift
		case $1 in unlimited) continue ;; *[!0-9]* | '') return 1 ;; esac
		[ "${limit#*=}" != unlimited ] && [ "${limit#*=}" -le "$1" ] || lower="$lower ${limit%=*}=$1"
	done
}

adjust() { # <pid>: gives it and all below the limits of the pod, where the checkpoint's are higher
	inherited || return 1
	[ -s "$plan/adjust" ] || [ "$lower" ] || return 0
	descend "$1"
	for each in $tree; do
		[ ! -s "$plan/adjust" ] || while read -r what value; do
			case $what in
			oom_score_adj) read -r now <"/proc/$each/oom_score_adj" && { [ "$now" -ge "$value" ] || printf %s "$value" >"/proc/$each/oom_score_adj"; } ;;
			*) prlimit --pid "$each" "--$what=$value" ;;
			esac || return 1
		done <"$plan/adjust"
		for limit in $lower; do
			# Of the soft limit only what is more than the hard one is taken away.
			prlimit --pid "$each" "--${limit%=*}=:${limit#*=}" 2>/dev/null ||
				prlimit --pid "$each" "--$limit:${limit#*=}" || return 1
		done
	done
}

restore() {
	criu_root
	[ -f "$plan/mount" ] && { mount_overlay true 2>"$plan/work/mount.log" || fail "MountFailed: the restored root file system cannot be mounted: $(tail -n 1 "$plan/work/mount.log")"; }
	[ -f "$plan/root-mode" ] && IFS= read -r mode <"$plan/root-mode" && chmod "$mode" "$rootfs"
	guard
	run_restore 8<&-
	[ "$result" = 0 ] && identity load <"$plan/identity"
	if [ "$result" = 0 ] && [ ! -f "$plan/cancelled" ]; then
		[ -f "$plan/remove" ] && rm -rf -- "$rootfs/.nri-restore"
		[ -f "$plan/logpath" ] && IFS= read -r logpath <"$plan/logpath" && cat "$plan/log" >>"$logpath"
		read -r pid <"$pidfile"
		if [ "$crun" ] && ! into_groups "$pid" 2>"$plan/work/adjust.log"; then
			result=adjust
		fi
		if ! adjust "$pid" 2>"$plan/work/adjust.log"; then
			result=adjust
		fi
		if [ -f "$plan/cover" ]; then
			{ IFS= read -r python && IFS= read -r program; } <"$plan/python"
			busy=$("$python" -I -S "$program" "$pid" "$plan/cover" 2>"$plan/work/cover.log") ||
				case $? in 3) result=opened ;; 4) result=rights ;; *) result=cover ;; esac
		fi
	fi
	if [ "$result" = 0 ] && [ ! -f "$plan/cancelled" ]; then
		# The runtime's next checkpoint of it reads the same file: what the node's administrator set for that.
		ln -sf /etc/criu/runc.conf "$plan/criu.conf"
		printf '%s' "$pid" >"$plan/restored" && return
	fi
	# It quotes the checkpoint's own words: nothing a terminal obeys, and no more than a reader reads.
	why=$(explain "$result" | LC_ALL=C tr -c '\40-\176' '?' | cut -c 1-2000)
	printf '%s' "$why" 2>/dev/null >"$plan/why"
	mkdir -p -m 0700 "$keep" && tail -c "$max_log_bytes" "$plan/work/restore.log" >"$keep/restore.log" 2>/dev/null
	"$here/undo-restore" "$plan" 8<&-
	exec 8<&-
	return 1
}
