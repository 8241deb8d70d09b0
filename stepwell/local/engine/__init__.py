"""The engine's loop on one machine: batches, slots, attempts, clock, retention, erasure."""
