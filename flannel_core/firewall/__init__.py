"""Traffic rules: masquerading and accepting what is forwarded. ``traffic.TrafficRules`` is what the agent uses.

``rules``, ``chains``, ``iptables_text``, ``nftables_text`` and ``obstacles`` are pure; ``programs``, ``iptables`` and
``nftables`` reach the tools.
"""
