"""What the API shows: models, and how runs, functions and types become them."""
