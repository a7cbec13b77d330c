"""A real single-node Kubernetes on this machine, from Go modules and Debian packages: `python -m hack.cluster up`."""
