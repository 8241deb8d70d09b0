"""The infrastructure of one environment: one file for each concern, composed by `stack`."""
