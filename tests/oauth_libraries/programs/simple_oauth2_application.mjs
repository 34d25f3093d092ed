// A legacy application whose OAuth is simple-oauth2's, as its guide has it. Usage: node simple_oauth2_application.mjs
import { randomBytes } from 'node:crypto'
import { AuthorizationCode } from 'simple-oauth2'
import { run, setting } from './node_application.mjs'

const client = new AuthorizationCode({
  client: { id: setting.CLIENT_ID, secret: setting.CLIENT_SECRET },
  auth: {
    tokenHost: setting.OAUTH_BASE,
    tokenPath: '/oauth2/token',
    authorizePath: '/oauth2/authorize',
    revokePath: '/oauth2/revoke',
  },
  // Without a word of ours, the library sends the client's credentials by Basic.
  options: { authorizationMethod: setting.CLIENT_AUTH === 'basic' ? 'header' : 'body' },
})

await run(async (redirectUri) => {
  const state = randomBytes(16).toString('hex')
  return {
    async authorizationUrl() {
      const more = setting.LOGIN_PAGE ? { loginPage: setting.LOGIN_PAGE } : {}
      return client.authorizeURL({ redirect_uri: redirectUri, scope: setting.SCOPE, state, ...more })
    },
    async exchange(redirected) {
      const back = redirected.searchParams
      if (back.get('state') !== state) throw new Error('this is not the login that was begun here')
      if (back.has('error')) throw new Error(`${back.get('error')}: ${back.get('error_description')}`)
      const options = { code: back.get('code'), redirect_uri: redirectUri, scope: setting.SCOPE }
      return (await client.getToken(options)).token
    },
    async refresh(tokens) {
      return (await client.createToken(tokens).refresh()).token
    },
    async revoke(tokens) {
      return client.createToken(tokens).revoke('refresh_token')
    },
  }
})
