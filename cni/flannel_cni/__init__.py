"""The CNI plugin ``flannel``: gives a container its place in this host's subnet, by way of another plugin.

It starts anew for every container, so it imports the standard library's small parts and two small modules of the core
that import no more. ``build.py`` makes of it one program that needs nothing of the host.
"""
