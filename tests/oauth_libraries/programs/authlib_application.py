"""A legacy application whose OAuth is Authlib's: OAuth2Session over requests, as its guide has it.
Usage: python authlib_application.py
"""

from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session

from python_application import run, setting

AUTHORIZE_URL = setting("OAUTH_BASE") + "/oauth2/authorize"
TOKEN_URL = setting("OAUTH_BASE") + "/oauth2/token"
REVOKE_URL = setting("OAUTH_BASE") + "/oauth2/revoke"
# Without a word of ours, the library sends the client's credentials by Basic.
CREDENTIALS = "client_secret_basic" if setting("CLIENT_AUTH") == "basic" else "client_secret_post"


class Library(OAuth2Session):
    def __init__(self, redirect_uri):
        pkce = setting("PKCE") == "yes"
        self.verifier = generate_token(48) if pkce else None
        super().__init__(
            setting("CLIENT_ID"),
            setting("CLIENT_SECRET"),
            token_endpoint_auth_method=CREDENTIALS,
            revocation_endpoint_auth_method=CREDENTIALS,
            scope=setting("SCOPE"),
            redirect_uri=redirect_uri,
            code_challenge_method="S256" if pkce else None,
        )

    def authorization_url(self):
        more = {"loginPage": setting("LOGIN_PAGE")} if setting("LOGIN_PAGE") else {}
        url, self.state = self.create_authorization_url(AUTHORIZE_URL, code_verifier=self.verifier, **more)
        return url

    def exchange(self, redirected):
        more = {"code_verifier": self.verifier} if self.verifier else {}
        self.fetch_token(TOKEN_URL, authorization_response=redirected, **more)

    def refresh(self):
        self.refresh_token(TOKEN_URL)

    def revoke(self):
        token = self.token["refresh_token"]
        return self.revoke_token(REVOKE_URL, token=token, token_type_hint="refresh_token")


run(Library)
