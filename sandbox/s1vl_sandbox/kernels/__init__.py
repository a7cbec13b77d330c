"""The kernel host: one small process that forks a process per kernel, and what runs in those."""
