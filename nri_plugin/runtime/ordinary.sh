# shellcheck shell=sh disable=SC2154
# Read by restore-runc where the handler is the runtime's default and nobody decided on a container, mostly because the
# daemon is away: what is ordinary must start all the same, and a checkpoint never as something else.

is_ordinary() { # whether neither the pod nor the files of the container name or are a checkpoint
	[ "$command" = create ] || return
	# CRI-O's rootfs is not in the bundle.
	[ -d "$rootfs" ] || rootfs=$(tr -d '\n' <"$bundle/config.json" | sed -n 's/.*"root": *{[^}]*"path": *"\(\/[^"]*\)".*/\1/p')
	[ -d "$rootfs" ] || return
	seen=''
	for file in .nri-restore config.dump spec.dump; do
		[ -e "$rootfs/$file" ] || [ -L "$rootfs/$file" ] && seen="$seen $file"
	done
	case $seen in *.nri-restore* | *config.dump*spec.dump*) return 1 ;; esac
	[ -r "$bundle/config.json" ] || return
	# The runtime passes the pod's annotations on. CRIU's options for its checkpoints are ours to name, not the pod's.
	named=$(grep -oE '"(nri-restore/checkpoint[^"]*|org\.criu\.config)": *"[^"]*"' "$bundle/config.json" |
		grep -vF -e "\"org.criu.config\":\"$plan/criu.conf\"" -e "\"org.criu.config\": \"$plan/criu.conf\"")
	[ ! "$named" ]
}
