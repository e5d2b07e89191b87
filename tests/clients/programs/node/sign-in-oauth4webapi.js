// A web application on oauth4webapi that signs people in: ISSUER CLIENT_ID SECRET PORT. Without `algorithm` the library does
// OpenID Connect; what it reads, it has verified: issuer, audience, times, signature, nonce, the age of the sign-in, and the
// subject that UserInfo names.
import { createServer } from 'node:http'
import { once } from 'node:events'
import * as oauth from 'oauth4webapi'

const [issuer, clientId, secret, port] = process.argv.slice(2)
const http = { [oauth.allowInsecureRequests]: true }
const listener = createServer((request, response) => {
  response.end('Done.')
  listener.emit('came', request.url)
}).listen(Number(port), '127.0.0.1')
await once(listener, 'listening')
const redirectUri = `http://127.0.0.1:${port}/callback`

const discovered = await oauth.discoveryRequest(new URL(issuer), http)
const server = await oauth.processDiscoveryResponse(new URL(issuer), discovered)
const client = { client_id: clientId, require_auth_time: true }
const authentication = oauth.ClientSecretBasic(secret)

const verifier = oauth.generateRandomCodeVerifier()
const state = oauth.generateRandomState()
const nonce = oauth.generateRandomNonce()
const address = new URL(server.authorization_endpoint)
address.search = new URLSearchParams({
  client_id: clientId,
  redirect_uri: redirectUri,
  response_type: 'code',
  scope: 'openid profile email',
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  nonce,
  state,
  max_age: '300',
})
console.log(address.href)
const [came] = await once(listener, 'came')
listener.close()

const answer = oauth.validateAuthResponse(server, client, new URL(came, redirectUri), state)
const redeemed = await oauth.authorizationCodeGrantRequest(
  server, client, authentication, answer, redirectUri, verifier, http,
)
const tokens = await oauth.processAuthorizationCodeResponse(server, client, redeemed, {
  expectedNonce: nonce, maxAge: 300, requireIdToken: true,
})
// Of a token that came over TLS from the token endpoint, the library verifies the signature only if it is told to.
await oauth.validateApplicationLevelSignature(server, redeemed, http)
const claims = oauth.getValidatedIdTokenClaims(tokens)
const asked = await oauth.userInfoRequest(server, client, tokens.access_token, http)
const person = await oauth.processUserInfoResponse(server, client, claims.sub, asked)
const refreshing = await oauth.refreshTokenGrantRequest(server, client, authentication, tokens.refresh_token, http)
const refreshed = await oauth.processRefreshTokenResponse(server, client, refreshing)
console.log(JSON.stringify({ claims, person, again: oauth.getValidatedIdTokenClaims(refreshed).sub }))
