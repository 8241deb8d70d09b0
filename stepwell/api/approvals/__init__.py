"""Approvals over HTTP: the page, its form, and `/v1/approvals`."""
