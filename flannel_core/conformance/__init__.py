"""The checks that every store and every backend has to pass, ours and yours: subclass one class in your tests.

``stores`` has :class:`~flannel_core.conformance.stores.StoreConformance`, ``backends`` the one for backends. Both need
pytest; the agent imports neither.
"""
