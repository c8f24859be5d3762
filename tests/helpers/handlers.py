"""Signal handlers of the processes that tests start."""

import signal

from byol_tf.command_line import STOP_SIGNALS


def reset_handlers() -> None:
    """Ends the ignoring of signals in a new process, which `nohup` and background jobs pass on.

    For `subprocess.Popen(preexec_fn=...)`: without it a test that sends SIGINT or SIGHUP would wait
    for ever where the tests themselves run in such a job.
    """
    for number in STOP_SIGNALS:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
