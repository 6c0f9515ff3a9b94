"""Files: text to domain values and back. Rooms open the paths."""
