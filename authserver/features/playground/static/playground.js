// A public OAuth client in a page: authorization code with PKCE, then refresh. No library, so that it can be
// read from top to bottom. What happened so far is one object, `story`, kept for this tab; `show` renders it.

const page = document.getElementById("playground");
const { issuer, metadataPath, clientId } = page.dataset;
const redirectUri = location.origin + location.pathname;
const STORY = "authserver.playground";
const UNKNOWN = "…";

let server = null;
let story = {};

// ---- What a client does ----

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const randomText = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

async function challengeOf(verifier) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  return base64url(new Uint8Array(digest));
}

async function prepare() {
  const verifier = randomText();
  return { verifier, challenge: await challengeOf(verifier), state: randomText() };
}

function authorizationRequest() {
  const url = new URL(server.authorization_endpoint);
  const parameters = {
    response_type: "code",
    client_id: clientId,
    redirect_uri: redirectUri,
    scope: (story.scope ?? field("scope").value).trim(),
    resource: (story.resource ?? field("resource").value).trim(),
    state: story.state,
    code_challenge: story.challenge,
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(parameters)) if (value) url.searchParams.set(name, value);
  return url;
}

// The answer is trusted only if it answers what this tab asked (state) of this server (iss, RFC 9207).
function checksOfAnswer() {
  const { answer } = story;
  return {
    state: Boolean(story.asked) && answer.state === story.state,
    issuer: answer.iss === server.issuer,
    allowed: Boolean(answer.code) && !answer.error,
  };
}

const codeParameters = () => ({
  grant_type: "authorization_code",
  code: story.answer?.code ?? UNKNOWN,
  redirect_uri: redirectUri,
  client_id: clientId,
  code_verifier: story.verifier,
});

const refreshParameters = () => ({
  grant_type: "refresh_token",
  refresh_token: story.tokens?.refresh_token ?? UNKNOWN,
  client_id: clientId,
});

async function post(parameters) {
  const response = await fetch(server.token_endpoint, {
    method: "POST",
    body: new URLSearchParams(parameters),
    credentials: "omit",
    cache: "no-store",
    redirect: "error",
  });
  const text = await response.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // Not JSON: it is shown as it came.
  }
  return { request: requestText(parameters), response: responseText(response, body, text), ok: response.ok, body };
}

function decodeJwt(token) {
  const parts = token.split(".");
  if (parts.length !== 3) return null;
  try {
    const [header, claims] = parts.slice(0, 2).map((part) => {
      const binary = atob(part.replaceAll("-", "+").replaceAll("_", "/"));
      return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (character) => character.charCodeAt(0))));
    });
    return { header, claims };
  } catch {
    return null;
  }
}

// ---- How it is shown ----

const pretty = (value) => JSON.stringify(value, null, 2);
const field = (id) => document.getElementById(id);
const slot = (name) => page.querySelector(`[data-slot="${name}"]`);
const fill = (name, text) => { slot(name).textContent = text ?? ""; };
const when = (name, shown) => { page.querySelector(`[data-when="${name}"]`).hidden = !shown; };
const button = (name) => page.querySelector(`[data-action="${name}"]`);
const reached = (name, yes) => { page.querySelector(`[data-step="${name}"]`).dataset.reached = yes ? "yes" : "no"; };

// One parameter a line: for reading. It is sent without the line breaks.
const lines = (parameters) => [...new URLSearchParams(parameters)].map(
  ([name, value]) => `${name}=${value === UNKNOWN ? value : encodeURIComponent(value)}`).join("\n  &");

function requestText(parameters) {
  const url = new URL(server.token_endpoint);
  return `POST ${url.pathname} HTTP/1.1\nHost: ${url.host}\nContent-Type: application/x-www-form-urlencoded\n\n  ${lines(parameters)}`;
}

function responseText(response, body, text) {
  const headers = ["content-type", "cache-control"].filter((name) => response.headers.has(name)).map(
    (name) => `${name}: ${response.headers.get(name)}\n`).join("");
  return `${response.status} ${response.statusText}\n${headers}\n${body === null ? text : pretty(body)}`;
}

