"""Builds the container images of this project on a machine that has no registry and no docker."""
