"""What is on disk: run folders, study plans, tables and leases."""
