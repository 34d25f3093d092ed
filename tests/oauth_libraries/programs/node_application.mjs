// What the legacy applications in JavaScript do besides OAuth, which is the library's: `oauth` has authorizationUrl,
// exchange, refresh and revoke. Settings are environment variables, see README.md.
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'

export const setting = process.env
const DISCOVERY = '/api-discovery-by-name-and-version?discoveryName=third-party&version=2'

// `library` is a function from the redirect URI to the four parts; tokens are as the vendor prints them.
export async function run(library) {
  const { redirectUri, redirected } = await listen(new URL(setting.REDIRECT_URI))
  const oauth = await library(redirectUri)
  const app = { tokens: null, place: null, account: null, listed: [] }
  const first = {
    login: async () => {
      console.log('AUTHORIZE', String(await oauth.authorizationUrl()))
      app.tokens = await oauth.exchange(await redirected)
      return { expires_in: app.tokens.expires_in }
    },
    discovery: () => discover(app),
    'related-accounts': async () => {
      const { Data } = await ask(app, 'GET', app.place + '/related-accounts')
      const wanted = setting.ACCOUNT_ID ?? 'first'
      app.account = Data.find((one) => wanted === 'first' || wanted === String(one.AccountId)).AccountId
      return { account: app.account }
    },
    pair: async () => {
      const body = { AccountId: app.account, CallbackUrl: setting.CALLBACK_URL ?? '' }
      const { Data } = await ask(app, 'PUT', app.place + '/pair-account', body)
      // "From this point on, these set of tokens must be used."
      app.tokens = Data.OAuthResponse
      return facts(app.tokens)
    },
  }
  for (const [name, work] of Object.entries(first)) {
    if (!(await step(name, work))) process.exit(1)
  }
  const commands = {
    refresh: async () => {
      const before = app.tokens.refresh_token
      app.tokens = await oauth.refresh(app.tokens)
      await discover(app)
      return { ...facts(app.tokens), same_refresh_token: app.tokens.refresh_token === before ? 'yes' : 'no' }
    },
    orders: async () => {
      app.listed = (await ask(app, 'GET', app.place + setting.ORDERS_PATH)).Data
      return { orders: app.listed.length }
    },
    download: async () => {
      const response = await call(app, 'GET', app.listed[0].URLs[0].Url)
      return { bytes: (await response.arrayBuffer()).byteLength }
    },
    revoke: async () => {
      await oauth.revoke(app.tokens)
      return { status: 200 }
    },
  }
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === 'quit') break
    await step(line.trim(), commands[line.trim()])
  }
  process.exit(0)
}

// The application's own page behind its redirect URI.
async function listen(wanted) {
  let arrived
  const redirected = new Promise((resolve) => (arrived = resolve))
  const server = createServer((request, response) => {
    response.setHeader('Content-Type', 'text/html')
    response.end('<p>You are logged in and may close this window.')
    arrived(new URL(request.url, redirectUri))
  })
  await new Promise((ready) => server.listen(Number(wanted.port), wanted.hostname, ready))
  const redirectUri = `http://${wanted.hostname}:${server.address().port}${wanted.pathname}`
  return { redirectUri, redirected }
}

async function discover(app) {
  // The first call goes to the base URL, later ones to where it led.
  const base = app.place ?? setting.API_BASE + '/api/third-party/v2'
  const { APIs } = await ask(app, 'GET', base + DISCOVERY)
  app.place = APIs[0].Domain.replace(/\/$/, '') + APIs[0].Path
  return { at: app.place }
}

async function call(app, method, url, body) {
  const headers = { Authorization: `Bearer ${app.tokens.access_token}` }
  if (body) headers['Content-Type'] = 'application/json'
  const response = await fetch(url, { method, headers, body: body && JSON.stringify(body) })
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${await response.text()}`)
  return response
}

async function ask(app, method, url, body) {
  return (await call(app, method, url, body)).json()
}

function facts(tokens) {
  return { expires_in: tokens.expires_in, refresh_chars: tokens.refresh_token.length }
}

async function step(name, work) {
  try {
    const done = Object.entries(await work()).map(([key, value]) => `${key}=${value}`)
    console.log('STEP', name, 'ok', ...done)
    return true
  } catch (error) {
    // Each library has its own place for the error's code and for what was answered.
    const details = [error.message, error.error, error.cause?.message, JSON.stringify(error.data?.payload)]
    console.log('STEP', name, 'failed', details.filter(Boolean).join(': ').replaceAll('\n', ' '))
    return false
  }
}
