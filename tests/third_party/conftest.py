"""The packages under this directory have tests of their own, which run where the packages are installed."""

collect_ignore = ["backend", "store"]
