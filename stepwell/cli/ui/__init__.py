"""What people see: tables, trees, progress, times."""
