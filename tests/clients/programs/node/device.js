// A device and a service on oauth4webapi: ISSUER API OTHER_API DEVICE SERVICE SECRET. The device connects with its code and
// calls the API; the service behind that API exchanges the token for one of its own. It prints the address for the
// browser, then what came of it.
import * as oauth from 'oauth4webapi'

const [issuer, api, otherApi, deviceId, serviceId, secret] = process.argv.slice(2)
const http = { [oauth.allowInsecureRequests]: true }
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

const discovered = await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2', ...http })
const server = await oauth.processDiscoveryResponse(new URL(issuer), discovered)

const device = { client_id: deviceId }
const asked = await oauth.deviceAuthorizationRequest(
  server, device, oauth.None(), { scope: 'notes.read profile', resource: api }, http,
)
const told = await oauth.processDeviceAuthorizationResponse(server, device, asked)
console.log(told.verification_uri_complete)

const refusals = []
let tokens
for (let interval = told.interval; tokens === undefined; ) {
  const polled = await oauth.deviceCodeGrantRequest(server, device, oauth.None(), told.device_code, http)
  try {
    tokens = await oauth.processDeviceCodeResponse(server, device, polled)
  } catch (refused) {
    if (!(refused instanceof oauth.ResponseBodyError)) throw refused
    refusals.push(refused.error)
    if (refused.error === 'slow_down') interval += 5
    else if (refused.error !== 'authorization_pending') throw refused
    await new Promise((resolve) => setTimeout(resolve, interval * 1000))
  }
}
const refreshing = await oauth.refreshTokenGrantRequest(server, device, oauth.None(), tokens.refresh_token, http)
const refreshed = await oauth.processRefreshTokenResponse(server, device, refreshing)

async function call(token) {
  const response = await oauth.protectedResourceRequest(token, 'GET', new URL(api), undefined, undefined, http)
  return response.json()
}

const service = { client_id: serviceId }
const authentication = oauth.ClientSecretBasic(secret)

async function exchange(parameters) {
  const response = await oauth.genericTokenEndpointRequest(
    server, service, authentication, TOKEN_EXCHANGE,
    { subject_token: refreshed.access_token, subject_token_type: ACCESS_TOKEN, ...parameters }, http,
  )
  return oauth.processGenericTokenEndpointResponse(server, service, response)
}

const exchanged = await exchange({ resource: api, scope: 'notes.read' })
const refused = await exchange({ resource: otherApi }).catch((error) => error)
console.log(JSON.stringify({
  refusals,
  device: await call(refreshed.access_token),
  exchanged: await call(exchanged.access_token),
  issued_token_type: exchanged.issued_token_type,
  refused: refused.error,
}))
