"""The engine's loop on the local platform: batches, slots, attempts, the clock, retention and erasure."""
