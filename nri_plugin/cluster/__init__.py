"""The daemon and the Kubernetes API: Events about restores, pull secrets of pods, the node's annotation.

Optional. The API is asked by a child process for each errand (``python -m nri_plugin.cluster``): TLS and YAML would
cost the worker a third of its memory for good, and what is read from outside stays out of it.
"""
