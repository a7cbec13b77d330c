"""Programs that measure s1vl; `make bench` runs them."""
