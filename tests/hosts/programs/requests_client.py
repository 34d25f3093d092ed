"""Python's requests. Usage: requests_client.py REFRESH_TOKEN; trust by REQUESTS_CA_BUNDLE, proxy by HTTPS_PROXY."""

import sys

import requests

form = {"grant_type": "refresh_token", "client_id": "old-application", "refresh_token": sys.argv[1]}
with requests.Session() as session:
    tokens = session.post("https://identity-cus.aligntech.com/oauth2/token", data=form)
    tokens.raise_for_status()
    session.headers["Authorization"] = "Bearer " + tokens.json()["access_token"]
    orders = session.get("https://api-proxy.aligntech.com/itero-gen-api/v2/orders/practice")
    orders.raise_for_status()
    link = orders.json()["Data"][0]["URLs"][0]["Url"]
    assert link.startswith("https://api-proxy.aligntech.com/"), link
    file = session.get(link)
    file.raise_for_status()
    assert file.content
    print("downloaded", len(file.content), "bytes")
