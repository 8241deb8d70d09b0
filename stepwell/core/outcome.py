"""What a step says: from stdout, exit code, HTTP status or return value to an `Outcome` (contract, section 3)."""
