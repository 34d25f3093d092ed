"""Python's http.client on one kept connection. Usage: http_client.py PLAN OUT"""
import http.client
import sys
import urllib.parse

plan, out = sys.argv[1:3]
connections = {}
for line in open(plan, encoding="utf-8"):
    number, method, url, body, headers = line.rstrip("\n").split("\t")
    parts = urllib.parse.urlsplit(url)
    target = url[url.index(parts.netloc) + len(parts.netloc):]
    connection = connections.get(parts.netloc)
    if connection is None:
        connection = connections[parts.netloc] = http.client.HTTPConnection(parts.netloc, timeout=60)
    data = None if body == "-" else open(body, "rb")  # a file: http.client streams it
    connection.putrequest(method, target)
    for field in [] if headers == "-" else headers.split("|"):
        connection.putheader(*field.split(": ", 1))
    if data is not None:
        data.seek(0, 2)
        connection.putheader("Content-Length", str(data.tell()))
        data.seek(0)
    connection.endheaders(data)
    answer = connection.getresponse()
    text = answer.read()
    with open(f"{out}/{number}.head", "w", encoding="latin-1") as head:
        head.write(f"{answer.status}\n")
        for name, value in answer.getheaders():
            head.write(f"{name}: {value}\n")
    open(f"{out}/{number}.body", "wb").write(text)
