"""The dev server: finds and watches functions, and shows what happens."""
