"""An environment deployed for trial: on an emulator (`make rehearsal`), or in a real account (`real/`)."""
