"""The only modules that talk to the API server, and what is asked of one."""
