"""The agent of `correlate`: which KEK uses are ours, and what is known of each KEK."""
