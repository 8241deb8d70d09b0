"""The pure core: what Stepwell decides. No clock, environment, network, disk or logging in here."""
