// A native application on oauth4webapi: ISSUER API. It prints the address for the browser, then what came of it.
import { createServer } from 'node:http'
import { once } from 'node:events'
import * as oauth from 'oauth4webapi'

const [issuer, api] = process.argv.slice(2)
const http = { [oauth.allowInsecureRequests]: true }

const listener = createServer((request, response) => {
  response.end('Done.')
  listener.emit('came', request.url)
}).listen(0, 'localhost')
await once(listener, 'listening')
const redirectUri = `http://localhost:${listener.address().port}/callback`

const discovered = await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2', ...http })
const server = await oauth.processDiscoveryResponse(new URL(issuer), discovered)

const registered = await oauth.dynamicClientRegistrationRequest(
  server,
  {
    client_name: 'oauth4webapi',
    redirect_uris: [redirectUri],
    grant_types: ['authorization_code', 'refresh_token'],
    scope: 'notes.read profile',
  },
  http,
)
const client = await oauth.processDynamicClientRegistrationResponse(registered)
const authentication = oauth.ClientSecretBasic(client.client_secret)

const verifier = oauth.generateRandomCodeVerifier()
const state = oauth.generateRandomState()
const address = new URL(server.authorization_endpoint)
address.search = new URLSearchParams({
  client_id: client.client_id,
  redirect_uri: redirectUri,
  response_type: 'code',
  scope: 'notes.read profile',
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  resource: api,
  state,
})
console.log(address.href)
const [came] = await once(listener, 'came')
listener.close()

const answer = oauth.validateAuthResponse(server, client, new URL(came, redirectUri), state)
const exchanged = await oauth.authorizationCodeGrantRequest(
  server, client, authentication, answer, redirectUri, verifier,
  { additionalParameters: { resource: api }, ...http },
)
const tokens = await oauth.processAuthorizationCodeResponse(server, client, exchanged)

async function call(token) {
  const response = await oauth.protectedResourceRequest(token, 'GET', new URL(api), undefined, undefined, http)
  return response.json()
}

const refreshing = await oauth.refreshTokenGrantRequest(server, client, authentication, tokens.refresh_token, http)
const refreshed = await oauth.processRefreshTokenResponse(server, client, refreshing)
const described = await oauth.processIntrospectionResponse(
  server, client,
  await oauth.introspectionRequest(server, client, authentication, refreshed.access_token, http),
)
const result = { first: await call(tokens.access_token), refreshed: await call(refreshed.access_token), described }
await oauth.processRevocationResponse(
  await oauth.revocationRequest(server, client, authentication, refreshed.refresh_token, http),
)
const revoked = await oauth.processIntrospectionResponse(
  server, client,
  await oauth.introspectionRequest(server, client, authentication, refreshed.access_token, http),
)
console.log(JSON.stringify({ client_id: client.client_id, ...result, revoked }))
