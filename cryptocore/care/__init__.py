"""What people state and look after beside the keys: labels, terms, the threat level, what is late, incidents."""
