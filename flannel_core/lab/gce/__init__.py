"""Google Cloud for the lab and for tests: a fake compute API that holds every request against the discovery document
which google-api-python-client ships, a metadata server, and the network's router."""
