"""Trial deployments of an environment: on an emulator (`make rehearsal`), or in a real account (`real/`)."""
