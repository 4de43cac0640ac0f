"""Files that many processes read and write, and those processes."""
