"""Commands of `keytrail`, by what they are about; `streams.cli` puts them together. Each imports its own when run."""
