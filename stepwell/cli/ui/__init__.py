"""Output for people: tables, trees, progress bars, times."""
