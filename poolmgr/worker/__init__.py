"""What runs in a worker process. Small: each import here is paid by every template."""
