"""Flow control: keys of limits, and the windows of time in which runs start."""
