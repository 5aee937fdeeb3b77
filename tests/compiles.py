"""What is compiled while a block runs: the programs that a test counts."""

import jax


class Compiled:
    """What is compiled while it is open, of any function: names, in order."""

    def __enter__(self):
        self.names = []
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def _hear(self, event, seconds, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            self.names.append(fun_name)

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def count(self, name):
        """How many programs of a function."""
        return sum(name in one for one in self.names)

    @property
    def steps(self):
        return self.count("take_steps")
