// Another authorization server, for `authserver doctor` to look at: node oidc-provider.js PORT [MEMBER=JSON]...
// It is set up as its documentation shows for clients that register themselves.
import { Provider } from "oidc-provider";

const [port, ...features] = process.argv.slice(2);
const provider = new Provider(`http://localhost:${port}`, {
  clients: [],
  scopes: ["openid", "offline_access", "notes.read"],
  features: {
    registration: { enabled: true },
    registrationManagement: { enabled: true },
    ...Object.fromEntries(features.map((feature) => [feature, { enabled: true }])),
  },
});
provider.listen(Number(port), "localhost", () => console.log("ready"));
