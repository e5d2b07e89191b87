// An OpenID provider to sign in through: node oidc-login.js PORT CLIENT_ID CLIENT_SECRET REDIRECT_URI
// Its own pages take any name for a person, whose subject that is then.
import { Provider } from "oidc-provider";

const [port, client_id, client_secret, redirect_uri] = process.argv.slice(2);
const provider = new Provider(`http://localhost:${port}`, {
  clients: [{ client_id, client_secret, redirect_uris: [redirect_uri] }],
  claims: {
    openid: ["sub"],
    profile: ["name", "preferred_username"],
    email: ["email", "email_verified"],
  },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      name: `Person ${id}`,
      preferred_username: id,
      email: `${id}@example.com`,
      email_verified: true,
    }),
  }),
});
provider.listen(Number(port), "localhost", () => console.log("ready"));
