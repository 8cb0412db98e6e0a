"""The reconciler: what exists against what is wanted. ``engine.Reconciler`` is what the agent uses; the rest is how.

``desired``, ``picture``, ``diff`` and ``retries`` are pure; ``listening``, ``reading``, ``writing`` reach the targets.
"""
