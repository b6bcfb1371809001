"""The engine: reservations, the queue, and two short drivers. Locked, never sleeps, is told the time."""
