"""From HDTF's published tables to its clips."""