function show() {
  const url = authorizationRequest();
  fill("verifier", story.verifier);
  fill("challenge", story.challenge);
  fill("state", story.state);
  fill("ask-request", `${url.origin}${url.pathname}\n  ?${lines(url.searchParams)}`);
  reached("discover", true);
  reached("prepare", true);
  reached("ask", story.asked);
  for (const id of ["scope", "resource"]) field(id).disabled = Boolean(story.asked);
  button("ask").disabled = Boolean(story.answer);

  const checks = story.answer ? checksOfAnswer() : null;
  const trusted = checks !== null && Object.values(checks).every(Boolean);
  when("no-answer", !checks);
  when("answer", checks);
  const stopped = checks !== null && !trusted;
  when("stopped", stopped);
  when("started", (story.asked || story.answer) && !stopped);
  reached("answer", checks);
  if (checks) {
    fill("answer-response", `${redirectUri}\n  ?${lines(story.answer)}`);
    for (const [name, passed] of Object.entries(checks)) {
      page.querySelector(`[data-check="${name}"]`).dataset.result = passed ? "pass" : "fail";
    }
  }

  fill("exchange-request", story.exchange?.request ?? requestText(codeParameters()));
  fill("exchange-response", story.exchange?.response);
  when("exchanged", story.exchange);
  reached("exchange", story.exchange);
  button("exchange").disabled = !trusted || Boolean(story.exchange);

  const token = story.tokens?.access_token;
  const jwt = token ? decodeJwt(token) : null;
  when("no-token", !token);
  when("jwt", jwt);
  when("opaque", token && !jwt);
  reached("inspect", token);
  if (jwt) {
    fill("jwt-header", pretty(jwt.header));
    fill("jwt-claims", pretty(jwt.claims));
    const end = new Date(jwt.claims.exp * 1000);
    fill("jwt-end", end.toLocaleString(document.documentElement.lang));
    slot("jwt-end").dateTime = end.toISOString();
  } else {
    fill("opaque-token", token);
  }

  when("no-refresh-token", token && !story.tokens.refresh_token);
  fill("refresh-request", story.refresh?.request ?? requestText(refreshParameters()));
  fill("refresh-response", story.refresh?.response);
  when("refreshed", story.refresh);
  reached("refresh", story.refresh);
  button("refresh").disabled = !story.tokens?.refresh_token;

  fill("replay-request", story.replay?.request);
  fill("replay-response", story.replay?.response);
  when("replayed", story.replay);
  reached("replay", story.replay);
  button("replay").disabled = !story.exchange || Boolean(story.replay);
}

// ---- What the buttons do ----

function remember(changes) {
  story = { ...story, ...changes };
  sessionStorage.setItem(STORY, JSON.stringify(story));
}

function say(name) {
  slot("status").dataset.status = name;
  fill("status", page.querySelector(`[data-when="status-${name}"]`).textContent);
}

async function exchangeAs(name, parameters) {
  button(name).disabled = true;
  fill("status", "");
  try {
    const result = await post(parameters);
    remember({ [name]: { request: result.request, response: result.response } });
    if (result.ok && result.body?.access_token) remember({ tokens: { ...story.tokens, ...result.body } });
    say("done");
  } catch {
    say("offline");
  }
  show();
}

const actions = {
  ask() {
    remember({ asked: true, scope: field("scope").value, resource: field("resource").value });
    location.assign(authorizationRequest());
  },
  exchange: () => exchangeAs("exchange", codeParameters()),
  refresh: () => exchangeAs("refresh", refreshParameters()),
  replay: () => exchangeAs("replay", codeParameters()),
  restart() {
    sessionStorage.removeItem(STORY);
    location.assign(location.pathname);
  },
};

// ---- Start ----

// An answer in the address belongs to the story; the address itself is cleaned, so that the code stays in no history.
function takeAnswer() {
  const answer = Object.fromEntries(new URLSearchParams(location.search));
  if (!("code" in answer || "error" in answer)) return;
  history.replaceState(null, "", location.pathname);
  if (!story.answer) remember({ answer });
}

async function discover() {
  const response = await fetch(metadataPath, { credentials: "omit" });
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  server = await response.json();
  // RFC 8414, 3.3: a document that speaks for another issuer is not this server's.
  if (server.issuer !== issuer) throw new Error(`issuer: ${server.issuer}`);
  fill("discover-request", `GET ${metadataPath} HTTP/1.1\nHost: ${location.host}`);
  fill("discover-response", pretty(server));
  if (server.scopes_supported?.length) {
    fill("scopes-known", server.scopes_supported.join(" "));
    when("scopes-known", true);
  }
}

async function start() {
  if (!globalThis.crypto?.subtle) return when("insecure", true);
  const proper = new URL(issuer).origin;
  if (proper !== location.origin) {
    slot("proper-address").href = proper + location.pathname;
    fill("proper-address", proper + location.pathname);
    return when("other-origin", true);
  }
  try {
    await discover();
  } catch (error) {
    fill("no-metadata", error.message);
    return when("no-metadata", true);
  }
  story = JSON.parse(sessionStorage.getItem(STORY) ?? "{}");
  if (!story.verifier) remember(await prepare());
  takeAnswer();
  if (story.scope !== undefined) field("scope").value = story.scope;
  if (story.resource !== undefined) field("resource").value = story.resource;
  for (const each of page.querySelectorAll("[data-action]")) each.addEventListener("click", actions[each.dataset.action]);
  for (const id of ["scope", "resource"]) field(id).addEventListener("input", show);
  page.querySelector(".steps").hidden = false;
  show();
  if (story.answer) page.querySelector("[data-step=answer]").scrollIntoView();
}

start();
