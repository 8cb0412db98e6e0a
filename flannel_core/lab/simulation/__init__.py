"""Hosts, kernels and a store in memory, on a clock that jumps: thousands of sequences of what goes wrong, in a minute.

Simulated is what the agent meets: the kernel with its side effects, a store's answers, the time. What decides is real:
admission, peers, the backends, the reconciler.
"""
