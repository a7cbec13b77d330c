"""Commands for those who use a deployment: `s1vl`."""
