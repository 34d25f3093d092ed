"""A legacy application whose OAuth is Authlib's: OAuth2Session over requests, as Authlib's guide has it.
Its settings are environment variables, see README.md. Usage: python authlib_application.py
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session

setting = os.environ.get
OAUTH, API = setting("OAUTH_BASE"), setting("API_BASE")
TOKEN_URL, REVOKE_URL = OAUTH + "/oauth2/token", OAUTH + "/oauth2/revoke"
DISCOVERY = "/api-discovery-by-name-and-version?discoveryName=third-party&version=2"
# Without a word of ours, the library sends the client's credentials by Basic.
CREDENTIALS = "client_secret_basic" if setting("CLIENT_AUTH") == "basic" else "client_secret_post"


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
    def __init__(self):
        wanted = urlsplit(setting("REDIRECT_URI"))
        self.listener = HTTPServer((wanted.hostname, wanted.port), Redirect)
        place = f"{wanted.hostname}:{self.listener.server_port}"
        self.redirect_uri = wanted._replace(netloc=place).geturl()
        pkce = setting("PKCE") == "yes"
        self.verifier = generate_token(48) if pkce else None
        self.session = OAuth2Session(
            setting("CLIENT_ID"),
            setting("CLIENT_SECRET"),
            token_endpoint_auth_method=CREDENTIALS,
            revocation_endpoint_auth_method=CREDENTIALS,
            scope=setting("SCOPE"),
            redirect_uri=self.redirect_uri,
            code_challenge_method="S256" if pkce else None,
        )

    def log_in(self):
        url, self.session.state = self.session.create_authorization_url(
            OAUTH + "/oauth2/authorize", code_verifier=self.verifier, loginPage=setting("LOGIN_PAGE")
        )
        say("AUTHORIZE", url)
        self.listener.handle_request()
        back = urlsplit(self.redirect_uri)._replace(path="").geturl() + self.listener.redirected_to
        more = {"code_verifier": self.verifier} if self.verifier else {}
        token = self.session.fetch_token(TOKEN_URL, authorization_response=back, **more)
        return {"expires_in": token["expires_in"]}

    def discover(self):
        # The first call goes to the base URL, later ones to where it led.
        base = getattr(self, "place", API + "/api/third-party/v2")
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
        self.session.token = paired["Data"]["OAuthResponse"]
        return self.tokens()

    def refresh(self):
        before = self.session.token["refresh_token"]
        self.session.refresh_token(TOKEN_URL)
        same = "yes" if self.session.token["refresh_token"] == before else "no"
        self.discover()
        return {**self.tokens(), "same_refresh_token": same}

    def tokens(self):
        token = self.session.token
        return {"expires_in": token["expires_in"], "refresh_chars": len(token["refresh_token"])}

    def orders(self):
        self.listed = self.ask("GET", self.place + setting("ORDERS_PATH"))["Data"]
        return {"orders": len(self.listed)}

    def download(self):
        link = self.listed[0]["URLs"][0]["Url"]
        asset = self.session.get(link)
        asset.raise_for_status()
        return {"bytes": len(asset.content)}

    def revoke(self):
        token = self.session.token["refresh_token"]
        done = self.session.revoke_token(REVOKE_URL, token=token, token_type_hint="refresh_token")
        done.raise_for_status()
        return {"status": done.status_code}

    def ask(self, method, url, **more):
        response = self.session.request(method, url, **more)
        response.raise_for_status()
        return response.json()


def step(name, work):
    try:
        facts = work()
    except Exception as error:
        say("STEP", name, "failed", repr(error).replace("\n", " "))
        return False
    say("STEP", name, "ok", *(f"{key}={value}" for key, value in facts.items()))
    return True


def main():
    app = Application()
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


main()
