"""A process that loads an application and says what came of it: loading.py CORE TARGET [PYTHONPATH...].

Prints the result of the load as the first line, the application's representation, and the source files.
The error log goes to standard error.
"""
import importlib.machinery
import importlib.util
import sys

core_path, target = sys.argv[1:3]
loader = importlib.machinery.ExtensionFileLoader("_core", core_path)
core = importlib.util.module_from_spec(importlib.util.spec_from_loader("_core", loader))
loader.exec_module(core)
core.log_to("stderr", True)
host = core.host()
result = core.load(host, target, tuple(sys.argv[3:]))
print("result", result)
if result == 0:
    answer = core.request(host, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    print("body", answer[1].decode())
for path in core.source_files(host):
    print("source", path)
core.unload(host)
