"""EC2 for the lab and for tests: moto in server mode, an instance metadata service, and the VPC's router."""
