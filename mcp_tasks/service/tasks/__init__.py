"""The use cases of tasks: starting, reading, ending, talking to them, waiting for several."""
