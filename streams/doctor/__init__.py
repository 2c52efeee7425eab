"""`keytrail doctor`: looks at everything that a deployment stands on, and says what is wrong and what to do.

Each file looks at one neighbour: the reviewed files, the log, the index, what a service needs. A look changes nothing,
but for one short-lived topic by which the broker's clock is read.
"""
