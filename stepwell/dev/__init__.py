"""The development server: finds and watches functions, and prints what happens."""
