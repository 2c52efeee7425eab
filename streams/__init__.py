"""The monitor: sealed batches and vault records in; documents, joined KEK uses and findings out."""
