"""How objects look on a netlink socket: reading, writing and watching them in bulk."""
