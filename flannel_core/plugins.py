"""Find and load ONE plugin by name; list all, and say why one is broken."""
