"""HTTP by hand on a socket, as small embedded programs speak it. Usage: raw_socket.py PLAN OUT MODE

MODE: keep-alive (HTTP/1.1, one connection), dribble (HTTP/1.1, a packet per line, a new connection each),
1.0-keep-alive (HTTP/1.0 with Connection: Keep-Alive), absolute (HTTP/1.1, absolute-form targets).
The number of connections that were opened is left in OUT/connections.
"""
import socket
import sys
import time

plan, out, mode = sys.argv[1:4]
version = "1.0" if mode.startswith("1.0") else "1.1"
open_sockets = {}
opened = 0


def connect(authority):
    global opened
    host, port = authority.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened += 1
    return connection.makefile("rwb")


def read_answer(stream, method):
    """Status line, fields and body; None for the body's end means that the connection says it."""
    status = stream.readline().decode("latin-1").split(" ")
    fields = []
    while (line := stream.readline().decode("latin-1").rstrip("\r\n")) != "":
        fields.append(line)
    if status[1] == "100":
        return read_answer(stream, method)
    values = {name.lower(): value.strip() for name, value in (field.split(":", 1) for field in fields)}
    keeps = values.get("connection", "").lower()
    alive = keeps != "close" if status[0] == "HTTP/1.1" else keeps == "keep-alive"
    if method == "HEAD" or status[1] in ("204", "304"):
        return status[1], fields, b"", alive
    if values.get("transfer-encoding", "").lower() == "chunked":
        assert version == "1.1", "chunks for an HTTP/1.0 caller"
        body = b""
        while (size := int(stream.readline().split(b";")[0], 16)) > 0:
            body += stream.read(size)
            assert stream.readline() == b"\r\n"
        assert stream.readline() == b"\r\n"
        return status[1], fields, body, alive
    if "content-length" in values:
        length = int(values["content-length"])
        body = stream.read(length)
        assert len(body) == length, "the answer broke off"
        return status[1], fields, body, alive
    return status[1], fields, stream.read(), False


for line in open(plan, encoding="utf-8"):
    number, method, url, body, headers = line.rstrip("\n").split("\t")
    authority, path = url[len("http://"):].split("/", 1)
    data = None if body == "-" else open(body, "rb").read()
    target = url if mode == "absolute" else "/" + path
    lines = [f"{method} {target} HTTP/{version}", f"hOsT:{authority}"]
    lines += [] if headers == "-" else headers.split("|")
    if data is not None:
        lines.append(f"content-LENGTH:   {len(data)}")
    if mode == "dribble":
        lines.append("Connection: close")
    if mode == "1.0-keep-alive":
        lines.append("Connection: Keep-Alive")
    lines += ["", ""]
    stream = open_sockets.pop(authority, None) or connect(authority)
    if mode == "dribble":
        for piece in lines[:-1]:
            stream.write(piece.encode("latin-1") + b"\r\n")
            stream.flush()
            time.sleep(0.001)  # so that each line is a packet of its own
    else:
        stream.write("\r\n".join(lines).encode("latin-1"))
    stream.write(data or b"")
    stream.flush()
    status, fields, text, alive = read_answer(stream, method)
    if alive and mode != "dribble":
        open_sockets[authority] = stream
    with open(f"{out}/{number}.head", "w", encoding="latin-1") as head:
        head.write("\n".join([status] + fields) + "\n")
    open(f"{out}/{number}.body", "wb").write(text)
open(f"{out}/connections", "w").write(str(opened))
