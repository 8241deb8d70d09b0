"""Making a release: `python -m release` builds and checks what is published."""
