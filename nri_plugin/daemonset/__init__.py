"""What the daemon's container image runs, in a privileged pod on every node (packaging/kubernetes, packaging/helm)."""
