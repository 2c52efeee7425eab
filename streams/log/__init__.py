"""Topics and the state log, on Kafka."""
