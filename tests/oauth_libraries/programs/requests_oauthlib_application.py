"""A legacy application whose OAuth is requests-oauthlib's, as its guide has it.
Usage: python requests_oauthlib_application.py
"""

import os

# The addresses of this network are plain HTTP.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from python_application import run, setting

AUTHORIZE_URL = setting("OAUTH_BASE") + "/oauth2/authorize"
TOKEN_URL = setting("OAUTH_BASE") + "/oauth2/token"
REVOKE_URL = setting("OAUTH_BASE") + "/oauth2/revoke"
CLIENT = (setting("CLIENT_ID"), setting("CLIENT_SECRET"))


def credentials():
    if setting("CLIENT_AUTH") == "basic":
        return {"auth": HTTPBasicAuth(*CLIENT)}
    return {"client_id": CLIENT[0], "client_secret": CLIENT[1]}


class Library(OAuth2Session):
    def __init__(self, redirect_uri):
        pkce = "S256" if setting("PKCE") == "yes" else None
        scope = setting("SCOPE").split()
        super().__init__(CLIENT[0], redirect_uri=redirect_uri, scope=scope, pkce=pkce)

    def authorization_url(self):
        more = {"loginPage": setting("LOGIN_PAGE")} if setting("LOGIN_PAGE") else {}
        url, _ = super().authorization_url(AUTHORIZE_URL, **more)
        return url

    def exchange(self, redirected):
        if setting("CLIENT_AUTH") == "basic":
            self.fetch_token(TOKEN_URL, authorization_response=redirected, auth=HTTPBasicAuth(*CLIENT))
        else:
            self.fetch_token(
                TOKEN_URL, authorization_response=redirected, include_client_id=True, client_secret=CLIENT[1]
            )

    def refresh(self):
        self.refresh_token(TOKEN_URL, **credentials())

    # The library has nothing for it.
    def revoke(self):
        form = {"token": self.token["refresh_token"], "token_type_hint": "refresh_token"}
        more = credentials()
        basic = more.pop("auth", None)
        return self.post(REVOKE_URL, data={**form, **more}, auth=basic, withhold_token=True)


run(Library)
