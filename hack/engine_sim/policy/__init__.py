"""What the simulated model says: scenarios that measure and then report what the sandbox printed or drew."""
