"""The emulated AWS account, and how it can be made unkind."""
