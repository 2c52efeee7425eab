"""The weekly report: collected from the index, summed up, rendered as one HTML file."""
