"""Where tasks are kept: in memory, or in a file that survives."""
