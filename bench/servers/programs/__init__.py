"""What runs inside the servers' own environments; imports nothing of Penstock but its protos."""
