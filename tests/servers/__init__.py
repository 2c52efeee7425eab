"""Real servers for the tests, without containers: Apache Kafka, Elasticsearch and PostgreSQL as plain processes.

`jars.py` fetches, `machine.py` says what this machine has, `process.py` starts and stops, one module per server says
how, `session.py` holds the pytest side: skip or fail, and the count of what was not tested. `python -m tests.servers`
is the command behind `make servers`; it needs the standard library only, so it works before anything is installed.
"""
