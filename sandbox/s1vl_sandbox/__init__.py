"""The s1vl sandbox: an AIO-compatible Jupyter service that runs the code a model writes."""
