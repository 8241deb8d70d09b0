"""The infrastructure of one environment: one file a concern, composed by `stack`."""
