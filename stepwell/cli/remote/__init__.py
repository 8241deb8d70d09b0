"""The servers and AWS environments that commands use."""
