"""The spool: lines are durable before anybody acts on them, sealed, sent, and taken over when their process is gone."""
