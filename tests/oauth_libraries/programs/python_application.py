"""What the legacy applications in Python do besides OAuth, which is the library's: `oauth` has authorization_url,
exchange, refresh, revoke and request, and holds the tokens in `token`. Settings are environment variables, see README.md.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

setting = os.environ.get
DISCOVERY = "/api-discovery-by-name-and-version?discoveryName=third-party&version=2"


def say(*words):
    print(*words, flush=True)


class Redirect(BaseHTTPRequestHandler):
    """The application's own page behind its redirect URI."""

    def do_GET(self):
        self.server.redirected_to = self.path
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<p>You are logged in and may close this window.")

    def log_message(self, *_):
        pass


class Application:
    def __init__(self, library):
        wanted = urlsplit(setting("REDIRECT_URI"))
        self.listener = HTTPServer((wanted.hostname, wanted.port), Redirect)
        self.origin = f"http://{wanted.hostname}:{self.listener.server_port}"
        self.oauth = library(self.origin + wanted.path)
        self.place = None

    def log_in(self):
        say("AUTHORIZE", self.oauth.authorization_url())
        self.listener.handle_request()
        self.oauth.exchange(self.origin + self.listener.redirected_to)
        return {"expires_in": self.oauth.token["expires_in"]}

    def discover(self):
        # The first call goes to the base URL, later ones to where it led.
        base = self.place or setting("API_BASE") + "/api/third-party/v2"
        found = self.ask("GET", base + DISCOVERY)["APIs"][0]
        self.place = found["Domain"].rstrip("/") + found["Path"]
        return {"at": self.place}

    def find_account(self):
        accounts = self.ask("GET", self.place + "/related-accounts")["Data"]
        wanted = setting("ACCOUNT_ID", "first")
        fits = [a for a in accounts if wanted in ("first", str(a["AccountId"]))]
        self.account = fits[0]["AccountId"]
        return {"account": self.account}

    def pair(self):
        body = {"AccountId": self.account, "CallbackUrl": setting("CALLBACK_URL", "")}
        paired = self.ask("PUT", self.place + "/pair-account", json=body)
        # "From this point on, these set of tokens must be used."
        self.oauth.token = paired["Data"]["OAuthResponse"]
        return self.tokens()

    def refresh(self):
        before = self.oauth.token["refresh_token"]
        self.oauth.refresh()
        same = "yes" if self.oauth.token["refresh_token"] == before else "no"
        self.discover()
        return {**self.tokens(), "same_refresh_token": same}

    def tokens(self):
        token = self.oauth.token
        return {"expires_in": token["expires_in"], "refresh_chars": len(token["refresh_token"])}

    def orders(self):
        self.listed = self.ask("GET", self.place + setting("ORDERS_PATH"))["Data"]
        return {"orders": len(self.listed)}

    def download(self):
        asset = self.call("GET", self.listed[0]["URLs"][0]["Url"])
        return {"bytes": len(asset.content)}

    def revoke(self):
        done = self.oauth.revoke()
        done.raise_for_status()
        return {"status": done.status_code}

    def call(self, method, url, **more):
        response = self.oauth.request(method, url, **more)
        response.raise_for_status()
        return response

    def ask(self, method, url, **more):
        return self.call(method, url, **more).json()


def step(name, work):
    try:
        facts = work()
    except Exception as error:
        say("STEP", name, "failed", repr(error).replace("\n", " "))
        return False
    say("STEP", name, "ok", *(f"{key}={value}" for key, value in facts.items()))
    return True


def run(library):
    """`library` makes the OAuth part for a redirect URI."""
    app = Application(library)
    first = [
        ("login", app.log_in),
        ("discovery", app.discover),
        ("related-accounts", app.find_account),
        ("pair", app.pair),
    ]
    if not all(step(name, work) for name, work in first):
        sys.exit(1)
    commands = {"refresh": app.refresh, "orders": app.orders, "download": app.download, "revoke": app.revoke}
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        step(line.strip(), commands[line.strip()])
