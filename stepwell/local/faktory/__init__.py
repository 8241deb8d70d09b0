"""The Faktory server: workers of Faktory run steps, and clients of Faktory send events."""
