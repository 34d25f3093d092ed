"""Python's urllib.request. Usage: urllib_client.py PLAN OUT"""
import sys
import urllib.error
import urllib.request

plan, out = sys.argv[1:3]
for line in open(plan, encoding="utf-8"):
    number, method, url, body, headers = line.rstrip("\n").split("\t")
    data = None if body == "-" else open(body, "rb").read()
    request = urllib.request.Request(url, data=data, method=method)
    for field in [] if headers == "-" else headers.split("|"):
        request.add_header(*field.split(": ", 1))
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    text = answer.read()
    with open(f"{out}/{number}.head", "w", encoding="latin-1") as head:
        head.write(f"{answer.status}\n")
        for name, value in answer.headers.items():
            head.write(f"{name}: {value}\n")
    open(f"{out}/{number}.body", "wb").write(text)
