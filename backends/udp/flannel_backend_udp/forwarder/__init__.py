"""The forwarder: a process of its own that moves packets between a TUN device and UDP where the kernel has no FOU.

``bundles``, ``runs``, ``headers`` and ``peer_table`` only compute; ``sending`` and ``receiving`` add the descriptors,
``serving`` the loop and the agent's socket, ``main`` the program. Of flannel it knows no more than ``messages``.
"""
