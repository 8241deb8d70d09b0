"""Approvals over HTTP: the page with the form, and `/v1/approvals`."""
