"""The Unix socket, and the commands that it takes."""
