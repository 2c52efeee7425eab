"""The life of keys: from creation to the certificate of destruction."""
