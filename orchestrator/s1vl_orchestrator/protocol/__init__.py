"""How the model asks for code to be run and how it says its answer: profiles as data, and one tolerant parser."""
