// The official TypeScript SDK as a client. Each line of standard input is a walk: from the address of an MCP server to
// a tool call, a refresh and another call. It prints the address for the browser, then what came of it.
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { webcrypto } from 'node:crypto'
import { once } from 'node:events'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import {
  ClientCredentialsProvider, PrivateKeyJwtProvider, createPrivateKeyJwtAuth,
} from '@modelcontextprotocol/sdk/client/auth-extensions.js'

globalThis.crypto ??= webcrypto // Node.js 18

const print = value => console.log(JSON.stringify(value))

// What a client for people keeps, and how it sends them to their browser.
class PersonsClient {
  constructor({ document, method, client, key, jwks }, redirectUrl, exchanges) {
    this.exchanges = exchanges
    this.clientMetadataUrl = document
    this.redirectUrl = redirectUrl
    this.client = client
    this.clientMetadata = {
      client_name: 'TypeScript SDK',
      redirect_uris: [redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: method,
      jwks,
    }
    if (key) {
      this.addClientAuthentication = (...request) => {
        const { client_id } = this.client
        return createPrivateKeyJwtAuth({ issuer: client_id, subject: client_id, privateKey: key, alg: key.alg })(...request)
      }
    }
  }

  state() { return this.sent ??= crypto.randomUUID() }
  clientInformation() { return this.client }
  saveClientInformation(client) { this.client = client }
  tokens() { return this.kept }
  saveTokens(tokens) { this.kept = tokens }
  codeVerifier() { return this.verifier }
  saveCodeVerifier(verifier) { this.verifier = verifier }
  discoveryState() { return this.discovered }
  saveDiscoveryState(discovered) { this.discovered = discovered }

  redirectToAuthorization(url) {
    this.exchanges.push({ method: 'browser', url: url.href })
    print({ open: url.href })
  }
}

// The same for a program that acts for itself.
function ownClient({ method, client, key }) {
  const { client_id: clientId, client_secret: clientSecret, issuer: expectedIssuer } = client
  // The SDK does not take these from the challenge.
  const scope = 'notes.read notes.write'
  return method === 'private_key_jwt'
    ? new PrivateKeyJwtProvider({ clientId, privateKey: key, algorithm: key.alg, expectedIssuer, scope })
    : new ClientCredentialsProvider({ clientId, clientSecret, expectedIssuer, scope })
}

async function walk(asked) {
  const address = new URL(asked.address)
  const exchanges = []
  const listener = createServer((request, response) => {
    response.end('Done.')
    listener.emit('came', new URL(request.url, asked.address).searchParams)
  }).listen(0, '127.0.0.1')
  await once(listener, 'listening')

  async function recorded(url, init = {}) {
    const response = await fetch(url, init)
    exchanges.push({
      method: init.method ?? 'GET',
      url: String(url),
      authorization: new Headers(init.headers).get('authorization') ?? '',
      body: String(init.body ?? ''),
      status: response.status,
      challenge: response.headers.get('www-authenticate') ?? '',
    })
    return response
  }

  const provider = asked.grant === 'client_credentials'
    ? ownClient(asked)
    : new PersonsClient(asked, `http://127.0.0.1:${listener.address().port}/callback`, exchanges)
  const connect = async () => {
    const client = new Client({ name: 'walk', version: '1' })
    const transport = new StreamableHTTPClientTransport(address, { authProvider: provider, fetch: recorded })
    const came = once(listener, 'came')
    try {
      await client.connect(transport)
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error
      const [answer] = await came
      if (answer.get('state') !== provider.sent) throw new Error('another state')
      await transport.finishAuth(answer.get('code'))
      return connect()
    }
    return client
  }

  try {
    const client = await connect()
    const call = async (name, given = {}) => (await client.callTool({ name, arguments: given })).structuredContent.result
    const added = await call('add_note', { text: asked.note })
    // Refused as one that expired is.
    await provider.saveTokens({ ...await provider.tokens(), access_token: 'expired' })
    const listed = await call('list_notes')
    await client.close()
    return { exchanges, added, listed, client_id: (await provider.clientInformation()).client_id }
  } catch (error) {
    return { exchanges, error: String(error.stack) }
  } finally {
    listener.close()
    listener.closeAllConnections()
  }
}

for await (const line of createInterface({ input: process.stdin })) print(await walk(JSON.parse(line)))
