"""KEKs: what is known of them, what hangs on them, and the acts that change them."""
