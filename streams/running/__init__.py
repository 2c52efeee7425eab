"""One worker: owners of partitions, on Kafka or in one process, and what watches them."""
