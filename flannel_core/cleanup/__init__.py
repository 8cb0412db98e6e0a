"""Taking flannel off a host: all that is provably ours goes, all that only looks like it is named."""
