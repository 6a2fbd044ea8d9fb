"""The asyncio shell around the scheduler: it performs effects, and tells the scheduler what has happened."""
