"""An application that starts processes in every way that Python has."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time


def double(number):
    return number * 2


def fork_and_exit(environ):
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return "child %d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_and_return(environ):
    """The child goes back to the server, as if it were the request."""
    pid = os.fork()
    if pid == 0:
        return "from the child"
    return "parent of %d" % pid


def fork_in_a_generator(environ):
    yield "before "
    pid = os.fork()
    if pid == 0:
        yield "child "
        return
    os.waitpid(pid, 0)
    yield "parent"


def fork_and_raise(environ):
    pid = os.fork()
    if pid == 0:
        raise RuntimeError("raised in the child")
    return "child %d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_and_stay(environ):
    """A child that lives on: it must hold no connection and no listening socket."""
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return str(pid)


def children_fds(environ):
    pid = int(environ["QUERY_STRING"])
    found = []
    for name in os.listdir("/proc/%d/fd" % pid):
        try:
            found.append(os.readlink("/proc/%d/fd/%s" % (pid, name)))
        except OSError:
            pass
    return " ".join(found)


def end_child(environ):
    pid = int(environ["QUERY_STRING"])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "ended"


def fork_with_threads(environ):
    """A thread of the application forks while others serve."""
    results = []

    def work():
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        results.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return "child %d" % results[0]


def pool(environ):
    method = environ["QUERY_STRING"]
    with multiprocessing.get_context(method).Pool(2) as workers:
        return str(workers.map(double, range(5)))


def process(environ):
    context = multiprocessing.get_context(environ["QUERY_STRING"])
    queue = context.Queue()
    child = context.Process(target=queue.put, args=("from the child",))
    child.start()
    answer = queue.get(timeout=30)
    child.join()
    return "%s %d" % (answer, child.exitcode)


def run(environ):
    return subprocess.run(["echo", "from a command"], stdout=subprocess.PIPE, text=True).stdout


def shell(environ):
    return str(os.system("exit 3") >> 8)


def signals(environ):
    """What a command inherits: no blocked and no ignored signals but Python's own SIGPIPE."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(open('/proc/self/status').read())"], stdout=subprocess.PIPE, text=True
    ) as child:
        lines = child.communicate()[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("SigBlk", "SigIgn")))


def inherited(environ):
    """The descriptors of a command beyond the standard ones."""
    code = "import os; print([os.readlink('/proc/self/fd/%s' % n) for n in os.listdir('/proc/self/fd') if int(n) > 2 and os.path.exists('/proc/self/fd/%s' % n)])"
    return subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, close_fds=False
    ).stdout


def daemon(environ):
    """A command that outlives its request."""
    return str(subprocess.Popen(["sleep", "1"]).pid)


def child_signal(environ):
    """SIGCHLD belongs to the application."""
    return str(signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, None))


def pid(environ):
    return str(os.getpid())


def app(environ, start_response):
    result = globals()[environ["PATH_INFO"].strip("/") or "pid"](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if isinstance(result, str):
        return [result.encode()]
    return (block.encode() for block in result)
