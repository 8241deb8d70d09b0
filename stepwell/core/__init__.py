"""The pure core, which makes all decisions. It uses no clock, environment, network, disk or logging."""
