"""What a person starts: more partitions, the index built again."""
