"""The pipeline over files, and the files it leaves."""
