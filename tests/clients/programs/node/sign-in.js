// A web application on openid-client that signs people in: ISSUER CLIENT_ID SECRET PORT. What it reads, it has verified:
// issuer, audience, signature, nonce, the age of the sign-in and the subject that UserInfo names.
import { createServer } from 'node:http'
import { once } from 'node:events'
import * as openid from 'openid-client'

const [issuer, clientId, secret, port] = process.argv.slice(2)
const listener = createServer((request, response) => {
  response.end('Done.')
  listener.emit('came', request.url)
}).listen(Number(port), '127.0.0.1')
await once(listener, 'listening')
const redirectUri = `http://127.0.0.1:${port}/callback`

const configuration = await openid.discovery(new URL(issuer), clientId, undefined, openid.ClientSecretBasic(secret), {
  execute: [openid.allowInsecureRequests],
})
const pkceCodeVerifier = openid.randomPKCECodeVerifier()
const expectedState = openid.randomState()
const expectedNonce = openid.randomNonce()
const address = openid.buildAuthorizationUrl(configuration, {
  redirect_uri: redirectUri,
  scope: 'openid profile email',
  code_challenge: await openid.calculatePKCECodeChallenge(pkceCodeVerifier),
  code_challenge_method: 'S256',
  nonce: expectedNonce,
  state: expectedState,
  max_age: '300',
})
console.log(address.href)
const [came] = await once(listener, 'came')
listener.close()

const tokens = await openid.authorizationCodeGrant(configuration, new URL(came, redirectUri), {
  pkceCodeVerifier, expectedState, expectedNonce, maxAge: 300, idTokenExpected: true,
})
const claims = tokens.claims()
const person = await openid.fetchUserInfo(configuration, tokens.access_token, claims.sub)
const refreshed = await openid.refreshTokenGrant(configuration, tokens.refresh_token)
console.log(JSON.stringify({ claims, person, again: refreshed.claims().sub }))
