"""A stand-in for vLLM: its command line, HTTP API, metrics and limits, with a scripted policy instead of a model."""
