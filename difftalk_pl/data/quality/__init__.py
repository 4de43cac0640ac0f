"""What is measured of prepared clips, shown and filtered by."""
