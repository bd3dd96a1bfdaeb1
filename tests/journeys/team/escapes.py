"""What an engine that a model has taken over would try, as a program that shows which attempts succeed."""

from __future__ import annotations

TRY = """
import ctypes, json, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def inet():
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
def connect():
    socket.create_connection(("127.0.0.1", 8443), 5).close()
def bind():
    with socket.socket(socket.AF_INET) as own:
        own.bind(("127.0.0.1", 0))
def write_and_execute():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
def write_usr():
    open("/usr/planted", "w").close()
    os.unlink("/usr/planted")
def write_model():
    os.close(os.open(os.environ["MODEL"], os.O_RDWR))
def read_keys():
    open("/var/lib/appliance/access.db", "rb").close()
def ptrace():
    if libc.ptrace(0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
def unix():
    socket.socket(socket.AF_UNIX).close()
found = {}
for attempt in (unix, inet, connect, bind, write_and_execute, write_usr, write_model, read_keys, ptrace):
    try:
        attempt()
        found[attempt.__name__] = "yes"
    except OSError as error:
        found[attempt.__name__] = type(error).__name__
print(json.dumps(found), flush=True)
"""
REFUSED_INSIDE = {"inet", "connect", "bind", "write_and_execute", "write_usr", "write_model", "read_keys", "ptrace"}
