// A legacy application whose OAuth is oauth4webapi's, as its examples have it. Usage: node oauth4webapi_application.mjs
import * as oauth from 'oauth4webapi'
import { run, setting } from './node_application.mjs'

const base = setting.OAUTH_BASE
const server = {
  issuer: base,
  authorization_endpoint: `${base}/oauth2/authorize`,
  token_endpoint: `${base}/oauth2/token`,
  revocation_endpoint: `${base}/oauth2/revoke`,
}
// Set up for OpenID Connect, it wants an id_token, signed by RS256 unless it is told otherwise.
const client = { client_id: setting.CLIENT_ID, id_token_signed_response_alg: setting.ID_TOKEN || undefined }
const byBasic = setting.CLIENT_AUTH === 'basic'
const credentials = (byBasic ? oauth.ClientSecretBasic : oauth.ClientSecretPost)(setting.CLIENT_SECRET)
// The addresses of this network are plain HTTP.
const options = { [oauth.allowInsecureRequests]: true }

await run(async (redirectUri) => {
  const state = oauth.generateRandomState()
  const verifier = setting.PKCE === 'yes' ? oauth.generateRandomCodeVerifier() : oauth.nopkce
  return {
    async authorizationUrl() {
      const url = new URL(server.authorization_endpoint)
      url.searchParams.set('client_id', client.client_id)
      url.searchParams.set('redirect_uri', redirectUri)
      url.searchParams.set('response_type', 'code')
      url.searchParams.set('scope', setting.SCOPE)
      url.searchParams.set('state', state)
      if (setting.LOGIN_PAGE) url.searchParams.set('loginPage', setting.LOGIN_PAGE)
      if (verifier !== oauth.nopkce) {
        url.searchParams.set('code_challenge', await oauth.calculatePKCECodeChallenge(verifier))
        url.searchParams.set('code_challenge_method', 'S256')
      }
      return url
    },
    async exchange(redirected) {
      const parameters = oauth.validateAuthResponse(server, client, redirected, state)
      const response = await oauth.authorizationCodeGrantRequest(
        server, client, credentials, parameters, redirectUri, verifier, options)
      const requireIdToken = Boolean(setting.ID_TOKEN)
      return oauth.processAuthorizationCodeResponse(server, client, response, { requireIdToken })
    },
    async refresh(tokens) {
      const response = await oauth.refreshTokenGrantRequest(
        server, client, credentials, tokens.refresh_token, options)
      const fresh = await oauth.processRefreshTokenResponse(server, client, response)
      return { ...tokens, ...fresh }
    },
    async revoke(tokens) {
      const hint = { additionalParameters: { token_type_hint: 'refresh_token' } }
      const response = await oauth.revocationRequest(
        server, client, credentials, tokens.refresh_token, { ...options, ...hint })
      return oauth.processRevocationResponse(response)
    },
  }
})
