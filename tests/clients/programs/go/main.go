// A native application on golang.org/x/oauth2: ISSUER API CLIENT_ID CLIENT_SECRET.
//
// It prints the address for the browser, then what came of it. An empty secret makes it a public client. How it
// authenticates is left to the library, which tries HTTP Basic first and then the form.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/oauth2"
)

func main() {
	issuer, api, clientID, clientSecret := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	var metadata struct {
		Issuer                string `json:"issuer"`
		AuthorizationEndpoint string `json:"authorization_endpoint"`
		TokenEndpoint         string `json:"token_endpoint"`
	}
	must(json.Unmarshal(get(http.DefaultClient, issuer+"/.well-known/oauth-authorization-server"), &metadata))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	config := &oauth2.Config{
		ClientID:     clientID,
		ClientSecret: clientSecret,
		Endpoint:     oauth2.Endpoint{AuthURL: metadata.AuthorizationEndpoint, TokenURL: metadata.TokenEndpoint},
		RedirectURL:  fmt.Sprintf("http://%s/callback", listener.Addr()),
		Scopes:       []string{"notes.read", "profile"},
	}
	state, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	came := make(chan *http.Request, 1)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "Done.")
		if r.URL.Path == "/callback" {
			came <- r
		}
	}))
	fmt.Println(config.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)))

	answer := (<-came).URL.Query()
	if answer.Get("state") != state || answer.Get("iss") != metadata.Issuer {
		log.Fatalf("the answer is not for this request: %v", answer)
	}
	tokens, err := config.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
	must(err)
	first := get(oauth2.NewClient(ctx, oauth2.StaticTokenSource(tokens)), api)

	// A token that has expired is refreshed by the client of the library itself.
	expired := *tokens
	expired.Expiry = time.Now().Add(-time.Hour)
	refreshed := get(config.Client(ctx, &expired), api)

	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"client_id": clientID,
		"first":     json.RawMessage(first),
		"refreshed": json.RawMessage(refreshed),
	}))
}

func get(client *http.Client, address string) []byte {
	response, err := client.Get(address)
	must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(err)
	if response.StatusCode != http.StatusOK {
		log.Fatalf("%s: %s %s", address, response.Status, body)
	}
	return body
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
