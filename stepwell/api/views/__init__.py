"""The API's response models, and the functions that build them from runs, functions and types."""
