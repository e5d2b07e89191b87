// A native application on openid-client: ISSUER API. A public client, with or without a pushed request (`pushed`).
import { createServer } from 'node:http'
import { once } from 'node:events'
import * as openid from 'openid-client'

const [issuer, api, pushed] = process.argv.slice(2)

const listener = createServer((request, response) => {
  response.end('Done.')
  listener.emit('came', request.url)
}).listen(0, '127.0.0.1')
await once(listener, 'listening')
const redirectUri = `http://127.0.0.1:${listener.address().port}/callback`

const configuration = await openid.dynamicClientRegistration(
  new URL(issuer),
  {
    client_name: 'openid-client',
    redirect_uris: [redirectUri],
    grant_types: ['authorization_code', 'refresh_token'],
    token_endpoint_auth_method: 'none',
    scope: 'notes.read profile',
  },
  openid.None(),
  { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] },
)

const pkceCodeVerifier = openid.randomPKCECodeVerifier()
const expectedState = openid.randomState()
const parameters = {
  redirect_uri: redirectUri,
  scope: 'notes.read profile',
  code_challenge: await openid.calculatePKCECodeChallenge(pkceCodeVerifier),
  code_challenge_method: 'S256',
  resource: api,
  state: expectedState,
}
const address = pushed
  ? await openid.buildAuthorizationUrlWithPAR(configuration, parameters)
  : openid.buildAuthorizationUrl(configuration, parameters)
console.log(address.href)
const [came] = await once(listener, 'came')
listener.close()

const tokens = await openid.authorizationCodeGrant(
  configuration, new URL(came, redirectUri), { pkceCodeVerifier, expectedState }, { resource: api },
)

async function call(token) {
  const response = await openid.fetchProtectedResource(configuration, token, new URL(api), 'GET')
  return response.json()
}

const refreshed = await openid.refreshTokenGrant(configuration, tokens.refresh_token)
const result = { first: await call(tokens.access_token), refreshed: await call(refreshed.access_token) }
await openid.tokenRevocation(configuration, refreshed.refresh_token)
let again
try {
  await openid.refreshTokenGrant(configuration, refreshed.refresh_token)
} catch (error) {
  again = error.error
}
console.log(JSON.stringify({ client_id: configuration.clientMetadata().client_id, ...result, again }))
