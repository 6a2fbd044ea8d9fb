"""The scheduler: what runs where, when, and what happens on failure. Pure: no I/O, no clock, no chance of its own."""
